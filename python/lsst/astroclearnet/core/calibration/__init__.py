# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Relative backgrounds, flux scales, positions and PSFs of exposures."""

from ._background import BackgroundDifferences, fit_background_differences
from ._blank_sky import SkyNoise, log_sky_noise, measure_sky_noise
from ._calibration import ExposureCalibration, calibrate_exposures
from ._offsets import ExposureOffsets, OutlierExposures, find_outlier_exposures, measure_offsets

__all__ = (
    "BackgroundDifferences",
    "ExposureCalibration",
    "ExposureOffsets",
    "OutlierExposures",
    "SkyNoise",
    "calibrate_exposures",
    "find_outlier_exposures",
    "fit_background_differences",
    "log_sky_noise",
    "measure_offsets",
    "measure_sky_noise",
)
