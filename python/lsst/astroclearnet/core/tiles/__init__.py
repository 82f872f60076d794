# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of a patch tile by tile, within the memory limits."""

from ._bright_stars import BrightStars
from ._detection import DetectionImage
from ._device import make_generator, select_device
from ._memory_plan import MemoryPlan, plan_bands_memory, plan_memory
from ._mosaic import ExposureMaps
from ._restore_bands import BandsResult, restore_bands
from ._restore_exposures import TileCallback, restore_exposures
from ._result import FailedTile, MaskBit, RestorationResult, StackResult

__all__ = (
    "BandsResult",
    "BrightStars",
    "DetectionImage",
    "ExposureMaps",
    "FailedTile",
    "MaskBit",
    "MemoryPlan",
    "RestorationResult",
    "StackResult",
    "TileCallback",
    "make_generator",
    "plan_bands_memory",
    "plan_memory",
    "restore_bands",
    "restore_exposures",
    "select_device",
)
