# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What exposures look like, given the sky at the target PSF."""

from ._interpolation import Interpolation
from ._kernel_profile import transfer_function
from ._latent_grid import LatentGrid, LatentSpace
from ._model import ForwardModel
from ._sampling import Sampling
from ._tile_reader import CleanTile, TileData, TileReader, is_covered, psf_fwhms
from ._typical_model import TypicalModel
from ._weight_maps import WEIGHT_FLOOR, WeightMaps, iterate_weight_maps, weight_maps

__all__ = (
    "WEIGHT_FLOOR",
    "CleanTile",
    "ForwardModel",
    "Interpolation",
    "LatentGrid",
    "LatentSpace",
    "Sampling",
    "TileData",
    "TileReader",
    "TypicalModel",
    "WeightMaps",
    "is_covered",
    "iterate_weight_maps",
    "psf_fwhms",
    "transfer_function",
    "weight_maps",
)
