# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What part of the sky a visit image sees, how sharply and how deep."""

from __future__ import annotations

__all__ = ("Overlap", "VisitFootprint", "VisitPsf", "read_visit_psf")

import dataclasses
import math
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from lsst.images import Box, NoOverlapError, Polygon, SkyProjection, TractFrame, VisitImage
from lsst.images.psfs import PointSpreadFunction
from lsst.sphgeom import ConvexPolygon, LonLat

from ..core import InputError
from ._exposure_id import UnusableExposureError
from ._patch_geometry import TractGeometry
from ._pixel_map import PixelMap
from ._psf import psf_stamps
from ._visit_components import ImageHandle, VisitComponents

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
    bbox
        Box of pixels of the visit image that holds it.
    """

    y: float
    x: float
    fraction: float
    bbox: Box


@dataclasses.dataclass(frozen=True)
class VisitFootprint:
    """Where the pixels of a visit image are on the sky.

    Attributes
    ----------
    projection
        Mapping from its pixels to the sky.
    bbox
        Box of its pixels.
    """

    projection: SkyProjection[Any]
    bbox: Box

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
            return Overlap(y=self.bbox.y.center, x=self.bbox.x.center, fraction=1.0, bbox=self.bbox)
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
        return Overlap(
            y=float(pixel.y),
            x=float(pixel.x),
            fraction=part.area / outline.area,
            bbox=self._box_of(plane.pixel_to_sky(x=part.x_vertices, y=part.y_vertices)),
        )

    def psf_stamp(self, psf: PointSpreadFunction, *, y: float, x: float, pixel_scale: float) -> np.ndarray:
        """Return a PSF on square pixels of some size with north up.

        Parameters
        ----------
        psf
            PSF of the visit image, on its own pixels.
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
            stamp = psf_stamps(psf, pixel_map, self.bbox)[0, 0]
        except InputError as exc:
            raise UnusableExposureError("bad_psf", str(exc)) from exc
        return np.asarray(stamp)

    def resize_variance(self, variance: float, pixel_scale: float) -> float:
        """Return the variance that pixels of another size would have.

        Parameters
        ----------
        variance
            Variance of the image's own pixels.
        pixel_scale
            Size of the other pixels in arcsec.

        Returns
        -------
        variance : `float`
            That of white noise of the same power per area.
        """
        return variance * (pixel_scale / self.pixel_scale) ** 2

    def _box_of(self, sky: SkyCoord) -> Box:
        """Return the box of pixels around positions, inside the image."""
        pixels = self.projection.sky_to_pixel(sky)
        intervals = []
        for values, own in ((pixels.y, self.bbox.y), (pixels.x, self.bbox.x)):
            start = min(max(math.floor(float(np.min(values)) + 0.5), own.min), own.max)
            stop = max(min(math.ceil(float(np.max(values)) - 0.5), own.max), start) + 1
            intervals.append(slice(start, stop))
        return Box.factory[intervals[0], intervals[1]]


@dataclasses.dataclass(frozen=True)
class VisitPsf(VisitFootprint):
    """What a visit image says of the resolution and the noise it can give.

    Attributes
    ----------
    projection
        Mapping from its pixels to the sky.
    bbox
        Box of its pixels.
    psf
        Its PSF, on its own pixels.
    level
        Variance of the blank sky: the median of the variance plane over the
        usable pixels, in nJy^2.
    """

    psf: PointSpreadFunction
    level: float

    def stamp(self, *, y: float, x: float, pixel_scale: float) -> np.ndarray:
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
        return self.psf_stamp(self.psf, y=y, x=x, pixel_scale=pixel_scale)

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
        return self.resize_variance(self.level, pixel_scale)


def read_visit_psf(source: VisitImage | ImageHandle) -> VisitPsf:
    """Read the PSF and the blank-sky variance of a visit image.

    Parameters
    ----------
    source
        A visit image of `lsst.images`, or a handle of one or of an afw
        exposure.

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
    components = VisitComponents(source)
    parts = components.read("psf", "sky_projection", "bbox")
    level, _ = components.sky_variance()
    return VisitPsf(projection=parts["sky_projection"], bbox=parts["bbox"], psf=parts["psf"], level=level)


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
