# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What difference images of a field show of transients, and beside them."""

from __future__ import annotations

__all__ = ("CASES", "PERFECT", "combinations", "measure_field")

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from ..quality.psf_error import dilate
from .subtraction import WAYS, Score, subtract
from .templates import TEMPLATES, make_templates, perfect_template
from .visits import SEEINGS, Visits, pixels_near, simulate_visits

type Mask = npt.NDArray[np.bool_]

CASES = {"exact PSFs": 0.0, "PSFs wrong by 1 %": 0.01}
"""Standard deviations of the relative errors of the widths of PSFs, each
exposure's of its own."""

PERFECT = "perfect"
"""A template without noise that has the PSF of the science visit."""

_LOWEST = 3.5
"""Height in sigma down to which peaks are kept."""

_PEAK_SIZE = 5
"""Side in pixels of the box that a peak is the highest of."""

_MATCH = 2
"""Pixels along either axis from a transient to the peak that finds it."""

_DISC = 10.0
"""Radius in pixels around transients in which nothing else is measured."""

_FIT_RADIUS, _FIT_DISC = 20.0, 8.0
"""Radii in pixels around bright stars that kernels are fitted in, and around
transients that are left out there."""

_CORE = 6.0
"""Radius in pixels around bright stars in which residuals are measured."""

_STREAM = 17


def combinations() -> Iterator[tuple[str, str]]:
    """Yield the templates and ways of subtraction that are measured.

    Yields
    ------
    template, way : `str`
        Names of both.
    """
    for template in TEMPLATES:
        for way in WAYS:
            yield template, way
    yield PERFECT, "ZOGY"


def measure_field(seed: int) -> list[dict[str, Any]]:
    """Simulate the visits of a field, and subtract templates from them.

    Parameters
    ----------
    seed
        Seed of the field.

    Returns
    -------
    records : `list` [`dict`]
        For each case, seeing, template and way, which ``case``, ``seeing``,
        ``template`` and ``way`` name: ``sky_sigma``, the standard deviation
        of fluxes on blank sky in nJy; ``transients``, rows of the kind,
        flux, flux found and its standard deviation at the pixel of each, and
        the height in sigma of the highest pixel beside it; and by place,
        ``cores`` of bright stars included, ``areas`` in pixels away from
        transients, the heights in sigma of ``peaks`` of either sign there,
        and the sums of ``squares`` of pixels in sigma.
    """
    visits = simulate_visits(seed)
    rng = np.random.default_rng((seed, _STREAM))
    records = []
    for case, scatter in CASES.items():
        number = visits.templates.options.num_exposures
        errors = scatter * rng.normal(size=number + len(SEEINGS))
        psfs = _widen(visits.templates.psfs, errors[:number])
        templates = make_templates(visits.templates, psfs)
        for k, seeing in enumerate(SEEINGS):
            science = visits.science[k]
            templates[PERFECT] = perfect_template(visits.light[k], science.psfs[0])
            (psf,) = _widen(science.psfs, errors[number + k : number + k + 1])
            for name, way in combinations():
                score = subtract(science, psf, templates[name], way, _stars_to_fit(visits))
                named = {"case": case, "seeing": seeing, "template": name, "way": way}
                records.append(named | _measure(score, visits))
    return records


def _widen(psfs: npt.NDArray[np.float32], errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return PSFs of other widths."""
    return np.stack([dilate(psf, 1.0 + e) if e else psf for psf, e in zip(psfs, errors, strict=True)]).astype(
        np.float32
    )


def _measure(score: Score, visits: Visits) -> dict[str, Any]:
    """Return what a difference image shows."""
    height = score.flux / score.sigma
    away = ~pixels_near(visits.transients, _DISC)
    parts = {name: pixels & away for name, pixels in visits.places.items()}
    parts["cores"] = pixels_near(visits.bright_stars, _CORE) & away
    is_peak = np.abs(height) == maximum_filter(np.abs(height), _PEAK_SIZE)
    is_peak &= np.abs(height) > _LOWEST
    rows = []
    for t in visits.transients:
        beside = height[t.y - _MATCH : t.y + _MATCH + 1, t.x - _MATCH : t.x + _MATCH + 1]
        found = (score.flux[t.y, t.x], score.sigma[t.y, t.x], beside.max())
        rows.append([t.kind, t.flux, *(float(value) for value in found)])
    return {
        "sky_sigma": score.sky_sigma,
        "transients": rows,
        "areas": {name: int(pixels.sum()) for name, pixels in parts.items()},
        "peaks": {
            name: [round(float(value), 3) for value in np.abs(height[pixels & is_peak])]
            for name, pixels in parts.items()
        },
        "squares": {name: float(np.sum(height[pixels] ** 2)) for name, pixels in parts.items()},
    }


def _stars_to_fit(visits: Visits) -> Mask:
    """Return the pixels that kernels are fitted in."""
    near = pixels_near(visits.bright_stars, _FIT_RADIUS)
    return near & ~pixels_near(visits.transients, _FIT_DISC)
