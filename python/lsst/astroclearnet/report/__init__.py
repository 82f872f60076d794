# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Static report of a collection, to be read in a browser without a network."""

from ._bands import *
from ._contents import *
from ._pages import *
