# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One visit image on its own pixels, and where they lie on a patch."""

from __future__ import annotations

__all__ = ("PatchExposure", "PixelLocation", "prepare_exposure")

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lsst.images import Box, Polygon, VisitImage

from ._exposure_id import ExposureId, UnusableExposureError
from ._patch_geometry import PatchGeometry, patch_slices
from ._pixel_map import PixelMap

if TYPE_CHECKING:
    from ._visit_cutout import VisitCutout


@dataclasses.dataclass(frozen=True)
class PatchExposure:
    """The part of a visit image that lies on a part of a patch.

    Image, variance and what is usable are those of the visit image's own
    pixels; everything that the patch needs to know of them is where they lie
    on it.  Pixels are counted from the first row and column of the box.

    Attributes
    ----------
    cutout
        The part of the visit image that overlaps the patch.
    box
        The box, in tract pixels.
    bbox
        The pixels of the visit image that the arrays of shape (h, w) hold:
        the smallest box around those whose centres are in the box.
    image
        Shape (h, w), float32, nJy; 0 where not ``good``.
    variance
        Shape (h, w), float32, nJy^2; 1 where not ``good``.
    good
        Shape (h, w), bool, usable pixels, all of which are in the box.
    y
        Shape (h, w), float64, row of each pixel centre in the box; NaN where
        it is not in the box.
    x
        Shape (h, w), float64, column.
    area
        Shape (h, w), float32, area of each pixel in pixels of the patch.
    """

    cutout: VisitCutout
    box: Box
    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray

    @property
    def identity(self) -> ExposureId:
        """Which visit image (`ExposureId`)."""
        return self.cutout.identity

    @property
    def polygon(self) -> Polygon:
        """Part of the patch that the visit image covers, in tract pixels
        (`lsst.images.Polygon`).
        """
        return self.cutout.polygon

    @property
    def num_not_finite(self) -> int:
        """Pixels on the patch that no mask plane excluded and whose value or
        variance is not usable (`int`).
        """
        return self.cutout.num_not_finite

    @functools.cached_property
    def psfs(self) -> np.ndarray:
        """PSFs on pixels of the patch in the middles of cells of equal size.

        Shape (n_cells_y, n_cells_x, P, P), float64, sum 1; NaN where the
        visit image has no position.
        """
        return self.cutout.psfs_on(self.box)

    @property
    def covered(self) -> np.ndarray:
        """Pixels of the box whose nearest pixel the visit image has, of shape
        (H, W), bool.
        """
        return self._planes["covered"]

    @property
    def usable(self) -> np.ndarray:
        """Where that pixel is usable, of shape (H, W), bool."""
        return self._planes["usable"]

    @property
    def flags(self) -> dict[str, np.ndarray]:
        """Planes of that pixel that the coadd shows, by their names in
        `lsst.images`, of shape (H, W), bool.
        """
        return {plane: self._planes[plane] for plane in self.cutout.planes}

    @functools.cached_property
    def _planes(self) -> dict[str, np.ndarray]:
        return self.cutout.planes_on(self.box)

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
        used = self.good & _within(self.y, self.x, *patch_slices(self.box.shape, geometry))
        return float(self.area[used].sum(dtype=float)) / geometry.bbox.area


def prepare_exposure(
    visit_image: VisitImage, geometry: PatchGeometry, *, bbox: Box | None = None, **options: Any
) -> PatchExposure:
    """Take what a patch needs of a visit image.

    Parameters
    ----------
    visit_image
        The visit image, or the part of it that overlaps the patch.
    geometry
        Geometry of the patch.
    bbox
        Box to fill, in tract pixels: the outer box of the patch, which is the
        default, or that with an even border.
    **options
        Further arguments of `VisitCutout.take`.

    Returns
    -------
    exposure : `PatchExposure`
        The pixels on the patch.

    Raises
    ------
    UnusableExposureError
        If the exposure cannot be used.
    """
    from ._visit_cutout import VisitCutout

    bbox = geometry.bbox if bbox is None else bbox
    exposure = VisitCutout.take(visit_image, geometry, bbox=bbox, **options).on(bbox)
    if exposure is None:
        raise UnusableExposureError("no_overlap", "The visit image has no pixel centre on the patch.")
    return exposure


@dataclasses.dataclass(frozen=True)
class PixelLocation:
    """Where the pixels of a visit image lie on a part of a patch.

    The attributes are those of `PatchExposure`.

    Attributes
    ----------
    bbox
        The smallest box around the pixels there.
    y, x
        Shape (h, w), float64; NaN elsewhere.
    area
        Shape (h, w), float32.
    """

    bbox: Box
    y: np.ndarray
    x: np.ndarray
    area: np.ndarray

    @classmethod
    def find(cls, to_patch: PixelMap, visit_box: Box, box: Box) -> PixelLocation:
        """Keep the pixels on a part of a patch.

        Parameters
        ----------
        to_patch
            Map from the visit image to the patch.
        visit_box
            Pixels of the visit image among which they are.
        box
            The part of the patch, in tract pixels.

        Returns
        -------
        location : `PixelLocation`
            The smallest box around the pixels there.

        Raises
        ------
        UnusableExposureError
            If there is none.
        """
        y, x = to_patch.positions(visit_box)
        y -= box.y.start
        x -= box.x.start
        inside = _within(y, x, slice(0, box.y.size), slice(0, box.x.size))
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise UnusableExposureError("no_overlap", "The visit image has no pixel centre on the patch.")
        cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        start = visit_box.start
        found = Box.factory[
            start.y + cut[0].start : start.y + cut[0].stop, start.x + cut[1].start : start.x + cut[1].stop
        ]
        return cls(
            bbox=found,
            y=np.where(inside[cut], y[cut], np.nan),
            x=np.where(inside[cut], x[cut], np.nan),
            area=to_patch.area(found).astype(np.float32),
        )

    def within(self, part: Box, box: Box) -> np.ndarray:
        """Tell which pixels are in a part of the box.

        Parameters
        ----------
        part
            The part, in tract pixels.
        box
            The box, in tract pixels.

        Returns
        -------
        within : `numpy.ndarray`
            Shape (h, w), bool.
        """
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in ((part.y, box.y), (part.x, box.x))
        )
        return _within(self.y, self.x, rows, columns)


def _within(y: np.ndarray, x: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Tell which positions are in a region; none that is NaN is."""
    return (
        (y >= rows.start - 0.5)
        & (y < rows.stop - 0.5)
        & (x >= columns.start - 0.5)
        & (x < columns.stop - 0.5)
    )
