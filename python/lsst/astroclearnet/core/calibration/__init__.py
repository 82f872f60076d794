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
from ._calibration import Agreement, reach_agreement
from ._offsets import Contradictions, Departures, find_contradictions, measure_departures

__all__ = (
    "Agreement",
    "BackgroundDifferences",
    "Contradictions",
    "Departures",
    "SkyNoise",
    "find_contradictions",
    "fit_background_differences",
    "log_sky_noise",
    "measure_departures",
    "measure_sky_noise",
    "reach_agreement",
)
