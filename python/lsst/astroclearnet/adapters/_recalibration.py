# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images with another calibration than the one they were stored with."""

from __future__ import annotations

__all__ = ("VisitCalibration", "recalibrate")

import dataclasses

import astropy.units as u

from lsst.images import DetectorFrame, SkyProjection, VisitImage
from lsst.images.fields import BaseField
from lsst.images.psfs import PointSpreadFunction

from ._exposure_id import UnusableExposureError
from ._visit_requirements import read_psf


@dataclasses.dataclass(frozen=True)
class VisitCalibration:
    """What replaces the calibration of a visit image.

    Attributes
    ----------
    psf
        PSF on the pixels of the visit image; `None` keeps its own.
    projection
        Projection from these pixels to the sky; `None` keeps its own.
    scaling
        Factor from the values of uncalibrated pixels to nJy; the denominator
        of its unit does not count.  `None` keeps the one of the visit image.
    """

    psf: PointSpreadFunction | None = None
    projection: SkyProjection[DetectorFrame] | None = None
    scaling: BaseField | None = None


def recalibrate(visit_image: VisitImage, calibration: VisitCalibration) -> VisitImage:
    """Replace the calibration of a visit image.

    Pixels stay as they are: a scaling is only noted, and applied where the
    image is brought to nJy.

    Parameters
    ----------
    visit_image
        The visit image, or a part of it.
    calibration
        What to replace.

    Returns
    -------
    recalibrated : `lsst.images.VisitImage`
        An image that shares its pixels.

    Raises
    ------
    UnusableExposureError
        If a scaling is given and the pixels are calibrated already, with
        reason ``already_calibrated``, or if there is no PSF.
    """
    scaling = visit_image.photometric_scaling
    if calibration.scaling is not None:
        unit = visit_image.unit
        if unit.is_equivalent(u.nJy):
            raise UnusableExposureError(
                "already_calibrated",
                f"Its pixels are in {unit}, and the photometric calibration of the visit summary would be "
                "applied a second time; set use_visit_summary_photo_calib=False, or read images whose "
                "pixels are not calibrated.",
            )
        scaling = calibration.scaling * (u.nJy / unit / calibration.scaling.unit)
    projection = calibration.projection
    return VisitImage(
        visit_image.image,
        mask=visit_image.mask,
        variance=visit_image.variance,
        sky_projection=visit_image.sky_projection if projection is None else projection,
        bounds=visit_image.bounds,
        obs_info=visit_image.obs_info,
        summary_stats=visit_image.summary_stats,
        photometric_scaling=scaling,
        psf=read_psf(visit_image) if calibration.psf is None else calibration.psf,
        detector=visit_image.detector,
        aperture_corrections=visit_image.aperture_corrections,
        backgrounds=visit_image.backgrounds,
        band=visit_image.band,
    )
