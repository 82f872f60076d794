# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The cut-out of a visit image on a patch."""

from __future__ import annotations

__all__ = ("PatchExposure", "VisitCutout")

import dataclasses
import math

import numpy as np

from lsst.images import Box, Image, Polygon, VisitImage
from lsst.images.fields import BaseField

from ...core import InputError
from .._exposure_id import ExposureId, UnusableExposureError
from ..place import NearestPixel, PatchGeometry, PatchPsf, PixelMap, VisitFootprint
from ..read import (
    SUBTRACTED_BACKGROUND,
    MaskTable,
    adjust_background,
    convert_to_njy,
    mask_of_planes,
    require_psf,
)
from ._scratch import Scratch

_VALID, _USABLE, _GOOD = 1, 2, 4
"""Bits: the pixel exists; is finite and not excluded; and has its centre on
the patch.  Planes to be propagated follow."""

_PLANES_FROM = 3

_MEAN_CELLS = 4
"""Positions along each side of the patch at which the mean PSF is taken."""


@dataclasses.dataclass(frozen=True)
class _Location:
    """Location of pixels on a patch; attributes as of `PatchExposure`."""

    bbox: Box
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray


@dataclasses.dataclass(frozen=True)
class PatchExposure:
    """The pixels of a visit image in a box of a patch.

    Attributes
    ----------
    box
        The box, in tract pixels.
    bbox
        Box of the arrays of shape (h, w), in pixels of the visit image: the
        smallest around the pixels whose centres are in ``box``.
    image
        Shape (h, w), float32, nJy; 0 where not ``good``.
    variance
        Shape (h, w), float32, nJy^2; 1 where not ``good``.
    good
        Shape (h, w), bool, usable pixels in ``box``.
    y, x
        Shape (h, w), float64, row and column of each pixel centre, counted
        from the first of ``box``; NaN outside.
    area
        Shape (h, w), float32, area of each pixel in pixels of the patch.
    psfs
        Shape (n_cells_y, n_cells_x, P, P), as of `VisitCutout.psfs_within`.
    """

    box: Box
    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray
    psfs: np.ndarray


@dataclasses.dataclass(frozen=True)
class VisitCutout:
    """The overlap of a visit image with a patch, on its own pixels.

    It is small enough to be kept for every exposure; positions and stamps of
    the PSF, which take most memory, are computed for a box of the patch at a
    time.

    Attributes
    ----------
    identity
        Which visit image.
    bbox
        Box of the pixels that are kept, in pixels of the visit image.
    image
        Shape (h, w), float32, nJy.
    variance
        Shape (h, w), float32, nJy^2.
    bits
        Shape (h, w), uint16, flags of each pixel.
    planes
        Names of the mask planes to be propagated, in the order of their bits.
    from_patch
        Map from the bordered box of the patch to the visit image.
    to_patch
        Map from the kept pixels to the patch.
    psf
        PSF of the visit image over the kept pixels.
    polygon
        Overlap with the patch, in tract pixels.
    mean_psf
        Shape (P, P), float64, mean PSF over the patch, on its pixels.
    level
        Median variance of the light in a pixel of the patch, in nJy^2.
    usable_fraction
        Area of the usable pixels over that of the outer box of the patch.
    num_not_finite
        Pixels on the patch without a finite value and a positive variance
        that no mask plane excluded.
    """

    identity: ExposureId
    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    bits: np.ndarray
    planes: tuple[str, ...]
    from_patch: PixelMap
    to_patch: PixelMap
    psf: PatchPsf
    polygon: Polygon
    mean_psf: np.ndarray
    level: float
    usable_fraction: float
    num_not_finite: int

    @classmethod
    def take(
        cls,
        visit_image: VisitImage,
        geometry: PatchGeometry,
        *,
        identity: ExposureId | None = None,
        bbox: Box | None = None,
        pixel_map: PixelMap | None = None,
        mask_table: MaskTable | None = None,
        background: str = SUBTRACTED_BACKGROUND,
        sky_correction: Image | BaseField | None = None,
        scratch: Scratch | None = None,
    ) -> VisitCutout:
        """Cut the pixels that a patch needs out of a visit image.

        Parameters
        ----------
        visit_image
            The visit image, or its overlap with the patch.
        geometry
            Geometry of the patch.
        identity
            Which visit image, if its data ID is known.
        bbox
            Box to fill, in tract pixels: the outer box of the patch, by
            default, or that with an even border.
        pixel_map
            Map from that box to the visit image, if already known.
        mask_table
            Treatment of the mask planes; `DEFAULT_MASK_TREATMENTS` by default.
        background
            Background to subtract: ``subtracted``, the one that was; ``none``;
            or the name of another one that is recorded.
        sky_correction
            What to subtract, at least over the overlap with the patch.
        scratch
            Where to keep the pixels; in memory by default.

        Raises
        ------
        UnusableExposureError
            If the exposure has no PSF, a unit that is not calibrated, a
            background that cannot be added, or no usable pixel on the patch.
        """
        table = MaskTable.from_treatments() if mask_table is None else mask_table
        bbox = geometry.bbox if bbox is None else bbox
        if pixel_map is None:
            pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
        overlap = pixel_map.overlap(visit_image.bbox, padding=1)
        if overlap is None:
            raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
        visit_image = adjust_background(visit_image[overlap], background, correction=sky_correction)
        visit_image = convert_to_njy(visit_image)
        psf = require_psf(visit_image)
        excluded = mask_of_planes(visit_image.mask, table.excluded)
        valid = _valid_pixels(visit_image)
        image, variance = visit_image.image.array, visit_image.variance.array
        finite = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
        to_patch = PixelMap.from_projections(
            visit_image.sky_projection, visit_image.bbox, geometry.projection
        )
        location = _locate(to_patch, bbox)
        if location is None:
            raise UnusableExposureError("no_overlap", "The visit image has no pixel centre on the patch.")
        cut = location.bbox.slice_within(visit_image.bbox)
        on_patch = np.zeros(valid.shape, dtype=bool)
        on_patch[cut] = np.isfinite(location.y)
        usable = finite & ~excluded & valid
        good = usable & on_patch
        start = bbox.start
        within = _inside(location.y + start.y, location.x + start.x, geometry.bbox)
        if not (within & valid[cut]).any():
            raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
        within &= good[cut]
        if not within.any():
            raise UnusableExposureError("no_usable_pixels", "No usable pixel falls onto the patch.")
        try:
            patch_psf = PatchPsf.evaluate(psf, to_patch)
            stamps = patch_psf.stamps(pixel_map, max_cells=_MEAN_CELLS)
        except InputError as exc:
            raise UnusableExposureError("bad_psf", str(exc)) from exc
        bits = _VALID * valid.astype(np.uint16) + _USABLE * usable.astype(np.uint16)
        bits += _GOOD * good.astype(np.uint16)
        for k, plane in enumerate(table.propagated, _PLANES_FROM):
            bits |= mask_of_planes(visit_image.mask, [plane]).astype(np.uint16) << np.uint16(k)
        area = location.area[good[cut]].astype(float)
        scratch = Scratch() if scratch is None else scratch
        return cls(
            identity=ExposureId.from_visit_image(visit_image) if identity is None else identity,
            bbox=visit_image.bbox,
            image=scratch.store(np.where(good, image, 0.0).astype(np.float32)),
            variance=scratch.store(np.where(good, variance, 1.0).astype(np.float32)),
            bits=scratch.store(bits),
            planes=tuple(table.propagated),
            from_patch=pixel_map,
            to_patch=to_patch,
            psf=patch_psf,
            polygon=_cover_polygon(visit_image, geometry),
            mean_psf=np.nanmean(stamps, axis=(0, 1)),
            level=float(np.median(variance[good] / area)),
            usable_fraction=float(location.area[within].sum(dtype=float)) / geometry.bbox.area,
            num_not_finite=int((~finite & ~excluded & valid & on_patch).sum()),
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of the pixels that are kept (`int`)."""
        return self.image.nbytes + self.variance.nbytes + self.bits.nbytes

    @property
    def is_in_memory(self) -> bool:
        """Whether the pixels are in memory, not in files (`bool`)."""
        return not isinstance(self.image, np.memmap)

    @property
    def good(self) -> np.ndarray:
        """Usable pixels with centres on the patch, shape (h, w), bool."""
        return (self.bits & _GOOD) > 0

    def overlap(self, box: Box) -> Box | None:
        """Return which pixels may be in a box of the patch; `None` without.

        Parameters
        ----------
        box
            A box in the bordered patch, in tract pixels.
        """
        return self.from_patch.part(box).overlap(self.bbox, padding=1)

    def within(self, box: Box) -> PatchExposure | None:
        """Return the pixels with centres in a box; `None` if none is usable.

        Parameters
        ----------
        box
            A box in the bordered patch, in tract pixels.

        Raises
        ------
        lsst.astroclearnet.core.InputError
            If the PSF cannot be evaluated.
        """
        overlap = self.overlap(box)
        location = None if overlap is None else _locate(self.to_patch.part(overlap), box)
        if location is None:
            return None
        cut = location.bbox.slice_within(self.bbox)
        good = ((self.bits[cut] & _GOOD) > 0) & np.isfinite(location.y)
        image = np.where(good, self.image[cut], np.float32(0.0))
        variance = np.where(good, self.variance[cut], np.float32(1.0))
        Scratch.release(self.image, self.variance, self.bits)
        if not good.any():
            return None
        return PatchExposure(
            box=box,
            image=image,
            variance=variance,
            good=good,
            psfs=self.psfs_within(box),
            **vars(location),
        )

    def psfs_within(self, box: Box, *, max_cells: int | None = None) -> np.ndarray:
        """Return PSFs in the middles of equal cells of a box.

        Parameters
        ----------
        box
            A box in the bordered patch, in tract pixels.
        max_cells
            Largest number of cells along each side; by default they have
            sides of about 50 pixels.

        Returns
        -------
        psfs : `numpy.ndarray`
            Shape (n_cells_y, n_cells_x, P, P), float64, sum 1, on pixels of
            the patch; NaN where the visit image has no position.

        Raises
        ------
        lsst.astroclearnet.core.InputError
            If the PSF cannot be evaluated.
        """
        return self.psf.stamps(self.from_patch.part(box), max_cells=max_cells)

    def planes_within(self, box: Box) -> dict[str, np.ndarray]:
        """Return planes of the nearest pixel in a box, shape (H, W), bool.

        They are ``covered``, where there is one, ``usable``, and the mask
        planes to be propagated, by name.

        Parameters
        ----------
        box
            A box in the bordered patch, in tract pixels.
        """
        bits = np.zeros(tuple(box.shape), dtype=self.bits.dtype)
        reached = self.to_patch.overlap(box, padding=self._pixel_reach)
        if reached is not None:
            nearest = NearestPixel(self.from_patch.part(reached), self.bbox)
            bits[reached.slice_within(box)] = nearest(self.bits)
        Scratch.release(self.bits)
        names = ["covered", "usable", *(None,) * (_PLANES_FROM - 2), *self.planes]
        return {name: (bits >> k & 1) > 0 for k, name in enumerate(names) if name is not None}

    @property
    def _pixel_reach(self) -> int:
        """Twice the reach of a pixel around its centre, in patch pixels."""
        y, x = self.bbox.y.center, self.bbox.x.center
        return math.ceil(np.abs(self.to_patch.jacobian(y=np.array(y), x=np.array(x))).sum(axis=-1).max())


def _locate(to_patch: PixelMap, box: Box) -> _Location | None:
    """Find the pixels of a visit image whose centres are in a box."""
    y, x = to_patch.positions()
    inside = _inside(y, x, box)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    start = to_patch.bbox.start
    found = Box.factory[
        start.y + cut[0].start : start.y + cut[0].stop, start.x + cut[1].start : start.x + cut[1].stop
    ]
    return _Location(
        bbox=found,
        y=np.where(inside[cut], y[cut] - box.y.start, np.nan),
        x=np.where(inside[cut], x[cut] - box.x.start, np.nan),
        area=to_patch.part(found).area().astype(np.float32),
    )


def _inside(y: np.ndarray, x: np.ndarray, box: Box) -> np.ndarray:
    """Return which positions are in a box; NaN is outside."""
    return (
        (y >= box.y.start - 0.5) & (y < box.y.stop - 0.5) & (x >= box.x.start - 0.5) & (x < box.x.stop - 0.5)
    )


def _valid_pixels(visit_image: VisitImage) -> np.ndarray:
    """Return the pixels that a visit image has."""
    if visit_image.bounds == visit_image.bbox:
        return np.ones(visit_image.image.array.shape, dtype=bool)
    grid = visit_image.bbox.meshgrid()
    return np.asarray(visit_image.bounds.contains(x=grid.x, y=grid.y))


def _cover_polygon(visit_image: VisitImage, geometry: PatchGeometry) -> Polygon:
    """Return the overlap of a visit image with a patch, in tract pixels."""
    footprint = VisitFootprint(visit_image.sky_projection, visit_image.bbox)
    outline = footprint.outline(geometry.projection)
    overlap = outline.intersection(geometry.bbox.to_polygon())
    return overlap if isinstance(overlap, Polygon) else outline
