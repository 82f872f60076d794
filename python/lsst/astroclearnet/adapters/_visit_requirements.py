# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a visit image must have to be of use."""

from __future__ import annotations

import astropy.units as u

from lsst.images import VisitImage
from lsst.images.psfs import PointSpreadFunction
from lsst.images.serialization import ArchiveReadError

from ._exposure_id import UnusableExposureError


def read_psf(visit_image: VisitImage) -> PointSpreadFunction:
    """Return the PSF of a visit image.

    Parameters
    ----------
    visit_image
        The visit image.

    Returns
    -------
    psf : `lsst.images.psfs.PointSpreadFunction`
        Its PSF.

    Raises
    ------
    UnusableExposureError
        If it has none, or one that cannot be read.
    """
    try:
        psf = visit_image.psf
    except ArchiveReadError as exc:
        raise UnusableExposureError("no_psf", f"The PSF of the visit image cannot be read: {exc}") from exc
    if psf is None:
        raise UnusableExposureError("no_psf", "The visit image has no PSF.")
    return psf


def calibrate(visit_image: VisitImage) -> VisitImage:
    """Return a visit image in nJy.

    Parameters
    ----------
    visit_image
        The visit image.

    Returns
    -------
    calibrated : `lsst.images.VisitImage`
        The image itself where it is in nJy already.

    Raises
    ------
    UnusableExposureError
        If its unit cannot be converted, not even by its photometric scaling.
    """
    if visit_image.unit == u.nJy:
        return visit_image
    try:
        return visit_image.convert_unit(u.nJy, copy="as-needed")
    except u.UnitConversionError as exc:
        raise UnusableExposureError(
            "not_calibrated",
            f"The pixels are in {visit_image.unit}, which cannot be converted to nJy: {exc}",
        ) from exc
