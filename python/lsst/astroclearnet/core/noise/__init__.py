# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variance and correlation of the noise of the images."""

from ._bootstrap import Observation, RepeatedErrors, repeat_bands, repeat_observations
from ._bootstrap_variance import linear_variance, restored_variance
from ._cell_noise import CellLayout, CellNoise
from ._demanded_light import DemandedLight, measure_demanded_light
from ._local_noise import LocalNoise
from ._point_information import information_shares, point_source_information
from ._psf_error_images import PsfErrorImages
from ._star_errors import StarErrors
from ._white_noise import white_noise

__all__ = (
    "CellLayout",
    "CellNoise",
    "DemandedLight",
    "LocalNoise",
    "Observation",
    "PsfErrorImages",
    "RepeatedErrors",
    "StarErrors",
    "information_shares",
    "linear_variance",
    "measure_demanded_light",
    "point_source_information",
    "repeat_bands",
    "repeat_observations",
    "restored_variance",
    "white_noise",
)
