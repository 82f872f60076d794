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

import numpy as np

from lsst.images.cells import CellCoadd

from ..adapters import PatchGeometry, crop_to_patch, make_cell_coadd
from ..core import BandsResult, MaskBit
from ._products import describe_joint, describe_software, target_psf
from ._used_network import JointRestoration


def make_detection_coadd(result: BandsResult, geometry: PatchGeometry, joint: JointRestoration) -> CellCoadd:
    """Assemble the coadd of all bands of a patch.

    Parameters
    ----------
    result
        The restoration of all bands, on the patch and its border.
    geometry
        Geometry of the patch.
    joint
        What restored the bands together.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        Image and variance, mask planes, target PSF and noise realisations;
        the weights of the bands are in its metadata.  It has no band and no
        provenance, which is that of the coadds of the bands.
    """
    detection = result.detection
    one = next(iter(result.results.values()))
    bits = crop_to_patch(detection.mask, geometry)
    planes = {
        "NO_DATA": MaskBit.NO_DATA,
        "INTERPOLATED": MaskBit.INPAINTED,
        "CLIPPED": MaskBit.CLIPPED,
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
            **describe_joint(joint),
            **{f"weight_{band}": float(weight) for band, weight in detection.weights.items()},
            "device": one.device,
        }
    )
    return coadd
