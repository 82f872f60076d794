# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Write Butler repositories: records, sky map geometry, visit images."""

from ._footprints import *
from ._map_formatter import *
from ._names import *
from ._records import *
from ._visit_images import *
from ._visit_record import *
