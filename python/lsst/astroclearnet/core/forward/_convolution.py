# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Convolution of images with the kernels of one exposure after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import torch


@dataclasses.dataclass(frozen=True)
class ConvolutionMemory:
    """What one thread needs to work on some images and an exposure.

    Memory that is asked for again and again costs more than the arithmetic.

    Attributes
    ----------
    images
        Shape (b, *latent_shape), the images that are worked on.
    term
        Shape (k, *latent_shape), for the k images that are transformed at
        once.
    product
        Shape (k, Hl, Wl // 2 + 1), complex64.
    spectrum
        Shape (b, Hl, Wl // 2 + 1), complex64, the result of a correlation.
    """

    images: torch.Tensor
    term: torch.Tensor
    product: torch.Tensor
    spectrum: torch.Tensor

    def narrow(self, number: int) -> ConvolutionMemory:
        """Return a view of the memory for fewer images.

        Parameters
        ----------
        number
            Their number.
        """
        return ConvolutionMemory(
            images=self.images[:number],
            term=self.term[:number],
            product=self.product[:number],
            spectrum=self.spectrum[:number],
        )

    def parts(self) -> Iterator[slice]:
        """Yield the indices of images that are transformed at once."""
        step = len(self.product)
        return (slice(start, start + step) for start in range(0, len(self.images), step))


@dataclasses.dataclass(frozen=True)
class Convolution:
    """Convolution with kernels that vary over the patch, and its adjoint.

    Attributes
    ----------
    means
        Shape (n, Hl, Wl // 2 + 1), complex64, transforms of the mean kernel
        of each exposure.
    components
        For each exposure, shape (rank, Hl, Wl // 2 + 1), complex64,
        transforms of the components of its kernel.
    coefficients
        For each exposure, shape (rank, Hl, Wl), float32, their coefficients.
    latent_shape
        Height and width of the images in pixels.
    """

    means: torch.Tensor
    components: tuple[torch.Tensor, ...]
    coefficients: tuple[torch.Tensor, ...]
    latent_shape: tuple[int, int]

    def allocate(self, number: int) -> ConvolutionMemory:
        """Return memory for one thread, not initialised.

        Parameters
        ----------
        number
            Number b of images.
        """
        device = self.means.device
        at_once = self._at_once(number)
        transformed = self.means.shape[-2:]
        return ConvolutionMemory(
            images=torch.empty(number, *self.latent_shape, device=device),
            term=torch.empty(at_once, *self.latent_shape, device=device),
            product=torch.empty(at_once, *transformed, dtype=self.means.dtype, device=device),
            spectrum=torch.empty(number, *transformed, dtype=self.means.dtype, device=device),
        )

    def convolve(self, transform: torch.Tensor, exposure: int, memory: ConvolutionMemory) -> None:
        """Fill the images of the memory with convolved ones.

        Parameters
        ----------
        transform
            Shape (b, Hl, Wl // 2 + 1), transforms of images.
        exposure
            Index of the exposure.
        memory
            Memory for b images.
        """
        product, term = memory.product, memory.term
        for part in memory.parts():
            images = memory.images[part]
            torch.mul(transform[part], self.means[exposure], out=product)
            torch.fft.irfft2(product, s=self.latent_shape, out=images)
            for otf, coefficient in self._terms(exposure):
                torch.mul(transform[part], otf, out=product)
                torch.fft.irfft2(product, s=self.latent_shape, out=term)
                images.addcmul_(coefficient, term)

    def correlate(self, exposure: int, memory: ConvolutionMemory) -> torch.Tensor:
        """Apply the adjoint of `convolve`; return transforms, in the memory.

        Parameters
        ----------
        exposure
            Index of the exposure.
        memory
            Memory that holds b images.
        """
        product, term = memory.product, memory.term
        for part in memory.parts():
            images, spectrum = memory.images[part], memory.spectrum[part]
            torch.fft.rfft2(images, out=product)
            torch.mul(product, self.means[exposure].conj(), out=spectrum)
            for otf, coefficient in self._terms(exposure):
                torch.mul(coefficient, images, out=term)
                torch.fft.rfft2(term, out=product)
                spectrum.addcmul_(product, otf.conj())
        return memory.spectrum

    def transform(self, images: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
        """Return transforms of images times a factor.

        Parameters
        ----------
        images
            Shape (b, *latent_shape).
        factor
            Shape (Hl, Wl // 2 + 1), real; `None` for 1.
        """
        spectra = torch.empty(
            len(images), *self.means.shape[-2:], dtype=self.means.dtype, device=images.device
        )
        for some, spectrum in zip(self._parts(images), self._parts(spectra), strict=True):
            torch.fft.rfft2(some, out=spectrum)
            if factor is not None:
                spectrum.mul_(factor)
        return spectra

    def inverse_transform(self, spectra: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
        """Return images from their transforms times a factor.

        Parameters
        ----------
        spectra
            Shape (b, Hl, Wl // 2 + 1), complex64; overwritten.
        factor
            Shape (Hl, Wl // 2 + 1), real; `None` for 1.
        """
        images = torch.empty(len(spectra), *self.latent_shape, device=spectra.device)
        for some, spectrum in zip(self._parts(images), self._parts(spectra), strict=True):
            if factor is not None:
                spectrum.mul_(factor)
            torch.fft.irfft2(spectrum, s=self.latent_shape, out=some)
        return images

    def filter_images(self, images: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """Multiply the transforms of images with real gains.

        Parameters
        ----------
        images
            Shape (b, *latent_shape).
        gain
            Shape (b, Hl, Wl // 2 + 1).
        """
        filtered = torch.empty_like(images)
        for some, gains, result in zip(*(self._parts(t) for t in (images, gain, filtered)), strict=True):
            product = torch.fft.rfft2(some).mul_(gains)
            torch.fft.irfft2(product, s=self.latent_shape, out=result)
        return filtered

    def power(self, exposure: int) -> torch.Tensor:
        """Return the power of the mean kernel, (Hl, Wl // 2 + 1).

        Parameters
        ----------
        exposure
            Index of the exposure.
        """
        otf = torch.view_as_real(self.means[exposure])
        return (otf**2).sum(dim=-1)

    def total_power(self, weights: torch.Tensor, exposures: Iterable[int]) -> torch.Tensor:
        """Return the weighted sum of the powers of exposures.

        Parameters
        ----------
        weights, exposures
            Weights and indices of the exposures.
        """
        total = torch.zeros(self.means.shape[-2:], device=self.means.device)
        for weight, exposure in zip(weights, exposures, strict=True):
            total.addcmul_(weight, self.power(exposure))
        return total

    def _at_once(self, number: int) -> int:
        # A GPU is busy with all images only; the cache of a CPU holds one.
        return 1 if self.means.device.type == "cpu" else number

    def _parts(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split images into those that are transformed at once."""
        return images.split(self._at_once(len(images)))

    def _terms(self, exposure: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Return transforms and coefficients of components."""
        return zip(self.components[exposure], self.coefficients[exposure], strict=True)
