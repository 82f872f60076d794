# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays on a patch as a coadd of `lsst.images`."""

from __future__ import annotations

__all__ = ("FEW_EXPOSURES", "make_cell_coadd", "make_demand_image", "missing_cells")

from collections.abc import Mapping

import astropy.units as u
import numpy as np

from lsst.images import Image, Mask, MaskedImage, MaskPlane, MaskSchema, get_legacy_deep_coadd_mask_planes
from lsst.images.cells import (
    CellCoadd,
    CellGrid,
    CellGridBounds,
    CellIJ,
    CellPointSpreadFunction,
    CoaddProvenance,
)

from ..place import PatchGeometry

FEW_EXPOSURES = "FEW_EXPOSURES"
"""Mask plane of coadds of this package that those of Rubin do not have."""

_FEW_EXPOSURES_PLANE = MaskPlane(
    FEW_EXPOSURES,
    "Fewer exposures than configured have a usable pixel here, too few to tell artefacts from sources.",
)

_DEMAND_PLANES = (
    MaskPlane(
        "SUPPLIED",
        "Light stands out here, more than half of which the exposures do not demand: the network supplied "
        "it.",
    ),
    MaskPlane("WITHHELD", "The exposures demand light here that the restored image does not have."),
)


def missing_cells(valid: np.ndarray, grid: CellGrid) -> frozenset[CellIJ]:
    """Return the cells in which no pixel has a value.

    Parameters
    ----------
    valid
        Shape (H, W), bool, covering the box of the grid.
    grid
        The cells.
    """
    size, shape = grid.grid_size, grid.cell_shape
    empty = ~valid.reshape(size.i, shape.y, size.j, shape.x).any(axis=(1, 3))
    return frozenset(CellIJ(i=int(i), j=int(j)) for i, j in np.argwhere(empty))


def make_cell_coadd(
    *,
    geometry: PatchGeometry,
    band: str | None,
    image: np.ndarray,
    variance: np.ndarray,
    mask_planes: Mapping[str, np.ndarray],
    psf: np.ndarray,
    provenance: CoaddProvenance | None,
    noise_realizations: np.ndarray | None = None,
    mask_fractions: Mapping[str, np.ndarray] | None = None,
) -> CellCoadd:
    """Assemble the coadd of a whole patch.

    Parameters
    ----------
    geometry
        Geometry of the patch.
    band
        Name of the band, if it is of one.
    image
        Shape (H, W), nJy, over the outer box of the patch; NaN = no data.
    variance
        Shape (H, W), nJy^2.
    mask_planes
        Boolean planes of shape (H, W) by name: those of Rubin's deep coadds,
        `FEW_EXPOSURES`, ``SUPPLIED`` and ``WITHHELD``.
    psf
        Shape (P, P), or (n_cells_y, n_cells_x, P, P), sum 1, P odd.
    provenance
        Inputs and contributions, if they are recorded.
    noise_realizations
        Shape (k, H, W), nJy.
    mask_fractions
        Fractions of shape (H, W) by name.
    """
    grid = geometry.definition.cells
    bbox = geometry.bbox
    missing = missing_cells(np.isfinite(image), grid)
    size = grid.grid_size
    kernels = np.broadcast_to(psf, (size.i, size.j, *psf.shape[-2:])).copy()
    for cell in missing:
        kernels[cell.i, cell.j] = np.nan
    mask = _make_mask(mask_planes, geometry)
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


def make_demand_image(
    *, geometry: PatchGeometry, share: np.ndarray, sigma: np.ndarray, mask_planes: Mapping[str, np.ndarray]
) -> MaskedImage:
    """Assemble the map of the light that the exposures demand.

    Parameters
    ----------
    geometry
        Geometry of the patch.
    share
        Shape (H, W), share of the light that they demand; NaN = none.
    sigma
        Shape (H, W), its standard deviation.
    mask_planes
        Boolean planes of shape (H, W) by name, as of `make_cell_coadd`.
    """
    image, variance = (Image(v.astype(np.float32), bbox=geometry.bbox) for v in (share, sigma**2))
    mask = _make_mask(mask_planes, geometry)
    return MaskedImage(image, mask=mask, variance=variance, sky_projection=geometry.projection)


def _make_mask(mask_planes: Mapping[str, np.ndarray], geometry: PatchGeometry) -> Mask:
    schema = MaskSchema(
        [*get_legacy_deep_coadd_mask_planes().values(), _FEW_EXPOSURES_PLANE, *_DEMAND_PLANES]
    )
    mask = Mask(0, schema=schema, bbox=geometry.bbox)
    for name, plane in mask_planes.items():
        mask.set(name, plane)
    return mask
