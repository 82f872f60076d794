# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Plain ways to combine exposures, as references for the restoration."""

from ._coadd import *
from ._deep_image_prior import *
from ._image_mm import *
from ._linear_restorers import *
from ._psf_matched import *
from ._published import *
from ._restorer import *
from ._richardson_lucy import *
