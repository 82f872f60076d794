# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Lay out a sky map around exposures."""

from __future__ import annotations

__all__ = ("HasFootprint", "sky_map_around")

import math
from collections.abc import Iterable
from typing import Any, Protocol

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord, SkyOffsetFrame, UnitSphericalRepresentation

from lsst.images import YX, Box, SkyProjection

from ..adapters import SkyMapGeometry, TractGeometry, VisitFootprint

_SCALE_RANGE = 30.0
"""Factor between the sizes of pixels beyond which images are not used."""

type Array = npt.NDArray[np.float64]


class HasFootprint(Protocol):
    """Anything with pixels on the sky, such as a `lsst.images.VisitImage`."""

    @property
    def sky_projection(self) -> SkyProjection[Any]:
        """Mapping from pixels to the sky (`lsst.images.SkyProjection`)."""

    @property
    def bbox(self) -> Box:
        """Bounding box of the pixels (`lsst.images.Box`)."""


def sky_map_around(
    images: Iterable[HasFootprint],
    *,
    skymap: str,
    tract: int = 0,
    cell_size: int = 50,
    pixel_scale: float | None = None,
    num_patches: tuple[int, int] = (1, 1),
    border_cells: int = 0,
) -> SkyMapGeometry:
    """Return a sky map of one tract that covers every pixel of some images.

    Parameters
    ----------
    images
        The images, or whatever else has a footprint.
    skymap
        Name of the sky map.
    tract
        ID of the tract.
    cell_size
        Side of the square cells in pixels.
    pixel_scale
        Size of a pixel in arcsec; by default that of the image with the
        smallest pixels, to a tenth of a milliarcsecond.
    num_patches
        Number of patches along y and x.
    border_cells
        Number of cells by which patches overlap their neighbours; the inner
        regions alone cover the images.

    Returns
    -------
    geometry : `lsst.astroclearnet.adapters.SkyMapGeometry`
        A map of one tract, centred on the footprint of the images.

    Raises
    ------
    ValueError
        If there are no images, if they span more than ten degrees, or if the
        sizes of pixels, cells or patches do not go with them.
    """
    corners: list[SkyCoord] = []
    scales: list[float] = []
    for image in images:
        corners.append(_corners(image))
        scales.append(VisitFootprint(image.sky_projection, image.bbox).pixel_scale)
    if not corners:
        raise ValueError("A sky map cannot be laid out around no images at all.")
    if pixel_scale is None:
        pixel_scale = round(min(scales), 4)
    if not (min(scales) / _SCALE_RANGE < pixel_scale < max(scales) * _SCALE_RANGE and pixel_scale > 0):
        raise ValueError(
            f"pixel_scale={pixel_scale} arcsec does not go with images of {min(scales):g} to {max(scales):g} "
            "arcsec per pixel."
        )
    if cell_size < 1:
        raise ValueError(f"cell_size={cell_size} must be positive.")
    half_height, half_width, center = _half_extent(corners)
    cells = []
    for half, number in zip((half_height, half_width), num_patches, strict=True):
        total = 2.0 * half / (pixel_scale * cell_size) - 1e-9
        if not 1 <= number <= max(1, math.ceil(total)):
            raise ValueError(
                f"num_patches={num_patches} must be positive, and no more than the cells: the images span "
                f"{max(1, math.ceil(total))} of {cell_size} pixels of {pixel_scale} arcsec along a side."
            )
        cells.append(max(1, math.ceil(total / number)))
    geometry = TractGeometry(
        tract=tract,
        ra_deg=float(center.ra.deg),
        dec_deg=float(center.dec.deg),
        pixel_scale_arcsec=pixel_scale,
        cell_shape=(cell_size, cell_size),
        patch_cells=(cells[0], cells[1]),
        border_cells=border_cells,
        num_patches=num_patches,
    )
    return SkyMapGeometry(skymap=skymap, tracts=(geometry,))


def _corners(image: HasFootprint) -> SkyCoord:
    """Return the outer corners of an image."""
    bbox = image.bbox
    x = np.array([bbox.x.min - 0.5, bbox.x.max + 0.5, bbox.x.max + 0.5, bbox.x.min - 0.5])
    y = np.array([bbox.y.min - 0.5, bbox.y.min - 0.5, bbox.y.max + 0.5, bbox.y.max + 0.5])
    return image.sky_projection.pixel_to_sky(YX(y=y, x=x))


def _half_extent(corners: list[SkyCoord]) -> tuple[float, float, SkyCoord]:
    """Return the centre and the half-size of the box around corners."""
    sky = SkyCoord(
        ra=np.concatenate([c.icrs.ra.deg for c in corners]),
        dec=np.concatenate([c.icrs.dec.deg for c in corners]),
        unit="deg",
    )
    mean = sky.cartesian.mean().represent_as(UnitSphericalRepresentation)
    center = SkyCoord(ra=mean.lon, dec=mean.lat)
    for _ in range(2):
        east, north, frame = _tangent_plane(sky, center)
        center = SkyCoord(
            lon=np.arctan((east.min() + east.max()) / 2.0) * u.rad,
            lat=np.arctan((north.min() + north.max()) / 2.0) * u.rad,
            frame=frame,
        ).transform_to("icrs")
    east, north, _ = _tangent_plane(sky, center)
    half_height, half_width = (math.degrees(float(np.abs(values).max())) * 3600.0 for values in (north, east))
    return half_height, half_width, center


def _tangent_plane(sky: SkyCoord, center: SkyCoord) -> tuple[Array, Array, SkyOffsetFrame]:
    """Project positions onto the plane that touches the sky at a point."""
    frame = center.skyoffset_frame()
    local = sky.transform_to(frame).cartesian
    if np.any(local.x < math.cos(math.radians(5.0))):
        raise ValueError("The images span more than ten degrees; lay out one tract per field.")
    return (local.y / local.x).value, (local.z / local.x).value, frame
