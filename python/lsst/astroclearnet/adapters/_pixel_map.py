# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Where the pixels of a patch lie in a visit image."""

from __future__ import annotations

__all__ = ("PixelMap",)

import dataclasses
import math
from typing import Any, Self

import numpy as np

from lsst.images import Box, SkyProjection


@dataclasses.dataclass(frozen=True)
class PixelMap:
    """Positions of the pixels of a box on another image's grid.

    Attributes
    ----------
    bbox
        The box, in patch pixels.
    y
        Shape of the box, row of each pixel in the other image's coordinates.
    x
        Shape of the box, column of each pixel.
    """

    bbox: Box
    y: np.ndarray
    x: np.ndarray

    @classmethod
    def from_projections(cls, patch: SkyProjection[Any], bbox: Box, visit: SkyProjection[Any]) -> Self:
        """Map the pixels of a box from one projection to another.

        Parameters
        ----------
        patch
            Projection of the patch.
        bbox
            Box in patch pixels.
        visit
            Projection of the visit image.

        Returns
        -------
        pixel_map : `PixelMap`
            The map; NaN where the sky position has no pixel.
        """
        grid = bbox.meshgrid()
        position = visit.sky_to_pixel(patch.pixel_to_sky(x=grid.x, y=grid.y))
        return cls(bbox=bbox, y=np.asarray(position.y), x=np.asarray(position.x))

    def jacobian(self) -> np.ndarray:
        """Return the derivatives of the map.

        Returns
        -------
        jacobian : `numpy.ndarray`
            Shape (H, W, 2, 2), derivatives of mapped (y, x) with respect to
            the box's (y, x).
        """
        rows = [np.stack(np.gradient(component), axis=-1) for component in (self.y, self.x)]
        return np.stack(rows, axis=-2)

    def area(self) -> np.ndarray:
        """Return the area of each pixel in pixels of the other image.

        Returns
        -------
        area : `numpy.ndarray`
            Shape of the box, the absolute determinant of `jacobian`.
        """
        return np.abs(np.linalg.det(self.jacobian()))

    def footprint(self, padding: int) -> Box | None:
        """Return the box of the other image that the pixels fall into.

        Parameters
        ----------
        padding
            Pixels to add on each side.

        Returns
        -------
        footprint : `lsst.images.Box` or `None`
            The box, `None` where no pixel has a position.
        """
        finite = np.isfinite(self.y) & np.isfinite(self.x)
        if not finite.any():
            return None
        y, x = self.y[finite], self.x[finite]
        return Box.factory[
            math.floor(y.min()) - padding : math.ceil(y.max()) + padding + 1,
            math.floor(x.min()) - padding : math.ceil(x.max()) + padding + 1,
        ]
