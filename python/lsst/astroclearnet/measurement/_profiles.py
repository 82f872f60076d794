# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Apertures, adaptive moments and extendedness of single sources."""

from __future__ import annotations

__all__ = ("Moments", "aperture_weights", "fit_moments")

import dataclasses

import numpy as np
from numpy.typing import NDArray
from photutils.aperture import CircularAperture

type Array = NDArray[np.float64]

_NUM_STEPS = 100
_TOLERANCE = 1e-5
"""Largest change of a moment, relative to their trace, in the last step."""

_MAX_SHIFT = 2.0
"""Largest distance in pixels of the centroid from the position: beyond, the
weight has moved to something else."""

_MAX_WIDTH = 0.5
"""Largest width (sigma) of the weight relative to half of the box: a wider one
would be cut by the box."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """The elliptical Gaussian that fits a source best.

    Attributes
    ----------
    flux
        Flux of the Gaussian.
    center
        Its centre (x, y) in pixels of the box.
    xx, yy, xy
        Its second moments in pixels^2: the adaptive moments of the source.
    weights
        Weights of pixels that give a small change of ``flux``, the centre,
        ``xx``, ``yy`` and ``xy``, shape (6, m).
    """

    flux: float
    center: tuple[float, float]
    xx: float
    yy: float
    xy: float
    weights: Array


def aperture_weights(size: int, center: tuple[float, float], radius: float) -> Array:
    """Return the shares of pixels that lie in a circle.

    Parameters
    ----------
    size
        Side of the box in pixels.
    center
        Centre (x, y) of the circle in pixels of the box.
    radius
        Its radius in pixels.

    Returns
    -------
    weights : `numpy.ndarray`
        Exact shares, shape (size^2,).

    Raises
    ------
    ValueError
        If the circle is not in the box.
    """
    image = CircularAperture(center, radius).to_mask(method="exact").to_image((size, size))
    reach = min(*center, *(size - 1 - value for value in center)) + 0.5
    if image is None or reach < radius:
        raise ValueError(f"A circle of {radius} pixels around {center} is not in a box of {size} pixels.")
    return np.asarray(image, dtype=float).ravel()


def fit_moments(
    data: Array, center: tuple[float, float], start: tuple[float, float, float]
) -> Moments | None:
    """Measure the adaptive moments of a source.

    Moments with an elliptical Gaussian weight that has the moments itself
    (Bernstein & Jarvis 2002, AJ 123, 583; Hirata & Seljak 2003, MNRAS 343,
    459): those of the Gaussian that fits best with equal weights.  The
    weights of their errors follow from that.

    Parameters
    ----------
    data
        Image of the source without others, shape (S, S).
    center
        Position (x, y) in pixels of the box.
    start
        Moments xx, yy and xy to begin with, in pixels^2.

    Returns
    -------
    moments : `Moments` or `None`
        `None` if there is no Gaussian that fits: of faint sources, or with a
        value that is not finite.
    """
    if not np.isfinite(data).all():
        return None
    size = data.shape[0]
    y, x = np.indices(data.shape, dtype=float)
    place, moments = np.array(center, dtype=float), np.array([[start[0], start[2]], [start[2], start[1]]])
    for _ in range(_NUM_STEPS):
        weight, offset = _gaussian(x, y, place, moments)
        total = float(np.sum(weight * data))
        if not total > 0:
            return None
        mean = np.array([np.sum(weight * data * u) for u in offset]) / total
        found = 2.0 * np.array(
            [[np.sum(weight * data * u * v) for v in offset] for u in offset]
        ) / total - 2.0 * np.outer(mean, mean)
        change = float(np.abs(found - moments).max() / np.trace(moments)) + float(np.abs(mean).max())
        place, moments = place + 2.0 * mean, found
        wide = np.trace(moments) > 2.0 * (_MAX_WIDTH * 0.5 * size) ** 2
        if wide or not np.linalg.det(moments) > 0 or not np.trace(moments) > 0:
            return None
        if np.hypot(*(place - center)) > _MAX_SHIFT:
            return None
        if change < _TOLERANCE:
            break
    else:
        return None
    weight, offset = _gaussian(x, y, place, moments)
    flux = float(np.sum(weight * data) / np.sum(weight**2))
    # Derivatives of the Gaussian: flux, x, y, xx, yy, xy.
    inverse = np.linalg.inv(moments)
    u, v = np.tensordot(inverse, offset, axes=1)
    slopes = (
        weight,
        flux * weight * u,
        flux * weight * v,
        0.5 * flux * weight * (u * u - inverse[0, 0]),
        0.5 * flux * weight * (v * v - inverse[1, 1]),
        flux * weight * (u * v - inverse[0, 1]),
    )
    design = np.stack([slope.ravel() for slope in slopes], axis=1)
    weights = np.linalg.pinv(design)
    xx, yy, xy = moments[0, 0], moments[1, 1], moments[0, 1]
    return Moments(flux, (float(place[0]), float(place[1])), float(xx), float(yy), float(xy), weights)


def _gaussian(x: Array, y: Array, place: Array, moments: Array) -> tuple[Array, Array]:
    """Return a Gaussian of unit flux, and the offsets from its centre."""
    offset = np.stack([x - place[0], y - place[1]])
    inverse = np.linalg.inv(moments)
    square = np.einsum("i...,ij,j...->...", offset, inverse, offset)
    return np.exp(-0.5 * square) / (2.0 * np.pi * np.sqrt(np.linalg.det(moments))), offset
