# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Overlapping tiles of a patch, and how their images are blended."""

from __future__ import annotations

__all__ = ("Tile", "TileGrid")

import dataclasses
import math

import numpy as np

OVERLAP = 48
"""Pixels by which a tile overlaps its neighbours: a restored pixel does not
depend visibly on pixels further away."""

_BLENDING = OVERLAP // 2
"""Distance from the border between tiles at which blending ends."""

_LEAST_SIDE = 32
"""Side in pixels below which a tile is not split."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tile of the patch.

    A tile is computed on a box, and owns its inner part: each pixel of the
    patch has one owner, which sets its mask.  Images of neighbouring tiles are
    blended across the border of the pixels that they own.

    Attributes
    ----------
    rows, columns
        The box, in pixels of the patch.
    inner_rows, inner_columns
        The pixels that it owns.
    """

    rows: slice
    columns: slice
    inner_rows: slice
    inner_columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the box in pixels."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def within(self) -> tuple[slice, slice]:
        """Rows and columns of the owned pixels in arrays of the box."""
        return (
            slice(self.inner_rows.start - self.rows.start, self.inner_rows.stop - self.rows.start),
            slice(
                self.inner_columns.start - self.columns.start, self.inner_columns.stop - self.columns.start
            ),
        )

    def taper(self, patch_shape: tuple[int, int]) -> np.ndarray:
        """Return the blending weights of the tile.

        The weights of neighbours add up to 1.

        Parameters
        ----------
        patch_shape
            Height and width of the patch, at whose edges nothing is tapered.

        Returns
        -------
        weight : `numpy.ndarray`
            Shape of the box, float32, from 0 to 1.
        """
        sides = (
            _ramp(box, own, size)
            for box, own, size in zip(
                (self.rows, self.columns), (self.inner_rows, self.inner_columns), patch_shape, strict=True
            )
        )
        rows, columns = sides
        return (rows[:, None] * columns).astype(np.float32)

    def split(
        self,
        patch_shape: tuple[int, int],
        *,
        cell_shape: tuple[int, int] = (1, 1),
        border: tuple[int, int] = (0, 0),
    ) -> list[Tile]:
        """Return smaller tiles that own the same pixels.

        Parameters
        ----------
        patch_shape
            Height and width of the patch.
        cell_shape
            Height and width in pixels of cells, which are not divided.
        border
            Rows and columns of the patch before the first cell, and beyond the
            last.

        Returns
        -------
        tiles : `list` [`Tile`]
            Two or four; none if the tile is too small.
        """
        halves = [
            _halve(own, *sides)
            for own, *sides in zip(
                (self.inner_rows, self.inner_columns), patch_shape, cell_shape, border, strict=True
            )
        ]
        if all(len(half) == 1 for half in halves):
            return []
        return [_padded(rows, columns, patch_shape) for rows in halves[0] for columns in halves[1]]


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """All tiles of a patch.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    tiles
        The tiles, row by row.
    """

    shape: tuple[int, int]
    tiles: tuple[Tile, ...]

    @classmethod
    def cover(
        cls,
        shape: tuple[int, int],
        side: int,
        *,
        cell_shape: tuple[int, int] = (1, 1),
        border: tuple[int, int] = (0, 0),
    ) -> TileGrid:
        """Cover a patch with tiles of nearly equal size.

        Parameters
        ----------
        shape
            Height and width of the patch in pixels.
        side
            Largest side of a box in pixels.
        cell_shape
            Height and width in pixels of cells, which are not divided.
        border
            Rows and columns of the patch before the first cell.

        Returns
        -------
        grid : `TileGrid`
            Tiles that own whole cells, at least one each.
        """
        rows, columns = (_divide(*sides, side) for sides in zip(shape, cell_shape, border, strict=True))
        return cls(shape, tuple(_padded(r, c, shape) for r in rows for c in columns))


def _divide(length: int, cell: int, border: int, side: int) -> list[slice]:
    """Divide one side of a patch between whole cells."""
    if length <= side:
        return [slice(0, length)]
    number_of_cells = max(1, (length - 2 * border) // cell)
    longest = max(side - 2 * OVERLAP, 1)
    for count in range(math.ceil(length / longest), number_of_cells + 1):
        edges = [border + cell * round(k * number_of_cells / count) for k in range(1, count)]
        own = [slice(a, b) for a, b in zip([0, *edges], [*edges, length], strict=True)]
        if max(s.stop - s.start for s in own) <= longest:
            return own
    edges = [border + cell * k for k in range(1, number_of_cells)]
    return [slice(a, b) for a, b in zip([0, *edges], [*edges, length], strict=True)]


def _halve(own: slice, size: int, cell: int, border: int) -> list[slice]:
    """Divide owned pixels at the cell edge nearest to their middle."""
    middle = border + cell * round(((own.start + own.stop) / 2 - border) / cell)
    least, greatest = max(own.start, border), min(own.stop, size - border)
    if own.stop - own.start < 2 * _LEAST_SIDE or not least < middle < greatest:
        return [own]
    return [slice(own.start, middle), slice(middle, own.stop)]


def _padded(rows: slice, columns: slice, shape: tuple[int, int]) -> Tile:
    """Return the tile that owns some pixels."""
    sides = [
        slice(max(own.start - OVERLAP, 0), min(own.stop + OVERLAP, size))
        for own, size in zip((rows, columns), shape, strict=True)
    ]
    return Tile(sides[0], sides[1], rows, columns)


def _ramp(box: slice, own: slice, size: int) -> np.ndarray:
    """Return the blending weight along an axis: a sine, 1/2 at a border."""
    pixels = np.arange(box.start, box.stop) + 0.5
    weight = np.ones(len(pixels))
    for border, inward in ((own.start, 1.0), (own.stop, -1.0)):
        if border in (0, size):
            continue
        distance = np.clip(inward * (pixels - border) / _BLENDING, -1.0, 1.0)
        weight *= 0.5 * (1.0 + np.sin(0.5 * np.pi * distance))
    return weight
