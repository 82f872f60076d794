# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Steps at the borders of cells, for a PSF that varies over a patch."""

from __future__ import annotations

__all__ = ("border_steps", "measure_psf")

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.adapters import PatchGeometry

from ..processes import Runner
from ..record import Table, compare, format_value
from .exposures import Conditions, moffat
from .projections import BORDER, make_field
from .runs import PRODUCTS, Run, restore_and_measure
from .stars import make_sky

type Array = npt.NDArray[np.float64]

_GROWTH = 0.2
"""Relative change of the FWHM from one side of the patch to the other."""

_SPACING = 21
_REACH = 40.0
"""Distance in pixels from a border within which stars tell of a step."""

_LIMIT = 5e-3
_PSF_CELL = 100
_OUTPUT_CELL = 50

_LEGEND = (
    "Stars on a uniform grid, without noise, in exposures whose FWHM grows by 20 % along x over the patch: "
    "relative error of the flux, and of the width, of fits of the declared PSF. Steps are those of a "
    "straight line with a step, and a parabola the other way, fitted to the stars within 40 pixels of each "
    "border, along x and along y: the largest at a border of the cells on which PSFs are evaluated, and at "
    "one of the cells of the product. "
)


def measure_psf(runner: Runner, *, count: int, quick: bool) -> list[Table]:
    """Look for steps at the borders of cells."""
    del count
    size, number = (150, 2) if quick else (300, 4)
    job = Run("native", "survey", 7200, size, number, (1000.0, 1000.1), noise=False, num_draws=1)
    record = runner(run_varying, job)
    rows = []
    for product in PRODUCTS:
        stars = np.array(record["products"][product]["stars"], dtype=float)
        for what, column in (("flux", 1), ("FWHM", 5)):
            steps = {
                spacing: border_steps(stars[:, 6:8], stars[:, column], _borders(size, spacing))
                for spacing in (_PSF_CELL, _OUTPUT_CELL)
            }
            worst = max(steps.values())
            rows.append(
                {
                    "product": product,
                    "error of": what,
                    "stars": str(len(stars)),
                    "mean %": format_value(float(stars[:, column].mean()), 100.0),
                    "rms about it %": format_value(float(stars[:, column].std()), 100.0),
                    "step %, cells of the PSF": format_value(steps[_PSF_CELL], 100.0),
                    "step %, cells of the product": format_value(steps[_OUTPUT_CELL], 100.0),
                    "limit": compare(100.0 * worst, 100.0 * _LIMIT, " %"),
                }
            )
    setting = f"{number} exposures, patch of {size}x{size} pixels."
    return [Table("Borders of cells", _LEGEND + setting, rows)]


def run_varying(job: Run) -> dict[str, Any]:
    """Restore a grid of stars whose PSF varies over the patch."""
    field = make_field(job.projections, seed=job.seed, size=job.size, number=job.number)
    exposures = tuple(_varying(c, field.geometry) for c in field.exposures)
    field = dataclasses.replace(field, exposures=exposures)
    sky = make_sky(field.geometry, job.seed, job.signal_to_noise, spacing=_SPACING, jitter=0.0)
    return restore_and_measure(job, field, sky)


def _varying(conditions: Conditions, geometry: PatchGeometry) -> Conditions:
    """Let the FWHM grow along x of the patch."""
    bbox = geometry.bbox
    fwhm = conditions.largest_fwhm

    def profile(x: float, y: float) -> Any:
        position = geometry.projection.sky_to_pixel(conditions.projection.pixel_to_sky(x=x, y=y))
        along = (float(position.x) - bbox.x.center) / bbox.x.size
        return moffat(fwhm * (1.0 + _GROWTH * along), 0.02, -0.01)

    # Beyond the patch the PSF goes on growing.
    return dataclasses.replace(conditions, profile=profile, largest_fwhm=fwhm * (1.0 + 0.75 * _GROWTH))


def _borders(size: int, spacing: int) -> Array:
    """Return the borders of cells in pixels of the patch."""
    if spacing == _OUTPUT_CELL:
        return np.arange(spacing, size, spacing, dtype=float) - 0.5
    full = size + 2 * BORDER
    number = max(1, round(full / spacing))
    return np.arange(1, number, dtype=float) * full / number - BORDER - 0.5


def border_steps(position: Array, value: Array, borders: Array) -> float:
    """Return the largest step at any border along either axis."""
    steps = []
    for axis in (0, 1):
        for border in borders:
            distance = position[:, axis] - border
            near = np.abs(distance) < _REACH
            sides = np.count_nonzero(distance[near] > 0), np.count_nonzero(distance[near] < 0)
            if min(sides) < 4:
                continue
            other = position[near, 1 - axis] - position[near, 1 - axis].mean()
            terms = [np.ones(near.sum()), distance[near], other, other**2, distance[near] > 0]
            fitted = np.linalg.lstsq(np.stack(terms, axis=1), value[near], rcond=None)[0]
            steps.append(abs(float(fitted[-1])))
    return max(steps) if steps else math.nan
