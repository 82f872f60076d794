# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogues of sources from restored coadds.

Arrays in, arrays and astropy tables out.  Sources are detected on the
denoised images of all bands together and measured on the linear ones, with
the covariance of their noise.  Positions are 0-based pixel coordinates of the
arrays.
"""

from ._band_images import *
from ._columns import *
from ._objects import *
from ._peaks import *
from ._point_sources import *
from ._profiles import *
