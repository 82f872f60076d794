# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds of the full stack."""

from __future__ import annotations

__all__ = ("coadd_from_exposure", "direct_storage_class", "pixels_from_exposure")

import importlib.util
from typing import Any

import numpy as np

from lsst.images import Box, Image
from lsst.images.cells import CellCoadd

from ..place import LegacyPointSpreadFunction, PatchGeometry
from ._cell_coadd import make_cell_coadd
from ._coadd_arrays import DIRECT_ADVICE


def direct_storage_class() -> str:
    """Return ``ExposureF`` where afw is installed, else ``CellCoadd``."""
    has_afw = importlib.util.find_spec("lsst.afw") is not None
    return "ExposureF" if has_afw else "CellCoadd"


def pixels_from_exposure(exposure: Any, bbox: Box) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Take the pixels of a patch from a coadd of the full stack.

    Parameters
    ----------
    exposure
        A ``lsst.afw.image.ExposureF`` on the pixels of the tract, such as a
        ``deep_coadd``, with the photometric calibration of its pixels to nJy.
    bbox
        Box of the patch.

    Returns
    -------
    image, variance : `numpy.ndarray`
        Shape (H, W), in nJy and nJy^2; the image is NaN without data.
    planes : `dict` [`str`, `numpy.ndarray`]
        The planes NO_DATA and SATURATED, bool, shape (H, W).

    Raises
    ------
    ValueError
        If the exposure is not calibrated, or does not cover the box.
    """
    box = Box.from_legacy(exposure.getBBox())
    if box.intersection(bbox) != bbox:
        raise ValueError(
            f"The direct coadd covers {box}, and not all of {bbox} of the restored one: {DIRECT_ADVICE}"
        )
    calibration = exposure.getPhotoCalib()
    if calibration is None:
        raise ValueError(f"The direct coadd has no photometric calibration: {DIRECT_ADVICE}")
    calibrated = calibration.calibrateImage(exposure.getMaskedImage())
    cut = bbox.slice_within(box)
    image, variance = (
        Image.from_legacy(plane).array[cut] for plane in (calibrated.getImage(), calibrated.getVariance())
    )
    mask = calibrated.getMask()
    planes = {
        name: (mask.array[cut] & mask.getPlaneBitMask(legacy)) != 0
        for name, legacy in (("NO_DATA", "NO_DATA"), ("SATURATED", "SAT"))
    }
    return np.where(planes["NO_DATA"], np.nan, image), variance, planes


def coadd_from_exposure(exposure: Any, reference: CellCoadd) -> CellCoadd:
    """Convert a coadd of the full stack that covers a patch.

    It has image, variance, the planes NO_DATA and SATURATED, the PSF in the
    middle of each cell, and the provenance of ``reference``.

    Parameters
    ----------
    exposure
        As of `pixels_from_exposure`, with a PSF.
    reference
        A coadd of the patch, whose cells it gets.

    Raises
    ------
    ValueError
        If the exposure has no PSF, is not calibrated, or does not cover the
        patch.
    """
    if not exposure.hasPsf():
        raise ValueError(f"The direct coadd has no PSF: {DIRECT_ADVICE}")
    image, variance, planes = pixels_from_exposure(exposure, reference.bbox)
    psf = LegacyPointSpreadFunction(exposure.getPsf(), Box.from_legacy(exposure.getBBox()))
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
        image=image,
        variance=variance,
        mask_planes=planes,
        psf=kernels / kernels.sum(axis=(2, 3), keepdims=True),
        provenance=reference.provenance,
    )
