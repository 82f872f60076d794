# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A coadd of `lsst.images` as arrays to measure on."""

from __future__ import annotations

__all__ = ("CoaddArrays", "crop_to_box", "place_on_patch", "unusable_pixels")

import dataclasses
from functools import cached_property

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.ndimage import distance_transform_edt

from lsst.images import Box
from lsst.images.cells import CellCoadd, CellIJ

type Array = npt.NDArray[np.float64]

_BAD_PLANES = ("NO_DATA", "SATURATED")

DIRECT_ADVICE = "set do_compare_direct=False, or name another with connections.reference_name."
"""Advice on a direct coadd that cannot be used."""


@dataclasses.dataclass(frozen=True)
class _Cells:
    """Cells that a coadd touches: first index, number, shape in pixels."""

    first: CellIJ
    shape: tuple[int, int]
    cell_shape: tuple[int, int]
    # Rows and columns of the first cell that the coadd leaves out.
    offset: tuple[int, int]


def _find_cells(coadd: CellCoadd) -> _Cells:
    """Return the cells that the box of a coadd touches."""
    grid, box = coadd.psf.bounds.grid, coadd.bbox
    first = grid.index_of(y=box.y.min, x=box.x.min)
    last = grid.index_of(y=box.y.max, x=box.x.max)
    start = grid.bbox_of(first).start
    return _Cells(
        first,
        (last.i - first.i + 1, last.j - first.j + 1),
        (grid.cell_shape.y, grid.cell_shape.x),
        (box.y.start - start.y, box.x.start - start.x),
    )


@dataclasses.dataclass(frozen=True)
class CoaddArrays:
    """A coadd as arrays.

    Attributes
    ----------
    image, variance
        Pixels in nJy and nJy^2, shape (H, W); NaN where they do not count.
    psfs
        PSF of each cell, shape (n_cells_y, n_cells_x, P, P), with unit sum;
        that of the nearest cell with data in those without.
    noise
        Noise realisations, shape (k, H, W); k may be 0.
    cell_shape
        Height and width of the cells in pixels.
    first_cell
        Rows and columns of the first cell that the image leaves out.
    correlation
        Correlation stamps of the noise of each cell, shape (n_cells_y,
        n_cells_x, K, K), if they are known.
    """

    image: Array
    variance: Array
    psfs: Array
    noise: Array
    cell_shape: tuple[int, int]
    first_cell: tuple[int, int] = (0, 0)
    correlation: Array | None = None

    @classmethod
    def from_coadd(
        cls, coadd: CellCoadd, bad: npt.NDArray[np.bool_], noise_table: Table | None = None
    ) -> CoaddArrays:
        """Take the arrays out of a coadd.

        Parameters
        ----------
        coadd
            The coadd, with at least one cell that has data.
        bad
            Pixels to blank, shape (H, W).
        noise_table
            Correlation of its noise by cell, as in the dataset
            ``restored_coadd_linear_noise``.
        """
        image, variance = (np.where(bad, np.nan, plane.array) for plane in (coadd.image, coadd.variance))
        cells = _find_cells(coadd)
        noise = [np.where(bad, np.nan, draw.array) for draw in coadd.noise_realizations]
        return cls(
            image=image,
            variance=variance,
            psfs=_psfs_by_cell(coadd, cells),
            noise=np.array(noise).reshape(-1, *image.shape),
            cell_shape=cells.cell_shape,
            first_cell=cells.offset,
            correlation=None if noise_table is None else _by_cell(noise_table, cells),
        )

    @cached_property
    def psf(self) -> Array:
        """Mean PSF, shape (P, P), with unit sum (`numpy.ndarray`)."""
        return np.asarray(self.psfs.mean(axis=(0, 1)))

    def cells_of(self, x: Array, y: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the cells of positions, along y and x.

        Parameters
        ----------
        x, y
            Positions in pixels, shape (n,); off the patch the nearest cell
            counts.
        """
        height, width = self.cell_shape
        rows, columns, *_ = self.psfs.shape
        top, left = self.first_cell
        i = np.clip((np.rint(y) + top) // height, 0, rows - 1).astype(np.int64)
        j = np.clip((np.rint(x) + left) // width, 0, columns - 1).astype(np.int64)
        return i, j

    def cell_of(self, plane: Array, i: int, j: int) -> Array:
        """Return a view of the pixels of a cell.

        Parameters
        ----------
        plane
            Shape (H, W).
        i, j
            Index of the cell along y and x.
        """
        rows, columns = (
            slice(max(0, index * size - offset), (index + 1) * size - offset)
            for index, size, offset in zip((i, j), self.cell_shape, self.first_cell, strict=True)
        )
        return plane[rows, columns]

    def correlation_at(self, x: Array, y: Array) -> Array | None:
        """Return the correlation of the noise, shape (n, K, K), if known.

        Parameters
        ----------
        x, y
            Positions, as of `cells_of`.
        """
        if self.correlation is None:
            return None
        i, j = self.cells_of(x, y)
        return self.correlation[i, j]


def unusable_pixels(coadd: CellCoadd) -> npt.NDArray[np.bool_]:
    """Return the pixels without a value, without data or saturated.

    Parameters
    ----------
    coadd
        The coadd.
    """
    bad = ~np.isfinite(coadd.image.array)
    for plane in _BAD_PLANES:
        if plane in coadd.mask.schema.names:
            bad |= coadd.mask.get(plane)
    return np.asarray(bad)


def crop_to_box(coadd: CellCoadd, bbox: Box) -> CellCoadd:
    """Return a view of a coadd in the box of a patch.

    Parameters
    ----------
    coadd
        The coadd to cut, in nJy.
    bbox
        The box, in pixels of the tract.

    Raises
    ------
    ValueError
        If the unit of ``coadd`` is not nJy, or it does not cover the box.
    """
    if coadd.unit != u.nJy:
        raise ValueError(
            f"The direct coadd in {coadd.band} has the unit {coadd.unit}, not nJy: {DIRECT_ADVICE}"
        )
    if coadd.bbox == bbox:
        return coadd
    if coadd.bbox.intersection(bbox) != bbox:
        raise ValueError(
            f"The direct coadd in {coadd.band} covers {coadd.bbox}, and not all of {bbox} of the restored "
            f"one: {DIRECT_ADVICE}"
        )
    return coadd[bbox]


def place_on_patch(coadd: CellCoadd, reference: CellCoadd, bad: npt.NDArray[np.bool_]) -> CoaddArrays | None:
    """Return the arrays of a coadd in the box of another one of its tract.

    They are NaN where either has no usable pixel; `None` if none is left.

    Parameters
    ----------
    coadd
        The coadd, in nJy.
    reference
        The one whose box the arrays cover.
    bad
        Pixels to blank, shape (H, W) of ``reference``.

    Raises
    ------
    ValueError
        If the unit of ``coadd`` is not nJy, or it does not cover the box.
    """
    coadd = crop_to_box(coadd, reference.bbox)
    all_bad = bad | unusable_pixels(coadd)
    return None if all_bad.all() else CoaddArrays.from_coadd(coadd, all_bad)


def _psfs_by_cell(coadd: CellCoadd, cells: _Cells) -> Array:
    """Return the PSF of each cell, from the nearest one where it has none."""
    bounds = coadd.psf.bounds
    stamps = {}
    known = np.zeros(cells.shape, dtype=bool)
    for i, j in np.ndindex(cells.shape):
        index = CellIJ(i=cells.first.i + i, j=cells.first.j + j)
        if index not in bounds.missing:
            known[i, j] = True
            box = bounds.grid.bbox_of(index).intersection(coadd.bbox)
            kernel = coadd.psf.compute_kernel_image(x=box.x.center, y=box.y.center).array.astype(float)
            stamps[i, j] = kernel / kernel.sum()
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    nearest = np.array([stamps[i, j] for i, j in zip(rows.flat, columns.flat, strict=True)])
    return nearest.reshape(*cells.shape, *nearest.shape[1:])


def _by_cell(table: Table, cells: _Cells) -> Array:
    """Arrange correlation stamps as a grid; white noise in empty cells."""
    stamps = np.asarray(table["correlation"])
    middle = stamps.shape[-1] // 2
    correlation = np.zeros((*cells.shape, *stamps.shape[1:]))
    correlation[:, :, middle, middle] = 1.0
    i = np.asarray(table["cell_i"], dtype=int) - cells.first.i
    j = np.asarray(table["cell_j"], dtype=int) - cells.first.j
    inside = (i >= 0) & (i < cells.shape[0]) & (j >= 0) & (j < cells.shape[1])
    inside &= stamps[:, middle, middle] > 0
    correlation[i[inside], j[inside]] = stamps[inside]
    return correlation
