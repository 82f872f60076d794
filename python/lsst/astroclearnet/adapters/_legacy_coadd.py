# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds of the full stack."""

from __future__ import annotations

__all__ = ("coadd_from_exposure",)

from typing import Any

import numpy as np

from lsst.images import Box, Image
from lsst.images.cells import CellCoadd

from ._cell_coadd import make_cell_coadd
from ._legacy import WarpPointSpreadFunction
from ._patch_geometry import PatchGeometry


def coadd_from_exposure(exposure: Any, reference: CellCoadd) -> CellCoadd:
    """Convert a coadd of the full stack that covers a patch.

    Parameters
    ----------
    exposure
        A ``lsst.afw.image.ExposureF`` on the pixels of the tract, such as a
        ``deep_coadd``, with PSF and photometric calibration, by which its
        pixels come to nJy.
    reference
        A coadd of the patch, whose cells it gets.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        Image, variance, the planes NO_DATA and SATURATED, and the PSF in the
        middle of each cell; its provenance is that of ``reference``.

    Raises
    ------
    ValueError
        If the exposure has no PSF, or does not cover the patch.
    """
    box = Box.from_legacy(exposure.getBBox())
    if not exposure.hasPsf():
        raise ValueError("The direct coadd has no PSF: set do_compare_direct=False, or name another.")
    if box.intersection(reference.bbox) != reference.bbox:
        raise ValueError(
            f"The direct coadd covers {box}, and not all of {reference.bbox} of the restored one: set "
            "do_compare_direct=False, or name another with connections.reference_name."
        )
    calibrated = exposure.getPhotoCalib().calibrateImage(exposure.getMaskedImage())
    cut = reference.bbox.slice_within(box)
    image, variance = (
        Image.from_legacy(plane).array[cut] for plane in (calibrated.getImage(), calibrated.getVariance())
    )
    mask = calibrated.getMask()
    planes = {
        name: (mask.array[cut] & mask.getPlaneBitMask(legacy)) != 0
        for name, legacy in (("NO_DATA", "NO_DATA"), ("SATURATED", "SAT"))
    }
    psf = WarpPointSpreadFunction(exposure.getPsf(), box)
    geometry = PatchGeometry(projection=reference.sky_projection, definition=reference.patch)
    grid = geometry.definition.cells
    kernels = np.array(
        [
            [
                psf.compute_kernel_image(
                    x=grid.bbox.x.start + (j + 0.5) * grid.cell_shape.x - 0.5,
                    y=grid.bbox.y.start + (i + 0.5) * grid.cell_shape.y - 0.5,
                ).array
                for j in range(grid.grid_size.j)
            ]
            for i in range(grid.grid_size.i)
        ]
    )
    return make_cell_coadd(
        geometry=geometry,
        band=str(reference.band),
        image=np.where(planes["NO_DATA"], np.nan, image),
        variance=variance,
        mask_planes=planes,
        psf=kernels / kernels.sum(axis=(2, 3), keepdims=True),
        provenance=reference.provenance,
    )
