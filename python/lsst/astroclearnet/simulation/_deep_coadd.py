# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The direct coadd that a user's repository would hold already."""

from __future__ import annotations

__all__ = ("make_deep_coadd",)

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lsst.images import VisitImage
from lsst.images.cells import CellCoadd

from ..adapters import (
    PatchGeometry,
    PatchSource,
    PatchSummary,
    UnusableExposureError,
    make_cell_coadd,
    missing_cells,
    pad_to_common_size,
)
from ..core import Tile
from ._direct_warp import DirectWarp, warp_visit_image

_KERNEL_ORDER = 3
_SATURATED_FRACTION = 0.1


def make_deep_coadd(
    visit_images: Iterable[VisitImage], geometry: PatchGeometry, band: str
) -> CellCoadd | None:
    """Average visit images with inverse-variance weights.

    Exposures are resampled with a Lanczos kernel of order 3, the default of
    the Science Pipelines. Pixels are flagged ``SATURATED`` where more than a
    tenth of the exposures are, ``INEXACT_PSF`` where one of those that cover
    the pixel was not used, and ``NO_DATA`` where none was.

    Parameters
    ----------
    visit_images
        Visit images of one band; those that miss the patch are passed over.
    geometry
        The patch.
    band
        Name of the band.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd` or `None`
        The coadd in nJy, or `None` if no image has a usable pixel on the
        patch.
    """
    warps = []
    for visit_image in visit_images:
        try:
            warps.append(warp_visit_image(visit_image, geometry, kernel_order=_KERNEL_ORDER))
        except UnusableExposureError as error:
            if error.reason not in ("no_overlap", "no_usable_pixels"):
                raise
    if not warps:
        return None
    good = np.stack([warp.good for warp in warps])
    # All pixels of an exposure have one weight: with their own variances,
    # downward fluctuations would count more.
    inverse_variances = np.stack([warp.good / np.median(warp.variance[warp.good]) for warp in warps])
    total = inverse_variances.sum(axis=0)
    weights = np.divide(inverse_variances, total, out=np.zeros_like(inverse_variances), where=total > 0)
    no_data = ~good.any(axis=0)
    image = np.sum([w * warp.image for w, warp in zip(weights, warps, strict=True)], axis=0)
    variance = np.sum([w**2 * warp.variance for w, warp in zip(weights, warps, strict=True)], axis=0)
    image[no_data] = variance[no_data] = np.nan
    summary = PatchSummary(PatchSource([warp.cutout for warp in warps], geometry, geometry.bbox))
    rows, columns = (slice(0, size) for size in geometry.bbox.shape)
    summary.add(Tile(rows, columns, rows, columns), np.arange(len(warps)), inverse_variances, ~good)
    return make_cell_coadd(
        geometry=geometry,
        band=band,
        image=image,
        variance=variance,
        mask_planes={
            "NO_DATA": no_data,
            "SATURATED": summary.counts["SATURATED"] > _SATURATED_FRACTION * summary.num_covering,
            "INEXACT_PSF": summary.num_unused > 0,
        },
        psf=_cell_psfs(warps, weights, geometry),
        provenance=summary.make_provenance(missing_cells(~no_data, geometry.definition.cells)),
    )


def _cell_psfs(
    warps: Sequence[DirectWarp], weights: npt.NDArray[np.floating], geometry: PatchGeometry
) -> npt.NDArray[np.float64]:
    """Average the PSFs of exposures in every cell; NaN for empty cells."""
    # Their grid need not be that of the cells.
    stamps = pad_to_common_size([warp.cutout.psfs_within(geometry.bbox) for warp in warps])
    grid = geometry.definition.cells
    size, shape = grid.grid_size, grid.cell_shape
    psfs = np.full((size.i, size.j, *stamps.shape[-2:]), np.nan)
    for i, j in np.ndindex(size.i, size.j):
        rows = slice(i * shape.y, (i + 1) * shape.y)
        columns = slice(j * shape.x, (j + 1) * shape.x)
        weight = weights[:, rows, columns].mean(axis=(1, 2), dtype=float)
        row, column = (
            int((index + 0.5) / cells * number)
            for index, cells, number in zip((i, j), (size.i, size.j), stamps.shape[1:3], strict=True)
        )
        used = weight > 0.0
        if used.any():
            psf = np.tensordot(weight[used], stamps[used, row, column], axes=1)
            psfs[i, j] = psf / psf.sum()
    return psfs
