# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Positions, fluxes and profiles of bright stars behind real projections."""

from __future__ import annotations

__all__ = ("measure_accuracy",)

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..processes import Runner
from ..record import Table, format_value
from .projections import PROJECTIONS
from .runs import PRODUCTS, Run, run
from .stars import stack_psf_residual

_LOG = logging.getLogger(__name__)

_SIGNAL_TO_NOISE = (1000.0, 5000.0)
_FIRST_SEED = 7100

_CENTROID_RMS, _CENTROID_MEAN = 5.0, 1.0
"""Limits in mas."""

_FLUX, _PROFILE = 1e-3, 1e-2

_LEGEND = (
    "Stars of S/N 1000 to 5000 (optimal photometry of all exposures together) on jittered grids, restored "
    "from native pixels. Centroids and fluxes are of fits of the declared PSF to single stars: rms of the "
    "distance from the truth, length of the mean shift, rms and mean of the relative error of the flux. "
    "Profile: largest residual of the stack of all stars from the declared PSF, over its peak, and that of "
    "the worst of the four stacks of the quarters of the patch. Limits hold with the true PSF: 5 mas rms, 1 "
    "mas mean, 0.1 % of flux (rms without noise, mean with it) and 1 % of the peak in any quarter. "
)


@dataclasses.dataclass(frozen=True)
class _Case:
    """How stars are seen."""

    title: str
    noise: bool
    fitted_psf: bool


_CASES = (
    _Case("true PSF, no noise", noise=False, fitted_psf=False),
    _Case("true PSF", noise=True, fitted_psf=False),
    _Case("fitted Piff PSF", noise=True, fitted_psf=True),
)


def measure_accuracy(runner: Runner, *, count: int, quick: bool) -> list[Table]:
    """Measure bright stars behind all projections."""
    size, number, seeds = (100, 3, 1) if quick else (100, 6, max(1, count // 2))
    rows: list[dict[str, str]] = []
    notes = []
    for name, description in PROJECTIONS.items():
        if quick and name != "rubin-dp1":
            continue
        notes.append(f"{name}: {description}.")
        for case in _CASES[1:2] if quick else _CASES:
            jobs = [
                Run(
                    "native",
                    name,
                    _FIRST_SEED + seed,
                    size,
                    number,
                    _SIGNAL_TO_NOISE,
                    noise=case.noise,
                    fitted_psf=case.fitted_psf,
                    num_draws=1,
                )
                for seed in range(seeds)
            ]
            try:
                records = [runner(run, job) for job in jobs]
            except FileNotFoundError as exc:
                _LOG.warning("%s", exc)
                notes.append(f"{name} was not measured: its projections are not here.")
                break
            rows += [_row(records, name, case, product) for product in PRODUCTS]
    setting = f"{number} exposures, patches of {size}x{size} pixels, {seeds} for each row. "
    return [Table("Bright stars", _LEGEND + setting + " ".join(notes), rows)]


def _row(records: Sequence[dict[str, Any]], name: str, case: _Case, product: str) -> dict[str, str]:
    rows = np.array([row for r in records for row in r["products"][product]["stars"]], dtype=float)
    rows = rows.reshape(-1, 8)
    scale = 1e3 * records[0]["pixel_scale"]
    shifts, flux = scale * rows[:, 3:5], rows[:, 1]
    stacks = [stack for r in records for stack in r["products"][product]["stacks"]]
    whole, quarter = stack_psf_residual(stacks, records[0]["target_fwhm"])
    rms = float(np.sqrt(np.mean(np.sum(shifts**2, axis=1))))
    mean = float(np.hypot(*shifts.mean(axis=0)))
    mean_error = float(np.hypot(*shifts.std(axis=0)) / math.sqrt(len(rows)))
    flux_rms = float(np.sqrt(np.mean(flux**2)))
    flux_mean = float(flux.mean()), float(flux.std() / math.sqrt(len(rows)))
    checks = {
        "centroid rms": (rms, _CENTROID_RMS),
        "centroid mean": (mean, _CENTROID_MEAN),
        "flux": (flux_mean[0] if case.noise else flux_rms, _FLUX),
        "profile": (quarter, _PROFILE),
    }
    missed = [what for what, (value, limit) in checks.items() if not abs(value) <= limit]
    judged = "met" if not missed else f"**missed**: {', '.join(missed)}"
    return {
        "projections": name,
        "exposures": case.title,
        "product": product,
        "stars": str(len(rows)),
        "centroid rms mas": format_value(rms),
        "centroid mean mas": format_value((mean, mean_error)),
        "flux rms %": format_value(flux_rms, 100.0),
        "flux mean %": format_value(flux_mean, 100.0),
        "profile %, all": format_value(whole, 100.0),
        "profile %, quarter": format_value(quarter, 100.0),
        "limits": "reported" if case.fitted_psf else judged,
    }
