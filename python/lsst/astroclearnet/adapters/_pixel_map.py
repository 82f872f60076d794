# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the pixels of one image to those of another, through the sky."""

from __future__ import annotations

__all__ = ("PixelMap",)

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.interpolate import RectBivariateSpline

from lsst.images import YX, Box, SkyProjection

_TOLERANCE = 1e-3 / 3.0
"""Largest error of the interpolation between nodes, in pixels."""

_SPACING = 64.0
"""Largest distance between nodes, in pixels."""

_MIN_SPACING = 4.0
"""Distance between nodes below which nothing is gained by interpolation."""

_NOWHERE = 1e12
"""Pixels beyond which a position is none."""


@dataclasses.dataclass(frozen=True)
class _Composition:
    """The map itself: from pixels to the sky and back to other pixels."""

    source: SkyProjection[Any]
    target: SkyProjection[Any]

    def __call__(self, y: np.ndarray, x: np.ndarray) -> YX[np.ndarray]:
        sky = self.source.pixel_to_sky_transform.apply_forward(x=x, y=y)
        position = self.target.sky_to_pixel_transform.apply_forward(x=sky.x, y=sky.y)
        values = np.asarray([position.y, position.x])
        # AST marks what has no position by the lowest of all numbers.
        missing = ~(np.abs(values) < _NOWHERE).all(axis=0)
        values[:, missing] = np.nan
        return YX(y=values[0], x=values[1])


@dataclasses.dataclass(frozen=True)
class _Splines:
    """Bicubic splines through the map at the nodes of a grid."""

    y: RectBivariateSpline
    x: RectBivariateSpline

    @classmethod
    def fit(cls, mapping: Callable[[np.ndarray, np.ndarray], YX[np.ndarray]], box: Box) -> Self | None:
        """Refine the grid until the map is met midway between its nodes.

        Parameters
        ----------
        mapping
            The map, from rows and columns to rows and columns.
        box
            Box in source pixels.

        Returns
        -------
        splines : `_Splines` or `None`
            `None` if the map has no value somewhere in the box, or is not
            smooth.
        """
        spacing = _SPACING
        while spacing >= _MIN_SPACING:
            rows, columns = (_place_nodes(side.start, side.stop, spacing) for side in (box.y, box.x))
            value = mapping(rows[:, None], columns)
            if not (np.isfinite(value.y).all() and np.isfinite(value.x).all()):
                return None
            splines = cls(
                y=RectBivariateSpline(rows, columns, value.y), x=RectBivariateSpline(rows, columns, value.x)
            )
            rows, columns = (0.5 * (nodes[1:] + nodes[:-1]) for nodes in (rows, columns))
            expected = mapping(rows[:, None], columns)
            errors = splines.y(rows, columns) - expected.y, splines.x(rows, columns) - expected.x
            # NaN is no success.
            if np.hypot(*errors).max() <= _TOLERANCE:
                return splines
            spacing /= 2.0
        return None


@dataclasses.dataclass(frozen=True)
class PixelMap:
    """Positions of the pixels of a box on another image's grid.

    The composition of two sky projections costs far more than a spline, and
    is smooth.  It is therefore evaluated on a grid of nodes and interpolated
    by bicubic splines; the grid is refined until the error midway between
    nodes, where it is largest, is below a third of a thousandth of a pixel.
    A map that has no value somewhere in the box, as beyond the horizon of a
    gnomonic projection, is evaluated pixel by pixel.

    Attributes
    ----------
    bbox
        The box, in pixels of the source.
    """

    bbox: Box
    _mapping: _Composition
    _splines: _Splines | None

    @classmethod
    def from_projections(cls, source: SkyProjection[Any], bbox: Box, target: SkyProjection[Any]) -> Self:
        """Map the pixels of a box from one projection to another.

        Parameters
        ----------
        source
            Projection of the image that the box belongs to.
        bbox
            Box in pixels of the source.
        target
            Projection of the other image.

        Returns
        -------
        pixel_map : `PixelMap`
            The map.
        """
        mapping = _Composition(source=source, target=target)
        return cls(bbox=bbox, _mapping=mapping, _splines=_Splines.fit(mapping, bbox))

    @property
    def is_interpolated(self) -> bool:
        """Whether splines stand in for the projections (`bool`)."""
        return self._splines is not None

    def positions(self, box: Box | None = None) -> YX[np.ndarray]:
        """Return the positions of pixel centres.

        Parameters
        ----------
        box
            Part of `bbox`, which is the default.

        Returns
        -------
        positions : `lsst.images.YX`
            Rows and columns on the target in its own coordinates, each of the
            shape of the box, float64; NaN where there is no position.
        """
        rows, columns = self._axes(box)
        if self._splines is None:
            return self._mapping(rows[:, None], columns)
        return YX(y=self._splines.y(rows, columns), x=self._splines.x(rows, columns))

    def apply(self, *, y: np.ndarray, x: np.ndarray) -> YX[np.ndarray]:
        """Return the positions of single points.

        Parameters
        ----------
        y
            Rows in source pixels, within half a pixel of `bbox`.
        x
            Columns, of a shape that broadcasts with that of ``y``.

        Returns
        -------
        positions : `lsst.images.YX`
            Rows and columns on the target; NaN where there is no position.
        """
        if self._splines is None:
            return self._mapping(y, x)
        return YX(y=self._splines.y(y, x, grid=False), x=self._splines.x(y, x, grid=False))

    def jacobian(self, *, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives of the map at points.

        Parameters
        ----------
        y
            Rows in source pixels, within half a pixel of `bbox`.
        x
            Columns, of a shape that broadcasts with that of ``y``.

        Returns
        -------
        jacobian : `numpy.ndarray`
            Shape (..., 2, 2), derivatives of the target's (y, x) with respect
            to the source's (y, x): entry [0, 1] is that of y by x.
        """
        if self._splines is None:
            columns = [
                np.subtract(self._mapping(y + j, x + i), self._mapping(y - j, x - i))
                for j, i in ((0.5, 0.0), (0.0, 0.5))
            ]
            return np.moveaxis(np.stack(columns), (0, 1), (-1, -2))
        rows = [
            np.stack([spline(y, x, dx=j, dy=i, grid=False) for j, i in ((1, 0), (0, 1))], axis=-1)
            for spline in (self._splines.y, self._splines.x)
        ]
        return np.stack(rows, axis=-2)

    def area(self, box: Box | None = None) -> np.ndarray:
        """Return the area of pixels of the source in pixels of the target.

        Parameters
        ----------
        box
            Part of `bbox`, which is the default.

        Returns
        -------
        area : `numpy.ndarray`
            Absolute determinant of the Jacobian at the pixel centres, shape of
            the box, float64.
        """
        rows, columns = self._axes(box)
        if self._splines is None:
            (yy, yx), (xy, xx) = np.moveaxis(self.jacobian(y=rows[:, None], x=columns), (-2, -1), (0, 1))
            return np.abs(yy * xx - yx * xy)
        y, x = self._splines.y, self._splines.x
        area = y(rows, columns, dx=1) * x(rows, columns, dy=1)
        area -= y(rows, columns, dy=1) * x(rows, columns, dx=1)
        return np.abs(area, out=area)

    def footprint(self, padding: int = 0) -> Box | None:
        """Return the box of the target that the pixels fall into.

        Parameters
        ----------
        padding
            Pixels to add on each side.

        Returns
        -------
        footprint : `lsst.images.Box` or `None`
            The smallest box with all pixel centres of the source within its
            own, `None` where no pixel has a position.
        """
        if self._splines is None:
            y, x = self.positions()
        else:
            # Inside and outside are kept apart by a map without folds.
            y, x = self.apply(**_outline(self.bbox))
        finite = np.isfinite(y) & np.isfinite(x)
        if not finite.any():
            return None
        y, x = y[finite], x[finite]
        return Box.factory[
            math.floor(y.min()) - padding : math.ceil(y.max()) + padding + 1,
            math.floor(x.min()) - padding : math.ceil(x.max()) + padding + 1,
        ]

    def overlap(self, target_bbox: Box, padding: int = 0) -> Box | None:
        """Return the part of an image that the pixels fall into.

        Parameters
        ----------
        target_bbox
            Box of the image on the target's side.
        padding
            Pixels to add on each side, as far as there are any.

        Returns
        -------
        overlap : `lsst.images.Box` or `None`
            The part, `None` where there is none.
        """
        footprint = self.footprint(padding)
        if footprint is None:
            return None
        rows = max(footprint.y.start, target_bbox.y.start), min(footprint.y.stop, target_bbox.y.stop)
        columns = max(footprint.x.start, target_bbox.x.start), min(footprint.x.stop, target_bbox.x.stop)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            return None
        return Box.factory[slice(*rows), slice(*columns)]

    def _axes(self, box: Box | None) -> tuple[np.ndarray, np.ndarray]:
        if box is None:
            box = self.bbox
        elif not self.bbox.contains(box):
            raise ValueError(f"The map of {self.bbox} knows nothing of {box}, which is not a part of it.")
        return box.y.arange.astype(float), box.x.arange.astype(float)


def _place_nodes(start: int, stop: int, spacing: float) -> np.ndarray:
    """Return at least four nodes that reach beyond the outer pixel edges."""
    return np.linspace(start - 1.0, stop, max(3, math.ceil((stop - start + 1) / spacing)) + 1)


def _outline(box: Box) -> dict[str, np.ndarray]:
    """Return the centres of the outermost pixels of a box."""
    rows, columns = box.y.arange.astype(float), box.x.arange.astype(float)
    return {
        "y": np.concatenate([rows, rows, np.repeat(rows[[0, -1]], len(columns))]),
        "x": np.concatenate([np.repeat(columns[[0, -1]], len(rows)), columns, columns]),
    }
