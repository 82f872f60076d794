# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Builders and assertions for tests of the package and of what uses it."""

from ._assertions import *
from ._coadds import *
from ._exposures import *
from ._restorations import *
from ._stand_in_device import *
from ._visit_images import *
