# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What restored images look like around bright and saturated stars."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..processes import start_logging
from ..record import Section, Table, format_value, make_page, make_parser
from .fields import BRIGHT, SATURATED, make_field
from .measure import RINGS, TARGET, measure_field

_LOG = logging.getLogger(__name__)

_GROUPS = {
    "14-16, saturated": SATURATED[0],
    "16-18, saturated": SATURATED[1],
    "S/N > 1000": BRIGHT,
}

_ROWS = {
    ("exact", True): "exact PSFs",
    ("exact", False): "exact PSFs, stars left in",
    ("fitted", True): "fitted PSFs",
    ("fitted", False): "fitted PSFs, stars left in",
}

_INTRODUCTION = (
    "Fields of 200x200 pixels and 12 exposures of 200 s in i (Moffat PSFs of .5 to .95 arcsec, faint "
    "galaxies and stars, bad columns), each with a star of magnitude 14 to 16 and one of 16 to 18, whose "
    "cores and trails are flagged in all or nearly all exposures, and two of 18.7 to 20 that do not "
    "saturate. "
    f"Target {TARGET:g} pixels. Fitted PSFs are elliptical Moffat profiles that Piff fits to 12 stars of "
    "signal-to-noise ratio 150 to 1500 for each exposure, cut where the true ones end. Stars left in is the "
    "restoration with `stars.enabled` off."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page; fields that were measured are kept."""
    start_logging()
    parser = make_parser("stars", __doc__, "measured fields")
    parser.add_argument("--fields", type=int, default=32, help="number of fields")
    parser.add_argument("--left-in", type=int, default=12, help="number of them with stars left in, too")
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    for seed in range(options.fields):
        _measure(seed, options)
    records = _read(options)
    tables = [
        _ring_table(records, "image"),
        _ring_table(records, "linear_image"),
        _summary_table(records),
        _flux_table(records),
    ]
    command = f"{parser.prog} --fields {options.fields} --left-in {options.left_in}"
    section = Section.measured("stars", command, tables)
    options.output.write_text(make_page([section], title="Bright stars", introduction=_INTRODUCTION))
    return 0


def _measure(seed: int, options: argparse.Namespace) -> None:
    """Measure a field in all ways that are wanted and not there yet."""
    missing = [
        (psfs, with_stars)
        for psfs, with_stars in _ROWS
        if (with_stars or seed < options.left_in) and not _path(options, seed, psfs, with_stars).exists()
    ]
    if not missing:
        return
    field = make_field(seed)
    for psfs, with_stars in missing:
        record = measure_field(field, psfs, with_stars=with_stars)
        _path(options, seed, psfs, with_stars).write_text(json.dumps(record))
        _LOG.info("Field %d, %s", seed, _ROWS[psfs, with_stars])


def _path(options: argparse.Namespace, seed: int, psfs: str, with_stars: bool) -> Any:
    return options.work / f"{seed:03d}-{psfs}-{'out' if with_stars else 'in'}.json"


def _read(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Return the records of fields by row."""
    found = {}
    for (psfs, with_stars), row in _ROWS.items():
        paths = [_path(options, seed, psfs, with_stars) for seed in range(options.fields)]
        found[row] = [json.loads(path.read_text()) for path in paths if path.exists()]
    return found


def _stars(records: Sequence[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    low, high = _GROUPS[group]
    return [star for record in records for star in record["stars"] if low <= star["magnitude"] < high]


def _mean(stars: Sequence[dict[str, Any]], name: str, ring: str) -> tuple[float, float]:
    """Return the mean error over stars, in local sigma, and its error."""
    values = [star[name][ring][1] for star in stars if star[name].get(ring, [0])[0] > 0]
    if len(values) < 2:
        return math.nan, math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _pull(parts: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the root mean square of errors in declared sigmas, by bootstrap
    over stars.
    """
    table = np.array([part for part in parts if part[0] > 0])
    if len(table) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    draws = rng.integers(len(table), size=(200, len(table)))
    means = [math.sqrt(np.average(table[draw, 2], weights=table[draw, 0])) for draw in draws]
    return math.sqrt(np.average(table[:, 2], weights=table[:, 0])), float(np.std(means))


def _ring_table(records: dict[str, list[dict[str, Any]]], name: str) -> Table:
    rows = []
    for group in _GROUPS:
        for row, fields in records.items():
            stars = _stars(fields, group)
            if stars:
                rows.append(
                    {"stars": group, "restored with": row, "number": f"{len(stars)}"}
                    | {
                        f"{low:g}-{high:g}": format_value(_mean(stars, name, f"{low:g}"))
                        for low, high in RINGS
                    }
                )
    return Table(
        title=f"Mean error of `{name}` by distance",
        legend=(
            "Error to the truth in local sigmas of the linear image, photon noise included: the mean over "
            "stars of means over pixels, with its standard error. Distance in pixels from the flagged core "
            "and trail, or from the centre of a star without; without flagged pixels and those within 25 "
            "pixels of another of the four stars."
        ),
        rows=rows,
    )


def _summary_table(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for row, fields in records.items():
        if not fields:
            continue
        cells = {"restored with": row, "fields": f"{len(fields)}"}
        for name, word in (("image", "restored"), ("linear_image", "linear")):
            every = [star[name][f"{low:g}"] for f in fields for star in f["stars"] for low, _ in RINGS]
            cells[f"{word}: pull, all rings"] = format_value(_pull(every))
            for group in _GROUPS:
                rings = [star[name][f"{low:g}"] for star in _stars(fields, group) for low, _ in RINGS]
                cells[f"{word}: pull, {group}"] = format_value(_pull(rings))
            cores = [star[name]["core"] for f in fields for star in f["stars"] if "core" in star[name]]
            cells[f"{word}: pull in cores"] = format_value(_pull(cores))
            middle = _mean(_stars(fields, "S/N > 1000"), name, "middle")
            cells[f"{word}: S/N > 1000, 5-25 pixels, local sigma"] = format_value(middle)
            far = [field["far"][name][1] for field in fields]
            error = float(np.std(far, ddof=1) / math.sqrt(len(far))) if len(far) > 1 else math.nan
            cells[f"{word}: beyond 40 pixels, sky sigma"] = format_value((float(np.mean(far)), error))
        cells["largest chi-square"] = f"{np.median([field['chi_square'] for field in fields]):.2f}"
        rows.append(cells)
    return Table(
        title="Pulls and mean errors",
        legend=(
            "Pulls are the root mean square of errors in declared sigmas, with errors by bootstrap over "
            "stars; cores are flagged cores with their trails. Mean errors are over stars, and over fields "
            "beyond 40 pixels of all four. The largest reduced chi-square of an exposure is the median over "
            "fields."
        ),
        rows=rows,
    )


def _flux_table(records: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for group in _GROUPS:
        for row, fields in records.items():
            stars = _stars(fields, group)
            fitted = [star for star in stars if star["found"]]
            if len(fitted) < 2:
                continue
            error = np.array([star["fitted_flux"] / star["flux"] - 1.0 for star in fitted])
            sigma = np.array([star["flux_sigma"] / star["flux"] for star in fitted])
            rows.append(
                {
                    "stars": group,
                    "restored with": row,
                    "taken out": f"{len(fitted)} of {len(stars)}",
                    "bias, %": format_value(
                        (float(error.mean()), float(error.std(ddof=1) / math.sqrt(len(error)))), 100.0
                    ),
                    "scatter, %": f"{100.0 * error.std(ddof=1):.2f}",
                    "largest error, %": f"{100.0 * np.abs(error).max():.2f}",
                    "declared, median, %": f"{100.0 * np.median(sigma):.2f}",
                    "pull": f"{math.sqrt(np.mean((error / sigma) ** 2)):.2f}",
                    "sources taken out in vain": f"{sum(field['false'] for field in fields)}",
                }
            )
    return Table(
        title="Fitted fluxes",
        legend=(
            "Fluxes from outside of masked cores. The pull is the root mean square of errors in declared "
            "sigmas. In vain are sources that are taken out and none of the four stars, in all fields."
        ),
        rows=rows,
    )
