# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Interpolation of well-sampled images at any position."""

from __future__ import annotations

__all__ = (
    "CompiledInterpolation",
    "SparseInterpolation",
)

import warnings
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.sparse import csr_array

from ._interpolation_profile import LANES, WIDTH, kernel_profile
from ._latent_grid import LatentGrid


class Interpolation(ABC):
    """Interpolates images at given positions; a sparse matrix.

    An image is first multiplied with the inverse of `transfer_function` along
    both axes, in Fourier space, where that costs nothing.  What is left
    wrong are the aliases of the highest frequencies, which an image with a
    PSF of 3 pixels FWHM hardly has.
    """

    @abstractmethod
    def observe(self, image: torch.Tensor) -> torch.Tensor:
        """Interpolate an image.

        Parameters
        ----------
        image
            Shape latent_shape.

        Returns
        -------
        values : `torch.Tensor`
            Shape (p,).
        """

    @abstractmethod
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

    @abstractmethod
    def normal(self, images: torch.Tensor, weights: torch.Tensor, scratch: torch.Tensor) -> None:
        """Interpolate images, weight the values and apply the transpose.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, contiguous, replaced by the result.
        weights
            Shape (p,).
        scratch
            Shape (m,), float32, with m at least the `scratch_size` of b
            images; overwritten.
        """

    @staticmethod
    @abstractmethod
    def scratch_size(number: int, grid: LatentGrid) -> int:
        """Return how much memory `normal` needs.

        Parameters
        ----------
        number
            Number b of images.
        grid
            Grid of the images.

        Returns
        -------
        size : `int`
            Number of float32 elements.
        """


class CompiledInterpolation(Interpolation):
    """Computes the elements of the matrix whenever they are needed.

    It holds nothing but the positions, and runs on the CPU, in one thread.

    Parameters
    ----------
    y
        Shape (p,), float64, rows on the grid of the patch; NaN for a pixel
        that has no position.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what the interpolated values are multiplied with;
        0 for a pixel that has no position.
    grid
        Grid of the images.
    """

    def __init__(self, y: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, grid: LatentGrid) -> None:
        # The compiler takes half a second to load: only where it is needed.
        from . import _interpolation_kernels

        self._kernels = _interpolation_kernels
        self._latent_shape = grid.latent_shape
        self._margin = grid.margin
        self._pixels = (y.contiguous().numpy(), x.contiguous().numpy(), scale.contiguous().numpy())

    def observe(self, image: torch.Tensor) -> torch.Tensor:
        values = torch.empty(len(self._pixels[0]))
        self._kernels.observe_one(_as_array(image)[..., None], *self._pixels, self._margin, values.numpy())
        return values

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        image = torch.zeros(self._latent_shape)
        self._kernels.adjoint_one(_as_array(values), *self._pixels, self._margin, image.numpy()[..., None])
        return image

    def normal(self, images: torch.Tensor, weights: torch.Tensor, scratch: torch.Tensor) -> None:
        pixels, factors = self._pixels, _as_array(weights)
        height, width = self._latent_shape
        memory = scratch.numpy()
        if len(images) == 1:
            image = images.numpy()[0, ..., None]
            source = memory[: height * width].reshape(height, width, 1)
            source[...] = image
            image[...] = 0.0
            self._kernels.normal_one(source, *pixels, factors, self._margin, image)
            return
        before, after = memory[: 2 * height * width * LANES].reshape(2, height, width, LANES)
        for start in range(0, len(images), LANES):
            some = images.numpy()[start : start + LANES]
            self._kernels.interleave(some, before)
            after[...] = 0.0
            self._kernels.normal_lanes(before, *pixels, factors, self._margin, after)
            self._kernels.separate(after, some)

    @staticmethod
    def scratch_size(number: int, grid: LatentGrid) -> int:
        height, width = grid.latent_shape
        return height * width * (1 if number == 1 else 2 * LANES)


class SparseInterpolation(Interpolation):
    """Holds the matrix and its transpose, and runs on any device.

    Parameters
    ----------
    y
        Shape (p,), float64, rows on the grid of the patch; NaN for a pixel
        that has no position.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what the interpolated values are multiplied with;
        0 for a pixel that has no position.
    grid
        Grid of the images.
    """

    def __init__(self, y: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, grid: LatentGrid) -> None:
        matrix = _weights(y.cpu().numpy(), x.cpu().numpy(), scale.cpu().numpy(), grid)
        self._latent_shape = grid.latent_shape
        self._forward = _to_torch(matrix, y.device)
        self._transposed = _to_torch(matrix.T.tocsr(), y.device)

    def observe(self, image: torch.Tensor) -> torch.Tensor:
        return self._forward @ image.reshape(-1)

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        return (self._transposed @ values).reshape(self._latent_shape)

    def normal(self, images: torch.Tensor, weights: torch.Tensor, scratch: torch.Tensor) -> None:
        values = self._forward @ images.flatten(1).T
        images.copy_((self._transposed @ (weights[:, None] * values)).T.reshape(images.shape))

    @staticmethod
    def scratch_size(number: int, grid: LatentGrid) -> int:
        return 0


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as the compiled functions take it."""
    array: np.ndarray = tensor.detach().to(torch.float32).contiguous().numpy()
    return array


def _weights(y: np.ndarray, x: np.ndarray, scale: np.ndarray, grid: LatentGrid) -> csr_array:
    rows, columns = grid.latent_shape
    known = np.isfinite(y)
    y, x = y[known] + grid.margin, x[known] + grid.margin
    first_y, first_x = (np.ceil(c - 0.5 * WIDTH).astype(np.int32) for c in (y, x))
    taps = np.arange(WIDTH, dtype=np.int32)
    weight_y = kernel_profile(first_y[:, None] + taps - y[:, None]) * scale[known, None]
    weight_x = kernel_profile(first_x[:, None] + taps - x[:, None])
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
