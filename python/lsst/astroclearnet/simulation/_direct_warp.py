# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images resampled to the pixels of a patch."""

from __future__ import annotations

__all__ = ("DirectWarp", "resample", "warp_visit_image")

import dataclasses
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lsst.images import Box, VisitImage

from ..adapters import PatchGeometry, UnusableExposureError, VisitCutout, VisitFootprint, crop_to_patch

_LEAK = 0.05
"""Largest share of unusable pixels in the kernel of a usable one."""

_FILL_RADIUS = 3
"""Pixels over which unusable pixels are filled from their surroundings."""


@dataclasses.dataclass(frozen=True)
class DirectWarp:
    """A visit image on the grid of a patch.

    Attributes
    ----------
    cutout
        What it was made from.
    image
        Shape (H, W), float32, nJy; 0 where not ``good``.
    variance
        Shape (H, W), float32, nJy^2, variance of single pixels; 1 where not
        ``good``.  Neighbours are correlated.
    good
        Shape (H, W), bool, usable pixels.
    """

    cutout: VisitCutout
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray


def warp_visit_image(
    visit_image: VisitImage, geometry: PatchGeometry, *, bbox: Box | None = None, kernel_order: int = 5
) -> DirectWarp:
    """Bring a visit image to the grid of a patch by `resample`.

    Parameters
    ----------
    visit_image
        The visit image, or the part of it that overlaps the patch.
    geometry
        Geometry of the patch.
    bbox
        Box to fill, in tract pixels: the outer box of the patch, which is the
        default, or that with an even border.
    kernel_order
        Half width of the kernel in pixels, at least 2.

    Returns
    -------
    warp : `DirectWarp`
        The resampled planes.

    Raises
    ------
    UnusableExposureError
        If the image cannot be used, or no pixel of the patch is usable.
    """
    bbox = geometry.bbox if bbox is None else bbox
    scale = VisitFootprint(visit_image.sky_projection, visit_image.bbox).pixel_scale / geometry.pixel_scale
    # A turned kernel reaches farthest along its diagonal.
    margin = math.ceil(math.sqrt(2.0) * kernel_order * scale) + 2
    cutout = VisitCutout.take(visit_image, geometry, bbox=bbox.padded(margin))
    pixel_map = cutout.from_patch.part(bbox)
    y, x = (values - start for values, start in zip(pixel_map.positions(), cutout.bbox.start, strict=True))
    image, variance, good = resample(
        cutout.image, cutout.variance, cutout.good, y=y, x=x, area=pixel_map.area(), order=kernel_order
    )
    if not crop_to_patch(good, geometry).any():
        raise UnusableExposureError("no_usable_pixels", "No usable pixel falls onto the patch.")
    return DirectWarp(cutout, image, variance, good)


def resample(
    image: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    *,
    y: np.ndarray,
    x: np.ndarray,
    area: np.ndarray | float,
    order: int = 5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resample an image with a flux-conserving Lanczos kernel.

    The weights along each axis are normalised to sum 1, so that constant
    surface brightness is reproduced exactly; values are multiplied by the
    area of the new pixels, so that flux is conserved.  Unusable pixels are
    filled from their surroundings, and a new pixel whose kernel gives them
    more than 5 % of its weight in absolute value is not usable, so that a
    flagged pixel does not leak into its neighbours.

    Parameters
    ----------
    image
        Shape (h, w).
    variance
        Shape (h, w), finite and positive where ``good``.
    good
        Shape (h, w), bool.
    y, x
        Shape (H, W), row and column of each new pixel in the array ``image``;
        NaN where there is none.
    area
        Area of the new pixels in old pixels, a scalar or shape (H, W).
    order
        Half width of the kernel in pixels, at least 2.

    Returns
    -------
    image
        Shape (H, W), float32; 0 where not usable.
    variance
        Shape (H, W), float32, variance of single pixels; 1 where not usable.
    good
        Shape (H, W), bool; False where the kernel leaves the image.
    """
    # Beyond the edge there is nothing usable, as in a masked pixel.
    image, variance, good = (
        np.pad(plane, order) for plane in (np.where(good, image, 0.0), np.where(good, variance, 0.0), good)
    )
    image = _fill(image, good)
    inside = np.isfinite(y) & np.isfinite(x)
    axes = []
    for values, length in ((y, image.shape[0]), (x, image.shape[1])):
        values = np.where(inside, values, 0.0) + order
        first = np.floor(values).astype(np.int64) - (order - 1)
        inside &= (first >= 0) & (first + 2 * order <= length)
        axes.append((first, _lanczos(values - np.floor(values), order)))
    (first_y, weight_y), (first_x, weight_x) = (
        (np.where(inside, first, 0), weights) for first, weights in axes
    )
    new_image, new_variance, leak = (np.zeros(y.shape) for _ in range(3))
    for j in range(2 * order):
        for i in range(2 * order):
            weight = weight_y[..., j] * weight_x[..., i]
            tap = first_y + j, first_x + i
            new_image += weight * image[tap]
            new_variance += weight**2 * variance[tap]
            leak += np.abs(weight) * ~good[tap]
    usable = inside & (leak <= _LEAK) & (new_variance > 0)
    return (
        np.where(usable, new_image * area, 0.0).astype(np.float32),
        np.where(usable, new_variance * np.square(area), 1.0).astype(np.float32),
        usable,
    )


def _lanczos(offset: np.ndarray, order: int) -> np.ndarray:
    """Return normalised weights of 2 * order taps around positions.

    The offset is that beyond the tap at index order - 1, in pixels.
    """
    taps = np.arange(2 * order) - (order - 1)
    distance = taps - offset[..., None]
    weight = np.sinc(distance) * np.sinc(distance / order)
    weight[np.abs(distance) >= order] = 0.0
    return weight / weight.sum(axis=-1, keepdims=True)


def _fill(image: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill unusable pixels with the mean of usable ones around them."""
    filled, known = image.copy(), good.copy()
    for _ in range(_FILL_RADIUS):
        values, weights = np.pad(filled * known, 1), np.pad(known, 1).astype(float)
        total, count = (sliding_window_view(plane, (3, 3)).sum(axis=(-2, -1)) for plane in (values, weights))
        new = ~known & (count > 0)
        filled[new] = total[new] / count[new]
        known |= new
    return filled
