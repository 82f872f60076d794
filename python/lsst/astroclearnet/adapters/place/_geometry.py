# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Geometry of patches: sky projection, boxes and cells."""

from __future__ import annotations

__all__ = (
    "PatchGeometry",
    "SkyMapGeometry",
    "TractGeometry",
    "box_region",
    "choose_cell_shape",
    "crop_to_patch",
    "patch_slices",
    "pixel_scale",
)

import math
from collections.abc import Mapping
from typing import Any, Literal

import astropy.units as u
import numpy as np
import pydantic
from astropy.wcs import WCS

from lsst.images import YX, Box, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d


class PatchGeometry(pydantic.BaseModel, frozen=True, arbitrary_types_allowed=True):
    """Sky projection, boxes and cells of a patch.

    Attributes
    ----------
    projection
        Mapping from patch pixels (tract coordinates) to ICRS.
    definition
        Identifiers, inner bounding box and cell grid, whose box is the outer
        bounding box of the patch.
    """

    projection: SkyProjection[TractFrame]
    definition: PatchDefinition

    @property
    def bbox(self) -> Box:
        """Outer bounding box in tract pixels (`lsst.images.Box`)."""
        return self.definition.cells.bbox

    @property
    def skymap(self) -> str:
        """Name of the sky map (`str`)."""
        return self.projection.pixel_frame.skymap

    @property
    def tract(self) -> int:
        """Tract ID (`int`)."""
        return self.projection.pixel_frame.tract

    @property
    def pixel_scale(self) -> float:
        """Pixel scale at the centre of the patch in arcsec (`float`)."""
        return pixel_scale(self.projection, self.bbox)


class TractGeometry(pydantic.BaseModel, frozen=True):
    """A tangent-plane tract cut into a grid of patches made of cells.

    Attributes
    ----------
    tract
        Tract ID.
    ra_deg, dec_deg
        ICRS position of the tangent point, at the centre of the tract.
    pixel_scale_arcsec
        Size of a pixel at the tangent point.
    cell_shape
        Height and width of a cell in pixels.
    patch_cells
        Number of cells along y and x in the inner region of a patch.
    border_cells
        Number of cells on each side that a patch shares with its neighbours.
    num_patches
        Number of patches along y and x.
    """

    tract: int
    ra_deg: float
    dec_deg: float
    pixel_scale_arcsec: float = pydantic.Field(gt=0)
    cell_shape: tuple[pydantic.PositiveInt, pydantic.PositiveInt]
    patch_cells: tuple[pydantic.PositiveInt, pydantic.PositiveInt]
    border_cells: pydantic.NonNegativeInt = 1
    num_patches: tuple[pydantic.PositiveInt, pydantic.PositiveInt]

    @property
    def bbox(self) -> Box:
        """Bounding box of the tract, which starts at pixel (0, 0)."""
        return Box.from_shape(
            [
                (n * p + 2 * self.border_cells) * c
                for n, p, c in zip(self.num_patches, self.patch_cells, self.cell_shape, strict=True)
            ]
        )

    def projection(self, skymap: str) -> SkyProjection[TractFrame]:
        """Return the gnomonic projection of the tract, north up, east left.

        Parameters
        ----------
        skymap
            Name of the sky map, recorded in the pixel frame.
        """
        bbox = self.bbox
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crpix = [bbox.x.center + 1.0, bbox.y.center + 1.0]
        wcs.wcs.crval = [self.ra_deg, self.dec_deg]
        scale = self.pixel_scale_arcsec / 3600.0
        wcs.wcs.cd = [[-scale, 0.0], [0.0, scale]]
        wcs.wcs.radesys = "ICRS"
        frame = TractFrame(skymap=skymap, tract=self.tract, bbox=bbox)
        return SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox)

    def patch(self, patch: int) -> PatchDefinition:
        """Return index, inner box and cell grid of a patch.

        Parameters
        ----------
        patch
            Patch ID, ``y_index * num_patches[1] + x_index``.

        Raises
        ------
        LookupError
            If the tract has no such patch.
        """
        if not 0 <= patch < self.num_patches[0] * self.num_patches[1]:
            raise LookupError(
                f"Tract {self.tract} has {self.num_patches[0]}x{self.num_patches[1]} patches; "
                f"patch {patch} is not one of them."
            )
        index = divmod(patch, self.num_patches[1])
        inner_shape = [p * c for p, c in zip(self.patch_cells, self.cell_shape, strict=True)]
        border = [self.border_cells * c for c in self.cell_shape]
        inner = Box.from_shape(
            inner_shape, start=[b + i * s for b, i, s in zip(border, index, inner_shape, strict=True)]
        )
        outer = Box.from_shape(
            [s + 2 * b for s, b in zip(inner_shape, border, strict=True)],
            start=[i * s for i, s in zip(index, inner_shape, strict=True)],
        )
        cells = CellGrid(bbox=outer, cell_shape=YX(*self.cell_shape))
        return PatchDefinition(id=patch, index=YX(*index), inner_bbox=inner, cells=cells)


class SkyMapGeometry(pydantic.BaseModel, frozen=True):
    """Tracts of patches of cells, readable without the full stack.

    It is stored as a plain dictionary (``StructuredDataDict``).

    Attributes
    ----------
    format
        Identifier of the layout of the dictionary.
    skymap
        Name of the sky map.
    tracts
        Its tracts.
    """

    format: Literal["astroclearnet.skymap_geometry.v1"] = "astroclearnet.skymap_geometry.v1"
    skymap: str
    tracts: tuple[TractGeometry, ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SkyMapGeometry:
        """Construct from the content of a geometry dataset.

        Parameters
        ----------
        content
            The dictionary, as made by `to_dict`.

        Raises
        ------
        ValueError
            If a key is missing or has a bad value, which a
            ``pydantic.ValidationError`` names.
        """
        return cls.model_validate(dict(content))

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of plain Python values for `from_dict`."""
        return self.model_dump(mode="json")

    def tract(self, tract: int) -> TractGeometry:
        """Return one tract.

        Parameters
        ----------
        tract
            Tract ID.

        Raises
        ------
        LookupError
            If the sky map has no such tract.
        """
        for candidate in self.tracts:
            if candidate.tract == tract:
                return candidate
        raise LookupError(f"Sky map {self.skymap!r} has no tract {tract}.")

    def patch(self, tract: int, patch: int) -> PatchGeometry:
        """Return the geometry of one patch.

        Parameters
        ----------
        tract, patch
            Tract ID and patch ID.

        Raises
        ------
        LookupError
            If the sky map has no such tract or patch.
        """
        geometry = self.tract(tract)
        return PatchGeometry(projection=geometry.projection(self.skymap), definition=geometry.patch(patch))


def choose_cell_shape(bbox: Box, cell_size: int) -> YX[int]:
    """Return along each side the divisor of its length nearest to a size.

    Parameters
    ----------
    bbox
        Outer box of the patch.
    cell_size
        Side in pixels that cells are to have.

    Raises
    ------
    ValueError
        If a side has no divisor between half and twice the size.
    """
    sides = []
    for length in bbox.shape:
        divisors = [n for n in range(-(-cell_size // 2), 2 * cell_size + 1) if length % n == 0]
        if not divisors:
            raise ValueError(
                f"A patch of {bbox.shape.y}x{bbox.shape.x} pixels cannot be divided into cells of "
                f"{cell_size} pixels: {length} has no divisor between half and twice that. Change cell_size."
            )
        sides.append(min(divisors, key=lambda n: abs(math.log(n / cell_size))))
    return YX(y=sides[0], x=sides[1])


def patch_slices(shape: tuple[int, ...], geometry: PatchGeometry) -> tuple[slice, slice]:
    """Return rows and columns of a patch in an array with an even border.

    Parameters
    ----------
    shape
        Shape of the array, (..., H, W).
    geometry
        Geometry of the patch.
    """
    rows, columns = (
        slice((full - part) // 2, (full - part) // 2 + part)
        for full, part in zip(shape[-2:], geometry.bbox.shape, strict=True)
    )
    return rows, columns


def crop_to_patch(array: np.ndarray, geometry: PatchGeometry) -> np.ndarray:
    """Return a view of a patch in an array with an even border.

    Parameters
    ----------
    array
        Shape (..., H, W).
    geometry
        Geometry of the patch.
    """
    return array[..., *patch_slices(array.shape, geometry)]


def pixel_scale(projection: SkyProjection[Any], bbox: Box) -> float:
    """Return the size in arcsec of the pixel in the middle of a box.

    Parameters
    ----------
    projection
        Mapping from pixels to the sky.
    bbox
        The box.
    """
    y, x = bbox.y.center, bbox.x.center
    sky = projection.pixel_to_sky(YX(y=np.array([y, y, y + 1.0]), x=np.array([x, x + 1.0, x])))
    east, north = (offset.to_value(u.arcsec) for offset in sky[0].spherical_offsets_to(sky[1:]))
    return math.sqrt(abs(east[0] * north[1] - east[1] * north[0]))


def box_region(projection: SkyProjection[Any], bbox: Box) -> ConvexPolygon:
    """Return the region of sky between the corners of a box.

    Parameters
    ----------
    projection
        Mapping from pixels to the sky.
    bbox
        The box, whose outer pixel edges are used.

    Returns
    -------
    region : `lsst.sphgeom.ConvexPolygon`
        Polygon with the four corners as vertices.
    """
    x = np.array([bbox.x.min, bbox.x.max + 1, bbox.x.max + 1, bbox.x.min]) - 0.5
    y = np.array([bbox.y.min, bbox.y.min, bbox.y.max + 1, bbox.y.max + 1]) - 0.5
    sky = projection.pixel_to_sky(YX(y=y, x=x))
    return ConvexPolygon(
        [
            UnitVector3d(LonLat.fromDegrees(float(ra), float(dec)))
            for ra, dec in zip(sky.ra.deg, sky.dec.deg, strict=True)
        ]
    )
