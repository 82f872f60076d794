# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pixels of visit images that a patch needs, as arrays of the core."""

from ._patch_source import PatchSource, pad_to_common_size, stack_exposures
from ._scratch import Scratch
from ._visit_cutout import PatchExposure, VisitCutout

__all__ = (
    "PatchExposure",
    "PatchSource",
    "Scratch",
    "VisitCutout",
    "pad_to_common_size",
    "stack_exposures",
)
