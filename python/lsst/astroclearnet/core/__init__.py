# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of images from plain arrays: torch and numpy only."""

from ._agreement import *
from ._alignment import *
from ._background import *
from ._bank import *
from ._blank_sky import *
from ._cell_noise import *
from ._closure import *
from ._departures import *
from ._depth import *
from ._device import *
from ._error_measure import *
from ._errors import *
from ._estimator import *
from ._exposure_source import *
from ._exposure_stack import *
from ._fit import *
from ._flux_unit import *
from ._forward_model import *
from ._interpolation import *
from ._interpolation_profile import *
from ._kernels import *
from ._latent_grid import *
from ._likelihood import *
from ._linear import *
from ._local_medians import *
from ._local_noise import *
from ._losses import *
from ._mosaic import *
from ._native_sampling import *
from ._network import *
from ._noise_model import *
from ._options import *
from ._own_noise import *
from ._parts import *
from ._plain_arrays import *
from ._plan import *
from ._point_information import *
from ._positions import *
from ._psf_stamps import *
from ._rejection import *
from ._resampling import *
from ._restore import *
from ._restore_exposures import *
from ._result import *
from ._samples import *
from ._sampling import *
from ._smooth_light import *
from ._solves import *
from ._star_image import *
from ._target_psf import *
from ._tile_restorer import *
from ._tiling import *
from ._uncertainty import *
from ._white_noise import *
