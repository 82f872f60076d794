# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures, warps, visit summaries and backgrounds of the full stack."""

from __future__ import annotations

__all__ = (
    "background_image_from_legacy",
    "visit_calibration_from_summary",
    "visit_image_from_exposure",
    "visit_image_from_warp",
)

import dataclasses
import math
from typing import Any

import astropy.units as u
from astro_metadata_translator import ObservationInfo

from lsst.images import (
    Box,
    DetectorFrame,
    Image,
    Mask,
    MaskPlane,
    SkyProjection,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.fields import BaseField, field_from_legacy_photo_calib
from lsst.images.psfs import PointSpreadFunction

from .._exposure_id import ExposureId, UnusableExposureError
from ..place import LegacyPointSpreadFunction
from ._calibration import VisitCalibration


def visit_image_from_exposure(exposure: Any) -> VisitImage:
    """Convert an exposure of the full stack.

    Mask planes without a counterpart keep their name.  Without a stated unit,
    pixels with a photometric calibration of one are in nJy, and others in
    electron, the default of `lsst.images`.

    Parameters
    ----------
    exposure
        A ``lsst.afw.image.ExposureF``.
    """
    # Calibrated pixels have unit calibration; BUNIT is not always written.
    unit = None
    if not exposure.metadata.exists("BUNIT"):
        photo_calib = exposure.getPhotoCalib()
        is_calibrated = photo_calib is not None and photo_calib.getCalibrationMean() == 1.0
        unit = u.nJy if is_calibrated else u.electron
    return VisitImage.from_legacy(
        exposure, exposure_record=None, unit=unit, plane_map=_plane_map(exposure.getMask())
    )


def _plane_map(mask: Any) -> dict[str, MaskPlane]:
    """Return the planes of `lsst.images` by the names of all of a mask's."""
    plane_map = dict(get_legacy_visit_image_mask_planes())
    for plane in mask.getMaskPlaneDict():
        plane_map.setdefault(plane, MaskPlane(name=plane, description=f"Legacy mask plane {plane}."))
    return plane_map


def visit_image_from_warp(warp: Any, identity: ExposureId) -> VisitImage:
    """Convert a direct warp of the full stack.

    Parameters
    ----------
    warp
        A ``lsst.afw.image.ExposureF`` on pixels of the tract, as written by
        ``lsst.drp.tasks.make_direct_warp.MakeDirectWarpTask``.
    identity
        Which visit.

    Raises
    ------
    UnusableExposureError
        If it has no PSF (``no_psf``), no WCS (``no_wcs``), or is not in nJy
        (``not_calibrated``).
    """
    if not warp.hasPsf():
        raise UnusableExposureError("no_psf", "The direct warp has no PSF.")
    if not warp.hasWcs():
        raise UnusableExposureError("no_wcs", "The direct warp has no WCS.")
    metadata = warp.getMetadata()
    unit = u.Unit(metadata["BUNIT"]) if metadata.exists("BUNIT") else None
    image = Image.from_legacy(warp.getImage(), unit=unit)
    frame = DetectorFrame(
        instrument=identity.instrument, visit=identity.visit, detector=identity.detector, bbox=image.bbox
    )
    label = warp.getFilter()
    return _make_warp_image(
        image,
        mask=Mask.from_legacy(warp.getMask(), plane_map=_plane_map(warp.getMask())),
        variance=Image.from_legacy(warp.getVariance(), unit=None if unit is None else unit**2),
        projection=SkyProjection.from_legacy(warp.getWcs(), frame),
        psf=LegacyPointSpreadFunction(warp.getPsf(), image.bbox),
        identity=dataclasses.replace(
            identity,
            physical_filter=label.physicalLabel if label is not None and label.hasPhysicalLabel() else "",
        ),
        band=label.bandLabel if label is not None and label.hasBandLabel() else "",
    )


def _make_warp_image(
    image: Image,
    *,
    mask: Mask,
    variance: Image,
    projection: SkyProjection[DetectorFrame],
    psf: PointSpreadFunction,
    identity: ExposureId,
    band: str,
) -> VisitImage:
    """Put the planes of a warp together; a warp has no detector."""
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


def visit_calibration_from_summary(
    summary: Any, identity: ExposureId, *, psf: bool, wcs: bool, photo_calib: bool
) -> VisitCalibration:
    """Take the calibration of one detector from a visit summary.

    Parameters
    ----------
    summary
        A ``lsst.afw.table.ExposureCatalog``, whose IDs are those of detectors.
    identity
        Which exposure.
    psf, wcs, photo_calib
        Whether to take the PSF, the projection to the sky and the photometric
        calibration.

    Raises
    ------
    UnusableExposureError
        If there is no record of the detector (``not_in_visit_summary``), or
        one of the three is missing or not usable: ``no_psf``, ``no_wcs``,
        ``no_photo_calib`` or ``already_calibrated``.
    """
    record = summary.find(identity.detector)
    if record is None:
        raise UnusableExposureError(
            "not_in_visit_summary", "The visit summary has no record of its detector."
        )
    bbox = Box.from_legacy(record.getBBox())
    calibration = VisitCalibration()
    if psf:
        legacy_psf = record.getPsf()
        if legacy_psf is None:
            raise UnusableExposureError("no_psf", "The visit summary has no PSF of its detector.")
        calibration = dataclasses.replace(
            calibration, psf=PointSpreadFunction.from_legacy(legacy_psf, bounds=bbox)
        )
    if wcs:
        legacy_wcs = record.getWcs()
        if legacy_wcs is None:
            raise UnusableExposureError("no_wcs", "The visit summary has no WCS of its detector.")
        frame = DetectorFrame(
            instrument=identity.instrument, visit=identity.visit, detector=identity.detector, bbox=bbox
        )
        calibration = dataclasses.replace(
            calibration, projection=SkyProjection.from_legacy(legacy_wcs, frame, pixel_bounds=bbox)
        )
    if photo_calib:
        calibration = dataclasses.replace(calibration, scaling=_scaling(record.getPhotoCalib(), bbox))
    return calibration


def _scaling(photo_calib: Any, bbox: Box) -> BaseField:
    """Return a photometric calibration in nJy for each unit of the pixels."""
    if photo_calib is None:
        raise UnusableExposureError(
            "no_photo_calib", "The visit summary has no photometric calibration of its detector."
        )
    mean = photo_calib.getCalibrationMean()
    if not (math.isfinite(mean) and mean > 0.0):
        raise UnusableExposureError(
            "no_photo_calib",
            f"The visit summary has a photometric calibration of {mean} nJy for its detector.",
        )
    scaling = field_from_legacy_photo_calib(photo_calib, bounds=bbox)
    if scaling is None:
        raise UnusableExposureError(
            "already_calibrated",
            "The photometric calibration of the visit summary is one, that of pixels in nJy; set "
            "use_visit_summary_photo_calib=False.",
        )
    return scaling


def background_image_from_legacy(background: Any) -> Image:
    """Convert a background of the full stack, such as a sky correction.

    The full stack records no unit for it: it is that of the pixels.

    Parameters
    ----------
    background
        A ``lsst.afw.math.BackgroundList``.
    """
    return Image.from_legacy(background.getImage())
