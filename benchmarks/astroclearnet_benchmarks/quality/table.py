# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The table of the benchmark, from the records of its runs."""

from __future__ import annotations

__all__ = ("make_report",)

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .detection import MAGNITUDES, completeness
from .methods import METHODS
from .pairs import pair_separation_limit
from .stars import STAR_BINS, pool_stack, star_photometry

type Figure = tuple[float, float]
type Records = dict[str, list[dict[str, Any]]]
"""Records of one product at one target, by kind of scene."""

_GALAXY_BINS = ((5.0, 20.0), (20.0, math.inf), (50.0, math.inf))
_MEDIAN_ERROR = math.sqrt(math.pi / 2.0)
_PURITY = 0.95
_ERROR_BINS = ("sky", "faint", "sources", "near", "far", "full_depth", "reduced_depth", "all")


def make_report(records: Sequence[dict[str, Any]], header: Sequence[str]) -> str:
    """Write the tables.

    Returns
    -------
    report : `str`
        Markdown: for each target and number of exposures a table with the
        figures of merit, methods as rows, tables with the details, and one
        each of the ablations and of wrong PSFs.
    """
    lines = ["# Quality of the restoration", "", *header, "", *_LEGEND, ""]
    settings = {(record["target"], record["num_exposures"]) for record in records}
    for target, number in sorted(settings):
        chosen = [r for r in records if (r["target"], r["num_exposures"]) == (target, number)]
        products = _by_product([r for r in chosen if METHODS[r["method"]].group in _COMPARED])
        lines += [f"## Target FWHM {target:g} pixels, {number} exposures", ""]
        if products:
            for title, make_rows in _TABLES.items():
                lines += [f"### {title}", "", *_rows_of(products, make_rows), ""]
        ablations = _by_product(_comparable(chosen))
        if ablations:
            rows = _rows_of(ablations, lambda each: [_headline(each)])
            lines += ["### Ablations", "", _ABLATION_LEGEND, "", *rows, ""]
        wrong = _by_product([r for r in chosen if METHODS[r["method"]].group == "wrong_psfs"])
        if wrong:
            rows = _rows_of(wrong, lambda each: [_wrong_psfs(each)])
            lines += ["### Wrong PSFs", "", _WRONG_PSF_LEGEND, "", *rows, ""]
    return "\n".join(lines)


def _comparable(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ablations, and beside them what they are to compare with.

    All on the scenes that all of them have seen.
    """
    ablations = {r["method"] for r in records if METHODS[r["method"]].group == "ablations"}
    if not ablations:
        return []
    compared = ablations | {"published", "restore"}
    used = [r for r in records if r["method"] in compared]
    seen = [{(r["kind"], r["seed"]) for r in used if r["method"] == method} for method in compared]
    common = set.intersection(*(scenes for scenes in seen if scenes))
    return [r for r in used if (r["kind"], r["seed"]) in common]


_COMPARED = ("ours", "baselines", "peers")

_WRONG_PSF_LEGEND = (
    "PSFs given too broad or too narrow, in all exposures or in one: bias of stars of S/N above 100 with a "
    "plain fit and with the covariance, beside first-order predictions for a linear image (the second is "
    "sum(w f' f) / sum(w f'^2) - 1); error of the width, relative to the other exposures, that the "
    "restoration finds; and shares of wrong and of right exposures that are flagged, beyond 1.5 % and 5 "
    "sigma. An error that all exposures share cannot be told from the sky."
)

_ABLATION_LEGEND = (
    "The method without one of its parts, beside the whole and the published one, on the scenes that all of "
    "them have seen."
)

_LEGEND = (
    "Errors are to the truth at the target PSF in units of the sky noise of the inverse-variance coadd; "
    "photometry, shapes and pulls are at the PSF that a method declares. S/N and CRB are of optimal "
    "photometry on all exposures together. Photometry with the covariance takes the correlation of the "
    "noise from the 19x19 pixels around each star; the coadd stores one such stamp for each cell. Medians "
    "over scenes, or over all stars of a bin, with standard errors. Methods that are stopped by eye are "
    "shown at the stop closest to the truth, which a user cannot know. A dash stands for what a method does "
    "not deliver.",
)


def _by_product(records: Sequence[dict[str, Any]]) -> dict[str, Records]:
    """Sort records by product and kind of scene."""
    products: dict[str, Records] = {}
    for record in records:
        for name, measured in record["products"].items():
            kinds = products.setdefault(name, defaultdict(list))
            kinds[record["kind"]].append({**measured, "cpu_seconds": record["cpu_seconds"]})
    return products


def _rows_of(products: dict[str, Records], make_rows: Callable[[Records], list[dict[str, str]]]) -> list[str]:
    return _table([(name, row) for name, each in products.items() for row in make_rows(each)])


def _table(rows: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
    """Return the lines of a markdown table, its rows by product."""
    if not rows:
        return ["No scenes."]
    columns = list(rows[0][1])
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in rows]


def _headline(records: Records) -> dict[str, str]:
    """Return the figures of merit of a method."""
    stars, stacks = _stars(records), _stacks(records)
    galaxies = _galaxies(records)
    pairs = pair_separation_limit(_rows(records, "pairs", 2))
    field = records["field"]
    found = completeness(field, _PURITY)
    return {
        "Q1 PSF residual / peak %, S/N 20-100 / 100-1000 / >1000": _join(
            [(s["largest"], s["noise"]) for s in stacks[1:]], 100.0
        ),
        "Q2 star bias %, S/N 5-20 / 20-100 / >100": _join([s["bias"] for s in _three(stars)], 100.0),
        "Q3 scatter / CRB, plain": _join([s["scatter"] for s in _three(stars)]),
        "Q3 scatter / CRB, covariance": _join([s["weighted_scatter"] for s in _three(stars)]),
        "Q4 galaxy bias %, S/N 5-20 / >20": _join([g["flux"] for g in galaxies[:2]], 100.0),
        "Q5 pull, sky / faint / sources (MAD)": _medians(field, "pull_mad", _ERROR_BINS[:3]),
        "Q6 error, sky / faint / sources / all": _medians(field, "rms", (*_ERROR_BINS[:3], "all")),
        "Q7 pairs split at arcsec (false)": _join([pairs["separation"], pairs["false"]]),
        "Q8 left of cosmic rays / trail": _medians(field, "left", ("cosmic_rays", "trail")),
        "Q9 hole: error / declared / flagged": _medians(field, "hole", ("error", "declared", "flagged")),
        f"Q10 completeness, i = {' / '.join(f'{m:g}' for m in MAGNITUDES)}": _join(found),
        "CPU s": _number((float(np.median([r["cpu_seconds"] for r in field])), math.nan)) if field else "-",
        "scenes, field / stars / galaxies / pairs": " / ".join(
            str(len(records[kind])) for kind in ("field", "stars", "galaxies", "pairs")
        ),
    }


def _wrong_psfs(records: Records) -> dict[str, str]:
    """Return the biases that wrong PSFs cause, and what is flagged."""
    stars = records["stars"]
    plain = _rows(records, "stars", 5)
    # Stars are clipped by their relative errors, which a bias shifts alike.
    plain[:, 2] = plain[:, 1]
    best = plain.copy()
    best[:, 1] = best[:, 2] = best[:, 3] / best[:, 0]
    bias, weighted = (star_photometry(rows, 100.0, math.inf)["bias"] for rows in (plain, best))
    return {
        "bias %, plain": _join([bias], 100.0),
        "predicted %, plain": _join([_mean(stars, "predicted_plain")], 100.0),
        "bias %, covariance": _join([weighted], 100.0),
        "predicted %, covariance": _join([_mean(stars, "predicted_best")], 100.0),
        "error of the width found %": _join([_median(stars, "figures", "width_error")], 100.0),
        "flagged: wrong / right": _join(
            [_mean(stars, "flagged"), _mean(stars, "falsely_flagged")],
        ),
    }


def _mean(records: Sequence[dict[str, Any]], name: str) -> Figure:
    """Return the mean over scenes of a figure that a method gives."""
    values = np.array([record["figures"][name] for record in records], dtype=float)
    return (float(np.mean(values)), math.nan) if len(values) else (math.nan, math.nan)


def _star_details(records: Records) -> list[dict[str, str]]:
    """Return a row for each bin of the stars."""
    return [
        {
            "S/N": f"{low:g}-{high:g}" if math.isfinite(high) else f"> {low:g}",
            "stars": f"{stack['number']:.0f}",
            "PSF residual / peak %": _join([(stack["largest"], stack["noise"])], 100.0),
            "beyond 3 sigma of the stack %": _join([(stack["excess"], math.nan)], 100.0),
            "bias %": _join([star["bias"]], 100.0),
            "scatter / CRB, plain": _join([star["scatter"]]),
            "scatter / CRB, covariance": _join([star["weighted_scatter"]]),
            "pull, covariance": _join([star["pull"]]),
            "clipped %, plain / covariance": _join([star["clipped"], star["weighted_clipped"]], 100.0),
        }
        for (low, high), star, stack in zip(STAR_BINS, _stars(records), _stacks(records), strict=False)
    ]


def _galaxy_details(records: Records) -> list[dict[str, str]]:
    """Return a row for each bin of the galaxies."""
    return [
        {
            "S/N": f"{low:g}-{high:g}" if math.isfinite(high) else f"> {low:g}",
            "galaxies": f"{figures['number'][0]:.0f}",
            "flux bias %": _join([figures["flux"]], 100.0),
            "ellipticity bias": _join([figures["ellipticity"]]),
            "size bias %": _join([figures["size"]], 100.0),
        }
        for (low, high), figures in zip(_GALAXY_BINS, _galaxies(records), strict=True)
    ]


def _error_details(records: Records) -> list[dict[str, str]]:
    """Return a row for each bin of pixels."""
    return [
        {
            "scenes": kind,
            "pixels": name.replace("_", " "),
            "rms error": _medians(records[kind], "rms", [name]),
            "pull, MAD": _medians(records[kind], "pull_mad", [name]),
            "pull, rms": _medians(records[kind], "pull_rms", [name]),
            "% beyond 2 / 3 / 4 sigma": _join(
                [_median(records[kind], f"beyond_{limit}", name) for limit in (2, 3, 4)], 100.0
            ),
        }
        for kind in ("field", "crowded", "transients")
        if records[kind]
        for name in _ERROR_BINS
    ]


def _missing_details(records: Records) -> list[dict[str, str]]:
    """Return the figures of holes, blank fields and false detections."""
    field, blank = records["field"], records["blank"]
    found = completeness(field, _PURITY, with_artefacts=True)
    return [
        {
            "hole: error": _medians(field, "hole", ["error"]),
            "hole: declared": _medians(field, "hole", ["declared"]),
            "declared on sky": _medians(field, "hole", ["sky_declared"]),
            "hole: pull": _medians(field, "hole", ["pull"]),
            "error at reduced / full depth": _medians(field, "hole", ["depth_ratio"]),
            "as depth predicts": _medians(field, "hole", ["predicted_ratio"]),
            "blank fields: mean": _medians(blank, "sky", ["mean"]),
            "blank fields: rms": _medians(blank, "rms", ["sky"]),
            "completeness where artefacts count as false": _join(found),
        }
    ]


_TABLES: dict[str, Callable[[Records], list[dict[str, str]]]] = {
    "Figures of merit": lambda records: [_headline(records)],
    "Stars": _star_details,
    "Galaxies": _galaxy_details,
    "Errors and variance": _error_details,
    "Missing exposures, blank fields, artefacts": _missing_details,
}


def _rows(records: Records, kind: str, width: int) -> np.ndarray:
    """Return the rows of objects of all scenes of a kind."""
    return np.array([row for r in records[kind] for row in r[kind]], dtype=float).reshape(-1, width)


def _stars(records: Records) -> list[dict[str, Figure]]:
    """Return the photometry in each bin, and in all above 100 together."""
    rows = _rows(records, "stars", 5)
    return [star_photometry(rows, *limits) for limits in STAR_BINS] + [star_photometry(rows, 100.0, math.inf)]


def _three(stars: list[dict[str, Figure]]) -> list[dict[str, Figure]]:
    return [stars[0], stars[1], stars[4]]


def _stacks(records: Records) -> list[dict[str, float]]:
    fwhm = float(np.median([r["fwhm"] for r in records["stars"]])) if records["stars"] else math.nan
    return [
        pool_stack([r["stacks"][index] for r in records["stars"]], fwhm) for index in range(len(STAR_BINS))
    ]


def _galaxies(records: Records) -> list[dict[str, Figure]]:
    rows = _rows(records, "galaxies", 4)
    return [
        {
            "number": (float(np.count_nonzero(_within(rows, low, high))), math.nan),
            **{
                name: _median_of(rows[_within(rows, low, high), column])
                for column, name in enumerate(("flux", "ellipticity", "size"), start=1)
            },
        }
        for low, high in _GALAXY_BINS
    ]


def _within(rows: np.ndarray, low: float, high: float) -> np.ndarray:
    return (rows[:, 0] >= low) & (rows[:, 0] < high)


def _median(records: Sequence[dict[str, Any]], *path: str) -> Figure:
    """Return median and standard error of a figure over scenes."""
    values = []
    for record in records:
        value: Any = record
        for name in path:
            value = value.get(name, {}) if isinstance(value, dict) else value
        values.append(value if isinstance(value, float | int) else math.nan)
    return _median_of(np.array(values, dtype=float))


def _medians(records: Sequence[dict[str, Any]], name: str, bins: Sequence[str]) -> str:
    return _join([_median(records, name, each) for each in bins])


def _median_of(values: np.ndarray) -> Figure:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return math.nan, math.nan
    if finite.size == 1:
        return float(finite[0]), math.nan
    low, high = np.quantile(finite, [0.16, 0.84])
    return float(np.median(finite)), float(_MEDIAN_ERROR * 0.5 * (high - low) / math.sqrt(finite.size))


def _join(figures: Sequence[Figure], factor: float = 1.0) -> str:
    return " / ".join(_number((value * factor, error * factor)) for value, error in figures)


def _number(figure: Figure) -> str:
    """Format a value and its error; a dash for what is missing."""
    value, error = figure
    if not math.isfinite(value):
        return "-"
    if not (math.isfinite(error) and error > 0.0):
        return f"{value:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
