# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Resampling of an image onto another pixel grid."""

from __future__ import annotations

__all__ = (
    "ResampledPlanes",
    "resample",
    "resample_kernel",
)

import dataclasses
import math

import numpy as np

from .._errors import InputError

_LEAK = 0.05
"""Largest share of unusable pixels in the kernel of a usable one."""

_FILL_RADIUS = 3
"""Pixels over which unusable pixels are filled from their surroundings."""


@dataclasses.dataclass(frozen=True)
class ResampledPlanes:
    """An image, its variance and its usable pixels on another grid.

    Attributes
    ----------
    image
        Shape (H, W), float32; 0 where not ``good``.
    variance
        Shape (H, W), float32, variance of single pixels; 1 where not
        ``good``.  Neighbours are correlated.
    good
        Shape (H, W), bool.
    noise
        Shape (k, H, W), float32, noise resampled in the same way.
    """

    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    noise: np.ndarray


def _lanczos(offset: np.ndarray, order: int) -> np.ndarray:
    """Return normalised weights of the 2 * order taps around positions.

    ``offset`` is the fraction of a pixel beyond the tap at index order - 1.
    """
    taps = np.arange(2 * order) - (order - 1)
    distance = taps - offset[..., None]
    weight = np.sinc(distance) * np.sinc(distance / order)
    weight[np.abs(distance) >= order] = 0.0
    return weight / weight.sum(axis=-1, keepdims=True)


def _gather_weights(
    y: np.ndarray, x: np.ndarray, shape: tuple[int, int], order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return first taps, weights along y and x, and what lies inside."""
    inside = np.isfinite(y) & np.isfinite(x)
    y, x = np.where(inside, y, 0.0), np.where(inside, x, 0.0)
    first_y, first_x = (np.floor(c).astype(np.int64) - (order - 1) for c in (y, x))
    inside &= (first_y >= 0) & (first_y + 2 * order <= shape[0])
    inside &= (first_x >= 0) & (first_x + 2 * order <= shape[1])
    weight_y = _lanczos(y - np.floor(y), order)
    weight_x = _lanczos(x - np.floor(x), order)
    return np.where(inside, first_y, 0), np.where(inside, first_x, 0), weight_y, weight_x, inside


def resample(
    image: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    *,
    y: np.ndarray,
    x: np.ndarray,
    area: np.ndarray | float,
    noise: np.ndarray | None = None,
    order: int = 5,
) -> ResampledPlanes:
    """Resample an image with a flux-conserving Lanczos kernel.

    The weights along each axis are normalised to sum 1, so a constant surface
    brightness is reproduced exactly, and values are multiplied by the area of
    the new pixels, so flux is conserved.  Unusable pixels are filled from
    their surroundings, and a new pixel whose kernel gives them more than 5 %
    of its weight in absolute value is not usable, so that a flagged pixel
    does not leak into its neighbours.

    Parameters
    ----------
    image
        Shape (h, w).
    variance
        Shape (h, w).
    good
        Shape (h, w), bool, `True` = usable.
    y
        Shape (H, W), row of each new pixel in the array ``image``; NaN where
        there is none.
    x
        Shape (H, W), column of each new pixel.
    area
        Area of the new pixels in old pixels, a scalar or shape (H, W).
    noise
        Shape (k, h, w), realisations to pass through the same kernel.
    order
        Half width of the kernel in pixels.

    Returns
    -------
    resampled : `ResampledPlanes`
        The new planes; pixels whose kernel leaves the image are not usable.

    Raises
    ------
    InputError
        If the planes differ in shape or ``order`` is less than 2.
    """
    if not image.shape == variance.shape == good.shape:
        raise InputError(
            f"Image {image.shape}, variance {variance.shape} and good {good.shape} differ in shape."
        )
    if order < 2:
        raise InputError(f"A Lanczos kernel of order {order} is too short; give at least 2.")
    good = good & np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    draws = np.zeros((0, *image.shape), dtype=np.float32) if noise is None else np.where(good, noise, 0.0)
    planes = ResampledPlanes(
        image=np.zeros(y.shape, dtype=np.float32),
        variance=np.ones(y.shape, dtype=np.float32),
        good=np.zeros(y.shape, dtype=bool),
        noise=np.zeros((len(draws), *y.shape), dtype=np.float32),
    )
    block = _overlapping_block(y, x, image.shape)
    if block is None:
        return planes
    # Beyond the edge there is nothing usable, as in a masked pixel.
    edge = (order, order)
    image, variance, good = (np.pad(p, order) for p in (np.where(good, image, 0.0), variance, good))
    stacked = np.concatenate(
        [_fill(image, good)[None], np.pad(draws, ((0, 0), edge, edge))], dtype=np.float32
    )
    first_y, first_x, weight_y, weight_x, inside = _gather_weights(
        y[block] + order, x[block] + order, image.shape, order
    )
    values = np.zeros((len(stacked), *inside.shape))
    new_variance = np.zeros(inside.shape)
    leak = np.zeros(inside.shape)
    known_variance = np.where(good, variance, 0.0)
    for j in range(2 * order):
        for i in range(2 * order):
            weight = weight_y[..., j] * weight_x[..., i]
            rows, columns = first_y + j, first_x + i
            values += weight * stacked[:, rows, columns]
            new_variance += weight**2 * known_variance[rows, columns]
            leak += np.abs(weight) * ~good[rows, columns]
    usable = inside & (leak <= _LEAK) & (new_variance > 0)
    area = np.broadcast_to(area, y.shape)[block]
    scaled = np.where(usable, values * area, 0.0)
    planes.image[block] = scaled[0]
    planes.noise[(slice(None), *block)] = scaled[1:]
    planes.variance[block] = np.where(usable, new_variance * np.square(area), 1.0)
    planes.good[block] = usable
    return planes


def _overlapping_block(y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the smallest block of new pixels that holds all inside."""
    with np.errstate(invalid="ignore"):
        inside = (y > -1) & (y < shape[0]) & (x > -1) & (x < shape[1])
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def resample_kernel(kernel: np.ndarray, jacobian: np.ndarray, size: int, *, order: int = 5) -> np.ndarray:
    """Resample a PSF onto the pixels of another grid.

    Parameters
    ----------
    kernel
        Shape (p, p), p odd, centred on its middle pixel.
    jacobian
        Shape (2, 2), derivatives of old (y, x) with respect to new (y, x).
    size
        Odd number of pixels on a side of the result.
    order
        Half width of the Lanczos kernel in pixels.

    Returns
    -------
    resampled : `numpy.ndarray`
        Shape (size, size), float64, sum 1.

    Raises
    ------
    InputError
        If the kernel is not finite or its sum is not positive.
    """
    total = float(np.sum(kernel))
    if not (math.isfinite(total) and total > 0):
        raise InputError(f"A PSF with sum {total} cannot be used.")
    padded = np.pad(np.asarray(kernel, dtype=float), order)
    center = padded.shape[0] // 2
    r = np.arange(size) - size // 2
    v, u = np.meshgrid(r, r, indexing="ij")
    y = center + jacobian[0, 0] * v + jacobian[0, 1] * u
    x = center + jacobian[1, 0] * v + jacobian[1, 1] * u
    first_y, first_x, weight_y, weight_x, inside = _gather_weights(y, x, padded.shape, order)
    result = np.zeros((size, size))
    for j in range(2 * order):
        for i in range(2 * order):
            rows, columns = np.where(inside, first_y + j, 0), np.where(inside, first_x + i, 0)
            result += weight_y[..., j] * weight_x[..., i] * padded[rows, columns]
    result[~inside] = 0.0
    return result / result.sum()


def _fill(image: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill unusable pixels with the mean of usable ones around them."""
    if good.all():
        return image
    filled = image.copy()
    known = good.copy()
    for _ in range(_FILL_RADIUS):
        total = np.zeros_like(filled)
        count = np.zeros(filled.shape)
        padded, padded_known = np.pad(filled * known, 1), np.pad(known, 1)
        for j in range(3):
            for i in range(3):
                rows, columns = slice(j, j + filled.shape[0]), slice(i, i + filled.shape[1])
                total += padded[rows, columns]
                count += padded_known[rows, columns]
        new = ~known & (count > 0)
        filled[new] = total[new] / count[new]
        known |= new
    return filled
