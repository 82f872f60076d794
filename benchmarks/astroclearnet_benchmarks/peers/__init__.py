# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Methods of others, each through the package that its authors released.

None of the packages is needed before `restore` is called.
"""

from ._imcom import *
from ._jolideco import *
from ._starred import *
