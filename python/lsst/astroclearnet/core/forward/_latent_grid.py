# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""The grid of the latent image, and Fourier transforms on it."""

from __future__ import annotations

__all__ = ("LatentGrid", "LatentSpace")

import dataclasses
import math

import torch

from ..exposures import fast_length, fwhm_to_sigma
from ._kernel_profile import REACH

_LIGHT_BEYOND = 1e-3
"""Share of the light of a PSF that may lie beyond the margin."""


@dataclasses.dataclass(frozen=True)
class LatentGrid:
    """Grid of the latent image: the patch and a margin around it.

    The latent image is periodic: the margin keeps what wraps around away from
    the data.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    margin
        Pixels by which the latent image extends beyond the patch above and to
        the left, and at least beyond it on the other sides.
    """

    shape: tuple[int, int]
    margin: int

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Height and width of the latent image in pixels."""
        rows, columns = (fast_length(s + 2 * self.margin) for s in self.shape)
        return rows, columns

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Place maps of the patch on the latent grid, zeros in the margin.

        Parameters
        ----------
        maps
            Shape (..., H, W).

        Returns
        -------
        embedded : `torch.Tensor`
            Shape ``(..., *latent_shape)``.
        """
        m = self.margin
        bottom, right = (full - size - m for full, size in zip(self.latent_shape, self.shape, strict=True))
        return torch.nn.functional.pad(maps, (m, right, m, bottom))

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Cut the margin off images on the latent grid.

        Parameters
        ----------
        images
            Shape ``(..., *latent_shape)``.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (..., H, W).
        """
        m = self.margin
        return images[..., m : m + self.shape[0], m : m + self.shape[1]]

    def move(self, images: torch.Tensor, other: LatentGrid) -> torch.Tensor:
        """Move images to a grid with another margin around the same patch.

        Parameters
        ----------
        images
            Shape ``(..., *latent_shape)``.
        other
            The other grid.

        Returns
        -------
        moved : `torch.Tensor`
            Shape ``(..., *other.latent_shape)``; what this grid lacks is the
            nearest pixel.
        """
        rows, columns = (
            (torch.arange(length, device=images.device) - other.margin + self.margin).clamp(0, size - 1)
            for length, size in zip(other.latent_shape, self.latent_shape, strict=True)
        )
        return images[..., rows[:, None], columns]


class LatentSpace:
    """Images on the latent grid, and their Fourier transforms.

    Transforms are real ones, of shape (..., Hl, Wl // 2 + 1).

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
            Complex, of the precision of the kernels.
        """
        size = kernels.shape[-1]
        rows, columns = self.latent_shape
        padded = torch.nn.functional.pad(kernels, (0, columns - size, 0, rows - size))
        return torch.fft.rfft2(torch.roll(padded, (-(size // 2), -(size // 2)), dims=(-2, -1)))

    def gaussian_transform(self, fwhm: float, like: torch.Tensor) -> torch.Tensor:
        """Return the transform of a circular Gaussian of unit flux.

        Parameters
        ----------
        fwhm
            FWHM in pixels.
        like
            Tensor of the precision and on the device that are wanted.

        Returns
        -------
        transform : `torch.Tensor`
            Shape (Hl, Wl // 2 + 1), real.
        """
        height, width = self.latent_shape
        ky = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)[:, None]
        kx = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)[None, :]
        return torch.exp(-2.0 * (math.pi * fwhm_to_sigma(fwhm)) ** 2 * (ky**2 + kx**2))

    def transform(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the transforms of latent images.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).

        Returns
        -------
        transform : `torch.Tensor`
            Complex.
        """
        return torch.fft.rfft2(latent)

    def inverse_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return latent images from their transforms.

        Parameters
        ----------
        transform
            Complex.

        Returns
        -------
        latent : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return torch.fft.irfft2(transform, s=self.latent_shape)

    def fold_transform(self, transform: torch.Tensor) -> torch.Tensor:
        """Return the mean of a symmetric array over the frequency plane.

        Parameters
        ----------
        transform
            Real, of an array that is symmetric in frequency.

        Returns
        -------
        mean : `torch.Tensor`
            Shape (...); of a power spectrum, the variance of one pixel.
        """
        columns = transform.mean(dim=-2)
        width = self.latent_shape[1]
        return (2.0 * columns.sum(dim=-1) - columns[..., 0] - columns[..., -1]) / width

    def fold_weights(self, device: torch.device) -> torch.Tensor:
        """Return the weights of `fold_transform`, (Hl, Wl // 2 + 1), double.

        Parameters
        ----------
        device
            Where they are needed.
        """
        height, width = self.latent_shape
        shape = (height, width // 2 + 1)
        weights = torch.full(shape, 2.0 / (height * width), dtype=torch.float64, device=device)
        weights[:, [0, -1]] /= 2.0
        return weights

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Do what `LatentGrid.embed` does.

        Parameters
        ----------
        maps
            Shape (..., H, W).
        """
        return self.grid.embed(maps)

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Do what `LatentGrid.crop` does.

        Parameters
        ----------
        images
            Shape (..., *latent_shape).
        """
        return self.grid.crop(images)


def psf_margin(psfs: torch.Tensor, length: int) -> int:
    """Return the distance in pixels beyond which PSFs have hardly any light.

    What lies further wraps around; the latent image holds a whole PSF, and
    all taps of the interpolation.

    Parameters
    ----------
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P).
    length
        Smaller side of the patch in pixels.
    """
    mean = psfs.mean(dim=(1, 2)).abs()
    radius = psfs.shape[-1] // 2
    # Light in square rings around the centre.
    distance = torch.arange(-radius, radius + 1, device=psfs.device).abs()
    rings = torch.maximum(distance[:, None], distance).flatten()
    light = mean.flatten(1) @ (rings[:, None] == distance[radius:]).to(mean.dtype)
    beyond = 1.0 - light.cumsum(dim=1) / light.sum(dim=1, keepdim=True)
    narrow = (beyond.amax(dim=0) < _LIGHT_BEYOND).tolist()
    margin = narrow.index(True) if any(narrow) else radius
    return max(REACH, min(radius, radius + 1 - length // 2), margin)
