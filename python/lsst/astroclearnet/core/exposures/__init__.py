# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures as arrays: pixels, variances, PSFs and positions; tiles."""

from ._arrays import ArrayLike, as_tensor, require_plain
from ._cut_outs import bounding_boxes, cut_out
from ._filters import box_means, close_holes, fast_length, largest_around, masked_medians, smooth
from ._positions import PixelPositions
from ._psf_stamps import find_psf_fault, fwhm_to_sigma, gaussian_kernel, kernel_fwhm
from ._source import ExposureCutouts, ExposureSource, StackSource
from ._stack import ExposureStack
from ._tiles import OVERLAP, Tile, TileGrid
from ._variances import decorrelate_variance, is_blank, model_variances, second_difference

__all__ = (
    "OVERLAP",
    "ArrayLike",
    "ExposureCutouts",
    "ExposureSource",
    "ExposureStack",
    "PixelPositions",
    "StackSource",
    "Tile",
    "TileGrid",
    "as_tensor",
    "bounding_boxes",
    "box_means",
    "close_holes",
    "cut_out",
    "decorrelate_variance",
    "fast_length",
    "find_psf_fault",
    "fwhm_to_sigma",
    "gaussian_kernel",
    "is_blank",
    "kernel_fwhm",
    "largest_around",
    "masked_medians",
    "model_variances",
    "require_plain",
    "second_difference",
    "smooth",
)
