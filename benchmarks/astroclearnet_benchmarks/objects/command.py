# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogues of restored coadds: fluxes of isolated and of blended stars."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..processes import start_logging
from ..record import Section, Table, make_page, make_parser
from .measure import METHODS, THRESHOLDS, measure_scene

_LOG = logging.getLogger(__name__)

type Array = npt.NDArray[np.float64]

_FIRST_SEED = 701
"""Seeds below it were looked at while the measurement was written."""

_RATIO_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, 1000.0), (1000.0, math.inf))
_SEPARATION_BINS = ((0.4, 0.7), (0.7, 1.0), (1.0, 1.5))
_PURITY = 0.98

_INTRODUCTION = (
    "Catalogues of `measure_objects` from one band: 12 exposures of 224x224 pixels in i (Moffat PSFs of "
    ".5 to .95 arcsec, exact; no artefacts; one exposure ends within the scene and one has a gap, where the "
    "PSF of a coadd is not its mean), restored with the packaged network at 3 pixels (0.5 arcsec). "
    "Detected on the restored image and measured on the linear one, beside the same code on the "
    "inverse-variance coadd with its mean PSF, detected after a matched filter, as usual, or without. The "
    "bound is the Cramer-Rao bound of the flux of a star alone in all exposures with their true variances, "
    "at a known position; positions are fitted here."
)


def main(words: Sequence[str]) -> int:
    """Measure and write the page; scenes that were measured are kept."""
    start_logging()
    parser = make_parser("objects", __doc__, "measured scenes")
    parser.add_argument("--scenes", type=int, default=8, help="number of scenes of each kind")
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    records = {
        kind: [_measured(kind, _FIRST_SEED + n, options) for n in range(options.scenes)]
        for kind in ("stars", "blends")
    }
    tables = [_star_table(records["stars"]), _blend_table(records["blends"])]
    section = Section.measured("objects", f"{parser.prog} --scenes {options.scenes}", tables)
    options.output.write_text(make_page([section], title="Objects", introduction=_INTRODUCTION))
    return 0


def _measured(kind: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record of a scene, measured now or before."""
    path = options.work / f"{kind}-{seed}.json"
    if not path.exists():
        path.write_text(json.dumps(measure_scene(kind, seed)))
        _LOG.info("Measured %s, seed %d", kind, seed)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _star_table(records: Sequence[dict[str, Any]]) -> Table:
    """Return the table of isolated stars."""
    rows = []
    for method in METHODS:
        threshold, purity, stars, found = _at_purity(records, method)
        flux, bound = stars[:, 0], stars[:, 1]
        for low, high in _RATIO_BINS:
            inside = (flux / bound >= low) & (flux / bound < high)
            known = inside & np.isfinite(found[:, 0])
            pull = (found[:, 0] - flux)[known] / bound[known]
            rows.append(
                {
                    "detected on": f"{method} ({threshold:g} sigma, purity {purity:.3f})",
                    "S/N": f"{low:g} - {high:g}" if math.isfinite(high) else f"> {low:g}",
                    "found": f"{known.sum()} of {inside.sum()}",
                    "bias": _mean((found[:, 0] / flux - 1.0)[known], "%"),
                    "scatter over bound": _scatter(pull),
                    "rms pull": _scatter((found[:, 0] - flux)[known] / found[known, 1]),
                }
            )
    return Table(
        "Isolated stars",
        "Found: of the stars that are not saturated. Bias: mean of flux over truth less 1. Scatter: root "
        "mean square of flux less truth over the bound, with its standard error; pull: the same over "
        "declared errors. "
        f"The threshold is the one with most stars at a purity of at least {_PURITY:g}.",
        rows,
    )


def _blend_table(records: Sequence[dict[str, Any]]) -> Table:
    """Return the table of blended stars."""
    rows = []
    for method in METHODS:
        threshold, purity, stars, found = _at_purity(records, method)
        for low, high in _SEPARATION_BINS:
            row = {
                "detected on": f"{method} ({threshold:g} sigma, purity {purity:.3f})",
                "separation": f"{low:g} - {high:g}",
            }
            for name, is_brighter in (("brighter", True), ("fainter", False)):
                inside = (stars[:, 3] >= low) & (stars[:, 3] < high) & (stars[:, 2] == is_brighter)
                known = inside & np.isfinite(found[:, 0])
                error = (found[:, 0] - stars[:, 0])[known]
                row |= {
                    f"{name} found": f"{known.sum()} of {inside.sum()}",
                    f"{name}: bias": _mean(error / stars[known, 0], "%"),
                    f"{name}: scatter over bound": _scatter(error / stars[known, 1]),
                }
            rows.append(row)
    return Table(
        "Blended stars",
        "Pairs of stars on blank sky, the brighter with a signal-to-noise ratio of 30 to 200, the fainter "
        "with a fifth of its flux to all of it; separations in arcsec. A pair that is not divided is one "
        "detection, with the light of both. Columns as above; the bound is that of a star without a "
        "neighbour.",
        rows,
    )


def _at_purity(records: Sequence[dict[str, Any]], method: str) -> tuple[float, float, Array, Array]:
    """Return the threshold that finds most stars at the purity wanted, its
    purity, the stars and what was found; the purest if none is as pure.
    """
    stars = np.concatenate([np.array(record["stars"], dtype=float).reshape(-1, 4) for record in records])
    choices = []
    for threshold in THRESHOLDS:
        each = [record[method][f"{threshold:g}"] for record in records]
        found = np.concatenate([np.array(one["found"], dtype=float).reshape(-1, 2) for one in each])
        total = int(np.isfinite(found[:, 0]).sum())
        purity = total / max(1, sum(one["number"] for one in each))
        choices.append((purity >= _PURITY, total if purity >= _PURITY else purity, threshold, purity, found))
    _, _, threshold, purity, found = max(choices, key=lambda choice: choice[:2])
    return threshold, purity, stars, found


def _mean(values: Array, unit: str) -> str:
    """Return a mean with its standard error."""
    if len(values) < 2:
        return "-"
    factor = 100.0 if unit == "%" else 1.0
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{factor * np.mean(values):+.2f} ± {factor * error:.2f} {unit}"


def _scatter(values: Array) -> str:
    """Return a root mean square with its standard error."""
    if len(values) < 2:
        return "-"
    square = values**2
    rms = math.sqrt(float(np.mean(square)))
    error = float(np.std(square, ddof=1)) / math.sqrt(len(values)) / (2.0 * rms) if rms > 0 else 0.0
    return f"{rms:.2f} ± {error:.2f}"
