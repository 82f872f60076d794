# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What stars of an image say of its PSF, its noise and its aliases."""

from __future__ import annotations

__all__ = ("Stars", "measure_stars")

import dataclasses

import numpy as np

from .methods import FinerImage
from .scene import Array, Scene

_RADIUS = 3.0
"""Radius of fits and residuals, in pixels of the exposures: of twice the FWHM
of the target PSF."""

_BLANK = 3.0
"""Least distance of stars from a fit to blank sky, in the same unit."""

_EDGE = 6.0
"""Least distance of a star or of blank sky from the edge, in that unit."""


@dataclasses.dataclass(frozen=True)
class Stars:
    """Measurements of the stars of an image.

    Attributes
    ----------
    flux
        Shape (k,), fitted with the declared PSF, over the truth.
    position
        Shape (k, 2), fitted less true (y, x), in pixels of the exposures.
    sky
        Shape (m,), fluxes of fits to blank sky, in those of the bound.
    residual
        Shape (P, P), mean of what stars leave, over their peak.
    """

    flux: Array
    position: Array
    sky: Array
    residual: Array


def measure_stars(scene: Scene, found: FinerImage) -> Stars:
    """Fit stars and blank sky with the declared PSF.

    Parameters
    ----------
    scene
        The scene.
    found
        The image.
    """
    factor, half = found.factor, round(_RADIUS * found.factor)
    fluxes, positions, residuals = [], [], []
    places = scene.star_positions(factor)
    for y, x in places:
        if _is_near_edge(y, x, scene, factor):
            continue
        row, column = round(y), round(x)
        stamp = found.image[row - half : row + half + 1, column - half : column + half + 1]
        if not np.isfinite(stamp).all():
            continue
        center = half + y - row, half + x - column
        coefficients, psf = _fit(stamp, found, *center)
        flux = float(coefficients[0])
        fluxes.append(flux / scene.flux)
        positions.append(coefficients[1:] / flux / factor)
        residuals.append((stamp - flux * psf) / (flux * psf.max()))
    rng = np.random.default_rng((scene.seed, 9))
    sky = []
    for y, x in rng.uniform(_EDGE * factor, (scene.size - _EDGE) * factor, (1000, 2)):
        row, column = round(y), round(x)
        near = np.hypot(*(places - (row, column)).T) < (_BLANK + _RADIUS) * factor
        stamp = found.image[row - half : row + half + 1, column - half : column + half + 1]
        if near.any() or not np.isfinite(stamp).all():
            continue
        sky.append(float(_fit(stamp, found, half, half)[0][0]) / scene.flux_sigma)
    return Stars(np.array(fluxes), np.array(positions), np.array(sky), np.mean(residuals, axis=0))


def _fit(stamp: Array, found: FinerImage, y: float, x: float) -> tuple[Array, Array]:
    """Fit flux and shift times flux; return them and the PSF."""
    height, width = stamp.shape
    step = 0.05

    def draw(dy: float, dx: float) -> Array:
        return found.psf((height, width), y + dy, x + dx)

    psf = draw(0.0, 0.0)
    slopes = [
        (draw(j * step, i * step) - draw(-j * step, -i * step)) / (2.0 * step) for j, i in ((1, 0), (0, 1))
    ]
    matrix = np.stack([psf, *slopes]).reshape(3, -1).T
    return np.linalg.lstsq(matrix, stamp.ravel(), rcond=None)[0], psf


def _is_near_edge(y: float, x: float, scene: Scene, factor: int) -> bool:
    """Tell whether a position is too near to the edge."""
    low, high = _EDGE * factor, (scene.size - _EDGE) * factor
    return not (low <= y <= high and low <= x <= high)
