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
        templates = _templates(found, 2 * half + 1, half + y - row, half + x - column)
        flux, *shifts = _fit(stamp, templates)
        fluxes.append(flux / scene.flux)
        positions.append(np.array(shifts) / flux / factor)
        residuals.append((stamp - flux * templates[0]) / (flux * templates[0].max()))
    rng = np.random.default_rng((scene.seed, 9))
    sky, templates = [], _templates(found, 2 * half + 1, half, half)
    for y, x in rng.uniform(_EDGE * factor, (scene.size - _EDGE) * factor, (1000, 2)):
        row, column = round(y), round(x)
        near = np.hypot(*(places - (row, column)).T) < (_BLANK + _RADIUS) * factor
        stamp = found.image[row - half : row + half + 1, column - half : column + half + 1]
        if near.any() or not np.isfinite(stamp).all():
            continue
        sky.append(_fit(stamp, templates)[0] / scene.flux_sigma)
    return Stars(np.array(fluxes), np.array(positions), np.array(sky), np.mean(residuals, axis=0))


def _templates(found: FinerImage, size: int, y: float, x: float) -> Array:
    """Return the PSF and its derivatives by (y, x), shape (3, P, P)."""
    step = 0.05

    def draw(dy: float, dx: float) -> Array:
        return found.psf((size, size), y + dy, x + dx)

    slopes = [
        (draw(j * step, i * step) - draw(-j * step, -i * step)) / (2.0 * step) for j, i in ((1, 0), (0, 1))
    ]
    return np.stack([draw(0.0, 0.0), *slopes])


def _fit(stamp: Array, templates: Array) -> list[float]:
    """Fit flux, and shifts along y and x times flux."""
    matrix = templates.reshape(len(templates), -1).T
    found: list[float] = np.linalg.lstsq(matrix, stamp.ravel(), rcond=None)[0].tolist()
    return found


def _is_near_edge(y: float, x: float, scene: Scene, factor: int) -> bool:
    """Tell whether a position is too near to the edge."""
    low, high = _EDGE * factor, (scene.size - _EDGE) * factor
    return not (low <= y <= high and low <= x <= high)
