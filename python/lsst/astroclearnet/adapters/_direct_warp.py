# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visits that were resampled to a patch before."""

from __future__ import annotations

__all__ = ("WARP_DETECTOR", "make_warp_image")

import astropy.units as u
from astro_metadata_translator import ObservationInfo

from lsst.images import DetectorFrame, Image, Mask, SkyProjection, VisitImage
from lsst.images.psfs import PointSpreadFunction

from ._exposure_id import ExposureId, UnusableExposureError

WARP_DETECTOR = 65535
"""Detector ID of what comes from all the detectors of a visit: the largest
that the provenance of a coadd can hold."""


def make_warp_image(
    image: Image,
    *,
    mask: Mask,
    variance: Image,
    projection: SkyProjection[DetectorFrame],
    psf: PointSpreadFunction,
    identity: ExposureId,
    band: str,
) -> VisitImage:
    """Put the planes of a warp together as a visit image.

    Parameters
    ----------
    image
        Image in nJy, on pixels of the tract.
    mask
        Its mask; NO_DATA is set where the visit has no pixel.
    variance
        Variance in nJy^2.
    projection
        Projection of the tract.
    psf
        PSF on pixels of the tract.
    identity
        Which visit, with its physical filter where that is known.
    band
        Name of the band.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        A visit image without a detector, to be read and not to be written.

    Raises
    ------
    UnusableExposureError
        If the image is not in nJy, with reason ``not_calibrated``.
    """
    if image.unit != u.nJy:
        raise UnusableExposureError(
            "not_calibrated",
            f"The direct warp is in {image.unit}, not in nJy; make it again from visit images.",
        )
    return VisitImage(
        image,
        mask=mask,
        variance=variance,
        sky_projection=projection,
        obs_info=ObservationInfo(
            instrument=identity.instrument or None,
            physical_filter=identity.physical_filter or "unknown",
            visit_id=identity.visit,
        ),
        psf=psf,
        # A warp has many of them, and nothing here asks for one.
        detector=None,  # type: ignore[arg-type]
        band=band,
    )
