# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Objects of the full stack: the only place that knows its types."""

from __future__ import annotations

__all__ = (
    "WarpPointSpreadFunction",
    "background_image_from_legacy",
    "patch_geometry_from_skymap",
    "visit_calibration_from_summary",
    "visit_image_from_exposure",
    "visit_image_from_warp",
)

import dataclasses
import math
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np

from lsst.images import (
    YX,
    Box,
    DetectorFrame,
    Image,
    Mask,
    MaskPlane,
    SkyProjection,
    TractFrame,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.cells import CellGrid, PatchDefinition
from lsst.images.fields import BaseField, field_from_legacy_photo_calib
from lsst.images.psfs import PointSpreadFunction

from ._direct_warp import make_warp_image
from ._exposure_id import ExposureId, UnusableExposureError
from ._patch_geometry import PatchGeometry, choose_cell_shape
from ._recalibration import VisitCalibration


def patch_geometry_from_skymap(
    skymap: Any, *, name: str, tract: int, patch: int, cell_size: int
) -> PatchGeometry:
    """Take the geometry of a patch from a sky map of the full stack.

    A patch whose tract builder knows cells keeps them; its cells leave out
    the border that the outer box adds to them.  Any other patch is cut into
    cells of about the size that is asked for.

    Parameters
    ----------
    skymap
        A ``lsst.skymap.BaseSkyMap``.
    name
        Name of the sky map.
    tract
        Tract ID.
    patch
        Sequential patch ID.
    cell_size
        Side in pixels of the cells of a patch without cells, if that divides
        its outer box; otherwise the nearest size that does.

    Returns
    -------
    geometry : `PatchGeometry`
        The geometry in the types of `lsst.images`.

    Raises
    ------
    ValueError
        If no size between half and twice that divides the outer box of a
        patch without cells.
    """
    tract_info = skymap[tract]
    patch_info = tract_info[patch]
    outer = Box.from_legacy(patch_info.getOuterBBox())
    if patch_info.getNumCells().x > 0:
        inner_size = patch_info.getCellInnerDimensions()
        cell_shape = YX(y=inner_size.y, x=inner_size.x)
        outer = outer.padded(-patch_info.getCellBorder())
    else:
        cell_shape = choose_cell_shape(outer, cell_size)
    frame = TractFrame(skymap=name, tract=tract, bbox=Box.from_legacy(tract_info.getBBox()))
    index = patch_info.getIndex()
    return PatchGeometry(
        projection=SkyProjection.from_legacy(tract_info.getWcs(), frame),
        definition=PatchDefinition(
            id=patch,
            index=YX(y=index.y, x=index.x),
            inner_bbox=Box.from_legacy(patch_info.getInnerBBox()),
            cells=CellGrid(bbox=outer, cell_shape=cell_shape),
        ),
    )


def visit_image_from_exposure(exposure: Any) -> VisitImage:
    """Convert an exposure of the full stack.

    Parameters
    ----------
    exposure
        A ``lsst.afw.image.ExposureF``.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The same image; mask planes that have no counterpart keep their name.
        Where the file does not state a unit, pixels with a photometric
        calibration of one are in nJy, and others in electron, the unit that
        `lsst.images` supposes of what is not calibrated.
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


def visit_calibration_from_summary(
    summary: Any, identity: ExposureId, *, psf: bool, wcs: bool, photo_calib: bool
) -> VisitCalibration:
    """Take the calibration of one detector from a visit summary.

    Parameters
    ----------
    summary
        A ``lsst.afw.table.ExposureCatalog`` with a record for each detector,
        whose ID is that of the detector.
    identity
        Which exposure.
    psf
        Whether to take the PSF.
    wcs
        Whether to take the projection to the sky.
    photo_calib
        Whether to take the photometric calibration.

    Returns
    -------
    calibration : `VisitCalibration`
        What was asked for.

    Raises
    ------
    UnusableExposureError
        If there is no record of the detector, with reason
        ``not_in_visit_summary``, or one of the three is missing there or, of
        the photometric calibration, not finite: ``no_psf``, ``no_wcs`` and
        ``no_photo_calib``.
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


def visit_image_from_warp(warp: Any, identity: ExposureId) -> VisitImage:
    """Convert a direct warp of the full stack.

    Parameters
    ----------
    warp
        A ``lsst.afw.image.ExposureF`` on pixels of the tract, as
        ``lsst.drp.tasks.make_direct_warp.MakeDirectWarpTask`` writes it.
    identity
        Which visit.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The same image, as of a detector that covers the patch.

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
    return make_warp_image(
        image,
        mask=Mask.from_legacy(warp.getMask(), plane_map=_plane_map(warp.getMask())),
        variance=Image.from_legacy(warp.getVariance(), unit=None if unit is None else unit**2),
        projection=SkyProjection.from_legacy(warp.getWcs(), frame),
        psf=WarpPointSpreadFunction(warp.getPsf(), image.bbox),
        identity=dataclasses.replace(
            identity,
            physical_filter=label.physicalLabel if label is not None and label.hasPhysicalLabel() else "",
        ),
        band=label.bandLabel if label is not None and label.hasBandLabel() else "",
    )


class WarpPointSpreadFunction(PointSpreadFunction):
    """PSF of a direct warp, which is known only where its visit has pixels.

    Elsewhere it is that at the average position.  Every kernel has the box of
    the one there, with a margin for the others.

    Parameters
    ----------
    psf
        A ``lsst.meas.algorithms.CoaddPsf`` or another PSF.
    bounds
        Box of the warp.
    """

    _MARGIN = 4

    def __init__(self, psf: Any, bounds: Box) -> None:
        self._psf = psf
        self._bounds = bounds

    @property
    def bounds(self) -> Box:
        return self._bounds

    @cached_property
    def kernel_bbox(self) -> Box:
        kernel = self._psf.computeKernelImage(self._psf.getAveragePosition())
        radius = max(Box.from_legacy(kernel.getBBox()).shape) // 2 + self._MARGIN
        return Box.factory[-radius : radius + 1, -radius : radius + 1]

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        kernel = Image.from_legacy(self._compute("computeKernelImage", x, y))
        common = kernel.bbox.intersection(self.kernel_bbox)
        result = Image(0.0, bbox=self.kernel_bbox, dtype=np.float64)
        result[common] = kernel[common]
        return result

    def compute_stellar_image(self, *, x: float, y: float) -> Image:
        return Image.from_legacy(self._compute("computeImage", x, y))

    def compute_stellar_bbox(self, *, x: float, y: float) -> Box:
        return Box.from_legacy(self._compute("computeImage", x, y).getBBox())

    def _compute(self, method: str, x: float, y: float) -> Any:
        from lsst.afw.detection import InvalidPsfError
        from lsst.geom import Point2D

        compute = getattr(self._psf, method)
        try:
            return compute(Point2D(x, y))
        except InvalidPsfError:
            # No detector of the visit covers this position.
            return compute(self._psf.getAveragePosition())


def background_image_from_legacy(background: Any) -> Image:
    """Convert a background of the full stack, such as a sky correction.

    Parameters
    ----------
    background
        A ``lsst.afw.math.BackgroundList``.

    Returns
    -------
    image : `lsst.images.Image`
        The background over its whole detector, without a unit, which the
        full stack does not record: it is that of the pixels it was measured
        on.
    """
    return Image.from_legacy(background.getImage())
