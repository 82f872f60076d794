# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Rejected pixels of a tile, kept until it is restored."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..exposures import Tile
from ..forward import TileData


@dataclasses.dataclass(frozen=True)
class TileOutliers:
    """Rejected pixels of a tile, a bit each.

    Attributes
    ----------
    tile
        The tile.
    origins
        First row and column of the cut-out of each exposure, by its number in
        the patch.
    shape
        Height and width of the cut-outs.
    packed
        Rejected pixels, as `numpy.packbits` packs them.
    """

    tile: Tile
    origins: dict[int, tuple[int, int]]
    shape: tuple[int, int]
    packed: np.ndarray

    @classmethod
    def from_tile(cls, tile_data: TileData, rejected: torch.Tensor) -> TileOutliers:
        """Pack the rejected pixels of a tile.

        Parameters
        ----------
        tile_data
            The tile.
        rejected
            Shape (m, h, w), bool.
        """
        origins = dict(zip(tile_data.exposures.tolist(), tile_data.origins, strict=True))
        height, width = rejected.shape[1:]
        return cls(tile_data.tile, origins, (height, width), np.packbits(rejected.cpu().numpy()))

    def covers(self, tile: Tile) -> bool:
        """Return whether another tile lies within this one.

        Parameters
        ----------
        tile
            The other.
        """
        pairs = ((tile.rows, self.tile.rows), (tile.columns, self.tile.columns))
        return all(outer.start <= inner.start and inner.stop <= outer.stop for inner, outer in pairs)

    def within(self, tile_data: TileData) -> torch.Tensor:
        """Return the rejected pixels of a tile within this one, (m, h, w).

        Parameters
        ----------
        tile_data
            The other tile.
        """
        count = len(self.origins) * self.shape[0] * self.shape[1]
        bits = np.unpackbits(self.packed, count=count).astype(bool)
        rejected = np.zeros(tile_data.stack.good.shape, dtype=bool)
        for here, image in zip(self.origins, bits.reshape(-1, *self.shape), strict=True):
            for k in (tile_data.exposures == here).nonzero()[:, 0].tolist():
                pairs = zip(
                    tile_data.origins[k], self.origins[here], rejected.shape[1:], self.shape, strict=True
                )
                target, source = zip(*(_overlap(*pair) for pair in pairs), strict=True)
                rejected[k][target] = image[source]
        return torch.from_numpy(rejected).to(tile_data.stack.good.device)


def _overlap(to: int, start: int, length: int, available: int) -> tuple[slice, slice]:
    """Return where two ranges of pixels overlap, in each of them."""
    first, last = max(to, start), min(to + length, start + available)
    return slice(first - to, max(first, last) - to), slice(first - start, max(first, last) - start)
