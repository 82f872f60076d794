# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF of a visit image on the grid of a patch."""

from __future__ import annotations

__all__ = ("psf_stamps",)

import math

import numpy as np
from scipy.ndimage import map_coordinates

from lsst.images import Box, Interval
from lsst.images.psfs import PointSpreadFunction

from ...core import InputError, find_psf_fault
from ._pixel_map import PixelMap

_SPACING = 50
"""Distance, in patch pixels, between the positions of evaluation."""

_ORDER = 5
"""Degree of the splines through the pixels of a PSF.  Those of a Gaussian of
3 pixels FWHM are met to 8e-4 of the peak, of 4 pixels to 2e-4."""

_SLACK = 0.1
"""Fraction of a pixel that a stamp may lack at its edges."""

_LARGEST_SIZE = 255
"""Pixels on a side of the largest PSF; there is a stamp for each cell."""

_LARGEST_AREA = 1e3
"""Ratio of the areas of pixels beyond which a sky projection is wrong."""

_LEAST_NET_LIGHT = 0.5
"""Least sum of a PSF over that of its absolute values."""

_MOST_IN_ONE_PIXEL = 0.9
"""Largest share of a PSF's light in one pixel: a star covers several."""


def psf_stamps(
    psf: PointSpreadFunction, pixel_map: PixelMap, visit_bbox: Box, *, max_cells: int | None = None
) -> np.ndarray:
    """Evaluate a PSF on a regular grid of cells and resample it to a patch.

    It is sampled at the offsets of the pixels of the patch on the visit image,
    to first order, and still describes light in pixels of the visit image.

    Parameters
    ----------
    psf
        PSF of the visit image, on its own pixels.
    pixel_map
        Map from the patch to the visit image.
    visit_bbox
        Box of the visit image; beyond it the PSF is that of its edge.
    max_cells
        Largest number of cells along each side; by default they have a side
        of about 50 pixels.

    Returns
    -------
    stamps : `numpy.ndarray`
        Shape (n_cells_y, n_cells_x, P, P), float64, sum 1, P odd, in cells of
        equal size that cover the box of ``pixel_map``; NaN where the visit
        image has no position.

    Raises
    ------
    InputError
        If the PSF cannot be evaluated, or its sum, size, centre or
        distribution of light is not that of a PSF.
    """
    rows, columns = (_cell_centers(side, max_cells) for side in (pixel_map.bbox.y, pixel_map.bbox.x))
    jacobians = pixel_map.jacobian(y=rows[:, None], x=columns)
    positions = pixel_map.apply(y=rows[:, None], x=columns)
    known = np.isfinite(jacobians).all(axis=(-1, -2)) & np.isfinite(positions.y) & np.isfinite(positions.x)
    if not known.any():
        raise InputError("The visit image has no position for any cell of the patch.")
    size = _stamp_size(psf, jacobians[known])
    stamps = np.full((*known.shape, size, size), np.nan)
    kernels = []
    for cell in zip(*np.nonzero(known), strict=True):
        y = float(np.clip(positions.y[cell], visit_bbox.y.min, visit_bbox.y.max))
        x = float(np.clip(positions.x[cell], visit_bbox.x.min, visit_bbox.x.max))
        try:
            kernel = psf.compute_kernel_image(x=x, y=y)
        except Exception as exc:
            # A PSF model may fail in any way of its own library's.
            raise InputError(f"The PSF cannot be evaluated at (x={x:.1f}, y={y:.1f}): {exc}") from exc
        if kernel.bbox != psf.kernel_bbox:
            raise InputError(f"The PSF has the box {kernel.bbox} instead of {psf.kernel_bbox}.")
        stamps[cell] = _resample(kernel.array, jacobians[cell], size)
        kernels.append(kernel.array)
    # The stamps, too, because the core will look at them.
    if fault := find_psf_fault(np.stack(kernels)) or find_psf_fault(stamps[known]):
        raise InputError(f"The PSF {fault}")
    return stamps


def _stamp_size(psf: PointSpreadFunction, jacobians: np.ndarray) -> int:
    """Return the odd size of stamps that hold a PSF whichever way it turns."""
    try:
        box = psf.kernel_bbox
    except Exception as exc:
        # A PSF model may fail in any way of its own library's.
        raise InputError(f"The PSF has no size: {exc}") from exc
    radius = box.y.max
    if (box.y.min, box.x.min, box.x.max) != (-radius, -radius, radius):
        raise InputError(f"The PSF has the box {box}, which is not a square around (0, 0).")
    areas = np.abs(np.linalg.det(jacobians))
    if not (areas.min() > 1.0 / _LARGEST_AREA and areas.max() < _LARGEST_AREA):
        raise InputError(f"A pixel of the patch holds {areas.min():g} to {areas.max():g} of the visit image.")
    # A stamp that cut the corners of turned pixels would rescale all fluxes.
    turned = np.abs(np.linalg.inv(jacobians)).sum(axis=-1).max()
    size = 2 * max(0.0, np.ceil(radius * turned - _SLACK)) + 1
    if not size <= _LARGEST_SIZE:
        raise InputError(f"The PSF takes {size:.0f} pixels of the patch, more than {_LARGEST_SIZE}.")
    return int(size)


def _cell_centers(side: Interval, max_cells: int | None) -> np.ndarray:
    """Return the middles of cells of equal size along one side of a box."""
    number = max(1, round(side.size / _SPACING))
    if max_cells is not None:
        number = min(number, max_cells)
    return side.start - 0.5 + (np.arange(number) + 0.5) * side.size / number


def _resample(kernel: np.ndarray, jacobian: np.ndarray, size: int) -> np.ndarray:
    """Sample a PSF at the offsets that other pixels have from its middle."""
    if np.sum(kernel, dtype=float) < _LEAST_NET_LIGHT * np.sum(np.abs(kernel), dtype=float):
        raise InputError("A PSF with more than a third as much light below zero as above cannot be used.")
    if np.max(kernel) > _MOST_IN_ONE_PIXEL * np.sum(kernel, dtype=float) > 0:
        raise InputError("A PSF with nearly all its light in one pixel is cut, or none, and cannot be used.")
    # The spline needs room to fade beyond the outermost pixels.
    padded = np.pad(np.asarray(kernel, dtype=float), _ORDER)
    r = np.arange(size) - size // 2
    offsets = jacobian @ np.stack([axis.ravel() for axis in np.meshgrid(r, r, indexing="ij")])
    sampled = map_coordinates(padded, offsets + padded.shape[0] // 2, order=_ORDER).reshape(size, size)
    total = float(sampled.sum())
    if not (math.isfinite(total) and total > 0):
        raise InputError(f"A PSF with sum {total} cannot be used.")
    return sampled / total
