# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A patch, restored tile by tile within the memory of the device."""

from ._device import is_out_of_memory, limit_device_memory, make_generator, select_device
from ._memory_plan import MemoryPlan, plan_memory
from ._mosaic import ExposureMaps
from ._restore_exposures import TileCallback, restore_exposures
from ._result import FailedTile, MaskBit, RestorationResult, StackResult
from ._tile_restorer import TileRestorer, TileResult

__all__ = (
    "ExposureMaps",
    "FailedTile",
    "MaskBit",
    "MemoryPlan",
    "RestorationResult",
    "StackResult",
    "TileCallback",
    "TileRestorer",
    "TileResult",
    "is_out_of_memory",
    "limit_device_memory",
    "make_generator",
    "plan_memory",
    "restore_exposures",
    "select_device",
)
