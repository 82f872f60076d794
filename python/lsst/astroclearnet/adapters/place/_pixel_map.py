# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Maps from the pixels of one image to those of another, through the sky."""

from __future__ import annotations

__all__ = ("NearestPixel", "PixelMap")

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.interpolate import BSpline, RectBivariateSpline

from lsst.images import YX, Box, SkyProjection

_TOLERANCE = 1e-3 / 3.0
"""Largest error of the interpolation between nodes, in pixels."""

_SPACING = 64.0
"""Largest distance between nodes, in pixels."""

_MIN_SPACING = 4.0
"""Smallest useful distance between nodes, in pixels."""

_NOWHERE = 1e12
"""Pixels beyond which a position is missing: AST marks it by -1.8e308."""


@dataclasses.dataclass(frozen=True)
class _Composition:
    """The map itself: from pixels to the sky and back to other pixels."""

    source: SkyProjection[Any]
    target: SkyProjection[Any]

    def __call__(self, y: np.ndarray, x: np.ndarray) -> YX[np.ndarray]:
        sky = self.source.pixel_to_sky_transform.apply_forward(x=x, y=y)
        position = self.target.sky_to_pixel_transform.apply_forward(x=sky.x, y=sky.y)
        values = np.asarray([position.y, position.x])
        values[:, ~(np.abs(values) < _NOWHERE).all(axis=0)] = np.nan
        return YX(y=values[0], x=values[1])


@dataclasses.dataclass(frozen=True)
class _Splines:
    """Bicubic splines through the map and its area at the nodes of a grid."""

    y: RectBivariateSpline
    x: RectBivariateSpline
    area: RectBivariateSpline

    @classmethod
    def fit(cls, rows: np.ndarray, columns: np.ndarray, value: YX[np.ndarray]) -> Self:
        """Interpolate values at nodes."""
        y, x = (RectBivariateSpline(rows, columns, values) for values in value)
        area = np.abs(
            y(rows, columns, dx=1) * x(rows, columns, dy=1) - y(rows, columns, dy=1) * x(rows, columns, dx=1)
        )
        return cls(y=y, x=x, area=RectBivariateSpline(rows, columns, area))

    def on_grid(self, rows: np.ndarray, columns: np.ndarray, *names: str) -> list[np.ndarray]:
        """Evaluate splines on a grid, by products of matrices."""
        row, column = (
            BSpline.design_matrix(places, knots, 3).toarray()
            for places, knots in zip((rows, columns), self.y.get_knots(), strict=True)
        )
        coefficients = (getattr(self, name).get_coeffs() for name in names)
        return [row @ (values.reshape(row.shape[1], -1) @ column.T) for values in coefficients]


def _fit_splines(mapping: Callable[[np.ndarray, np.ndarray], YX[np.ndarray]], box: Box) -> _Splines | None:
    """Refine the grid until splines meet the map midway between its nodes."""
    spacing = _SPACING
    while spacing >= _MIN_SPACING:
        rows, columns = (_place_nodes(side.start, side.stop, spacing) for side in (box.y, box.x))
        value = mapping(rows[:, None], columns)
        if not (np.isfinite(value.y).all() and np.isfinite(value.x).all()):
            # Evaluated pixel by pixel.
            return None
        splines = _Splines.fit(rows, columns, value)
        rows, columns = (0.5 * (nodes[1:] + nodes[:-1]) for nodes in (rows, columns))
        expected = mapping(rows[:, None], columns)
        errors = splines.y(rows, columns) - expected.y, splines.x(rows, columns) - expected.x
        # NaN is no success.
        if np.hypot(*errors).max() <= _TOLERANCE:
            return splines
        spacing /= 2.0
    return None


def _place_nodes(start: int, stop: int, spacing: float) -> np.ndarray:
    """Return at least four nodes that reach beyond the outer pixel edges."""
    return np.linspace(start - 1.0, stop, max(3, math.ceil((stop - start + 1) / spacing)) + 1)


@dataclasses.dataclass(frozen=True)
class PixelMap:
    """Positions of the pixels of a box on another image's grid.

    Two sky projections in a row are slow and smooth: bicubic splines
    interpolate them to 1/3000 pixel, or, without a value somewhere in the box,
    as beyond the horizon of a gnomonic projection, they are evaluated pixel by
    pixel.  A position that does not exist is NaN.

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
        """
        mapping = _Composition(source=source, target=target)
        return cls(bbox=bbox, _mapping=mapping, _splines=_fit_splines(mapping, bbox))

    def part(self, bbox: Box) -> Self:
        """Return the map of a smaller box.

        Parameters
        ----------
        bbox
            The smaller box.

        Raises
        ------
        ValueError
            If it is not inside `bbox`.
        """
        if not self.bbox.contains(bbox):
            raise ValueError(f"The map of {self.bbox} knows nothing of {bbox}, which is not a part of it.")
        return dataclasses.replace(self, bbox=bbox)

    def positions(self) -> YX[np.ndarray]:
        """Return rows and columns of pixel centres, float64, shape of the box.

        They are in the target's own coordinates.
        """
        rows, columns = self._axes()
        if self._splines is None:
            return self._mapping(rows[:, None], columns)
        y, x = self._splines.on_grid(rows, columns, "y", "x")
        return YX(y=y, x=x)

    def apply(self, *, y: np.ndarray, x: np.ndarray) -> YX[np.ndarray]:
        """Return the positions of points as rows and columns on the target.

        Parameters
        ----------
        y, x
            Rows and columns in source pixels, which broadcast, within half a
            pixel of `bbox`.
        """
        if self._splines is None:
            return self._mapping(y, x)
        return YX(y=self._splines.y(y, x, grid=False), x=self._splines.x(y, x, grid=False))

    @property
    def pixel_side(self) -> float:
        """Side of the middle pixel of the box in the others (`float`)."""
        y, x = np.array([self.bbox.y.center]), np.array([self.bbox.x.center])
        return math.sqrt(abs(float(np.linalg.det(self.jacobian(y=y, x=x))[0])))

    def jacobian(self, *, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives of the map at points.

        Parameters
        ----------
        y, x
            The points, as of `apply`.

        Returns
        -------
        jacobian : `numpy.ndarray`
            Shape (..., 2, 2), derivatives of the target's (y, x) by the
            source's (y, x): entry [0, 1] is that of y by x.
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

    def area(self) -> np.ndarray:
        """Return the area of the pixels in pixels of the target, float64."""
        rows, columns = self._axes()
        if self._splines is None:
            (yy, yx), (xy, xx) = np.moveaxis(self.jacobian(y=rows[:, None], x=columns), (-2, -1), (0, 1))
            return np.abs(yy * xx - yx * xy)
        return self._splines.on_grid(rows, columns, "area")[0]

    def overlap(self, target_bbox: Box, padding: int = 0) -> Box | None:
        """Return the box of an image that the pixels fall into.

        Parameters
        ----------
        target_bbox
            Box of the image on the target's side.
        padding
            Pixels to add on each side, as far as there are any.

        Returns
        -------
        overlap : `lsst.images.Box` or `None`
            The smallest box with all pixel centres in ``target_bbox``, and the
            padding; `None` if there is none.
        """
        # Inside and outside are kept apart by a map without folds.
        y, x = self.positions() if self._splines is None else self.apply(**_outline(self.bbox))
        finite = np.isfinite(y) & np.isfinite(x)
        if not finite.any():
            return None
        sides = []
        for values, side in ((y[finite], target_bbox.y), (x[finite], target_bbox.x)):
            start = max(math.floor(values.min()) - padding, side.start)
            stop = min(math.ceil(values.max()) + padding + 1, side.stop)
            if start >= stop:
                return None
            sides.append(slice(start, stop))
        return Box.factory[sides[0], sides[1]]

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        return self.bbox.y.arange.astype(float), self.bbox.x.arange.astype(float)


def _outline(box: Box) -> dict[str, np.ndarray]:
    """Return the centres of the outermost pixels of a box."""
    rows, columns = box.y.arange.astype(float), box.x.arange.astype(float)
    return {
        "y": np.concatenate([rows, rows, np.repeat(rows[[0, -1]], len(columns))]),
        "x": np.concatenate([np.repeat(columns[[0, -1]], len(rows)), columns, columns]),
    }


class NearestPixel:
    """Look-up of planes at the nearest pixel; 0 where there is none.

    Parameters
    ----------
    pixel_map
        Map to the image of the planes.
    bbox
        Box of the planes, in pixels of that image.
    """

    def __init__(self, pixel_map: PixelMap, bbox: Box) -> None:
        y, x = pixel_map.positions()
        finite = np.isfinite(y) & np.isfinite(x)
        rows, columns = (
            np.rint(np.where(finite, values - start, -1.0)).astype(np.int64)
            for values, start in zip((y, x), bbox.start, strict=True)
        )
        height, width = bbox.shape
        self._inside = finite & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        self._rows, self._columns = np.where(self._inside, rows, 0), np.where(self._inside, columns, 0)

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        return np.where(self._inside, plane[self._rows, self._columns], plane.dtype.type(0))
