# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Width of the stars of an image."""

from __future__ import annotations

__all__ = ("stellar_fwhms",)

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

_RADIUS = 10
"""Half size in pixels of the box in which a star is fitted."""

_MIN_SIGNAL_TO_NOISE = 50.0
_MAX_STARS = 40
_MAX_NEIGHBOR_FLUX = 0.02
_NUM_NOISE_PIXELS = 36.0
"""Effective number of noise pixels (4 pi sigma^2) of a 4-pixel FWHM."""


def stellar_fwhms(
    image: NDArray[Any],
    variance: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    flux: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Return the widths of the bright isolated stars of an image.

    A circular Moffat profile with a free centre, index and background is
    fitted to the 21x21 pixels around the brightest 40 stars that have a
    signal-to-noise ratio above 50, no bad pixel, no border and no neighbour
    with more than 2 percent of their flux in that box.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W); NaN where not to be used.
    variance
        Variance plane, shape (H, W).
    x, y
        Positions of the stars in pixels, shape (n,).
    flux
        Approximate fluxes in the unit of the image, shape (n,).
    model
        Noise-free image of what is not a star, shape (H, W), subtracted
        first.

    Returns
    -------
    fwhm : `numpy.ndarray`
        Full width at half maximum in pixels, shape (n,), the width of the
        profile sampled by the pixels; NaN for stars that were not measured.
    """
    data = np.asarray(image if model is None else image - model, dtype=float)
    position = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    brightness = np.asarray(flux, dtype=float)
    widths = np.full(len(position), np.nan)
    sky = variance[np.isfinite(variance) & (variance > 0)]
    if sky.size == 0 or len(position) == 0:
        return widths
    bright = brightness > _MIN_SIGNAL_TO_NOISE * np.sqrt(np.median(sky) * _NUM_NOISE_PIXELS)
    candidates = np.flatnonzero(bright & np.isfinite(position).all(axis=1) & _isolated(position, brightness))
    num_measured = 0
    for star in candidates[np.argsort(-brightness[candidates])]:
        widths[star] = _moffat_fwhm(data, position[star])
        num_measured += bool(np.isfinite(widths[star]))
        if num_measured == _MAX_STARS:
            break
    return widths


def _isolated(position: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which stars have no relevant neighbour in reach of their box.

    Parameters
    ----------
    position
        Positions (x, y) in pixels, shape (n, 2).
    flux
        Fluxes, shape (n,).

    Returns
    -------
    isolated : `numpy.ndarray`
        True for isolated stars, shape (n,).
    """
    isolated = np.ones(len(position), dtype=bool)
    finite = np.flatnonzero(np.isfinite(position).all(axis=1))
    pairs = cKDTree(position[finite]).query_pairs(1.5 * _RADIUS, output_type="ndarray")
    first, second = finite[pairs[:, 0]], finite[pairs[:, 1]]
    isolated[first[flux[second] > _MAX_NEIGHBOR_FLUX * flux[first]]] = False
    isolated[second[flux[first] > _MAX_NEIGHBOR_FLUX * flux[second]]] = False
    return isolated


def _moffat_fwhm(data: NDArray[np.float64], position: NDArray[np.float64]) -> float:
    """Fit a circular Moffat profile to one star.

    Parameters
    ----------
    data
        Image, shape (H, W).
    position
        Position (x, y) of the star in pixels.

    Returns
    -------
    fwhm : `float`
        Full width at half maximum in pixels; NaN if the box is not inside
        the image, has a bad pixel, or the fit fails or runs into a limit.
    """
    ix, iy = (round(float(value)) for value in position)
    inside = _RADIUS <= ix < data.shape[1] - _RADIUS and _RADIUS <= iy < data.shape[0] - _RADIUS
    box = data[iy - _RADIUS : iy + _RADIUS + 1, ix - _RADIUS : ix + _RADIUS + 1] if inside else np.empty(0)
    if box.size == 0 or not np.isfinite(box).all() or box.max() <= 0:
        return float("nan")
    scale = float(box.max())
    dy, dx = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1].astype(float)

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        # amplitude, x, y, FWHM, 1 / Moffat index, background
        square = 4.0 * ((dx - p[1]) ** 2 + (dy - p[2]) ** 2) / p[3] ** 2
        profile = (1.0 + np.expm1(p[4] * np.log(2.0)) * square) ** (-1.0 / p[4])
        return np.ravel(p[0] * profile + p[5] - box / scale)

    low = np.array([0.0, -2.0, -2.0, 0.5, 0.01, -1.0])
    high = np.array([10.0, 2.0, 2.0, 2.0 * _RADIUS, 0.8, 1.0])
    start = np.array([1.0, position[0] - ix, position[1] - iy, 4.0, 0.3, 0.0])
    fit = least_squares(residual, start, bounds=(low, high), x_scale=[1.0, 0.3, 0.3, 2.0, 0.2, 0.01])
    free = fit.success and np.all(np.abs(fit.x[1:3]) < 1.99) and 0.51 < fit.x[3] < 1.9 * _RADIUS
    return float(fit.x[3]) if free else float("nan")
