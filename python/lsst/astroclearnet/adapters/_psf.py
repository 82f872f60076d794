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

from lsst.images import Box
from lsst.images.psfs import PointSpreadFunction

from ..core import InputError, resample_kernel
from ._pixel_map import PixelMap

_SPACING = 100
"""Distance, in patch pixels, between the positions of evaluation."""


def psf_stamps(psf: PointSpreadFunction, pixel_map: PixelMap, visit_bbox: Box) -> np.ndarray:
    """Evaluate a PSF on a regular grid of cells and resample it to the patch.

    Parameters
    ----------
    psf
        PSF of the visit image, on its own pixels.
    pixel_map
        Positions of the patch pixels on the visit image.
    visit_bbox
        Box of the visit image; beyond it the PSF is that of its edge.

    Returns
    -------
    stamps : `numpy.ndarray`
        Shape (n_cells_y, n_cells_x, P, P), float64, sum 1, P odd; cells of
        equal size that cover the box of ``pixel_map``.

    Raises
    ------
    InputError
        If the PSF cannot be evaluated or has no positive sum.
    """
    shape = pixel_map.y.shape
    counts = [max(1, round(s / _SPACING)) for s in shape]
    rows, columns = (
        [min(s - 1, int((k + 0.5) * s / n)) for k in range(n)] for s, n in zip(shape, counts, strict=True)
    )
    jacobian = pixel_map.jacobian()
    scale = math.sqrt(float(np.nanmedian(pixel_map.area())))
    native = psf.kernel_bbox.shape.y
    size = 2 * math.ceil(native / scale / 2) + 1
    stamps = np.full((*counts, size, size), np.nan)
    for j, row in enumerate(rows):
        for i, column in enumerate(columns):
            y, x = pixel_map.y[row, column], pixel_map.x[row, column]
            if not (math.isfinite(y) and math.isfinite(x)):
                continue
            y = float(np.clip(y, visit_bbox.y.min, visit_bbox.y.max))
            x = float(np.clip(x, visit_bbox.x.min, visit_bbox.x.max))
            try:
                kernel = psf.compute_kernel_image(x=x, y=y).array
            except Exception as exc:
                # A PSF model may fail in any way of its own library's.
                raise InputError(f"The PSF cannot be evaluated at (x={x:.1f}, y={y:.1f}): {exc}") from exc
            stamps[j, i] = resample_kernel(kernel, jacobian[row, column], size)
    if not np.isfinite(stamps).any():
        raise InputError("The PSF cannot be evaluated anywhere on the patch.")
    return stamps
