# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images: from handles to calibrated pixels."""

# Piff models of stored images are made readable, and harmless, on import.
from . import _piff_compat as _piff_compat
from ._calibration import (
    SUBTRACTED_BACKGROUND,
    VisitCalibration,
    adjust_background,
    convert_to_njy,
    recalibrate,
    require_psf,
)
from ._components import VisitComponents, read_visit_psf
from ._handles import ImageHandle, VisitImageSource, read_overlap, read_visit_image, source_id
from ._legacy import (
    background_image_from_legacy,
    visit_calibration_from_summary,
    visit_image_from_exposure,
    visit_image_from_warp,
)
from ._mask_planes import (
    DEFAULT_EXCLUDED_PLANES,
    DEFAULT_MASK_TREATMENTS,
    MaskTable,
    mask_of_planes,
)
from ._sources import WARP_DETECTOR, DirectWarpSource, RecalibratedSource

__all__ = (
    "DEFAULT_EXCLUDED_PLANES",
    "DEFAULT_MASK_TREATMENTS",
    "SUBTRACTED_BACKGROUND",
    "WARP_DETECTOR",
    "DirectWarpSource",
    "ImageHandle",
    "MaskTable",
    "RecalibratedSource",
    "VisitCalibration",
    "VisitComponents",
    "VisitImageSource",
    "adjust_background",
    "background_image_from_legacy",
    "convert_to_njy",
    "mask_of_planes",
    "read_overlap",
    "read_visit_image",
    "read_visit_psf",
    "recalibrate",
    "require_psf",
    "source_id",
    "visit_calibration_from_summary",
    "visit_image_from_exposure",
    "visit_image_from_warp",
)
