# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tiles cover a patch once, and blend without a trace."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.astroclearnet.core import CellLayout, Tile
from lsst.astroclearnet.core.exposures import TileGrid

SHAPE = (532, 641)


@pytest.mark.parametrize("side", [150, 300, 533, 700])
def test_tiles_cover_the_patch_once(side: int) -> None:
    """If it fails, pixels are lost or belong to two tiles."""
    grid = TileGrid.cover(SHAPE, side)
    owners = np.zeros(SHAPE, dtype=int)
    weight = np.zeros(SHAPE)
    for tile in grid.tiles:
        owners[tile.inner_rows, tile.inner_columns] += 1
        weight[tile.rows, tile.columns] += tile.taper(SHAPE)
        assert max(tile.shape) <= side
    assert (owners == 1).all()
    np.testing.assert_allclose(weight, 1.0, atol=1e-6)
    assert (len(grid.tiles) == 1) == (side == 700)


def test_cells_are_not_divided() -> None:
    """If it fails, a cell has two fits, and its provenance is that of one."""
    grid = TileGrid.cover((532, 432), 300, cell_shape=(100, 50), border=(16, 16))
    assert len(grid.tiles) > 4
    for tile in grid.tiles:
        for own, cell, size in ((tile.inner_rows, 100, 532), (tile.inner_columns, 50, 432)):
            assert own.start == 0 or (own.start - 16) % cell == 0
            assert own.stop == size or (own.stop - 16) % cell == 0
    # One cell is the least that a tile can own.
    smallest = TileGrid.cover((532, 432), 128, cell_shape=(100, 50), border=(16, 16))
    assert {(t.inner_rows.start, t.inner_columns.start) for t in smallest.tiles} == {
        (i, j) for i in (0, 116, 216, 316, 416) for j in (0, *range(66, 400, 50))
    }


def test_arrays_of_a_tile_and_what_it_owns() -> None:
    """If it fails, results are put beside their place."""
    tile = TileGrid.cover(SHAPE, 300).tiles[4]
    assert tile.rows.start < tile.inner_rows.start < tile.inner_rows.stop < tile.rows.stop
    patch = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    np.testing.assert_array_equal(
        patch[tile.rows, tile.columns][tile.within], patch[tile.inner_rows, tile.inner_columns]
    )


def test_split_tile_owns_the_same_and_blends_with_its_neighbours() -> None:
    """If it fails, a tile that ran out of memory leaves seams or holes."""
    grid = TileGrid.cover(SHAPE, 400)
    first, *others = grid.tiles
    tiles = [*first.split(SHAPE), *others]
    assert len(tiles) == len(grid.tiles) + 3
    owners = np.zeros(SHAPE, dtype=int)
    weight = np.zeros(SHAPE)
    for tile in tiles:
        owners[tile.inner_rows, tile.inner_columns] += 1
        weight[tile.rows, tile.columns] += tile.taper(SHAPE)
    assert (owners == 1).all()
    np.testing.assert_allclose(weight, 1.0, atol=1e-6)
    assert Tile(slice(0, 90), slice(0, 90), slice(0, 50), slice(0, 50)).split(SHAPE) == []


def test_split_tile_owns_whole_cells() -> None:
    """If it fails, a tile that ran out of memory has no provenance."""
    cells = {"cell_shape": (40, 50), "border": (16, 16)}
    grid = TileGrid.cover((432, 632), 400, **cells)
    pieces = [piece for tile in grid.tiles for piece in tile.split(grid.shape, **cells)]
    assert len(pieces) > len(grid.tiles)
    while pieces:
        for piece in pieces:
            for own, cell, size in ((piece.inner_rows, 40, 432), (piece.inner_columns, 50, 632)):
                assert own.start == 0 or (own.start - 16) % cell == 0
                assert own.stop == size or (own.stop - 16) % cell == 0
                assert own.stop > 16
                assert own.start < size - 16
        pieces = [smaller for piece in pieces for smaller in piece.split(grid.shape, **cells)]


def test_cells_belong_to_one_tile() -> None:
    """If it fails, the noise of a cell is missing or is that of another."""
    layout = CellLayout((100, 50), (16, 20), (5, 12))
    grid = TileGrid.cover((532, 640), 300, cell_shape=layout.cell_shape, border=layout.border)
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for tile in grid.tiles:
        for i, j, rows, columns in layout.cells_of(tile):
            assert (i, j) not in found
            found[i, j] = (tile.rows.start + rows.start, tile.columns.start + columns.start)
            assert (rows.stop - rows.start, columns.stop - columns.start) == (100, 50)
    assert found == {(i, j): (16 + 100 * i, 20 + 50 * j) for i in range(5) for j in range(12)}
