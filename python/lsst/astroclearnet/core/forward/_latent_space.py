# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images on the latent grid, and their Fourier transforms."""

from __future__ import annotations

import torch

from ._latent_grid import LatentGrid


class LatentSpace:
    """Images on the latent grid, and their Fourier transforms.

    Parameters
    ----------
    grid
        Grid of the patch and the latent image.

    Attributes
    ----------
    grid
        Grid of the patch and the latent image.
    """

    def __init__(self, grid: LatentGrid) -> None:
        self.grid = grid

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""
        return self.grid.shape

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Height and width of the latent image in pixels."""
        return self.grid.latent_shape

    def transfer(self, kernels: torch.Tensor) -> torch.Tensor:
        """Return the transforms of kernels with their centre at the origin.

        Parameters
        ----------
        kernels
            Shape (..., K, K), K odd, at most the size of the latent image.

        Returns
        -------
        otfs : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1), complex, of the precision of the
            kernels.
        """
        size = kernels.shape[-1]
        rows, columns = self.latent_shape
        padded = torch.nn.functional.pad(kernels, (0, columns - size, 0, rows - size))
        return torch.fft.rfft2(torch.roll(padded, (-(size // 2), -(size // 2)), dims=(-2, -1)))

    def transform(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the real Fourier transform of latent images.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).

        Returns
        -------
        transform : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1), complex.
        """
        return torch.fft.rfft2(latent)

    def inverse_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return latent images from their Fourier transforms.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1), complex.

        Returns
        -------
        latent : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return torch.fft.irfft2(transform, s=self.latent_shape)

    def fold_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return the mean over all frequencies of a real half-plane array.

        Parameters
        ----------
        transform
            Shape (..., Hl, Wl // 2 + 1), real, of an array that is symmetric
            in frequency.

        Returns
        -------
        mean : `torch.Tensor`
            Shape (...), the mean over the whole frequency plane, which is
            what a power spectrum contributes to the variance of one pixel.
        """
        columns = transform.mean(dim=-2)
        width = self.latent_shape[1]
        return (2.0 * columns.sum(dim=-1) - columns[..., 0] - columns[..., -1]) / width

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Place maps of the patch on the latent grid, zeros in the margin.

        Parameters
        ----------
        maps
            Shape (..., H, W).

        Returns
        -------
        embedded : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return self.grid.embed(maps)

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Cut the margin off images on the latent grid.

        Parameters
        ----------
        images
            Shape (..., *latent_shape).

        Returns
        -------
        maps : `torch.Tensor`
            Shape (..., H, W).
        """
        return self.grid.crop(images)
