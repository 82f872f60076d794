# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays on a patch as a coadd of `lsst.images`."""

from __future__ import annotations

__all__ = ("FEW_EXPOSURES", "exposure_information", "make_cell_coadd", "make_provenance", "missing_cells")

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np

from lsst.images import Image, Mask, MaskPlane, MaskSchema, get_legacy_deep_coadd_mask_planes
from lsst.images.cells import (
    CellCoadd,
    CellGrid,
    CellGridBounds,
    CellIJ,
    CellPointSpreadFunction,
    CoaddProvenance,
)

from ..core import fwhm_to_sigma, information_shares, kernel_fwhm, point_source_information
from ._patch_exposure import PatchExposure
from ._patch_geometry import PatchGeometry, crop_to_patch, patch_slices
from ._visit_image import CoregisteredExposure

FEW_EXPOSURES = "FEW_EXPOSURES"
"""Mask plane of coadds of this package that those of Rubin do not have."""

_FEW_EXPOSURES_PLANE = MaskPlane(
    FEW_EXPOSURES,
    "Fewer exposures than configured have a usable pixel here, too few to tell artefacts from sources.",
)


def cell_blocks(array: np.ndarray, grid: CellGrid) -> np.ndarray:
    """Return a view of an image as a grid of cells.

    Parameters
    ----------
    array
        Shape (..., H, W), covering the box of the grid.
    grid
        The cells.

    Returns
    -------
    blocks : `numpy.ndarray`
        Shape (..., n_cells_y, n_cells_x, cell height, cell width).
    """
    size = grid.grid_size
    blocks = array.reshape(*array.shape[:-2], size.i, grid.cell_shape.y, size.j, grid.cell_shape.x)
    return np.moveaxis(blocks, -2, -3)


def missing_cells(valid: np.ndarray, grid: CellGrid) -> frozenset[CellIJ]:
    """Return the cells in which no pixel has a value.

    Parameters
    ----------
    valid
        Shape (H, W), bool, covering the box of the grid.
    grid
        The cells.

    Returns
    -------
    missing : `frozenset` [`lsst.images.cells.CellIJ`]
        Indices of empty cells.
    """
    empty = ~cell_blocks(valid, grid).any(axis=(-1, -2))
    return frozenset(CellIJ(i=int(i), j=int(j)) for i, j in np.argwhere(empty))


def make_provenance(
    exposures: Sequence[CoregisteredExposure | PatchExposure],
    weights: np.ndarray,
    geometry: PatchGeometry,
    missing: frozenset[CellIJ] = frozenset(),
) -> CoaddProvenance:
    """Record which exposures made each cell, and with what weight.

    Parameters
    ----------
    exposures
        The exposures, on a box that holds the patch in its middle.
    weights
        Shape (n, H, W), inverse variances of the light in pixels of the
        patch, 0 where an exposure was not used.
    geometry
        Geometry of the patch.
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
    grid = geometry.definition.cells
    inputs = CoaddProvenance.make_empty_input_table(len(exposures))
    share = information_shares(
        np.stack([exposure_information(e, w, geometry) for e, w in zip(exposures, weights, strict=True)])
    )
    rows: list[dict[str, object]] = []
    for n, exposure in enumerate(exposures):
        identity = exposure.identity
        key = {"instrument": identity.instrument, "visit": identity.visit, "detector": identity.detector}
        for name, value in key.items():
            inputs[name][n] = value
        inputs["physical_filter"][n] = identity.physical_filter
        inputs["day_obs"][n] = identity.day_obs
        inputs["polygon"][n] = exposure.polygon
        covered = cell_blocks(crop_to_patch(exposure.covered, geometry), grid)
        used = cell_blocks(weights[n] > 0, grid)
        middle = covered[..., grid.cell_shape.y // 2, grid.cell_shape.x // 2]
        moments = _second_moments(np.nanmean(exposure.psfs, axis=(0, 1)))
        for i, j in np.argwhere(covered.any(axis=(-1, -2))):
            if CellIJ(i=int(i), j=int(j)) in missing:
                continue
            rows.append(
                {
                    **key,
                    "cell_i": i,
                    "cell_j": j,
                    "overlaps_center": middle[i, j],
                    "overlap_fraction": covered[i, j].mean(),
                    "unmasked_fraction": used[i, j].mean(),
                    "weight": share[n, i, j],
                    "psf_shape_xx": moments[0],
                    "psf_shape_yy": moments[1],
                    "psf_shape_xy": moments[2],
                    "psf_shape_flag": False,
                }
            )
    contributions = CoaddProvenance.make_empty_contribution_table(len(rows))
    for k, row in enumerate(rows):
        for name, value in row.items():
            contributions[name][k] = value
    return CoaddProvenance(inputs=inputs, contributions=contributions)


def make_cell_coadd(
    *,
    geometry: PatchGeometry,
    band: str,
    image: np.ndarray,
    variance: np.ndarray,
    mask_planes: Mapping[str, np.ndarray],
    psf: np.ndarray,
    provenance: CoaddProvenance,
    noise_realizations: np.ndarray | None = None,
    mask_fractions: Mapping[str, np.ndarray] | None = None,
) -> CellCoadd:
    """Assemble a coadd of a whole patch.

    Parameters
    ----------
    geometry
        Geometry of the patch.
    band
        Name of the band.
    image
        Shape (H, W), nJy, over the outer box of the patch; NaN = no data.
    variance
        Shape (H, W), nJy^2.
    mask_planes
        Boolean planes of shape (H, W) by name: those of Rubin's deep coadds
        and `FEW_EXPOSURES`.
    psf
        Shape (P, P), or (n_cells_y, n_cells_x, P, P), sum 1, P odd.
    provenance
        Inputs and contributions.
    noise_realizations
        Shape (k, H, W), nJy.
    mask_fractions
        Fractions of shape (H, W) by name.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The coadd.
    """
    grid = geometry.definition.cells
    bbox = geometry.bbox
    missing = missing_cells(np.isfinite(image), grid)
    size = grid.grid_size
    kernels = np.broadcast_to(psf, (size.i, size.j, *psf.shape[-2:])).copy()
    for cell in missing:
        kernels[cell.i, cell.j] = np.nan
    schema = MaskSchema([*get_legacy_deep_coadd_mask_planes().values(), _FEW_EXPOSURES_PLANE])
    mask = Mask(0, schema=schema, bbox=bbox)
    for name, plane in mask_planes.items():
        mask.set(name, plane)
    return CellCoadd(
        Image(image.astype(np.float32), bbox=bbox, unit=u.nJy),
        mask=mask,
        variance=Image(variance.astype(np.float32), bbox=bbox, unit=u.nJy**2),
        mask_fractions={
            name: Image(values.astype(np.float32), bbox=bbox)
            for name, values in (mask_fractions or {}).items()
        },
        noise_realizations=[
            Image(draw.astype(np.float32), bbox=bbox, unit=u.nJy)
            for draw in (noise_realizations if noise_realizations is not None else ())
        ],
        sky_projection=geometry.projection,
        band=band,
        psf=CellPointSpreadFunction(kernels, CellGridBounds(grid=grid, bbox=bbox, missing=missing)),
        patch=geometry.definition,
        provenance=provenance,
    )


def exposure_information(
    exposure: CoregisteredExposure | PatchExposure, weights: np.ndarray, geometry: PatchGeometry
) -> np.ndarray:
    """Return the point-source information of an exposure in each cell.

    Parameters
    ----------
    exposure
        The exposure, on a box that holds the patch in its middle.
    weights
        Shape (H, W), inverse variances of the light in pixels of the patch.
    geometry
        Geometry of the patch.

    Returns
    -------
    information : `numpy.ndarray`
        Shape (n_cells_y, n_cells_x), in 1 / flux^2.
    """
    rows, columns = patch_slices(exposure.covered.shape, geometry)
    return point_source_information(
        weights, exposure.psfs, geometry.definition.cells.cell_shape, border=(rows.start, columns.start)
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
