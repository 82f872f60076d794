# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quality of a coadd against a truth or against its own noise.

Arrays in, floats, flat dictionaries or astropy tables out.  Positions are
0-based pixel coordinates of the array they come with; bad pixels are NaN in
the image.
"""

from ._correlated_noise import *
from ._detection import *
from ._injections import *
from ._noise import *
from ._patch import *
from ._photometry import *
from ._sky_maps import *
from ._star_statistics import *
from ._widths import *
