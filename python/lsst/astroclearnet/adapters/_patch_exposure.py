# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One visit image on its own pixels, and where they lie on a patch."""

from __future__ import annotations

__all__ = ("PatchExposure", "prepare_exposure")

import dataclasses

import astropy.units as u
import numpy as np

from lsst.images import Box, Image, Polygon, VisitImage
from lsst.images.fields import BaseField
from lsst.images.psfs import PointSpreadFunction
from lsst.images.serialization import ArchiveReadError

from ..core import InputError
from ._backgrounds import adjust_background
from ._coverage import NearestPixel, cover_polygon
from ._exposure_id import ExposureId, UnusableExposureError
from ._mask_planes import MaskTable, mask_of_planes
from ._patch_geometry import PatchGeometry, crop_to_patch, patch_slices
from ._pixel_map import PixelMap
from ._psf import psf_stamps


@dataclasses.dataclass(frozen=True)
class PatchExposure:
    """The part of a visit image that lies on a patch, not resampled.

    Image, variance and what is usable are those of the visit image's own
    pixels; everything that the patch needs to know of them is where they lie
    on it.  Pixels are counted from the first row and column of the arrays of
    the patch, which has a border around its outer box.

    Attributes
    ----------
    identity
        Which visit image.
    bbox
        The pixels of the visit image that the arrays of shape (h, w) hold:
        the smallest box around those whose centres are on the patch.
    image
        Shape (h, w), float32, nJy; 0 where not ``good``.
    variance
        Shape (h, w), float32, nJy^2; 1 where not ``good``.
    good
        Shape (h, w), bool, usable pixels, all of which are on the patch.
    y
        Shape (h, w), float64, row of each pixel centre on the patch; NaN
        where it is not on the patch.
    x
        Shape (h, w), float64, column.
    area
        Shape (h, w), float32, area of each pixel in pixels of the patch.
    psfs
        Shape (n_cells_y, n_cells_x, P, P), float64, sum 1, PSFs on pixels of
        the patch in the middles of cells of equal size; NaN where the visit
        image has no position.
    covered
        Shape (H, W), bool, pixels of the patch whose nearest pixel the visit
        image has.
    usable
        Shape (H, W), bool, where that pixel is usable.
    flags
        Planes of that pixel that the coadd shows, by their names in
        `lsst.images`, of shape (H, W), bool.
    polygon
        Part of the patch that the visit image covers, in tract pixels.
    num_not_finite
        Pixels on the patch that no mask plane excluded and whose value or
        variance is not usable.
    """

    identity: ExposureId
    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray
    psfs: np.ndarray
    covered: np.ndarray
    usable: np.ndarray
    flags: dict[str, np.ndarray]
    polygon: Polygon
    num_not_finite: int

    def usable_fraction(self, geometry: PatchGeometry) -> float:
        """Return how much of a patch the usable pixels cover.

        Parameters
        ----------
        geometry
            Geometry of the patch.

        Returns
        -------
        fraction : `float`
            Area of the usable pixels with centres within the outer box of the
            patch over the area of that box.
        """
        used = self.good & _within_patch(self.y, self.x, self.covered.shape, geometry)
        return float(self.area[used].sum(dtype=float)) / geometry.bbox.area


def prepare_exposure(
    visit_image: VisitImage,
    geometry: PatchGeometry,
    *,
    identity: ExposureId | None = None,
    bbox: Box | None = None,
    pixel_map: PixelMap | None = None,
    mask_table: MaskTable | None = None,
    restore_background: bool = False,
    sky_correction: Image | BaseField | None = None,
) -> PatchExposure:
    """Take what a patch needs of a visit image.

    Parameters
    ----------
    visit_image
        The visit image, or the part of it that overlaps the patch.
    geometry
        Geometry of the patch.
    identity
        Which visit image it is, where its data ID is known.
    bbox
        Box to fill, in tract pixels: the outer box of the patch, which is the
        default, or that with an even border.
    pixel_map
        Map from that box to the visit image, where it is known already.
    mask_table
        Treatment of the mask planes; by default that of
        `DEFAULT_MASK_TREATMENTS`.
    restore_background
        Whether to add the background that was subtracted from the visit
        image.
    sky_correction
        What to subtract from the visit image, in a unit like that of its
        pixels; at least over the part that overlaps the patch.

    Returns
    -------
    exposure : `PatchExposure`
        The pixels on the patch.

    Raises
    ------
    UnusableExposureError
        If the exposure has no PSF, a unit that is not calibrated, a
        background that cannot be added, or no usable pixel on the patch.
    """
    table = MaskTable.from_treatments() if mask_table is None else mask_table
    identity = ExposureId.from_visit_image(visit_image) if identity is None else identity
    bbox = geometry.bbox if bbox is None else bbox
    if pixel_map is None:
        pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
    overlap = pixel_map.overlap(visit_image.bbox, padding=1)
    if overlap is None:
        raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
    visit_image = adjust_background(
        visit_image[overlap], restore=restore_background, correction=sky_correction
    )
    visit_image = calibrate(visit_image)
    psf = read_psf(visit_image)
    excluded = mask_of_planes(visit_image.mask, table.excluded)
    valid = np.ones(excluded.shape, dtype=bool)
    if visit_image.bounds != visit_image.bbox:
        grid = visit_image.bbox.meshgrid()
        valid = np.asarray(visit_image.bounds.contains(x=grid.x, y=grid.y))
    positions = pixel_map.positions()
    start = visit_image.bbox.start
    nearest = NearestPixel(positions.y - start.y, positions.x - start.x, excluded.shape)
    covered = nearest(valid)
    if not crop_to_patch(covered, geometry).any():
        raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
    flags = {plane: nearest(mask_of_planes(visit_image.mask, [plane])) for plane in table.propagated}
    values = visit_image.image.array, visit_image.variance.array
    finite = np.isfinite(values[0]) & np.isfinite(values[1]) & (values[1] > 0)
    usable = nearest(finite & ~excluded & valid)
    pixels = _Location.find(visit_image, geometry, bbox)
    image, variance, finite, excluded = (
        plane[pixels.bbox.slice_within(visit_image.bbox)] for plane in (*values, finite, excluded | ~valid)
    )
    on_patch = np.isfinite(pixels.y)
    good = finite & ~excluded & on_patch
    if not (good & _within_patch(pixels.y, pixels.x, covered.shape, geometry)).any():
        raise UnusableExposureError("no_usable_pixels", "No usable pixel falls onto the patch.")
    try:
        psfs = psf_stamps(psf, pixel_map, visit_image.bbox)
    except InputError as exc:
        raise UnusableExposureError("bad_psf", str(exc)) from exc
    return PatchExposure(
        identity=identity,
        bbox=pixels.bbox,
        image=np.where(good, image, 0.0).astype(np.float32),
        variance=np.where(good, variance, 1.0).astype(np.float32),
        good=good,
        y=pixels.y,
        x=pixels.x,
        area=pixels.area,
        psfs=psfs,
        covered=covered,
        usable=usable,
        flags=flags,
        polygon=cover_polygon(geometry, visit_image),
        num_not_finite=int((~finite & ~excluded & on_patch).sum()),
    )


@dataclasses.dataclass(frozen=True)
class _Location:
    """Where the pixels of a visit image lie on a patch.

    The attributes are those of `PatchExposure`.
    """

    bbox: Box
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray

    @classmethod
    def find(cls, visit_image: VisitImage, geometry: PatchGeometry, bbox: Box) -> _Location:
        """Keep the pixels on a patch.

        Parameters
        ----------
        visit_image
            The part of the visit image that overlaps the patch.
        geometry
            Geometry of the patch.
        bbox
            Box of the patch with its border, in tract pixels.

        Returns
        -------
        location : `_Location`
            The smallest box around the pixels on the patch.

        Raises
        ------
        UnusableExposureError
            If there is none.
        """
        to_patch = PixelMap.from_projections(
            visit_image.sky_projection, visit_image.bbox, geometry.projection
        )
        y, x = to_patch.positions()
        y -= bbox.y.start
        x -= bbox.x.start
        height, width = bbox.shape
        inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise UnusableExposureError("no_overlap", "The visit image has no pixel centre on the patch.")
        cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        start = visit_image.bbox.start
        box = Box.factory[
            start.y + cut[0].start : start.y + cut[0].stop, start.x + cut[1].start : start.x + cut[1].stop
        ]
        return cls(
            bbox=box,
            y=np.where(inside[cut], y[cut], np.nan),
            x=np.where(inside[cut], x[cut], np.nan),
            area=to_patch.area(box).astype(np.float32),
        )


def _within_patch(
    y: np.ndarray, x: np.ndarray, shape: tuple[int, ...], geometry: PatchGeometry
) -> np.ndarray:
    """Tell which positions are on the patch itself and not on its border.

    Parameters
    ----------
    y
        Rows on the arrays of the patch with its border.
    x
        Columns, of the same shape.
    shape
        Shape of the arrays.
    geometry
        Geometry of the patch.

    Returns
    -------
    within : `numpy.ndarray`
        Shape of ``y``, bool; `False` for NaN.
    """
    rows, columns = patch_slices(shape, geometry)
    return (
        (y >= rows.start - 0.5)
        & (y < rows.stop - 0.5)
        & (x >= columns.start - 0.5)
        & (x < columns.stop - 0.5)
    )


def read_psf(visit_image: VisitImage) -> PointSpreadFunction:
    """Return the PSF of a visit image.

    Parameters
    ----------
    visit_image
        The visit image.

    Returns
    -------
    psf : `lsst.images.psfs.PointSpreadFunction`
        Its PSF.

    Raises
    ------
    UnusableExposureError
        If it has none, or one that cannot be read.
    """
    try:
        psf = visit_image.psf
    except ArchiveReadError as exc:
        raise UnusableExposureError("no_psf", f"The PSF of the visit image cannot be read: {exc}") from exc
    if psf is None:
        raise UnusableExposureError("no_psf", "The visit image has no PSF.")
    return psf


def calibrate(visit_image: VisitImage) -> VisitImage:
    """Return a visit image in nJy.

    Parameters
    ----------
    visit_image
        The visit image.

    Returns
    -------
    calibrated : `lsst.images.VisitImage`
        The image itself where it is in nJy already.

    Raises
    ------
    UnusableExposureError
        If its unit cannot be converted, not even by its photometric scaling.
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
