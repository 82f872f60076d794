# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The two likelihoods on the same scenes."""

from __future__ import annotations

__all__ = ("measure_comparison", "paired_difference")

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..processes import Runner
from ..quality.pairs import pair_separation_limit
from ..record import Figure, Table, format_value
from .runs import PRODUCTS, Run, run
from .ways import WAYS

_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, math.inf))
_SIGNAL_TO_NOISE = (5.0, 2000.0)
_FIRST_SEED = 7000
_PAIR_SHARE = 0.3
_BRIGHT = 2
_MIN_STARS = 5
_BOOTSTRAPS = 1000

_STAR_LEGEND = (
    "Single stars on jittered grids, of S/N 5 to 2000 (optimal photometry of all exposures together, on "
    "their own pixels), fitted with the declared PSF, all pixels alike: bias of the flux, and scatter of "
    "flux over the Cramer-Rao bound, by S/N. No star is left out. Survey projections, "
    "PSFs as they truly are, no cosmic rays."
)
_DIFFERENCE_LEGEND = (
    "Differences star by star: both likelihoods see the same noise, so that they are known better than the "
    "figures above. Errors of ratios of scatters are from bootstraps of the stars."
)
_PAIR_LEGEND = (
    "Pairs of equal stars of S/N above 50 each, 0.42 to 0.6 arcsec apart, at target FWHM 0.504 arcsec: share "
    "that is split, by the saddle between the two maxima being deeper than that of 99 percent of single "
    "stars, and separation at which half of the pairs are."
)
_COST_LEGEND = (
    "Of one patch: processor time to prepare the exposures from visit images in memory, the same to restore "
    "them, and by how much the memory of the process grew."
)
_RAY_LEGEND = (
    "Pixels of the patch that are rejected in an exposure, by million used ones. With cosmic rays, 70 % of "
    "them flagged: share of the pixels with unflagged light above 5 sigma that are rejected, themselves or a "
    "neighbour; false are rejected pixels more than 4 pixels from any; and photometry as above."
)


def measure_comparison(runner: Runner, *, count: int, quick: bool) -> list[Table]:
    """Compare bias, scatter, pairs, time, memory and rejection."""
    size, number = (100, 3) if quick else (200, 12)
    clean = [
        Run(way, "survey", _FIRST_SEED + k, size, number, _SIGNAL_TO_NOISE, pair_share=_PAIR_SHARE)
        for k in range(1 if quick else count)
        for way in WAYS
    ]
    rays = [
        Run(way, "survey", _FIRST_SEED + k, size, number, _SIGNAL_TO_NOISE, cosmic_rays=True)
        for k in range(1 if quick else count // 3)
        for way in WAYS
    ]
    records = [runner(run, job) for job in [*clean, *rays]]
    without = [r for r in records if not r["cosmic_rays"]]
    hit = [r for r in records if r["cosmic_rays"]]
    described = f" {len(clean) // 2} scenes of {number} exposures, patch of {size}x{size} pixels."
    return [
        Table("Stars", _STAR_LEGEND + described, _star_rows(without)),
        Table("The same stars in both", _DIFFERENCE_LEGEND + described, _difference_rows(without)),
        Table("Pairs", _PAIR_LEGEND + described, _pair_rows(without)),
        Table("Time and memory", _COST_LEGEND + described, _cost_rows(without)),
        Table("Rejection", _RAY_LEGEND + f" {len(rays) // 2} scenes with them.", _ray_rows(without, hit)),
    ]


def pooled(records: Sequence[dict[str, Any]], way: str, product: str, what: str) -> np.ndarray:
    """Return all rows of some runs."""
    chosen = [r["products"][product][what] for r in records if r["way"] == way]
    return np.array([row for rows in chosen for row in rows], dtype=float).reshape(sum(map(len, chosen)), -1)


def _photometry(rows: np.ndarray) -> dict[str, list[Figure]]:
    """Return bias and scatter by bin, of all stars.

    No star is left out: with few stars, clipping takes one from one sample
    and none from the other, and makes up a difference where there is none.
    """
    figures: dict[str, list[Figure]] = {"bias": [], "scatter": []}
    for low, high in _BINS:
        inside = rows[(rows[:, 0] >= low) & (rows[:, 0] < high)] if len(rows) else np.zeros((0, 3))
        number = len(inside)
        if number < _MIN_STARS:
            for values in figures.values():
                values.append((math.nan, math.nan))
            continue
        width = float(np.std(inside[:, 2], ddof=1))
        bias_error = float(np.std(inside[:, 1], ddof=1)) / math.sqrt(number)
        figures["bias"].append((float(np.mean(inside[:, 1])), bias_error))
        figures["scatter"].append((width, width / math.sqrt(2.0 * number)))
    return figures


def paired_difference(native: np.ndarray, resampled: np.ndarray) -> dict[str, Figure]:
    """Compare two measurements of the same stars, star by star.

    Both see the same noise, so that their difference is known far better than
    either of them.

    Returns
    -------
    figures : `dict` [`str`, `tuple` [`float`, `float`]]
        With standard errors: ``number`` of stars in both; ``bias`` of the
        resampled less that of the native; ``distance``, rms difference over
        the Cramer-Rao bound; and ``scatter``, that of the resampled over that
        of the native, its error from bootstraps of the stars.
    """
    index = {tuple(row[[6, 7]]): k for k, row in enumerate(resampled)}
    both = [(k, index[key]) for k, row in enumerate(native) if (key := tuple(row[[6, 7]])) in index]
    nothing = math.nan, math.nan
    if len(both) < _MIN_STARS:
        return {
            "number": (float(len(both)), math.nan),
            **dict.fromkeys(("bias", "distance", "scatter"), nothing),
        }
    first, second = native[[k for k, _ in both]], resampled[[k for _, k in both]]
    number = len(both)
    bias = second[:, 1] - first[:, 1]
    distance = math.sqrt(float(np.mean((second[:, 2] - first[:, 2]) ** 2)))
    rng = np.random.default_rng(0)
    draws = rng.integers(number, size=(_BOOTSTRAPS, number))
    ratios = np.std(second[draws, 2], axis=1) / np.std(first[draws, 2], axis=1)
    ratio = float(np.std(second[:, 2]) / np.std(first[:, 2]))
    return {
        "number": (float(number), math.nan),
        "bias": (float(bias.mean()), float(bias.std(ddof=1)) / math.sqrt(number)),
        "distance": (distance, distance / math.sqrt(2.0 * number)),
        "scatter": (ratio, float(np.std(ratios))),
    }


def _difference_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for product in PRODUCTS:
        native, resampled = (pooled(records, way, product, "stars") for way in WAYS)
        for low, high in _BINS:
            inside = [r[(r[:, 0] >= low) & (r[:, 0] < high)] for r in (native, resampled)]
            figures = paired_difference(*inside)
            table.append(
                {
                    "product": product,
                    "S/N": f"{low:g}-{high:g}" if math.isfinite(high) else f"> {low:g}",
                    "stars": f"{figures['number'][0]:.0f}",
                    "bias, resampled - native %": format_value(figures["bias"], 100.0),
                    "rms difference / CRB": format_value(figures["distance"]),
                    "scatter, resampled / native": format_value(figures["scatter"]),
                }
            )
    return table


def _star_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for product in PRODUCTS:
        for way in WAYS:
            rows = pooled(records, way, product, "stars")
            figures = _photometry(rows)
            bright = rows[rows[:, 0] > 500.0]
            scale = 1e3 * records[0]["pixel_scale"]
            shifts = scale * bright[:, 3:5]
            cells = {"product": product, "likelihood": way, "stars": str(len(rows))}
            for k, (low, high) in enumerate(_BINS):
                name = f"{low:g}-{high:g}" if math.isfinite(high) else f"> {low:g}"
                cells[f"bias %, S/N {name}"] = format_value(figures["bias"][k], 100.0)
                cells[f"scatter / CRB, S/N {name}"] = format_value(figures["scatter"][k])
            rms = float(np.sqrt(np.mean(np.sum(shifts**2, axis=1)))) if len(bright) else math.nan
            cells["centroid rms mas, S/N > 500"] = format_value(rms)
            table.append(cells)
    return table


def _pair_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for product in PRODUCTS:
        for way in WAYS:
            rows = pooled(records, way, product, "pairs")
            cells = {"product": product, "likelihood": way}
            if not len(rows):
                continue
            single, pairs = rows[rows[:, 0] == 0.0], rows[rows[:, 0] > 0.0]
            share = (math.nan, math.nan)
            if len(single) and len(pairs):
                split = float(np.mean(pairs[:, 1] > np.quantile(single[:, 1], 0.99, method="higher")))
                share = (split, math.sqrt(max(split * (1.0 - split), 0.25 / len(pairs)) / len(pairs)))
            limit = pair_separation_limit(rows)
            cells["pairs"] = str(len(pairs))
            cells["split %"] = format_value(share, 100.0)
            cells["half split at arcsec"] = format_value(limit["separation"])
            cells["mean depth of the saddle %"] = format_value(
                (float(np.mean(pairs[:, 1])), float(np.std(pairs[:, 1]) / math.sqrt(len(pairs)))), 100.0
            )
            table.append(cells)
    return table


def _cost_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for way in WAYS:
        chosen = [r for r in records if r["way"] == way]
        cells = {"likelihood": way}
        for name, title in (
            ("prepare_cpu", "prepare CPU s"),
            ("restore_cpu", "restore CPU s"),
            ("memory", "memory MiB"),
        ):
            values = np.array([r[name] for r in chosen])
            error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
            cells[title] = format_value((float(np.mean(values)), error))
        table.append(cells)
    return table


def _ray_rows(without: Sequence[dict[str, Any]], hit: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table: list[dict[str, str]] = []
    for way in WAYS if hit else ():
        clean, struck = ([r for r in records if r["way"] == way] for records in (without, hit))
        total = {name: sum(r[name] for r in struck) for name in ("false", "used", "rays", "found")}
        none = {name: sum(r[name] for r in clean) for name in ("rejected", "used")}
        cells = {
            "likelihood": way,
            "false per million, no cosmic rays": format_value(1e6 * none["rejected"] / none["used"]),
            "false per million, cosmic rays": format_value(1e6 * total["false"] / total["used"]),
            "found %": format_value(100.0 * total["found"] / total["rays"] if total["rays"] else math.nan),
            "pixels of cosmic rays": str(total["rays"]),
        }
        for product in PRODUCTS:
            figures = _photometry(pooled(struck, way, product, "stars"))
            cells[f"bias %, S/N > 100, {product}"] = format_value(figures["bias"][_BRIGHT], 100.0)
            cells[f"scatter / CRB, S/N > 100, {product}"] = format_value(figures["scatter"][_BRIGHT])
        table.append(cells)
    return table
