# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small fields of stars whose PSFs are given with errors."""

from __future__ import annotations

__all__ = ("ERRORS", "Field", "make_field", "make_stamp")

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

type Array = npt.NDArray[np.float64]

_SHAPE = (128, 128)
_STEP = 14
"""Distance of the stars of a grid in pixels; they are moved by up to 2."""

_SLOPE = 3.5
"""Exponent of Moffat PSFs."""

_STAMP, _RADIUS, _FINE = 41, 24, 5
"""Side of PSFs, distance to which stars are drawn, and points along the side
of a pixel, over which the PSF is integrated."""

_GAIN = 40.0
"""Electrons in one sigma of a sky of 1600 electrons."""

_NUM_GALAXIES, _POINTS = 4, 9
"""Sources that are galaxies, and points that each consists of."""

_SATURATION = 600.0
"""Level above which pixels around a saturated star are masked."""


def _one(error: float) -> Callable[[np.random.Generator, int], Array]:
    """Return errors of which only the first differs from zero."""
    return lambda _, number: np.eye(number)[0] * error


ERRORS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "none": lambda _, number: np.zeros(number),
    "one, +1 %": _one(0.01),
    "one, +3 %": _one(0.03),
    "one, +5 %": _one(0.05),
    "one, -1 %": _one(-0.01),
    "one, -3 %": _one(-0.03),
    "one, -5 %": _one(-0.05),
    "random, 1 %": lambda rng, number: rng.normal(0.0, 0.01, number),
    "shared, +3 %": lambda _, number: np.full(number, 0.03),
    "shared, -3 %": lambda _, number: np.full(number, -0.03),
}
"""Excess of the FWHM of the seeing over that of the PSF given, relative."""


@dataclasses.dataclass(frozen=True)
class Field:
    """Exposures of a field.

    Attributes
    ----------
    images, variances, good
        Shape (n, H, W).
    given, true
        Shape (n, P, P), PSFs as they are given and as they are.
    stars
        Shape (k, 3), rows, columns and fluxes of stars.
    """

    images: Array
    variances: Array
    good: npt.NDArray[np.bool_]
    given: Array
    true: Array
    stars: Array


def make_field(
    error: str, seed: int, *, number: int = 12, only_galaxies: bool = False, saturated: bool = False
) -> Field:
    """Make co-registered exposures of 64 sources, of which 4 are galaxies.

    Stars have signal-to-noise ratios of 50 to 1000 in all exposures together,
    without their photon noise.  Given ``saturated``, there is a further star
    with a masked core, and stars within 25 pixels of it are not listed.
    """
    rng = np.random.default_rng(seed)
    places = np.arange(14, _SHAPE[0] - 9, _STEP, dtype=float)
    centers = np.array([(y, x) for y in places for x in places])
    centers += rng.uniform(-2.0, 2.0, centers.shape)
    rng.shuffle(centers)
    fwhms, sigmas = rng.uniform(3.2, 4.6, number), rng.uniform(0.8, 1.3, number)
    # The effective area of a Gaussian is 2.27 FWHM^2.
    information = math.sqrt(np.sum((sigmas * fwhms) ** -2.0) / 2.27)
    fluxes = np.exp(rng.uniform(math.log(50.0), math.log(1000.0), len(centers))) / information
    num_galaxies = len(centers) if only_galaxies else _NUM_GALAXIES
    sources = [
        (*center, flux) for center, flux in zip(centers[num_galaxies:], fluxes[num_galaxies:], strict=True)
    ]
    stars = np.array(sources).reshape(-1, 3)
    for center, flux in zip(centers[:num_galaxies], fluxes[:num_galaxies], strict=True):
        offsets = rng.normal(0.0, rng.uniform(1.0, 3.0), (_POINTS, 2))
        sources += [(*(center + offset), flux / _POINTS) for offset in offsets]
    masked = (70.3, 60.2, 3e5)
    if saturated:
        sources.append(masked)
        stars = stars[np.hypot(stars[:, 0] - masked[0], stars[:, 1] - masked[1]) > 25.0]
    widths = fwhms * (1.0 + ERRORS[error](rng, number))
    light = np.stack([_render(np.array(sources), fwhm) for fwhm in widths])
    sky = sigmas[:, None, None] ** 2
    images = light + rng.normal(size=light.shape) * np.sqrt(sky + light / _GAIN)
    return Field(
        images=images,
        # As of calibrated images: from the noisy pixels.
        variances=np.maximum(sky + images / _GAIN, 0.1 * sky),
        good=light < _SATURATION if saturated else np.ones(light.shape, dtype=bool),
        given=np.stack([make_stamp(fwhm) for fwhm in fwhms]),
        true=np.stack([make_stamp(fwhm) for fwhm in widths]),
        stars=stars,
    )


def make_stamp(fwhm: float) -> Array:
    """Return the PSF of a FWHM of the seeing, sum 1."""
    r = np.arange(_STAMP, dtype=float) - _STAMP // 2
    stamp = _moffat(r, r, fwhm)
    return np.asarray(stamp / stamp.sum())


def _render(sources: Array, fwhm: float) -> Array:
    """Return the light of point sources, (k, 3)."""
    image = np.zeros(_SHAPE)
    for y, x, flux in sources:
        rows, columns = (
            np.arange(max(0, round(p) - _RADIUS), min(length, round(p) + _RADIUS + 1))
            for p, length in zip((y, x), _SHAPE, strict=True)
        )
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += flux * _moffat(
            rows - y, columns - x, fwhm
        )
    return image


def _moffat(rows: Array, columns: Array, fwhm: float) -> Array:
    """Return a Moffat profile integrated over pixels."""
    fine = (np.arange(_FINE) - _FINE // 2) / _FINE
    y, x = ((r[:, None] + fine).ravel() for r in (rows, columns))
    squared = (0.5 * fwhm) ** 2 / (2.0 ** (1.0 / _SLOPE) - 1.0)
    profile = (1.0 + (y[:, None] ** 2 + x**2) / squared) ** -_SLOPE
    pixels = profile.reshape(len(rows), _FINE, len(columns), _FINE).mean(axis=(1, 3))
    return np.asarray(pixels * (_SLOPE - 1.0) / (math.pi * squared))
