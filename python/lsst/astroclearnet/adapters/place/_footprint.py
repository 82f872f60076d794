# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Footprint of a visit image on the sky, and its PSF and noise there."""

from __future__ import annotations

__all__ = ("Overlap", "VisitFootprint", "VisitPsf")

import dataclasses
import math
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from lsst.images import Box, NoOverlapError, Polygon, SkyProjection, TractFrame
from lsst.images.psfs import PointSpreadFunction
from lsst.sphgeom import ConvexPolygon, LonLat

from ...core import InputError
from .._exposure_id import UnusableExposureError
from ._geometry import TractGeometry, pixel_scale
from ._pixel_map import PixelMap
from ._psf import psf_stamps

_LOCAL_SIZE = 3
"""Side in pixels of the grid for a PSF: that of central differences."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The overlap of a visit image with a region of sky.

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
        """Size of the central pixel in arcsec (`float`)."""
        return pixel_scale(self.projection, self.bbox)

    def outline(self, projection: SkyProjection[Any]) -> Polygon:
        """Return the outer pixel edges in pixels of another projection.

        Parameters
        ----------
        projection
            Mapping from the other pixels to the sky.
        """
        edge = self.bbox.to_polygon()
        return _polygon(projection, self.projection.pixel_to_sky(x=edge.x_vertices, y=edge.y_vertices))

    def overlap(self, region: ConvexPolygon | None) -> Overlap | None:
        """Return the overlap with a region of sky, or `None`.

        Parameters
        ----------
        region
            The region; `None` stands for the footprint itself.
        """
        if region is None:
            return Overlap(y=self.bbox.y.center, x=self.bbox.x.center, fraction=1.0, bbox=self.bbox)
        center = LonLat(region.getCentroid())
        plane, _ = _local_grid(center.getLon().asDegrees(), center.getLat().asDegrees(), 1.0)
        corners = [LonLat(vertex) for vertex in region.getVertices()]
        whole = _polygon(
            plane,
            SkyCoord(
                ra=[corner.getLon().asDegrees() for corner in corners] * u.deg,
                dec=[corner.getLat().asDegrees() for corner in corners] * u.deg,
            ),
        )
        try:
            part = whole.intersection(self.outline(plane))
        except NoOverlapError:
            return None
        if not isinstance(part, Polygon):
            return None
        pixel = self.projection.sky_to_pixel(plane.pixel_to_sky(x=part.centroid.x, y=part.centroid.y))
        return Overlap(
            y=float(pixel.y),
            x=float(pixel.x),
            fraction=part.area / whole.area,
            bbox=self._box_of(plane.pixel_to_sky(x=part.x_vertices, y=part.y_vertices)),
        )

    def psf_stamp(self, psf: PointSpreadFunction, *, y: float, x: float, pixel_scale: float) -> np.ndarray:
        """Return a PSF on square pixels with north up, shape (P, P), P odd.

        Parameters
        ----------
        psf
            PSF of the visit image, on its own pixels.
        y, x
            Row and column in pixels of the visit image.
        pixel_scale
            Size of the square pixels in arcsec.

        Raises
        ------
        UnusableExposureError
            If the PSF cannot be evaluated there.
        """
        sky = self.projection.pixel_to_sky(x=x, y=y)
        grid, box = _local_grid(float(sky.ra.deg), float(sky.dec.deg), pixel_scale)
        pixel_map = PixelMap.from_projections(grid, box, self.projection)
        jacobians = pixel_map.jacobian(y=np.array([box.y.center]), x=np.array([box.x.center]))
        # Beyond the image the PSF is that of its edge.
        y, x = (np.clip(v, side.min, side.max) for v, side in ((y, self.bbox.y), (x, self.bbox.x)))
        try:
            return np.asarray(psf_stamps(psf, y=np.array([y]), x=np.array([x]), jacobians=jacobians)[0])
        except InputError as exc:
            raise UnusableExposureError("bad_psf", str(exc)) from exc

    def resize_variance(self, variance: float, pixel_scale: float) -> float:
        """Return a variance of white noise in pixels of another size.

        Parameters
        ----------
        variance
            Variance of the image's own pixels.
        pixel_scale
            Size of the other pixels in arcsec.
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
    """Footprint, PSF and noise of a visit image.

    Attributes
    ----------
    projection, bbox
        As of `VisitFootprint`.
    psf
        Its PSF, on its own pixels.
    level
        Variance of the blank sky: the median over the usable pixels, in nJy^2.
    """

    psf: PointSpreadFunction
    level: float


def _local_grid(ra_deg: float, dec_deg: float, pixel_scale: float) -> tuple[SkyProjection[TractFrame], Box]:
    """Return a few pixels in the tangent plane of a position, north up."""
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


def _polygon(projection: SkyProjection[Any], sky: SkyCoord) -> Polygon:
    """Return positions on the sky as a polygon in pixels of a projection."""
    pixels = projection.sky_to_pixel(sky)
    return Polygon(x_vertices=np.asarray(pixels.x), y_vertices=np.asarray(pixels.y))
