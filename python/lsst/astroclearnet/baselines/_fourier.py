# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a sky of point-like pixels, by Fourier transforms."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import ExposureStack, InputError, fwhm_to_sigma

_MIN_SENSITIVITY = 1e-3
"""Response to a latent pixel, relative to the best one, below which it is
taken as not constrained."""


class PointModel:
    """A sky of point-like pixels, seen through the PSF of each exposure.

    Exposure t is predicted as f(t) * x on the pixels of the data, f(t) the
    PSF of the exposure and x the latent image, whose pixels are points of
    light at pixel centres.  The latent image extends beyond the data on all
    sides by half the size of the PSFs, so that every source that lights the
    data is within it, and convolutions do not wrap around.

    Parameters
    ----------
    psfs
        Shape (n, P, P), float64, sum 1, P odd.
    shape
        Height and width of the exposures in pixels.
    target_fwhm
        FWHM in pixels of the circular Gaussian with which `show` convolves.

    Attributes
    ----------
    margin
        Pixels by which the latent image extends beyond the data above and to
        the left, and at least beyond it on the other sides.
    latent_shape
        Height and width of the latent image.
    """

    def __init__(self, psfs: torch.Tensor, shape: tuple[int, int], target_fwhm: float) -> None:
        if not (math.isfinite(target_fwhm) and target_fwhm > 0):
            raise InputError(f"target_fwhm={target_fwhm} must be a positive number of pixels.")
        self.target_fwhm = target_fwhm
        self.margin = psfs.shape[-1] // 2
        self._shape = shape
        rows, columns = (_fast_length(size + 2 * self.margin) for size in shape)
        self.latent_shape = (rows, columns)
        self._otfs = self.transfer(psfs)
        sigma = fwhm_to_sigma(target_fwhm)
        ky = torch.fft.fftfreq(rows, dtype=psfs.dtype)[:, None]
        kx = torch.fft.rfftfreq(columns, dtype=psfs.dtype)[None, :]
        self._target = torch.exp(-2.0 * (math.pi * sigma) ** 2 * (ky**2 + kx**2)).float()

    @classmethod
    def from_stack(cls, stack: ExposureStack, target_fwhm: float) -> Self:
        """Construct the model of a stack of exposures.

        Parameters
        ----------
        stack
            The exposures, each with one PSF.
        target_fwhm
            FWHM of the target in pixels.

        Returns
        -------
        model : `PointModel`
            The model.

        Raises
        ------
        InputError
            If a PSF varies over the patch.
        """
        if stack.psfs.shape[1:3] != (1, 1):
            raise InputError(
                f"psfs must have shape (n, P, P) here, one PSF for each exposure, but hold "
                f"{tuple(stack.psfs.shape[1:3])} cells; average over them."
            )
        return cls(stack.psfs[:, 0, 0], stack.shape, target_fwhm)

    def transfer(self, kernels: torch.Tensor) -> torch.Tensor:
        """Return the transforms of kernels with their centre at the origin.

        Parameters
        ----------
        kernels
            Shape (..., K, K), K odd, at most the size of the latent image.

        Returns
        -------
        otfs : `torch.Tensor`
            Shape (..., Hl, Wl // 2 + 1), complex64.
        """
        size = kernels.shape[-1]
        rows, columns = self.latent_shape
        padded = torch.nn.functional.pad(kernels, (0, columns - size, 0, rows - size))
        padded = torch.roll(padded, (-(size // 2), -(size // 2)), dims=(-2, -1))
        return torch.fft.rfft2(padded).to(torch.complex64)

    def convolve(self, latent: torch.Tensor, otfs: torch.Tensor) -> torch.Tensor:
        """Convolve latent images.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).
        otfs
            Transforms of kernels as `transfer` makes them, of a shape that
            broadcasts.

        Returns
        -------
        convolved : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        return torch.fft.irfft2(torch.fft.rfft2(latent) * otfs, s=self.latent_shape)

    def predict(self, latent: torch.Tensor) -> torch.Tensor:
        """Predict the exposures.

        Parameters
        ----------
        latent
            Shape latent_shape.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (n, H, W).
        """
        return self.sample(self.convolve(latent, self._otfs))

    def adjoint(self, images: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `predict`.

        Parameters
        ----------
        images
            Shape (n, H, W).

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape, the sum over exposures.
        """
        total = (torch.fft.rfft2(self.embed(images)) * self._otfs.conj()).sum(dim=0)
        return torch.fft.irfft2(total, s=self.latent_shape)

    def sample(self, latent: torch.Tensor) -> torch.Tensor:
        """Cut latent images to the pixels of the data.

        Parameters
        ----------
        latent
            Shape (..., *latent_shape).

        Returns
        -------
        sampled : `torch.Tensor`
            Shape (..., H, W).
        """
        m = self.margin
        return latent[..., m : m + self._shape[0], m : m + self._shape[1]]

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Place data on the latent grid, with zeros around them.

        Parameters
        ----------
        images
            Shape (..., H, W).

        Returns
        -------
        embedded : `torch.Tensor`
            Shape (..., *latent_shape).
        """
        m = self.margin
        bottom, right = (full - size - m for full, size in zip(self.latent_shape, self._shape, strict=True))
        return torch.nn.functional.pad(images, (m, right, m, bottom))

    def constrained(self, weights: torch.Tensor) -> torch.Tensor:
        """Tell which latent pixels the data constrain.

        Parameters
        ----------
        weights
            Shape (n, H, W), 0 where a pixel is not used.

        Returns
        -------
        constrained : `torch.Tensor`
            Shape latent_shape, bool, `True` where the response of the data to
            light in the pixel is above 0.1 percent of the best.
        """
        response = self.adjoint(weights)
        return response > _MIN_SENSITIVITY * response.max()

    def show(self, latent: torch.Tensor, constrained: torch.Tensor) -> NDArray[np.float32]:
        """Return the image at the target PSF, on the pixels of the data.

        Parameters
        ----------
        latent
            Shape latent_shape.
        constrained
            Shape latent_shape, bool, where there are data.

        Returns
        -------
        image : `numpy.ndarray`
            Shape (H, W), float32, NaN where there are no data.
        """
        image = self.sample(self.convolve(latent, self._target))
        nan = torch.full((), torch.nan)
        return torch.where(self.sample(constrained), image, nan).detach().numpy()


def _fast_length(length: int) -> int:
    """Return the next length that is even and a product of 2, 3 and 5."""
    length += length % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2
