# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which pixels of a patch a visit image covers, and what it says of them."""

from __future__ import annotations

import numpy as np

from lsst.images import Polygon, VisitImage

from ._patch_geometry import PatchGeometry


class NearestPixel:
    """Look up a plane at the nearest pixel; 0 where there is none.

    Parameters
    ----------
    y
        Rows in the array of the plane; NaN where there is no position.
    x
        Columns, of the same shape.
    shape
        Shape of the plane.
    """

    def __init__(self, y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> None:
        finite = np.isfinite(y) & np.isfinite(x)
        rows, columns = (np.rint(np.where(finite, c, -1.0)).astype(np.int64) for c in (y, x))
        self.inside = finite & (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        self._rows, self._columns = np.where(self.inside, rows, 0), np.where(self.inside, columns, 0)

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        return np.where(self.inside, plane[self._rows, self._columns], plane.dtype.type(0))


def cover_polygon(geometry: PatchGeometry, visit_image: VisitImage) -> Polygon:
    """Return the part of a patch under a visit image.

    Parameters
    ----------
    geometry
        Geometry of the patch.
    visit_image
        The visit image, or the part of it that overlaps the patch.

    Returns
    -------
    polygon : `lsst.images.Polygon`
        The outline in tract pixels.
    """
    visit_bbox = visit_image.bbox
    low_x, high_x = visit_bbox.x.min - 0.5, visit_bbox.x.max + 0.5
    low_y, high_y = visit_bbox.y.min - 0.5, visit_bbox.y.max + 0.5
    x = np.array([low_x, high_x, high_x, low_x])
    y = np.array([low_y, low_y, high_y, high_y])
    corners = geometry.projection.sky_to_pixel(visit_image.sky_projection.pixel_to_sky(x=x, y=y))
    outline = Polygon(x_vertices=np.asarray(corners.x), y_vertices=np.asarray(corners.y))
    overlap = outline.intersection(geometry.bbox.to_polygon())
    return overlap if isinstance(overlap, Polygon) else outline
