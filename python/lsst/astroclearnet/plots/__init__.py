# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of restored images.

Arrays in, `matplotlib.figure.Figure` out; nothing here touches the state of
pyplot.
"""

from ._color import *
from ._color_magnitude import *
from ._comparison import *
from ._completeness import *
from ._demand import *
from ._display import *
from ._restoration import *
from ._training import *
from ._verdict_map import *
