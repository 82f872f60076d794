# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Predicted memory use, and the tiles that keep it below the limits."""

from __future__ import annotations

__all__ = ("MemoryPlan", "plan_bands_memory", "plan_memory")

import dataclasses
import math
from collections.abc import Mapping, Sequence

from .._errors import InputError
from .._options import RestoreOptions, TilingOptions
from ..exposures import OVERLAP, ExposureSource, Tile, TileGrid
from ..noise import CellLayout

_GIB = 2.0**30

_LEAST_TILE = 2 * OVERLAP + 32
"""Side in pixels of the smallest tiles."""

_STEP = 0.85
"""Ratio of the sides of tiles that are tried."""

# Measured on a CPU: peaks of memory are 0.76 to 0.86 of the prediction between
# 400x400 pixels with 8 exposures and 1000x1000, or 400x400 with 24, 0.88 for
# 800x800 with 115, and 0.96 to 1.00 for 600x600 with 41 to 60 detector images.
_LIBRARIES = 1.0 * _GIB
"""Bytes of the interpreter and the libraries."""

_CUDA_LIBRARIES = 2.5 * _GIB
"""Bytes that CUDA adds to that on the host."""

_PLANES = 100.0
"""Bytes per pixel of the patch for the planes of the result and the images
that are written: 95 were measured for 4200x4200 pixels."""

_REALIZATION = 8.0
"""Bytes per pixel of the patch and noise realisation."""

_CUTOUT = 40.0
"""Bytes per stacked pixel of a tile, for reading."""

_MARGIN = 20
"""Pixels by which the latent image extends beyond the tile."""

_LATENT = 1050.0
"""Bytes per pixel of the latent image of a tile."""

_LATENT_DRAW = 32.0
"""Bytes per such pixel and noise draw."""

_JOINT = 800.0
"""Bytes per pixel of the latent image for the guided bank of a band and the
layers of the joint network."""

_OTHER_BAND = 52.0
"""Bytes per such pixel for what the network sees of each other band."""

_WHITE_DRAW = 16.0
"""Bytes per such pixel and noise draw for the detection image of bands."""

_EXPOSURE = 75.0
"""Bytes per such pixel and exposure, or per stacked pixel if there are more:
cut-outs of rotated detectors have twice the area of a tile."""

_INTERPOLATION = 24.0
"""The same for its interpolation: first tap, offsets
and scale, and on a GPU the order of its pixels and the starts of bins."""

_COEFFICIENTS = 12.0
"""The same for the coefficients of a varying PSF, of
up to three components."""


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Tiles of a patch and their memory use.

    Attributes
    ----------
    grid
        The tiles.
    max_exposures
        Largest number of exposures in a tile.
    host_memory
        Peak memory of the process in bytes.
    device_memory
        Peak memory on the GPU in bytes; 0 without one.
    cells
        Cells that are not divided, if there are any.
    """

    grid: TileGrid
    max_exposures: int
    host_memory: float
    device_memory: float
    cells: CellLayout | None = None

    def split(self, tile: Tile) -> list[Tile]:
        """Return smaller tiles that own the pixels of a tile.

        Parameters
        ----------
        tile
            A tile.

        Returns
        -------
        tiles : `list` [`Tile`]
            The tiles; the given one if it cannot be split.
        """
        cells = self.cells
        limits = {} if cells is None else {"cell_shape": cells.cell_shape, "border": cells.border}
        return tile.split(self.grid.shape, **limits) or [tile]

    def __str__(self) -> str:
        device = f", {self.device_memory / _GIB:.1f} GiB device" if self.device_memory else ""
        height, width = (max(t.shape[axis] for t in self.grid.tiles) for axis in (0, 1))
        return (
            f"{len(self.grid.tiles)} tile(s) of up to {height}x{width} pixels and {self.max_exposures} "
            f"exposures, {self.host_memory / _GIB:.1f} GiB host{device}"
        )


def plan_memory(
    source: ExposureSource, options: RestoreOptions, *, device: str, layout: CellLayout | None = None
) -> MemoryPlan:
    """Choose the largest tiles that fit into the memory limits.

    The choice depends on exposures and options alone, so that the same inputs
    give the same tiles on any machine.

    Parameters
    ----------
    source
        The exposures.
    options
        Settings with the limits.
    device
        Kind of the device, ``"cpu"`` or ``"cuda"``.
    layout
        Cells that are not divided.

    Returns
    -------
    plan : `MemoryPlan`
        The tiles.

    Raises
    ------
    InputError
        If not even the smallest tiles fit.
    """
    return _plan([source], options, device, layout)


def plan_bands_memory(
    sources: Mapping[str, ExposureSource],
    options: RestoreOptions,
    *,
    device: str,
    layout: CellLayout | None = None,
) -> MemoryPlan:
    """Choose the largest tiles that fit if all bands are restored together.

    Parameters
    ----------
    sources
        The exposures of each band, of patches of the same shape.
    options
        Settings with the limits.
    device
        Kind of the device, ``"cpu"`` or ``"cuda"``.
    layout
        Cells that are not divided.

    Returns
    -------
    plan : `MemoryPlan`
        The tiles, as of `plan_memory`.

    Raises
    ------
    InputError
        If not even the smallest tiles fit.
    """
    return _plan([sources[name] for name in sorted(sources)], options, device, layout)


def _plan(
    sources: Sequence[ExposureSource], options: RestoreOptions, device: str, layout: CellLayout | None
) -> MemoryPlan:
    """Choose the largest tiles that fit into the memory limits."""
    limits, shape = options.tiling, sources[0].shape
    cells = layout if layout is not None else CellLayout((1, 1), (0, 0), shape)
    side = float(min(limits.max_tile_size, max(shape)))
    while True:
        grid = TileGrid.cover(shape, round(side), cell_shape=cells.cell_shape, border=cells.border)
        plan = _predict(grid, sources, options, device)
        if _fits(plan, limits):
            return dataclasses.replace(plan, cells=layout)
        if side <= _LEAST_TILE:
            raise InputError(
                f"A patch of {shape[0]}x{shape[1]} pixels needs {plan} at least: raise "
                f"max_host_memory={limits.max_host_memory} or max_device_memory={limits.max_device_memory}.",
                host_memory=plan.host_memory,
                device_memory=plan.device_memory,
            )
        side = max(side * _STEP, _LEAST_TILE)


def _fits(plan: MemoryPlan, limits: TilingOptions) -> bool:
    return (
        plan.host_memory <= limits.max_host_memory * _GIB
        and plan.device_memory <= limits.max_device_memory * _GIB
    )


def _predict(
    grid: TileGrid, sources: Sequence[ExposureSource], options: RestoreOptions, device: str
) -> MemoryPlan:
    extents = [[source.extent(tile.rows, tile.columns) for source in sources] for tile in grid.tiles]
    working = max(
        sum(_working_bytes(tile, *extent, options) for extent in each)
        + _joint_bytes(tile, len(sources), options)
        for tile, each in zip(grid.tiles, extents, strict=True)
    )
    cutouts = max(_CUTOUT * math.prod(extent) for each in extents for extent in each)
    most = max(sum(number for number, *_ in each) for each in extents)
    height, width = grid.shape
    # The detection image of several bands has planes as a band has.
    number = len(sources) + (len(sources) > 1)
    planes = number * height * width * (_PLANES + _REALIZATION * options.noise.num_realizations)
    host = _LIBRARIES + sum(source.resident_bytes for source in sources) + planes + cutouts
    if device == "cpu":
        return MemoryPlan(grid, most, host + working, 0.0)
    return MemoryPlan(grid, most, host + _CUDA_LIBRARIES, working)


def _joint_bytes(tile: Tile, num_bands: int, options: RestoreOptions) -> float:
    """Return the memory of the joint network, which has a band at a time, and
    of the detection image.
    """
    if num_bands == 1:
        return 0.0
    per_pixel = _JOINT + _OTHER_BAND * (num_bands - 1) + _WHITE_DRAW * options.noise.num_draws
    return per_pixel * math.prod(size + 2 * _MARGIN for size in tile.shape)


def _working_bytes(tile: Tile, number: int, height: int, width: int, options: RestoreOptions) -> float:
    """Return the memory of a tile's computation on its device."""
    latent = math.prod(size + 2 * _MARGIN for size in tile.shape)
    stacked = max(latent, (height + 2 * _MARGIN) * (width + 2 * _MARGIN)) * number
    per_pixel = _LATENT + _LATENT_DRAW * options.noise.num_draws
    return latent * per_pixel + stacked * (_EXPOSURE + _INTERPOLATION + _COEFFICIENTS)
