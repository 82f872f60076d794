# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Between `lsst.images` objects and the arrays of the core.

From below, each importing those before it: `place`, where pixels and PSFs lie
on a patch; `read`, visit images as they are stored; `cutout`, their pixels
for the core; `coadd`, what is written.
"""

from ._exposure_id import ExposureId, UnusableExposureError
from ._restoration_model import (
    joint_model_from_dict,
    joint_model_to_dict,
    model_from_dict,
    model_to_dict,
)
from .coadd import (
    FEW_EXPOSURES,
    MAX_BINNING,
    BinnedPatch,
    CoaddArrays,
    PatchSummary,
    bin_inner_region,
    binned_projection,
    coadd_from_exposure,
    crop_to_box,
    direct_storage_class,
    faintest_peak,
    join_binned,
    make_cell_coadd,
    make_deblender_coadd,
    make_demand_image,
    missing_cells,
    pixels_from_exposure,
    place_on_patch,
    predict_disk_bytes,
    require_recordable,
    unusable_pixels,
)
from .cutout import (
    PatchExposure,
    PatchSource,
    Scratch,
    VisitCutout,
    pad_to_common_size,
    stack_exposures,
)
from .place import (
    Overlap,
    PatchGeometry,
    PixelMap,
    SkyMapGeometry,
    TractGeometry,
    VisitFootprint,
    VisitPsf,
    box_region,
    crop_to_patch,
    patch_geometry_from_skymap,
    patch_slices,
    refine_legacy_sky_map,
    refine_sky_map,
)
from .read import (
    DEFAULT_MASK_TREATMENTS,
    SUBTRACTED_BACKGROUND,
    DirectWarpSource,
    ImageHandle,
    MaskTable,
    RecalibratedSource,
    VisitCalibration,
    VisitComponents,
    VisitImageSource,
    background_image_from_legacy,
    read_overlap,
    read_visit_psf,
    source_id,
    visit_calibration_from_summary,
)

__all__ = (
    "DEFAULT_MASK_TREATMENTS",
    "FEW_EXPOSURES",
    "MAX_BINNING",
    "SUBTRACTED_BACKGROUND",
    "BinnedPatch",
    "CoaddArrays",
    "DirectWarpSource",
    "ExposureId",
    "ImageHandle",
    "MaskTable",
    "Overlap",
    "PatchExposure",
    "PatchGeometry",
    "PatchSource",
    "PatchSummary",
    "PixelMap",
    "RecalibratedSource",
    "Scratch",
    "SkyMapGeometry",
    "TractGeometry",
    "UnusableExposureError",
    "VisitCalibration",
    "VisitComponents",
    "VisitCutout",
    "VisitFootprint",
    "VisitImageSource",
    "VisitPsf",
    "background_image_from_legacy",
    "bin_inner_region",
    "binned_projection",
    "box_region",
    "coadd_from_exposure",
    "crop_to_box",
    "crop_to_patch",
    "direct_storage_class",
    "faintest_peak",
    "join_binned",
    "joint_model_from_dict",
    "joint_model_to_dict",
    "make_cell_coadd",
    "make_deblender_coadd",
    "make_demand_image",
    "missing_cells",
    "model_from_dict",
    "model_to_dict",
    "pad_to_common_size",
    "patch_geometry_from_skymap",
    "patch_slices",
    "pixels_from_exposure",
    "place_on_patch",
    "predict_disk_bytes",
    "read_overlap",
    "read_visit_psf",
    "refine_legacy_sky_map",
    "refine_sky_map",
    "require_recordable",
    "source_id",
    "stack_exposures",
    "unusable_pixels",
    "visit_calibration_from_summary",
)
