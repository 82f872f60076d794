# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which exposures made each cell of a coadd."""

from __future__ import annotations

__all__ = ("CellContributions", "make_provenance", "record_provenance", "require_recordable")

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lsst.images import Polygon
from lsst.images.cells import CellGrid, CellIJ, CoaddProvenance

from ..core import fwhm_to_sigma, information_shares, kernel_fwhm, point_source_information
from ._exposure_id import ExposureId, UnusableExposureError
from ._patch_geometry import PatchGeometry, crop_to_patch, patch_slices
from ._visit_image import CoregisteredExposure


class ContributingExposure(Protocol):
    """What the provenance says of an exposure."""

    @property
    def identity(self) -> ExposureId:
        """Which visit image (`ExposureId`)."""

    @property
    def polygon(self) -> Polygon:
        """Part of the patch that it covers, in tract pixels
        (`lsst.images.Polygon`).
        """

    @property
    def mean_psf(self) -> np.ndarray:
        """Mean PSF over the patch, of shape (P, P)."""


@dataclasses.dataclass(frozen=True)
class CellContributions:
    """What each exposure gives to each cell.

    Attributes
    ----------
    grid
        The cells.
    information
        Shape (n, cells_y, cells_x), float64, Fisher information about the
        flux of a faint point source, in 1 / nJy^2.
    overlap
        The same shape, share of the pixels that the exposure covers.
    unmasked
        The same shape, share of the pixels in which it is used.
    center
        The same shape, bool, whether it covers the middle.
    """

    grid: CellGrid
    information: np.ndarray
    overlap: np.ndarray
    unmasked: np.ndarray
    center: np.ndarray

    @classmethod
    def empty(cls, grid: CellGrid, num_exposures: int) -> CellContributions:
        """Return contributions of nothing.

        Parameters
        ----------
        grid
            The cells.
        num_exposures
            Number of exposures.

        Returns
        -------
        contributions : `CellContributions`
            Arrays to be filled.
        """
        shape = (num_exposures, grid.grid_size.i, grid.grid_size.j)
        return cls(grid, np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool))

    def add(
        self,
        exposure: int,
        cells: tuple[slice, slice],
        *,
        covered: np.ndarray,
        weights: np.ndarray,
        psfs: np.ndarray,
        offset: tuple[int, int] = (0, 0),
        full_shape: tuple[int, int] | None = None,
    ) -> None:
        """Enter an exposure in a block of cells.

        Parameters
        ----------
        exposure
            Number of the exposure.
        cells
            Indices of the cells along y and x.
        covered
            Shape (h, w), bool, pixels of these cells that it covers.
        weights
            Shape (h, w), inverse variances of the light in these pixels, 0
            where it is not used.
        psfs
            Shape (n_cells_y, n_cells_x, P, P), its PSFs over a region that
            holds them.
        offset
            Row and column of the first of the pixels in that region.
        full_shape
            Height and width of that region in pixels; the cells by default.
        """
        shape = (self.grid.cell_shape.y, self.grid.cell_shape.x)
        rows, columns = (s.stop - s.start for s in cells)

        def blocks(plane: np.ndarray) -> np.ndarray:
            return plane.reshape(rows, shape[0], columns, shape[1])

        place = exposure, *cells
        self.information[place] = point_source_information(
            weights, psfs, shape, offset=offset, full_shape=full_shape
        )
        self.overlap[place] = blocks(covered).mean(axis=(1, 3))
        self.unmasked[place] = blocks(weights > 0).mean(axis=(1, 3))
        self.center[place] = blocks(covered)[:, shape[0] // 2, :, shape[1] // 2]


def require_recordable(identity: ExposureId) -> None:
    """Refuse an exposure whose numbers the provenance of a coadd cannot hold.

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


def record_provenance(
    exposures: Sequence[ContributingExposure],
    contributions: CellContributions,
    missing: frozenset[CellIJ] = frozenset(),
) -> CoaddProvenance:
    """Record which exposures made each cell, and with what weight.

    Parameters
    ----------
    exposures
        The exposures.
    contributions
        What each gives to each cell.
    missing
        Cells without data, which get no rows.

    Returns
    -------
    provenance : `lsst.images.cells.CoaddProvenance`
        Inputs, and contributions to each cell.  The weight of an exposure is
        its share of the Fisher information about the flux of a point source
        limited by the noise of the sky, from
        `lsst.astroclearnet.core.point_source_information`: 0 where it has no
        usable pixel, and of sum 1 over the exposures of a cell.
    """
    inputs = CoaddProvenance.make_empty_input_table(len(exposures))
    share = information_shares(contributions.information)
    present = contributions.overlap > 0
    for cell in missing:
        present[:, cell.i, cell.j] = False
    numbers, cell_i, cell_j = np.nonzero(present)
    table = CoaddProvenance.make_empty_contribution_table(len(numbers))
    moments = np.zeros((len(exposures), 3))
    for n, exposure in enumerate(exposures):
        identity = exposure.identity
        for name in ("instrument", "visit", "detector", "physical_filter", "day_obs"):
            inputs[name][n] = getattr(identity, name)
        inputs["polygon"][n] = exposure.polygon
        moments[n] = _second_moments(exposure.mean_psf)
    for name in ("instrument", "visit", "detector"):
        table[name] = np.asarray(inputs[name])[numbers]
    table["cell_i"] = cell_i
    table["cell_j"] = cell_j
    for name, values in (
        ("overlaps_center", contributions.center),
        ("overlap_fraction", contributions.overlap),
        ("unmasked_fraction", contributions.unmasked),
        ("weight", share),
    ):
        table[name] = values[present]
    for k, name in enumerate(("psf_shape_xx", "psf_shape_yy", "psf_shape_xy")):
        table[name] = moments[numbers, k]
    table["psf_shape_flag"] = False
    return CoaddProvenance(inputs=inputs, contributions=table)


def make_provenance(
    exposures: Sequence[CoregisteredExposure],
    weights: np.ndarray,
    geometry: PatchGeometry,
    missing: frozenset[CellIJ] = frozenset(),
) -> CoaddProvenance:
    """Record the provenance of a coadd of co-registered exposures.

    Parameters
    ----------
    exposures
        The exposures, on a box that holds the patch in its middle.
    weights
        Shape (n, H, W), inverse variances of pixels of the patch, 0 where an
        exposure was not used.
    geometry
        Geometry of the patch.
    missing
        Cells without data, which get no rows.

    Returns
    -------
    provenance : `lsst.images.cells.CoaddProvenance`
        As of `record_provenance`.
    """
    grid = geometry.definition.cells
    contributions = CellContributions.empty(grid, len(exposures))
    every = slice(0, grid.grid_size.i), slice(0, grid.grid_size.j)
    for n, (exposure, weight) in enumerate(zip(exposures, weights, strict=True)):
        shape = exposure.covered.shape
        rows, columns = patch_slices(shape, geometry)
        contributions.add(
            n,
            every,
            covered=crop_to_patch(exposure.covered, geometry),
            weights=weight,
            psfs=exposure.psfs,
            offset=(rows.start, columns.start),
            full_shape=(shape[0], shape[1]),
        )
    return record_provenance(exposures, contributions, missing)


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
