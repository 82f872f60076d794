# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sums over the exposures of each pixel and cell of a coadd."""

from __future__ import annotations

__all__ = ("PatchSummary", "require_recordable")

import dataclasses

import numpy as np

from lsst.images import Box
from lsst.images.cells import CellGrid, CellIJ, CoaddProvenance

from ...core import (
    InputError,
    Tile,
    fwhm_to_sigma,
    information_shares,
    kernel_fwhm,
    point_source_information,
)
from .._exposure_id import ExposureId, UnusableExposureError
from ..cutout import PatchSource, VisitCutout

_PSF_CELLS = 3
"""Positions along each side of a tile at which PSFs are taken for weights."""


@dataclasses.dataclass(frozen=True)
class _Contributions:
    """Contribution of each exposure to each cell, (n, cells_y, cells_x)."""

    # Fisher information about the flux of a faint point source, 1 / nJy^2.
    information: np.ndarray
    # Shares of the pixels that are covered and used.
    overlap: np.ndarray
    unmasked: np.ndarray
    # Whether the central pixel is covered.
    center: np.ndarray


class PatchSummary:
    """Sums over the exposures of a patch, in its outer box.

    It takes the maps of the restoration, as an
    `lsst.astroclearnet.core.ExposureMaps`.

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
        Contribution of each exposure to each cell.
    num_used
        Shape (n,), int64, pixels of the patch in which each is used.
    num_rejected
        Shape (n,), int64, pixels in which it is rejected.
    total_weight
        Shape (n,), float64, sum of its weights over the pixels it is used in.
    """

    def __init__(self, source: PatchSource) -> None:
        self._source = source
        shape, number = source.geometry.bbox.shape, source.num_exposures
        planes = source.cutouts[0].planes if source.cutouts else ()
        self.num_covering = np.zeros(shape, dtype=np.int16)
        self.num_unused = np.zeros(shape, dtype=np.int16)
        self.counts = {plane: np.zeros(shape, dtype=np.int16) for plane in planes}
        self.num_used = np.zeros(number, dtype=np.int64)
        self.num_rejected = np.zeros(number, dtype=np.int64)
        self.total_weight = np.zeros(number)
        cells = (number, self._grid.grid_size.i, self._grid.grid_size.j)
        self.contributions = _Contributions(
            information=np.zeros(cells),
            overlap=np.zeros(cells),
            unmasked=np.zeros(cells),
            center=np.zeros(cells, dtype=bool),
        )

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        """Add the pixels that a tile owns.

        Parameters
        ----------
        tile
            The tile, of whole cells.
        exposures
            Shape (m,), int64, which exposures are used in the tile.
        weights
            Shape (m, h, w), float32, inverse variances; 0 where not used.
        rejected
            Shape (m, h, w), bool, pixels that are rejected.
        """
        outer = self._source.geometry.bbox
        own = self._source.box(tile.inner_rows, tile.inner_columns)
        box = outer.intersection(own)
        inside = box.slice_within(own)
        place = box.slice_within(outer)
        index = {int(t): k for k, t in enumerate(exposures)}
        for n, cutout in enumerate(self._source.cutouts):
            if cutout.overlap(box) is None:
                continue
            planes = cutout.planes_within(box)
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

    @property
    def _grid(self) -> CellGrid:
        return self._source.geometry.definition.cells

    def _psfs(self, cutout: VisitCutout, tile: Tile) -> np.ndarray:
        """Return PSFs over all pixels of a tile."""
        try:
            return cutout.psfs_within(self._source.box(tile.rows, tile.columns), max_cells=_PSF_CELLS)
        except InputError:
            # It could be evaluated where the restoration asked for it.
            return cutout.mean_psf[None, None]

    def _add_cells(
        self, n: int, psfs: np.ndarray, tile: Tile, box: Box, covered: np.ndarray, weight: np.ndarray
    ) -> None:
        """Enter an exposure in the cells of a tile."""
        outer, shape = self._source.geometry.bbox, (self._grid.cell_shape.y, self._grid.cell_shape.x)
        rows, columns = (
            slice((own.start - whole.start) // size, (own.stop - whole.start) // size)
            for own, whole, size in zip((box.y, box.x), (outer.y, outer.x), shape, strict=True)
        )

        def blocks(plane: np.ndarray) -> np.ndarray:
            return plane.reshape(rows.stop - rows.start, shape[0], columns.stop - columns.start, shape[1])

        tile_box = self._source.box(tile.rows, tile.columns)
        place, to = (n, rows, columns), self.contributions
        to.information[place] = point_source_information(
            weight,
            psfs,
            shape,
            offset=(box.y.start - tile_box.y.start, box.x.start - tile_box.x.start),
            full_shape=(tile_box.y.size, tile_box.x.size),
        )
        to.overlap[place] = blocks(covered).mean(axis=(1, 3))
        to.unmasked[place] = blocks(weight > 0).mean(axis=(1, 3))
        to.center[place] = blocks(covered)[:, shape[0] // 2, :, shape[1] // 2]

    def make_provenance(self, missing: frozenset[CellIJ] = frozenset()) -> CoaddProvenance:
        """Record which exposures made each cell, and with what weight.

        The weight is the share of the Fisher information about the flux of a
        sky-limited point source
        (`lsst.astroclearnet.core.point_source_information`).

        Parameters
        ----------
        missing
            Cells without data, which get no rows.
        """
        cutouts, contributions = self._source.cutouts, self.contributions
        inputs = CoaddProvenance.make_empty_input_table(len(cutouts))
        present = contributions.overlap > 0
        for cell in missing:
            present[:, cell.i, cell.j] = False
        numbers, cell_i, cell_j = np.nonzero(present)
        table = CoaddProvenance.make_empty_contribution_table(len(numbers))
        moments = np.zeros((len(cutouts), 3))
        for n, cutout in enumerate(cutouts):
            for name in ("instrument", "visit", "detector", "physical_filter", "day_obs"):
                inputs[name][n] = getattr(cutout.identity, name)
            inputs["polygon"][n] = cutout.polygon
            moments[n] = _second_moments(cutout.mean_psf)
        for name in ("instrument", "visit", "detector"):
            table[name] = np.asarray(inputs[name])[numbers]
        table["cell_i"] = cell_i
        table["cell_j"] = cell_j
        for name, values in (
            ("overlaps_center", contributions.center),
            ("overlap_fraction", contributions.overlap),
            ("unmasked_fraction", contributions.unmasked),
            ("weight", information_shares(contributions.information)),
        ):
            table[name] = values[present]
        for k, name in enumerate(("psf_shape_xx", "psf_shape_yy", "psf_shape_xy")):
            table[name] = moments[numbers, k]
        table["psf_shape_flag"] = False
        return CoaddProvenance(inputs=inputs, contributions=table)


def require_recordable(identity: ExposureId) -> None:
    """Refuse an exposure whose IDs the provenance of a coadd cannot hold.

    Parameters
    ----------
    identity
        Which exposure.

    Raises
    ------
    UnusableExposureError
        With reason ``bad_identity``.
    """
    table = CoaddProvenance.make_empty_input_table(0)
    for name in ("visit", "detector"):
        limits, value = np.iinfo(table[name].dtype), getattr(identity, name)
        if not limits.min <= value <= limits.max:
            raise UnusableExposureError(
                "bad_identity",
                f"Its {name} is {value}; the provenance of a coadd holds {limits.min} to {limits.max}.",
            )


def _second_moments(psf: np.ndarray) -> tuple[float, float, float]:
    """Return (xx, yy, xy) with a Gaussian weight matched in area."""
    r = np.arange(psf.shape[-1]) - psf.shape[-1] // 2
    y, x = np.meshgrid(r, r, indexing="ij")
    sigma = fwhm_to_sigma(kernel_fwhm(psf))
    weighted = psf * np.exp(-(x**2 + y**2) / (2.0 * sigma**2))
    weighted = weighted / weighted.sum()
    # A Gaussian under a weight of its own size shows half its moments.
    xx, yy, xy = (2.0 * float((weighted * m).sum()) for m in (x * x, y * y, x * y))
    return xx, yy, xy
