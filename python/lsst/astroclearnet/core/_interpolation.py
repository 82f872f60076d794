# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Interpolation of well-sampled images at any position."""

from __future__ import annotations

__all__ = ("Interpolation", "transfer_function")

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.autograd.function import FunctionCtx

from ._latent_grid import LatentGrid

WIDTH = 5
"""Width of the interpolation kernel in pixels."""

_BANDWIDTH = 0.33
"""Frequency, in cycles per pixel, up to which images have power."""

_SHAPE = 0.97 * math.pi * WIDTH * (1.0 - _BANDWIDTH)
"""Exponent of the kernel that suits the bandwidth (Barnett, Magland & af
Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, section 4)."""

_QUADRATURE = 64
"""Number of points with which the transform of the kernel is computed."""


def _profile(offset: np.ndarray) -> np.ndarray:
    """Return the kernel, not normalised, at distances in pixels."""
    inside = np.clip(1.0 - (2.0 * offset / WIDTH) ** 2, 0.0, None)
    return np.exp(_SHAPE * (np.sqrt(inside) - 1.0))


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return points of the kernel and their weights in an integral of it."""
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE)
    # The kernel has a vertical tangent at its ends; in this variable not.
    angle = 0.5 * np.pi * nodes
    points = 0.5 * WIDTH * np.sin(angle)
    return points, weights * 0.25 * np.pi * WIDTH * np.cos(angle) * _profile(points)


_POINTS, _POINT_WEIGHTS = _quadrature()
_INTEGRAL = float(_POINT_WEIGHTS.sum())


def transfer_function(frequency: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of the interpolation kernel.

    Parameters
    ----------
    frequency
        Cycles per pixel.

    Returns
    -------
    transfer : `numpy.ndarray`
        Its transform, 1 at frequency 0.
    """
    return np.cos(2.0 * np.pi * frequency[..., None] * _POINTS) @ _POINT_WEIGHTS / _INTEGRAL


class Interpolation:
    """Interpolates images at given positions; a sparse matrix.

    An image is first multiplied with the inverse of `transfer_function` along
    both axes, in Fourier space, where that costs nothing.  What is left
    wrong are the aliases of the highest frequencies, which an image with a
    PSF of 3 pixels FWHM hardly has.

    Parameters
    ----------
    y
        Shape (p,), rows on the grid of the patch; NaN gives 0.
    x
        Shape (p,), columns.
    scale
        Shape (p,), what the interpolated values are multiplied with.
    grid
        Grid of the images.
    device
        Where the images are.
    """

    def __init__(
        self, y: np.ndarray, x: np.ndarray, scale: np.ndarray, grid: LatentGrid, device: torch.device
    ) -> None:
        matrix = _weights(y, x, scale, grid)
        self._latent_shape = grid.latent_shape
        self._forward = _to_torch(matrix, device)
        self._transposed = _to_torch(matrix.T.tocsr(), device)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Interpolate one image; differentiable.

        Parameters
        ----------
        image
            Shape latent_shape.

        Returns
        -------
        values : `torch.Tensor`
            Shape (p,).
        """
        values: torch.Tensor = _Product.apply(image.reshape(-1), self._forward, self._transposed)
        return values

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the transpose of the matrix.

        Parameters
        ----------
        values
            Shape (p,).

        Returns
        -------
        image : `torch.Tensor`
            Shape latent_shape.
        """
        return (self._transposed @ values).reshape(self._latent_shape)


class _Product(torch.autograd.Function):
    """Product of a sparse matrix and a vector, with its transpose at hand."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, vector: torch.Tensor, matrix: torch.Tensor, transposed: torch.Tensor
    ) -> torch.Tensor:
        """Multiply.

        Parameters
        ----------
        ctx
            What `backward` needs.
        vector
            Shape (q,).
        matrix
            Shape (p, q).
        transposed
            Shape (q, p).

        Returns
        -------
        product : `torch.Tensor`
            Shape (p,).
        """
        ctx.transposed = transposed  # type: ignore[attr-defined]
        return matrix @ vector

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Multiply the gradient with the transpose.

        Parameters
        ----------
        ctx
            What `forward` left.
        *gradients
            Shape (p,).

        Returns
        -------
        gradients : `tuple`
            Gradients of the arguments of `forward`.
        """
        return ctx.transposed @ gradients[0], None, None


def _weights(y: np.ndarray, x: np.ndarray, scale: np.ndarray, grid: LatentGrid) -> csr_array:
    rows, columns = grid.latent_shape
    known = np.isfinite(y)
    y, x = y[known] + grid.margin, x[known] + grid.margin
    first_y, first_x = (np.ceil(c - 0.5 * WIDTH).astype(np.int32) for c in (y, x))
    taps = np.arange(WIDTH, dtype=np.int32)
    weight_y = _profile(first_y[:, None] + taps - y[:, None]) * (scale[known, None] / _INTEGRAL**2)
    weight_x = _profile(first_x[:, None] + taps - x[:, None])
    # The latent image is periodic, and so is a margin narrower than the
    # kernel.
    index_y, index_x = (first_y[:, None] + taps) % rows, (first_x[:, None] + taps) % columns
    values = (weight_y[:, :, None] * weight_x[:, None, :]).astype(np.float32)
    indices = index_y[:, :, None] * np.int32(columns) + index_x[:, None, :]
    starts = np.concatenate([[0], np.cumsum(known * WIDTH**2)]).astype(np.int32)
    matrix = csr_array((values.ravel(), indices.ravel(), starts), shape=(len(known), rows * columns))
    matrix.sum_duplicates()
    return matrix


def _to_torch(matrix: csr_array, device: torch.device) -> torch.Tensor:
    starts, indices, values = (torch.from_numpy(p) for p in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        # The layout is called beta; products are all that is asked of it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, indices, values, size=matrix.shape, check_invariants=True, device=device
        )
