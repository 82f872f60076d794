# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Where the pixels and PSFs of visit images lie on a patch."""

from ._footprint import Overlap, VisitFootprint, VisitPsf
from ._geometry import (
    PatchGeometry,
    SkyMapGeometry,
    TractGeometry,
    box_region,
    choose_cell_shape,
    crop_to_patch,
    patch_slices,
    pixel_scale,
)
from ._legacy import LegacyPointSpreadFunction, patch_geometry_from_skymap, refine_legacy_sky_map
from ._pixel_map import NearestPixel, PixelMap
from ._psf import PatchPsf, psf_stamps
from ._refine import refine_sky_map

__all__ = (
    "LegacyPointSpreadFunction",
    "NearestPixel",
    "Overlap",
    "PatchGeometry",
    "PatchPsf",
    "PixelMap",
    "SkyMapGeometry",
    "TractGeometry",
    "VisitFootprint",
    "VisitPsf",
    "box_region",
    "choose_cell_shape",
    "crop_to_patch",
    "patch_geometry_from_skymap",
    "patch_slices",
    "pixel_scale",
    "psf_stamps",
    "refine_legacy_sky_map",
    "refine_sky_map",
)
