# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small visit images with an analytic truth."""

from __future__ import annotations

__all__ = ("StarField", "make_patch_geometry", "make_projection", "make_visit_image", "place_cutout")

import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.wcs import WCS

from lsst.images import (
    Box,
    DetectorFrame,
    Image,
    Mask,
    MaskSchema,
    SkyProjection,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.psfs import GaussianPointSpreadFunction

from ..adapters import PatchGeometry, SkyMapGeometry, TractGeometry, VisitCutout
from ..simulation import DetectorLayout, make_detector

_RA, _DEC = 150.1, 2.2
_SCALE = 0.168


def make_patch_geometry(
    *, cells: tuple[int, int] = (2, 3), cell_shape: tuple[int, int] = (40, 32), skymap: str = "test_map"
) -> SkyMapGeometry:
    """Return a sky map of one tract with one row of two patches.

    Parameters
    ----------
    cells
        Cells along y and x in the inner region of a patch; one more on each
        side is shared with the neighbour.
    cell_shape
        Height and width of a cell in pixels.
    skymap
        Name of the sky map.

    Returns
    -------
    geometry : `lsst.astroclearnet.adapters.SkyMapGeometry`
        Patches 0 and 1 of tract 3.
    """
    tract = TractGeometry(
        tract=3,
        ra_deg=_RA,
        dec_deg=_DEC,
        pixel_scale_arcsec=_SCALE,
        cell_shape=cell_shape,
        patch_cells=cells,
        num_patches=(1, 2),
    )
    return SkyMapGeometry(skymap=skymap, tracts=(tract,))


def make_projection(
    shape: tuple[int, int],
    *,
    rotation: float = 0.0,
    scale: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
    distortion: float = 0.0,
    center: tuple[float, float] = (_RA, _DEC),
    visit: int = 1,
    detector: int = 0,
    instrument: str = "TestCam",
) -> SkyProjection[DetectorFrame]:
    """Return the projection of a detector near the test tract.

    Parameters
    ----------
    shape
        Height and width of the detector in pixels.
    rotation
        Angle in degrees.
    scale
        Pixel scale relative to that of the tract.
    offset
        Pixels, along y and x, from the middle of the detector to where it
        points.
    distortion
        Cubic TPV term: relative change of scale at the edge of a field of
        0.1 degree radius.
    center
        Right ascension and declination in degrees.
    visit
        Visit ID.
    detector
        Detector ID.
    instrument
        Name of the instrument.

    Returns
    -------
    projection : `lsst.images.SkyProjection`
        A TAN or, with a distortion, TPV projection.
    """
    bbox = Box.from_shape(shape)
    wcs = WCS(naxis=2)
    kind = "TPV" if distortion else "TAN"
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.crval = list(center)
    wcs.wcs.crpix = [bbox.x.center + 1.0 + offset[1], bbox.y.center + 1.0 + offset[0]]
    angle, step = math.radians(rotation), _SCALE * scale / 3600.0
    wcs.wcs.cd = [
        [-step * math.cos(angle), step * math.sin(angle)],
        [step * math.sin(angle), step * math.cos(angle)],
    ]
    wcs.wcs.radesys = "ICRS"
    if distortion:
        cubic = distortion / (3.0 * 0.1**2)
        wcs.wcs.set_pv([(axis, term, value) for axis in (1, 2) for term, value in ((1, 1.0), (7, cubic))])
    frame = DetectorFrame(instrument=instrument, visit=visit, detector=detector, bbox=bbox)
    return SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox)


@dataclasses.dataclass(frozen=True)
class StarField:
    """Isolated stars at known positions of a tract.

    Attributes
    ----------
    geometry
        Geometry of a patch, whose projection gives the positions.
    x
        Columns in tract pixels.
    y
        Rows in tract pixels.
    flux
        Fluxes in nJy.
    """

    geometry: PatchGeometry
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray

    def render(self, projection: SkyProjection[Any], shape: tuple[int, int], fwhm: float) -> np.ndarray:
        """Draw the stars with a Gaussian PSF.

        Parameters
        ----------
        projection
            Projection of the image.
        shape
            Height and width of the image.
        fwhm
            FWHM of the PSF in its pixels.

        Returns
        -------
        image : `numpy.ndarray`
            Shape (H, W), nJy, the profiles at pixel centres.
        """
        position = projection.sky_to_pixel(self.geometry.projection.pixel_to_sky(x=self.x, y=self.y))
        sigma = fwhm * gaussian_fwhm_to_sigma
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        image = np.zeros(shape)
        for x, y, flux in zip(np.atleast_1d(position.x), np.atleast_1d(position.y), self.flux, strict=True):
            radius = (columns - x) ** 2 + (rows - y) ** 2
            image += flux * np.exp(-0.5 * radius / sigma**2) / (2.0 * math.pi * sigma**2)
        return image


def make_visit_image(
    image: np.ndarray,
    projection: SkyProjection[DetectorFrame],
    *,
    variance: np.ndarray | float = 1.0,
    fwhm: float = 3.5,
    planes: Mapping[str, np.ndarray] | None = None,
    unit: u.UnitBase = u.nJy,
    band: str = "i",
    physical_filter: str | None = None,
    **changes: Any,
) -> VisitImage:
    """Return a visit image with a Gaussian PSF.

    Parameters
    ----------
    image
        Shape (H, W), the pixels.
    projection
        From `make_projection`, which also names instrument, visit and
        detector.
    variance
        Variance plane, or its constant value.
    fwhm
        FWHM of the PSF in pixels.
    planes
        Mask planes to set, by name, of shape (H, W).
    unit
        Unit of the pixels.
    band
        Name of the band.
    physical_filter
        Name of the filter; made from that of the band by default.
    **changes
        Further arguments of `lsst.images.VisitImage`, which win.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The visit image.
    """
    frame = projection.pixel_frame
    bbox = frame.bbox
    mask = Mask(0, schema=MaskSchema(get_legacy_visit_image_mask_planes().values()), bbox=bbox)
    for name, plane in (planes or {}).items():
        mask.set(name, plane)
    visit, detector = int(frame.visit or 0), int(frame.detector)
    layout = DetectorLayout(detector, f"D{detector}", bbox, 0.0, 0.0)
    arguments: dict[str, Any] = {
        "mask": mask,
        "variance": Image(np.broadcast_to(variance, bbox.shape).astype(np.float32), bbox=bbox, unit=unit**2),
        "sky_projection": projection,
        "psf": GaussianPointSpreadFunction(fwhm * gaussian_fwhm_to_sigma, bounds=bbox, stamp_size=25),
        "band": band,
        "detector": make_detector(layout, visit),
        "obs_info": ObservationInfo(
            instrument=frame.instrument,
            physical_filter=physical_filter or f"{band}_test",
            visit_id=visit,
            exposure_id=visit,
            detector_num=detector,
        ),
    }
    arguments.update(changes)
    return VisitImage(Image(image.astype(np.float32), bbox=bbox, unit=unit), **arguments)


def place_cutout(cutout: VisitCutout, box: Box) -> SimpleNamespace:
    """Return all that is known of an exposure in a box of its patch.

    Parameters
    ----------
    cutout
        The exposure, with a usable pixel there.
    box
        The box, in tract pixels.

    Returns
    -------
    exposure : `types.SimpleNamespace`
        Attributes of the cut-out and of its `PatchExposure`, with
        ``covered``, ``usable`` and the other planes as ``flags``.
    """
    exposure = cutout.within(box)
    assert exposure is not None
    planes = cutout.planes_within(box)
    known = {name: planes.pop(name) for name in ("covered", "usable")}
    return SimpleNamespace(**{**vars(cutout), **vars(exposure), **known, "flags": planes})
