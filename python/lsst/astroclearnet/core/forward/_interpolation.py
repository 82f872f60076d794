# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation of the latent image at the pixels of an exposure."""

from __future__ import annotations

__all__ = ("Interpolation", "transfer_function")

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from ._latent_grid import LatentGrid

_WIDTH = 5
"""Width of the interpolation kernel in pixels."""

_BANDWIDTH = 0.33
"""Frequency, in cycles per pixel, up to which images have power."""

_LEAST_TOGETHER = 4
"""Images that SciPy multiplies faster together, with the same sums: four in
5.8 ms in place of 7.9, eight in 8.4 in place of 15.6, of 288x288 pixels."""

_SHAPE = 0.97 * math.pi * _WIDTH * (1.0 - _BANDWIDTH)
"""Exponent of the kernel that suits the bandwidth (Barnett, Magland & af
Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, section 4)."""


def _profile(offset: np.ndarray) -> np.ndarray:
    """Return the kernel, not normalised, at distances in pixels."""
    square = 1.0 - (2.0 * offset / _WIDTH) ** 2
    # Rounding may leave the end.
    return np.exp(_SHAPE * (np.sqrt(square.clip(0.0)) - 1.0))


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return points of the kernel and their weights in an integral of it."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    # The kernel has a vertical tangent at its ends; in this variable not.
    angle = 0.5 * np.pi * nodes
    points = 0.5 * _WIDTH * np.sin(angle)
    return points, weights * 0.25 * np.pi * _WIDTH * np.cos(angle) * _profile(points)


_POINTS, _POINT_WEIGHTS = _quadrature()


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
    return np.cos(2.0 * np.pi * frequency[..., None] * _POINTS) @ _POINT_WEIGHTS / _POINT_WEIGHTS.sum()


class Interpolation:
    """Interpolation of one image at given positions, as a sparse matrix.

    A value is the sum of 5x5 pixels, weighted with the kernel along both
    axes, of an image whose transform was divided by `transfer_function`
    along both axes.  What remains are aliases of the highest frequencies, of
    which an image with a PSF of 3 pixels FWHM has hardly any.  At whole
    pixels no interpolation is needed, and a value is that of one pixel.

    On a CPU one thread multiplies with it, by SciPy.  On a GPU PyTorch does,
    with a transpose that is also stored by rows, so that no two threads add to
    one element of a product.

    Parameters
    ----------
    y
        Shape (p,), float64, rows on the patch; NaN for a pixel that has no
        position.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, factor of each interpolated value.
    grid
        Grid of the patch and the image, which is periodic.
    whole
        Whether all positions are whole pixels.
    """

    def __init__(
        self, y: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, grid: LatentGrid, *, whole: bool = False
    ) -> None:
        matrix = _matrix(y.cpu().numpy(), x.cpu().numpy(), scale.cpu().numpy(), grid, whole=whole)
        self._latent_shape = grid.latent_shape
        self._forward, self._transposed = matrix, matrix.T
        if y.device.type != "cpu":
            self._forward, self._transposed = (_to_torch(m, y.device) for m in (matrix, matrix.T.tocsr()))

    def observe(self, image: torch.Tensor) -> torch.Tensor:
        """Interpolate an image.

        Parameters
        ----------
        image
            Shape latent_shape, divided by the transfer function unless the
            positions are whole.

        Returns
        -------
        values : `torch.Tensor`
            Shape (p,), float32; 0 for a pixel that has no position.
        """
        return _product(self._forward, image.flatten())

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `observe`.

        Parameters
        ----------
        values
            Shape (p,).

        Returns
        -------
        image : `torch.Tensor`
            Shape latent_shape, float32.
        """
        return _product(self._transposed, values).reshape(self._latent_shape)

    def normal(self, images: torch.Tensor, weights: torch.Tensor) -> None:
        """Interpolate images, weight the values, and apply the adjoint.

        An image does not depend on those beside it.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, as for `observe`; replaced.
        weights
            Shape (p,).
        """
        if len(images) < _LEAST_TOGETHER or isinstance(self._forward, torch.Tensor):
            for image in images:
                image.copy_(self.adjoint(self.observe(image).mul_(weights)))
        else:
            values = _product(self._forward, images.flatten(1).T.contiguous())
            back = _product(self._transposed, values.mul_(weights[:, None]))
            images.copy_(back.T.reshape(images.shape))


def _product(matrix: Any, values: torch.Tensor) -> torch.Tensor:
    """Multiply a matrix of SciPy or PyTorch with float32 values."""
    if isinstance(matrix, torch.Tensor):
        return matrix @ values.float()
    return torch.from_numpy(matrix @ values.float().numpy())


def _matrix(y: np.ndarray, x: np.ndarray, scale: np.ndarray, grid: LatentGrid, *, whole: bool) -> csr_array:
    """Return the matrix, of shape (p, Hl Wl)."""
    known = np.isfinite(y)
    row, row_weights = _taps(y[known] + grid.margin, whole=whole)
    column, column_weights = _taps(x[known] + grid.margin, whole=whole)
    row_weights = row_weights * scale[known, None]
    height, width = grid.latent_shape
    indices = (row % height)[:, :, None] * np.int32(width) + (column % width)[:, None, :]
    values = (row_weights[:, :, None] * column_weights[:, None, :]).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(known * row.shape[1] ** 2)]).astype(np.int32)
    matrix = csr_array((values.ravel(), indices.ravel(), starts), shape=(len(known), height * width))
    # An image smaller than the kernel has taps that wrap to one pixel.
    matrix.sum_duplicates()
    return matrix


def _taps(position: np.ndarray, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels along one axis, int32, and weights, each (p, taps)."""
    if whole:
        return position.astype(np.int32)[:, None], np.ones((len(position), 1))
    first = np.ceil(position - 0.5 * _WIDTH).astype(np.int32)
    taps = first[:, None] + np.arange(_WIDTH, dtype=np.int32)
    return taps, _profile(taps - position[:, None]) / _POINT_WEIGHTS.sum()


def _to_torch(matrix: csr_array, device: torch.device) -> torch.Tensor:
    starts, indices, values = (torch.from_numpy(p) for p in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        # Of this layout, which is in beta, only products are needed.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, indices, values, size=matrix.shape, check_invariants=True, device=device
        )
