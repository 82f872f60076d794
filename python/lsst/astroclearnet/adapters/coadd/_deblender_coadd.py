# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A restored coadd as the image that the deblender of Rubin's pipelines gets
in place of its own deconvolution.
"""

from __future__ import annotations

__all__ = ("make_deblender_coadd",)

import astropy.units as u
import numpy as np

from lsst.images import Box, Image
from lsst.images.cells import CellCoadd


def make_deblender_coadd(coadd: CellCoadd, bbox: Box) -> CellCoadd | None:
    """Return a coadd in the box of another one, finite in every pixel.

    Where it has no value the image is 0, as the light outside of footprints of
    Rubin's own deconvolution, and the variance the median of the others, by
    which the deblender divides.  NO_DATA stays set there.

    Parameters
    ----------
    coadd
        The restored coadd, in nJy.
    bbox
        The box of the coadd that is deblended, in pixels of the tract.

    Returns
    -------
    filled : `lsst.images.cells.CellCoadd` or `None`
        Image, variance, mask, PSF and provenance in that box, without noise
        realisations and mask fractions; `None` if no pixel has a value.

    Raises
    ------
    ValueError
        If the coadd does not cover the box, or is not in nJy.
    """
    if coadd.unit != u.nJy:
        raise ValueError(f"The restored coadd in {coadd.band} has the unit {coadd.unit}, not nJy.")
    if coadd.bbox.intersection(bbox) != bbox:
        raise ValueError(
            f"The restored coadd in {coadd.band} covers {coadd.bbox}, and not all of {bbox} of the coadd "
            "that is deblended: connections.reference_name must name one of the same patches."
        )
    inside = bbox.slice_within(coadd.bbox)
    image, variance = (np.array(plane.array[inside]) for plane in (coadd.image, coadd.variance))
    valid = np.isfinite(image) & np.isfinite(variance)
    if not valid.any():
        return None
    image[~valid] = 0.0
    variance[~valid] = np.median(variance[valid])
    part = coadd if coadd.bbox == bbox else coadd[bbox]
    filled = CellCoadd(
        Image(image, bbox=bbox, unit=u.nJy),
        mask=part.mask,
        variance=Image(variance, bbox=bbox, unit=u.nJy**2),
        sky_projection=part.sky_projection,
        band=part.band,
        psf=part.psf,
        patch=part.patch,
        provenance=part.provenance,
    )
    filled.metadata.update(part.metadata)
    return filled
