# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The coadd of all bands of a patch, for detection."""

from __future__ import annotations

__all__ = ("make_detection_coadd",)

from collections.abc import Mapping

import numpy as np

from lsst.images.cells import CellCoadd

from ..adapters import crop_to_patch, make_cell_coadd
from ..core import BandsResult, MaskBit
from ._products import RestorationInputs, describe_software, target_psf


def make_detection_coadd(result: BandsResult, collected: Mapping[str, RestorationInputs]) -> CellCoadd:
    """Assemble the coadd of all bands of a patch.

    Parameters
    ----------
    result
        The restoration of all bands, on the patch and its border.
    collected
        What each band was restored from.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        Image and variance, mask planes, target PSF and noise realisations;
        the weights of the bands are in its metadata.  It has no band and no
        provenance, which is that of the coadds of the bands.
    """
    detection = result.detection
    geometry = next(iter(collected.values())).geometry
    one = next(iter(result.results.values()))
    bits = crop_to_patch(detection.mask, geometry)
    planes = {
        "NO_DATA": MaskBit.NO_DATA,
        "INTERPOLATED": MaskBit.INPAINTED,
        "CLIPPED": MaskBit.CLIPPED,
        "SUPPLIED": MaskBit.SUPPLIED,
        "WITHHELD": MaskBit.WITHHELD,
    }
    coadd = make_cell_coadd(
        geometry=geometry,
        band=None,
        image=crop_to_patch(detection.image, geometry),
        variance=crop_to_patch(detection.variance, geometry),
        mask_planes={name: (bits & bit) > 0 for name, bit in planes.items()},
        psf=target_psf(one.target_fwhm),
        provenance=None,
        noise_realizations=np.nan_to_num(crop_to_patch(detection.noise_realizations, geometry)),
    )
    coadd.metadata.update(
        {
            **describe_software(),
            "target_fwhm_arcsec": one.target_fwhm * geometry.pixel_scale,
            "joint_bands": ",".join(result.results),
            **{f"weight_{band}": float(weight) for band, weight in detection.weights.items()},
            "device": one.device,
        }
    )
    return coadd
