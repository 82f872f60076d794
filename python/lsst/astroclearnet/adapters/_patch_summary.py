# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the exposures say of each pixel of a coadd, tile by tile."""

from __future__ import annotations

__all__ = ("PatchSummary",)

import numpy as np

from lsst.images import Box

from ..core import InputError, Tile
from ._exposure_source import PatchSource
from ._provenance import CellContributions
from ._visit_cutout import VisitCutout


class PatchSummary:
    """Sums over the exposures of a patch, in its outer box.

    It takes the maps of the restoration, as an
    `lsst.astroclearnet.core.ExposureMaps`, and keeps what the coadd and its
    metrics need of them.

    Parameters
    ----------
    source
        The exposures.

    Attributes
    ----------
    num_covering
        Shape (H, W), int16, exposures with a pixel there.
    num_unused
        Shape (H, W), int16, those of them that are not used there.
    counts
        Shape (H, W), int16, those with a mask plane to be propagated, by the
        name of the plane.
    contributions
        What each exposure gives to each cell.
    num_used
        Shape (n,), int64, pixels of the patch in which each is used.
    num_rejected
        Shape (n,), int64, pixels in which others contradict it.
    total_weight
        Shape (n,), float64, sum of its weights over these pixels.
    """

    def __init__(self, source: PatchSource) -> None:
        self._source = source
        shape, number = source.geometry.bbox.shape, source.num_exposures
        planes = source.cutouts[0].planes if source.cutouts else ()
        self.num_covering = np.zeros(shape, dtype=np.int16)
        self.num_unused = np.zeros(shape, dtype=np.int16)
        self.counts = {plane: np.zeros(shape, dtype=np.int16) for plane in planes}
        self.contributions = CellContributions.empty(source.geometry.definition.cells, number)
        self.num_used = np.zeros(number, dtype=np.int64)
        self.num_rejected = np.zeros(number, dtype=np.int64)
        self.total_weight = np.zeros(number)

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        """Take the pixels that a tile owns.

        Parameters
        ----------
        tile
            The tile, of whole cells.
        exposures
            Shape (m,), int64, which exposures are used in the tile.
        weights
            Shape (m, h, w), float32, inverse variances given to them, 0
            where one was not used.
        rejected
            Shape (m, h, w), bool, pixels that other exposures contradict.
        """
        outer = self._source.geometry.bbox
        own = self._source.box(tile.own_rows, tile.own_columns)
        box = outer.intersection(own)
        inside = box.slice_within(own)
        place = box.slice_within(outer)
        index = {int(t): k for k, t in enumerate(exposures)}
        for n, cutout in enumerate(self._source.cutouts):
            if not cutout.touches(box):
                continue
            planes = cutout.planes_on(box)
            covered = planes["covered"]
            if not covered.any():
                continue
            self.num_covering[place] += covered
            for plane, count in self.counts.items():
                count[place] += planes[plane]
            if n not in index:
                self.num_unused[place] += covered
                weight = np.zeros(covered.shape, dtype=np.float32)
            else:
                weight, out = weights[index[n]][inside], rejected[index[n]][inside]
                self.num_unused[place] += covered & (~planes["usable"] | out)
                self.num_rejected[n] += int(out.sum())
            self.num_used[n] += int((weight > 0).sum())
            self.total_weight[n] += float(weight.sum(dtype=float))
            psfs = self._psfs(cutout, tile) if n in index else cutout.mean_psf[None, None]
            self._add_cells(n, psfs, tile, box, covered, weight)

    def _psfs(self, cutout: VisitCutout, tile: Tile) -> np.ndarray:
        """Return PSFs over the region of a tile."""
        try:
            return cutout.psfs_on(self._source.box(tile.rows, tile.columns), max_cells=_PSF_CELLS)
        except InputError:
            # It could be evaluated where the restoration asked for it.
            return cutout.mean_psf[None, None]

    def _add_cells(
        self, n: int, psfs: np.ndarray, tile: Tile, box: Box, covered: np.ndarray, weight: np.ndarray
    ) -> None:
        """Enter an exposure in the cells of a tile."""
        grid, outer = self._source.geometry.definition.cells, self._source.geometry.bbox
        rows, columns = (
            slice((own.start - all_.start) // size, (own.stop - all_.start) // size)
            for own, all_, size in ((box.y, outer.y, grid.cell_shape.y), (box.x, outer.x, grid.cell_shape.x))
        )
        region = self._source.box(tile.rows, tile.columns)
        self.contributions.add(
            n,
            (rows, columns),
            covered=covered,
            weights=weight,
            psfs=psfs,
            offset=(box.y.start - region.y.start, box.x.start - region.x.start),
            full_shape=(region.y.size, region.x.size),
        )


_PSF_CELLS = 3
"""Positions along each side of a tile at which PSFs are taken for weights."""
