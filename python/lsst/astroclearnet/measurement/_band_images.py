# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The images of one band, and the covariance of their noise."""

from __future__ import annotations

__all__ = ("BandImages",)

import dataclasses
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import correlated_weights, correlation_matrix

type Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class BandImages:
    """Images of one band on the grid of a patch.

    Attributes
    ----------
    detection, detection_variance
        Image to detect on and its expected squared error, shape (H, W); NaN
        without data.
    image, variance
        Image to measure on and the variance of its noise, shape (H, W), in
        nJy and nJy^2; NaN without data.  The variance must not follow the
        noise of the individual pixels.
    psf
        PSF of ``image``, shape (P, P) with P odd, centred on its middle pixel.
    correlation
        Noise correlation of ``image`` as a function of pixel separation along
        y and x, shape (ny, nx, K, K) with K odd, by cell.
    cell_shape
        Height and width of the cells in pixels.
    first_cell
        Rows and columns of the first cell that the images leave out.
    planes
        Mask planes by name, shape (H, W), as far as there are any.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or a stamp is not square with an odd
        size.
    """

    detection: NDArray[Any]
    detection_variance: NDArray[Any]
    image: NDArray[Any]
    variance: NDArray[Any]
    psf: Array
    correlation: NDArray[Any]
    cell_shape: tuple[int, int]
    first_cell: tuple[int, int] = (0, 0)
    planes: Mapping[str, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {
            name: getattr(self, name).shape
            for name in ("detection", "detection_variance", "image", "variance")
        }
        if len(set(shapes.values())) != 1:
            raise ValueError(f"The images of a band must have one shape; got {shapes}.")
        for name, ndim in (("psf", 2), ("correlation", 4)):
            shape = getattr(self, name).shape
            if len(shape) != ndim or shape[-1] != shape[-2] or shape[-1] % 2 == 0:
                raise ValueError(f"The {name} must consist of square stamps of odd size; got shape {shape}.")

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Pixels to measure on, shape (H, W) (`numpy.ndarray`)."""
        return np.isfinite(self.image) & np.isfinite(self.variance) & (self.variance > 0)

    @cached_property
    def typical_variance(self) -> float:
        """Median variance of a good pixel; NaN without one (`float`)."""
        return float(np.median(self.variance[self.good])) if self.good.any() else float("nan")

    def cell_of(self, x: float, y: float) -> tuple[int, int]:
        """Return the cell of a position, along y and x; off the image the
        nearest one.

        Parameters
        ----------
        x, y
            Position in pixels.
        """
        i, j = (
            min(max((round(value) + offset) // size, 0), number - 1)
            for value, offset, size, number in zip(
                (y, x), self.first_cell, self.cell_shape, self.correlation.shape[:2], strict=True
            )
        )
        return i, j

    def correlation_matrix(self, cell: tuple[int, int], size: int) -> Array:
        """Return the correlation matrix of the pixels of a box.

        Parameters
        ----------
        cell
            Cell of the box, as of `cell_of`.
        size
            Side of the box in pixels.

        Returns
        -------
        matrix : `numpy.ndarray`
            Shape (size^2, size^2), from a small cache.
        """
        return self._matrices(cell, size)

    def weight_matrix(self, cell: tuple[int, int], size: int) -> Array:
        """Return the matrix that makes weights of profiles in a box.

        Parameters
        ----------
        cell, size
            As for `correlation_matrix`.

        Returns
        -------
        matrix : `numpy.ndarray`
            What `~lsst.astroclearnet.metrics.correlated_weights` applies,
            shape (size^2, size^2), from a small cache.
        """
        return self._weights(cell, size)

    # Objects are visited cell by cell, once for errors and often for fluxes.
    @cached_property
    def _matrices(self) -> Any:
        return lru_cache(maxsize=4)(
            lambda cell, size: correlation_matrix(self.correlation[cell], (size, size))
        )

    @cached_property
    def _weights(self) -> Any:
        return lru_cache(maxsize=32)(
            lambda cell, size: correlated_weights(np.eye(size**2), self.correlation_matrix(cell, size))
        )
