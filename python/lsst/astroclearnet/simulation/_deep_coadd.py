# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The plain coadd that a user's repository would hold already."""

from __future__ import annotations

__all__ = ("make_deep_coadd",)

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from lsst.images import VisitImage
from lsst.images.cells import CellCoadd

from ..adapters import (
    ExposureArrays,
    PatchGeometry,
    UnusableExposureError,
    coregister,
    make_cell_coadd,
    make_provenance,
    missing_cells,
    stack_exposures,
)

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
    exposures = []
    for visit_image in visit_images:
        try:
            exposures.append(coregister(visit_image, geometry, kernel_order=_KERNEL_ORDER))
        except UnusableExposureError as error:
            if error.reason not in ("no_overlap", "no_usable_pixels"):
                raise
    if not exposures:
        return None
    arrays = stack_exposures(exposures)
    weights = _weights(arrays)
    image = np.sum(weights * np.where(arrays.good, arrays.images, 0.0), axis=0)
    variance = np.sum(weights**2 * np.where(arrays.good, arrays.variances, 0.0), axis=0)
    covered = np.stack([exposure.covered for exposure in exposures])
    saturated = np.stack([exposure.saturated for exposure in exposures]) & covered
    no_data = ~weights.any(axis=0)
    image[no_data] = variance[no_data] = np.nan
    planes = {
        "NO_DATA": no_data,
        "SATURATED": saturated.sum(axis=0) > _SATURATED_FRACTION * covered.sum(axis=0),
        "INEXACT_PSF": (covered & (weights <= 0)).any(axis=0),
    }
    missing = missing_cells(~no_data, geometry.definition.cells)
    return make_cell_coadd(
        geometry=geometry,
        band=band,
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        mask_planes=planes,
        psf=_cell_psfs(arrays, weights, geometry),
        provenance=make_provenance(exposures, weights, geometry, missing),
    )


def _weights(arrays: ExposureArrays) -> npt.NDArray[np.float64]:
    """Return the weights of pixels, with sum 1 where there is an exposure.

    All pixels of an exposure have the inverse of its median variance: with
    their own, downward fluctuations would count more.
    """
    levels = [
        np.median(v[g]) if g.any() else np.inf for v, g in zip(arrays.variances, arrays.good, strict=True)
    ]
    weights = arrays.good / np.array(levels, dtype=float)[:, np.newaxis, np.newaxis]
    total = weights.sum(axis=0)
    return np.divide(weights, total, out=weights, where=total > 0)


def _cell_psfs(
    arrays: ExposureArrays, weights: npt.NDArray[np.floating], geometry: PatchGeometry
) -> npt.NDArray[np.float64]:
    """Average the PSFs of exposures in every cell.

    Parameters
    ----------
    arrays
        The exposures, with PSFs on a grid that need not be that of the cells.
    weights
        Weights of the exposures, of shape (n, H, W).
    geometry
        The patch.

    Returns
    -------
    psfs : `numpy.ndarray`
        Shape (n_cells_y, n_cells_x, P, P), sum 1; NaN for cells without data.
    """
    grid = geometry.definition.cells
    size, shape = grid.grid_size, grid.cell_shape
    psfs = np.full((size.i, size.j, *arrays.psfs.shape[-2:]), np.nan)
    for i in range(size.i):
        for j in range(size.j):
            rows = slice(i * shape.y, (i + 1) * shape.y)
            columns = slice(j * shape.x, (j + 1) * shape.x)
            weight = weights[:, rows, columns].mean(axis=(1, 2), dtype=float)
            nearest = [
                int((index + 0.5) / cells * stamps)
                for index, cells, stamps in zip((i, j), (size.i, size.j), arrays.psfs.shape[1:3], strict=True)
            ]
            used = weight > 0.0
            if used.any():
                psf = np.tensordot(weight[used], arrays.psfs[used, nearest[0], nearest[1]], axes=1)
                psfs[i, j] = psf / psf.sum()
    return psfs
