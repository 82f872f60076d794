# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated surveys: a sky, its exposures, and a repository with both."""

from ._artefacts import *
from ._deep_coadd import *
from ._direct_warp import *
from ._fast_drawing import *
from ._injection import *
from ._injection_catalogue import *
from ._instrument import *
from ._observe import *
from ._options import *
from ._projection import *
from ._psf import *
from ._rendering import *
from ._sources import *
from ._survey import *
from ._visits import *
