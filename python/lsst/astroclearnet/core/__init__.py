# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of images from plain arrays, without any Rubin package."""

from ._errors import InputError, NoUsableDataError, RestorationError
from ._options import (
    CalibrationOptions,
    DebiasingOptions,
    FitOptions,
    ModelOptions,
    NetworkOptions,
    NoiseOptions,
    RejectionOptions,
    RestoreOptions,
    StarOptions,
    TilingOptions,
    TrainingOptions,
)
from ._restore import restore
from .estimate import (
    FitHistory,
    ProgressCallback,
    RestorationModel,
    SolveStatus,
    TrainedRange,
    gaussian_pair_limit,
    linear_noise,
    linear_psf_residual,
    load_packaged_model,
    psf_fit_scatter,
    suggest_target_fwhm,
)
from .exposures import (
    ExposureCutouts,
    ExposureSource,
    ExposureStack,
    PixelPositions,
    Tile,
    TileGrid,
    find_psf_fault,
    fwhm_to_sigma,
    gaussian_kernel,
    kernel_fwhm,
)
from .joint import JointModel, load_packaged_joint_model
from .noise import CellLayout, CellNoise, information_shares, point_source_information
from .tiles import (
    BandsResult,
    DetectionImage,
    ExposureMaps,
    FailedTile,
    MaskBit,
    MemoryPlan,
    RestorationResult,
    StackResult,
    TileCallback,
    plan_bands_memory,
    plan_memory,
    restore_bands,
    restore_exposures,
    select_device,
)

__all__ = (
    "BandsResult",
    "CalibrationOptions",
    "CellLayout",
    "CellNoise",
    "DebiasingOptions",
    "DetectionImage",
    "ExposureCutouts",
    "ExposureMaps",
    "ExposureSource",
    "ExposureStack",
    "FailedTile",
    "FitHistory",
    "FitOptions",
    "InputError",
    "JointModel",
    "MaskBit",
    "MemoryPlan",
    "ModelOptions",
    "NetworkOptions",
    "NoUsableDataError",
    "NoiseOptions",
    "PixelPositions",
    "ProgressCallback",
    "RejectionOptions",
    "RestorationError",
    "RestorationModel",
    "RestorationResult",
    "RestoreOptions",
    "SolveStatus",
    "StackResult",
    "StarOptions",
    "Tile",
    "TileCallback",
    "TileGrid",
    "TilingOptions",
    "TrainedRange",
    "TrainingOptions",
    "find_psf_fault",
    "fwhm_to_sigma",
    "gaussian_kernel",
    "gaussian_pair_limit",
    "information_shares",
    "kernel_fwhm",
    "linear_noise",
    "linear_psf_residual",
    "load_packaged_joint_model",
    "load_packaged_model",
    "plan_bands_memory",
    "plan_memory",
    "point_source_information",
    "psf_fit_scatter",
    "restore",
    "restore_bands",
    "restore_exposures",
    "select_device",
    "suggest_target_fwhm",
)
