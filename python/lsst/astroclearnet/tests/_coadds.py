# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds for tests."""

from __future__ import annotations

__all__ = ("make_coadd",)

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsst.images.cells import CellCoadd, CoaddProvenance

from ..adapters import PatchGeometry, make_cell_coadd
from ..core import gaussian_kernel


def make_coadd(
    geometry: PatchGeometry, image: NDArray[Any], *, band: str = "i", fwhm: float = 3.2, sigma: float = 1.0
) -> CellCoadd:
    """Return a coadd of one exposure with a Gaussian PSF.

    Parameters
    ----------
    geometry
        The patch.
    image
        Image in nJy, NaN without data, shape of the outer box of the patch.
    band
        Band.
    fwhm
        FWHM of the PSF in pixels.
    sigma
        Standard deviation of each pixel in nJy.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The coadd, without noise realisations.
    """
    inputs = CoaddProvenance.make_empty_input_table(1)
    inputs["instrument"], inputs["physical_filter"] = "TestCam", f"{band}_test"
    inputs["visit"], inputs["detector"], inputs["day_obs"] = 1, 0, 20260101
    inputs["polygon"][0] = geometry.bbox.to_polygon()
    size = geometry.definition.cells.grid_size
    i, j = (axis.ravel() for axis in np.indices((size.i, size.j)))
    table = CoaddProvenance.make_empty_contribution_table(i.size)
    table["instrument"], table["visit"], table["detector"] = "TestCam", 1, 0
    table["cell_i"], table["cell_j"] = i, j
    bad = ~np.isfinite(image)
    return make_cell_coadd(
        geometry=geometry,
        band=band,
        image=image,
        variance=np.where(bad, np.nan, sigma**2),
        mask_planes={"NO_DATA": bad},
        psf=gaussian_kernel(fwhm, 17),
        provenance=CoaddProvenance(inputs=inputs, contributions=table),
    )
