# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Correlation of the noise of the linear image by cell."""

from __future__ import annotations

__all__ = ("CellLayout", "CellNoise")

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from ..exposures import Tile

_DEFAULT_CELL = 50
"""Side in pixels of cells where none are given."""

STAMP_RADIUS = 15
"""Largest separation, in pixels, of correlated noise."""


@dataclasses.dataclass(frozen=True)
class CellLayout:
    """A regular grid of cells on a patch.

    Attributes
    ----------
    cell_shape
        Height and width of a cell in pixels.
    border
        Rows and columns of the patch before the first cell.
    number
        Number of cells along rows (y) and columns (x).
    """

    cell_shape: tuple[int, int]
    border: tuple[int, int]
    number: tuple[int, int]

    @classmethod
    def of_shape(cls, shape: tuple[int, int]) -> CellLayout:
        """Return cells of 50 pixels that cover a patch, and may reach beyond.

        Parameters
        ----------
        shape
            Height and width of the patch in pixels.
        """
        rows, columns = (math.ceil(size / _DEFAULT_CELL) for size in shape)
        return cls((_DEFAULT_CELL, _DEFAULT_CELL), (0, 0), (rows, columns))

    def cells_of(self, tile: Tile) -> Iterator[tuple[int, int, slice, slice]]:
        """Yield the cells whose first pixel a tile owns.

        Parameters
        ----------
        tile
            The tile.

        Yields
        ------
        i, j : `int`
            Indices of the cell along y and x.
        rows, columns : `slice`
            Its pixels in arrays of the tile.
        """
        axes = []
        for size, border, number, box, own in zip(
            self.cell_shape,
            self.border,
            self.number,
            (tile.rows, tile.columns),
            (tile.inner_rows, tile.inner_columns),
            strict=True,
        ):
            found = []
            for k in range(number):
                start = border + k * size
                if own.start <= start < own.stop:
                    found.append((k, slice(start - box.start, min(start + size, box.stop) - box.start)))
            axes.append(found)
        for i, rows in axes[0]:
            for j, columns in axes[1]:
                yield i, j, rows, columns


@dataclasses.dataclass(frozen=True)
class CellNoise:
    """Correlation of the noise of neighbouring pixels in each cell.

    Attributes
    ----------
    layout
        The cells.
    stamps
        Shape (cells_y, cells_x, 31, 31), float32, correlation coefficients by
        the separation of two pixels, 1 in the middle; 0 for a cell without
        data.
    """

    layout: CellLayout
    stamps: np.ndarray

    @classmethod
    def empty(cls, layout: CellLayout) -> CellNoise:
        """Return stamps of 0, to be filled.

        Parameters
        ----------
        layout
            The cells.
        """
        size = 2 * STAMP_RADIUS + 1
        return cls(layout, np.zeros((*layout.number, size, size), dtype=np.float32))

    def correlation(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the correlation in a box, (31, 31), float32.

        It is the mean of its cells, by the area it has in them, and 0 without
        data.

        Parameters
        ----------
        rows, columns
            The box, slices with a start and a stop.
        """
        shares = []
        for box, size, border, number in zip(
            (rows, columns), self.layout.cell_shape, self.layout.border, self.layout.number, strict=True
        ):
            start = border + size * np.arange(number)
            shares.append(np.clip(np.minimum(start + size, box.stop) - np.maximum(start, box.start), 0, None))
        weight = np.outer(*shares) * (self.stamps[:, :, STAMP_RADIUS, STAMP_RADIUS] > 0)
        total = float(weight.sum())
        if not total:
            return np.zeros(self.stamps.shape[2:], dtype=np.float32)
        mean: np.ndarray = np.tensordot(weight / total, self.stamps, axes=2).astype(np.float32)
        return mean
