# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF and blank-sky variance of visit images, without their pixels."""

from __future__ import annotations

__all__ = ("Overlap", "VisitPsf", "read_visit_psf")

import dataclasses
import logging
from typing import Any, cast

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord

from lsst.daf.butler import DeferredDatasetHandle
from lsst.images import Box, NoOverlapError, Polygon, SkyProjection, TractFrame, VisitImage
from lsst.images.psfs import PointSpreadFunction
from lsst.images.serialization import ArchiveReadError
from lsst.sphgeom import ConvexPolygon, LonLat

from ..adapters import (
    DEFAULT_EXCLUDED_PLANES,
    PixelMap,
    TractGeometry,
    UnusableExposureError,
    mask_of_planes,
    psf_stamps,
    visit_image_from_exposure,
)
from ..core import InputError

type Array = npt.NDArray[np.float64]

_LOG = logging.getLogger(__name__)

_COMPONENTS = ("psf", "variance", "mask", "sky_projection", "bbox")
_LOCAL_SIZE = 3
"""Side in pixels of the grid that carries a PSF to other pixels: what central
differences take."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The part of a region that a visit image covers.

    Attributes
    ----------
    y, x
        Its centre in pixels of the visit image.
    fraction
        Its share of the area of the region.
    """

    y: float
    x: float
    fraction: float


@dataclasses.dataclass(frozen=True)
class VisitPsf:
    """What a visit image says of the resolution and the noise it can give.

    Attributes
    ----------
    psf
        Its PSF, on its own pixels.
    projection
        Mapping from its pixels to the sky.
    bbox
        Box of its pixels.
    level
        Variance of the blank sky: the median of the variance plane over the
        usable pixels, in nJy^2.
    """

    psf: PointSpreadFunction
    projection: SkyProjection[Any]
    bbox: Box
    level: float

    @property
    def pixel_scale(self) -> float:
        """Size of the pixel in the middle in arcsec (`float`)."""
        y, x = self.bbox.y.center, self.bbox.x.center
        sky = self.projection.pixel_to_sky(x=np.array([x, x + 1.0, x]), y=np.array([y, y, y + 1.0]))
        steps = sky[0].separation(sky[1:]).to_value(u.arcsec)
        return float(np.sqrt(steps[0] * steps[1]))

    def overlap(self, region: ConvexPolygon | None) -> Overlap | None:
        """Return which part of a region of sky the image covers.

        Parameters
        ----------
        region
            The region; `None` stands for the footprint of the image.

        Returns
        -------
        overlap : `Overlap` or `None`
            The part; `None` if there is none.
        """
        if region is None:
            return Overlap(y=self.bbox.y.center, x=self.bbox.x.center, fraction=1.0)
        center = LonLat(region.getCentroid())
        plane, _ = _local_grid(center.getLon().asDegrees(), center.getLat().asDegrees(), 1.0)
        corners = [LonLat(vertex) for vertex in region.getVertices()]
        outline = _outline(
            plane,
            SkyCoord(
                ra=[corner.getLon().asDegrees() for corner in corners] * u.deg,
                dec=[corner.getLat().asDegrees() for corner in corners] * u.deg,
            ),
        )
        edge = self.bbox.to_polygon()
        image = _outline(plane, self.projection.pixel_to_sky(x=edge.x_vertices, y=edge.y_vertices))
        try:
            part = outline.intersection(image)
        except NoOverlapError:
            return None
        if not isinstance(part, Polygon):
            return None
        sky = plane.pixel_to_sky(x=part.centroid.x, y=part.centroid.y)
        pixel = self.projection.sky_to_pixel(sky)
        return Overlap(y=float(pixel.y), x=float(pixel.x), fraction=part.area / outline.area)

    def stamp(self, *, y: float, x: float, pixel_scale: float) -> Array:
        """Return the PSF on square pixels of some size with north up.

        Parameters
        ----------
        y
            Row in pixels of the visit image.
        x
            Column.
        pixel_scale
            Size of the pixels in arcsec.

        Returns
        -------
        stamp : `numpy.ndarray`
            Shape (P, P), P odd, sum 1.

        Raises
        ------
        UnusableExposureError
            If the PSF cannot be evaluated there.
        """
        sky = self.projection.pixel_to_sky(x=x, y=y)
        grid, box = _local_grid(float(sky.ra.deg), float(sky.dec.deg), pixel_scale)
        pixel_map = PixelMap.from_projections(grid, box, self.projection)
        try:
            stamp = psf_stamps(self.psf, pixel_map, self.bbox)[0, 0]
        except InputError as exc:
            raise UnusableExposureError("bad_psf", str(exc)) from exc
        return np.asarray(stamp)

    def level_at(self, pixel_scale: float) -> float:
        """Return the variance that pixels of another size would have.

        Parameters
        ----------
        pixel_scale
            Size of the pixels in arcsec.

        Returns
        -------
        level : `float`
            Variance in nJy^2 of white noise of the same power per area.
        """
        return self.level * (pixel_scale / self.pixel_scale) ** 2


def read_visit_psf(handle: DeferredDatasetHandle) -> VisitPsf:
    """Read the PSF and the blank-sky variance of a visit image.

    Image pixels are read only where the storage has no components, or where
    the variance needs a calibration.

    Parameters
    ----------
    handle
        Handle of a visit image of `lsst.images`, or of an afw exposure.

    Returns
    -------
    visit : `VisitPsf`
        What was read.

    Raises
    ------
    UnusableExposureError
        If the image cannot be read, has no PSF, no usable pixel or a unit
        that is not calibrated.
    """
    try:
        names = {"components": list(_COMPONENTS)}
        parts = cast(dict[str, Any], handle.get(component="components", parameters=names))
        if parts["variance"].unit != u.nJy**2:
            parts = _read_whole(handle)
    except (UnusableExposureError, MemoryError):
        raise
    except Exception as exc:
        # A storage without components or a PSF that cannot be read: reading
        # the whole image tells which.
        _LOG.debug("No read by parts of %s (%s); reading it whole.", handle.dataId, exc)
        parts = _read_whole(handle)
    if parts["psf"] is None:
        raise UnusableExposureError("no_psf", f"{handle.dataId} has no PSF.")
    variance = parts["variance"].array
    usable = np.isfinite(variance) & (variance > 0)
    usable &= ~mask_of_planes(parts["mask"], DEFAULT_EXCLUDED_PLANES)
    if not usable.any():
        raise UnusableExposureError("no_usable_pixels", f"{handle.dataId} has no usable pixel.")
    return VisitPsf(
        psf=parts["psf"],
        projection=parts["sky_projection"],
        bbox=parts["bbox"],
        level=float(np.median(variance[usable])),
    )


def _read_whole(handle: DeferredDatasetHandle) -> dict[str, Any]:
    """Read a visit image and take it apart.

    Parameters
    ----------
    handle
        Handle of the image.

    Returns
    -------
    parts : `dict`
        Its components by name, the variance in nJy^2.

    Raises
    ------
    UnusableExposureError
        If that fails.
    """
    try:
        visit_image = _read_any_format(handle).convert_unit(u.nJy, copy="as-needed")
        return {name: getattr(visit_image, name) for name in _COMPONENTS}
    except MemoryError:
        raise
    except u.UnitConversionError as exc:
        raise UnusableExposureError("not_calibrated", f"{handle.dataId}: {exc}") from exc
    except ArchiveReadError as exc:
        raise UnusableExposureError("no_psf", f"The PSF of {handle.dataId} cannot be read: {exc}") from exc
    except Exception as exc:
        # A file may fail in any way of the library that reads it.
        raise UnusableExposureError("unreadable", f"{handle.dataId} cannot be read: {exc}") from exc


def _read_any_format(handle: DeferredDatasetHandle) -> VisitImage:
    """Read a visit image of `lsst.images`, or an afw exposure as one.

    Parameters
    ----------
    handle
        Handle of the image.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The image.
    """
    if handle.ref.datasetType.storageClass_name.startswith("Exposure"):
        return visit_image_from_exposure(handle.get())
    return cast(VisitImage, handle.get())


def _local_grid(ra_deg: float, dec_deg: float, pixel_scale: float) -> tuple[SkyProjection[TractFrame], Box]:
    """Return a few pixels in the tangent plane of a position, north up.

    Parameters
    ----------
    ra_deg, dec_deg
        The position.
    pixel_scale
        Size of the pixels in arcsec.

    Returns
    -------
    projection : `lsst.images.SkyProjection`
        Mapping from the pixels to the sky.
    bbox : `lsst.images.Box`
        The pixels, of which the middle one is at the position.
    """
    grid = TractGeometry(
        tract=0,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        pixel_scale_arcsec=pixel_scale,
        cell_shape=(_LOCAL_SIZE, _LOCAL_SIZE),
        patch_cells=(1, 1),
        border_cells=0,
        num_patches=(1, 1),
    )
    return grid.projection("local"), grid.bbox


def _outline(plane: SkyProjection[Any], corners: SkyCoord) -> Polygon:
    """Return a polygon in a tangent plane.

    Parameters
    ----------
    plane
        Projection of the plane.
    corners
        Positions on the sky.

    Returns
    -------
    outline : `lsst.images.Polygon`
        The polygon.
    """
    pixels = plane.sky_to_pixel(corners)
    return Polygon(x_vertices=np.asarray(pixels.x), y_vertices=np.asarray(pixels.y))
