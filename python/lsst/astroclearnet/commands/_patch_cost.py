# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time, memory and disk that a patch takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lsst.images.cells import PatchDefinition

from ..adapters import PatchGeometry, predict_disk_bytes
from ..core import CellLayout, ExposureCutouts, InputError, RestoreOptions, plan_memory

CPU_TIME = 36e-6
"""Seconds of a core for each pixel of the patch and exposure: benchmarks/
scaling.md, for patches of 4200x4200 pixels.  Patches of the demonstration took
22 and 24 microseconds, with 250x250 pixels and with the same in 500x500."""

_CUTOUT_BYTES = 10
"""Bytes of a pixel of a cut-out: image, variance and flags."""

_RESIDENT_SHARE = 0.25
"""Share of the memory of the process up to which exposures are in it."""

_GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class PatchCost:
    """What the restoration of a patch in one band takes.

    Attributes
    ----------
    geometry
        Geometry of the patch.
    num_exposures
        Number of exposures.
    seconds
        Time of one core of a CPU.
    memory
        Peak memory of the process with default options, in bytes.
    num_tiles
        Number of tiles that keep it within the limit; 0 if none do.
    disk
        Size of the coadds in bytes.
    """

    geometry: PatchGeometry
    num_exposures: int
    seconds: float
    memory: float
    num_tiles: int
    disk: float

    @classmethod
    def predict(cls, geometry: PatchGeometry, num_exposures: int, side: float) -> PatchCost:
        """Predict what a patch that exposures cover takes.

        ``side`` is that of a pixel of the exposures in pixels of the patch.
        """
        options = RestoreOptions()
        source = CoveringExposures(geometry.bbox.shape, num_exposures, side)
        try:
            plan = plan_memory(source, options, device="cpu", layout=cell_layout(geometry.definition))
            memory, num_tiles = plan.host_memory, len(plan.grid.tiles)
        except InputError:
            memory, num_tiles = math.nan, 0
        return cls(
            geometry=geometry,
            num_exposures=num_exposures,
            seconds=CPU_TIME * num_exposures * geometry.bbox.area,
            memory=memory,
            num_tiles=num_tiles,
            disk=predict_disk_bytes(
                geometry.definition, num_realizations=options.noise.num_realizations, do_linear=True
            ),
        )

    @property
    def text(self) -> str:
        """The costs, in words."""
        height, width = self.geometry.bbox.shape
        memory = f"{self.memory / _GIB:.1f} GiB in {self.num_tiles} tile(s)"
        if not self.num_tiles:
            memory = f"more than the {RestoreOptions().tiling.max_host_memory:g} GiB of max_host_memory"
        return (
            f"{height}x{width} pixels of {self.geometry.pixel_scale:.4g} arcsec under {self.num_exposures} "
            f"visit images take about {self.seconds / 60.0:.2g} minutes of a core, "
            f"{memory}, and {self.disk / 2**20:.3g} MiB on disk"
        )


def typical_cost(costs: Sequence[PatchCost]) -> PatchCost | None:
    """Return the cost of the patch with the median time; `None` of none."""
    if not costs:
        return None
    order = np.argsort([cost.seconds for cost in costs], kind="stable")
    return costs[order[len(costs) // 2]]


def cell_layout(patch: PatchDefinition) -> CellLayout:
    """Return the cells of a patch."""
    grid = patch.cells
    return CellLayout((grid.cell_shape.y, grid.cell_shape.x), (0, 0), (grid.grid_size.i, grid.grid_size.j))


@dataclasses.dataclass(frozen=True)
class CoveringExposures:
    """Exposures that cover a patch, an `ExposureSource` to be planned for;
    ``side`` is that of their pixels in pixels of the patch.  Beyond its share
    of the memory, among the bands in a process, they are in a file.
    """

    shape: tuple[int, int]
    num_exposures: int
    side: float = 1.0
    num_bands: int = 1

    @property
    def resident_bytes(self) -> int:
        """Memory that the whole exposures take."""
        total = _CUTOUT_BYTES * self.num_exposures * math.prod(self._stacked(self.shape))
        limit = _RESIDENT_SHARE * RestoreOptions().tiling.max_host_memory * _GIB / self.num_bands
        return int(min(limit, total))

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        """Return the shape of the stack in a box."""
        height, width = self._stacked((rows.stop - rows.start, columns.stop - columns.start))
        return self.num_exposures, height, width

    def read(self, rows: slice, columns: slice) -> ExposureCutouts | None:
        """Return no exposures."""
        return None

    def _stacked(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of exposures that cover a box."""
        height, width = (math.ceil(size / self.side) for size in shape)
        return height, width
