# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds of `lsst.images` and their provenance."""

# Provenance of several instruments and filters is made storable on import.
from . import _provenance_compat as _provenance_compat
from ._cell_coadd import FEW_EXPOSURES, make_cell_coadd, make_demand_image, missing_cells
from ._coadd_arrays import CoaddArrays, crop_to_box, place_on_patch, unusable_pixels
from ._deblender_coadd import make_deblender_coadd
from ._disk import predict_disk_bytes
from ._legacy import coadd_from_exposure, direct_storage_class, pixels_from_exposure
from ._summary import PatchSummary, require_recordable

__all__ = (
    "FEW_EXPOSURES",
    "CoaddArrays",
    "PatchSummary",
    "coadd_from_exposure",
    "crop_to_box",
    "direct_storage_class",
    "make_cell_coadd",
    "make_deblender_coadd",
    "make_demand_image",
    "missing_cells",
    "pixels_from_exposure",
    "place_on_patch",
    "predict_disk_bytes",
    "require_recordable",
    "unusable_pixels",
)
