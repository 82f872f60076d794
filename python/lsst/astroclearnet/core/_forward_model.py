# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What each exposure should look like, given the sky at the target PSF."""

from __future__ import annotations

__all__ = ("ForwardModel",)

import copy
import math

import torch

from ._errors import InputError
from ._exposure_stack import ExposureStack
from ._kernels import fwhm_to_sigma

_DECONVOLUTION_FLOOR = 1e-6
"""Power of the target OTF below which the difference kernel fades out."""

_PSF_RANK_TOLERANCE = 1e-3
"""Change of a PSF over a patch, relative to its norm, worth a component."""


class ForwardModel:
    """The sky at the target PSF, seen through each exposure.

    The latent image R is the sky convolved with the target PSF g, a circular
    Gaussian, so that it is well sampled.  Exposure t is predicted in two
    steps: convolution with its difference kernel k(t), the PSF f(t)
    deconvolved by g (Magain, Courbin & Sohy 1998, ApJ 494, 472), and sampling
    onto the pixels of the exposure, which for a co-registered stack is a crop
    of the margin that R has around the data.

    A PSF that varies over the patch is a sum of a few kernels with
    coefficients that change smoothly from cell centre to cell centre, so that
    there is no step at the border of a cell.

    Parameters
    ----------
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P), float64, sum 1.
    shape
        Height and width of the exposures in pixels.
    target_fwhm
        FWHM of the target PSF in pixels.

    Attributes
    ----------
    margin
        Pixels by which the latent image extends beyond the data above and to
        the left, and at least beyond it on the other sides.
    latent_shape
        Height and width of the latent image, which is periodic: the margin
        keeps what wraps around away from the data.
    inverse_target_power
        Shape (Hl, Wl // 2 + 1), one over the power of the target PSF.
    target_transform
        Shape (Hl, Wl // 2 + 1), real, transform of the target PSF.
    """

    _least_fwhm = 1.5

    def __init__(self, psfs: torch.Tensor, shape: tuple[int, int], target_fwhm: float) -> None:
        if not (math.isfinite(target_fwhm) and target_fwhm > 0 and target_fwhm >= self._least_fwhm):
            raise InputError(
                f"target_fwhm={target_fwhm} pixels cannot be sampled: give at least {self._least_fwhm}, "
                "better 2.5.",
                target_fwhm=target_fwhm,
            )
        self.target_fwhm = target_fwhm
        self.margin = psfs.shape[-1] // 2
        self._kernels, self._coefficients = _separate(psfs, shape)
        self._set_shape(shape)

    @classmethod
    def from_stack(cls, stack: ExposureStack, target_fwhm: float) -> ForwardModel:
        """Construct the model of a stack of exposures.

        Parameters
        ----------
        stack
            The exposures.
        target_fwhm
            FWHM of the target PSF in pixels.

        Returns
        -------
        model : `ForwardModel`
            The model, on the device of the stack.
        """
        return cls(stack.psfs, stack.shape, target_fwhm)

    def _set_shape(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        rows, columns = (_fast_length(s + 2 * self.margin) for s in shape)
        self.latent_shape = (rows, columns)
        self._otfs, self.inverse_target_power, self.target_transform = self._difference_otfs()

    def window(self, rows: slice, columns: slice) -> ForwardModel:
        """Return the model of a window of the exposures.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.

        Returns
        -------
        model : `ForwardModel`
            Model of the exposures cut to the window.
        """
        cut = copy.copy(self)
        if self._coefficients is not None:
            cut._coefficients = self._coefficients[..., rows, columns]
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if shape != self.shape:
            cut._set_shape(shape)
        return cut

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return self._otfs.shape[0]

    @property
    def mean_otfs(self) -> torch.Tensor:
        """Transforms of the patch-averaged difference kernels.

        Shape (n, Hl, Wl // 2 + 1), complex64.
        """
        return self._otfs[:, 0]

    @property
    def local_otfs(self) -> torch.Tensor:
        """Transforms of the difference kernels averaged over the data.

        They differ from `mean_otfs` in a window.  Shape (n, Hl, Wl // 2 + 1),
        complex64.
        """
        if self._coefficients is None:
            return self.mean_otfs
        coefficients = self._coefficients.mean(dim=(-1, -2))[:, :, None, None]
        return self._otfs[:, 0] + (coefficients * self._otfs[:, 1:]).sum(dim=1)

    def _difference_otfs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kernels = self._kernels
        height, width = self.latent_shape
        ky = torch.fft.fftfreq(height, dtype=kernels.dtype, device=kernels.device)[:, None]
        kx = torch.fft.rfftfreq(width, dtype=kernels.dtype, device=kernels.device)[None, :]
        sigma = fwhm_to_sigma(self.target_fwhm)
        target = torch.exp(-2.0 * (math.pi * sigma) ** 2 * (ky**2 + kx**2))
        inverse = self._inverse(target)
        inverse_power = (1.0 + _DECONVOLUTION_FLOOR) / (target**2 + _DECONVOLUTION_FLOOR)
        otfs = torch.empty((*kernels.shape[:2], *inverse.shape), dtype=torch.complex64, device=kernels.device)
        # One exposure at a time: double precision takes four times the memory.
        for t in range(len(kernels)):
            otfs[t] = self.transfer(kernels[t]) * inverse
        return otfs, inverse_power.float(), target.float()

    def _inverse(self, target: torch.Tensor) -> torch.Tensor:
        """Return what makes difference kernels of PSFs."""
        return target * (1.0 + _DECONVOLUTION_FLOOR) / (target**2 + _DECONVOLUTION_FLOOR)

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

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Place data on the latent grid, with zeros in the margin.

        This is the adjoint of the sampling step.

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
        bottom, right = (full - size - m for full, size in zip(self.latent_shape, self.shape, strict=True))
        return torch.nn.functional.pad(images, (m, right, m, bottom))

    def sample(self, latent: torch.Tensor) -> torch.Tensor:
        """Sample images on the latent grid onto the pixels of the data.

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
        return latent[..., m : m + self.shape[0], m : m + self.shape[1]]

    def predict(self, latent: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Predict exposures from the latent image.

        Parameters
        ----------
        latent
            Shape latent_shape for one image, or (n, *latent_shape) for an
            image of its own for each exposure.
        exposures
            Indices of the exposures to predict; all by default.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (n, H, W).
        """
        otfs = self._otfs if exposures is None else self._otfs[exposures]
        transform = self.transform(latent)
        prediction = self.sample(self.inverse_transform(transform * otfs[:, 0]))
        if self._coefficients is not None:
            coefficients = self._coefficients if exposures is None else self._coefficients[exposures]
            for b in range(coefficients.shape[1]):
                term = self.sample(self.inverse_transform(transform * otfs[:, b + 1]))
                prediction = prediction + coefficients[:, b] * term
        return prediction

    def adjoint(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the adjoint of `predict` for one latent image.

        Parameters
        ----------
        images
            Shape (n, H, W).
        exposures
            Indices of the exposures that ``images`` belong to; all by
            default.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape, the sum over exposures.
        """
        otfs = self._otfs if exposures is None else self._otfs[exposures]
        total = (self.transform(self.embed(images)) * otfs[:, 0].conj()).sum(dim=0)
        if self._coefficients is not None:
            coefficients = self._coefficients if exposures is None else self._coefficients[exposures]
            for b in range(coefficients.shape[1]):
                term = self.transform(self.embed(coefficients[:, b] * images))
                total = total + (term * otfs[:, b + 1].conj()).sum(dim=0)
        return self.inverse_transform(total)


def _separate(psfs: torch.Tensor, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Split PSFs into a mean kernel and components with coefficient maps.

    Returns kernels of shape (n, 1 + B, P, P) and, where the PSF of any
    exposure varies, coefficients of shape (n, B, H, W).
    """
    n, cells_y, cells_x = psfs.shape[:3]
    mean = psfs.mean(dim=(1, 2))
    deviation = (psfs - mean[:, None, None]).reshape(n, cells_y * cells_x, -1)
    left, values, right = torch.linalg.svd(deviation, full_matrices=False)
    scale = _PSF_RANK_TOLERANCE * torch.linalg.vector_norm(mean, dim=(1, 2)) * math.sqrt(cells_y * cells_x)
    rank = int((values > scale[:, None]).sum(dim=1).max())
    if rank == 0:
        return mean[:, None], None
    kernels = torch.cat([mean[:, None], right[:, :rank].reshape(n, rank, *mean.shape[1:])], dim=1)
    nodes = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 2).reshape(n, rank, cells_y, cells_x)
    coefficients = torch.nn.functional.interpolate(
        nodes.to(torch.float32), size=shape, mode="bilinear", align_corners=False
    )
    return kernels, coefficients


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
