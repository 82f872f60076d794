# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Calibration of visit images: unit, PSF, projection and background."""

from __future__ import annotations

__all__ = (
    "SUBTRACTED_BACKGROUND",
    "VisitCalibration",
    "adjust_background",
    "convert_to_njy",
    "recalibrate",
    "require_psf",
)

import dataclasses

import astropy.units as u
import numpy as np

from lsst.images import Background, Box, DetectorFrame, Image, SkyProjection, VisitImage
from lsst.images.fields import BaseField
from lsst.images.psfs import PointSpreadFunction
from lsst.images.serialization import ArchiveReadError

from .._exposure_id import UnusableExposureError

SUBTRACTED_BACKGROUND = "subtracted"
"""What stands for the background that was subtracted from a visit image."""

_NO_BACKGROUND = "none"


@dataclasses.dataclass(frozen=True)
class VisitCalibration:
    """Replacement for the calibration of a visit image; `None` keeps its own.

    Attributes
    ----------
    psf
        PSF on the pixels of the visit image.
    projection
        Projection from these pixels to the sky.
    scaling
        Factor from the values of uncalibrated pixels to nJy; the denominator
        of its unit does not count.
    """

    psf: PointSpreadFunction | None = None
    projection: SkyProjection[DetectorFrame] | None = None
    scaling: BaseField | None = None


def recalibrate(visit_image: VisitImage, calibration: VisitCalibration) -> VisitImage:
    """Return a visit image with another calibration and the same pixels.

    A scaling is only noted, and applied by `convert_to_njy`.

    Parameters
    ----------
    visit_image
        The visit image, or a cut-out of it.
    calibration
        What to replace.

    Raises
    ------
    UnusableExposureError
        If there is a scaling for calibrated pixels (``already_calibrated``),
        or no PSF (``no_psf``).
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
        psf=require_psf(visit_image) if calibration.psf is None else calibration.psf,
        detector=visit_image.detector,
        aperture_corrections=visit_image.aperture_corrections,
        backgrounds=visit_image.backgrounds,
        band=visit_image.band,
    )


def require_psf(visit_image: VisitImage) -> PointSpreadFunction:
    """Return the PSF of a visit image.

    Parameters
    ----------
    visit_image
        The visit image.

    Raises
    ------
    UnusableExposureError
        If it has none, or one that cannot be read (``no_psf``).
    """
    try:
        psf = visit_image.psf
    except ArchiveReadError as exc:
        raise UnusableExposureError("no_psf", f"The PSF of the visit image cannot be read: {exc}") from exc
    if psf is None:
        raise UnusableExposureError("no_psf", "The visit image has no PSF.")
    return psf


def convert_to_njy(visit_image: VisitImage) -> VisitImage:
    """Return a visit image in nJy, the image itself if it already is.

    Parameters
    ----------
    visit_image
        The visit image.

    Raises
    ------
    UnusableExposureError
        If its unit cannot be converted, not even by its photometric scaling
        (``not_calibrated``).
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


def adjust_background(
    visit_image: VisitImage,
    background: str = SUBTRACTED_BACKGROUND,
    *,
    correction: Image | BaseField | None = None,
) -> VisitImage:
    """Change or correct the subtracted background, in a copy if needed.

    Parameters
    ----------
    visit_image
        The visit image, or a cut-out of it.
    background
        Name of the recorded background to subtract in place of the subtracted
        one; ``none`` for no other, ``subtracted`` to leave it.
    correction
        What to subtract, over at least the box of ``visit_image``; without a
        unit it is in that of the pixels.

    Raises
    ------
    UnusableExposureError
        If the subtracted background or the other one is not recorded
        (``no_background``), or one of them or the correction has the wrong
        unit or box (``bad_background``).
    """
    if background == SUBTRACTED_BACKGROUND and correction is None:
        return visit_image
    change = np.zeros(tuple(visit_image.bbox.shape), dtype=np.float32)
    if background != SUBTRACTED_BACKGROUND:
        recorded = visit_image.backgrounds
        if recorded.subtracted is None:
            raise UnusableExposureError(
                "no_background",
                "The visit image does not say which background was subtracted from it, so that it cannot be "
                f"added back; it has {sorted(recorded) or 'none'}.",
            )
        change += _background_values(recorded.subtracted, visit_image)
        if background != _NO_BACKGROUND:
            if background not in recorded:
                raise UnusableExposureError(
                    "no_background",
                    f"The visit image has no background {background!r}; it has {sorted(recorded)}.",
                )
            change -= _background_values(recorded[background], visit_image)
    if correction is not None:
        change -= _field_values(correction, visit_image, "sky correction")
    adjusted = visit_image.copy()
    adjusted.image.array += change
    return adjusted


def _background_values(background: Background, visit_image: VisitImage) -> np.ndarray:
    """Return a recorded background in the pixels and the unit of an image."""
    return _field_values(background.field, visit_image, f"background {background.name!r}")


def _field_values(background: Image | BaseField, visit_image: VisitImage, name: str) -> np.ndarray:
    """Return a background in the pixels and the unit of a visit image."""
    bbox, unit = visit_image.bbox, visit_image.unit
    covered: Box = background.bbox if isinstance(background, Image) else background.bounds.bbox
    if not covered.contains(bbox):
        raise UnusableExposureError(
            "bad_background", f"The {name} covers {covered}, but the visit image needs {bbox}."
        )
    try:
        factor = 1.0 if background.unit is None else background.unit.to(unit)
    except u.UnitConversionError as exc:
        raise UnusableExposureError(
            "bad_background",
            f"The {name} is in {background.unit}, which cannot be converted to the {unit} of the pixels.",
        ) from exc
    image = background[bbox] if isinstance(background, Image) else background.render(bbox, dtype=np.float32)
    return np.asarray(image.array * factor)
