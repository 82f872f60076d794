# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Exposures matched to a common PSF."""

from __future__ import annotations

import math

import torch

from ..estimate import LinearEstimator, Precision
from ..exposures import fwhm_to_sigma
from ..forward import CleanTile, ForwardModel, psf_fwhms

_PILOT_PENALTY_WEIGHT = 1e-3
"""Penalty weight of the linear estimate that fills unusable pixels."""

_PILOT_PRECISION = Precision(light=0.03, noise=0.1)
"""Its precision, which matters only where pixels are unusable."""

_SIZES = (1.3, 2.0)
"""Gaussian sigmas of the narrow and wide flux, over that of the broadest PSF.
The first is near the least noise; the wider the second, the better PSF errors
are told from flux scales."""

_SKY_SIZE = 4.0
"""The same of the local background."""

_WIDEST = 1.6
"""Width over the median above which a PSF does not set the common one."""

_FLOOR = 1e-6
"""Relative power of a PSF below which it is not deconvolved."""

_MISSING = 0.05
"""Share of noise from unusable pixels that is allowed; they then lose less
than a tenth of the flux."""


class PsfMatcher:
    """Match exposures of a tile to one PSF.

    With the PSF f(t), a functional psi of the sky is

        psi * R + (psi / f(t)) * (y(t) - k(t) * R)

    for any image R, which cancels except where pixels are unusable.

    Parameters
    ----------
    clean
        The tile.
    latent
        Shape latent_shape, an estimate R of its sky; made by default.

    Attributes
    ----------
    stack
        The exposures.
    model
        Their forward model.
    good
        Shape (n, h, w), bool, usable pixels including rejected ones, since
        the whole exposure may be the outlier.
    sigma
        Standard deviation in pixels of the broadest PSF that is matched.
    psf_sigma
        Shape (n,), standard deviations of the PSFs in pixels.
    ky, kx, power
        Shape (Hl, Wl // 2 + 1), frequencies and their squared modulus.
    filters
        Two of shape (Hl, Wl // 2 + 1), transforms of the narrow and wide
        flux filters.
    star
        Shape (Hl, Wl // 2 + 1), transform of a star of unit flux.
    """

    def __init__(self, clean: CleanTile, latent: torch.Tensor | None = None) -> None:
        tile_data = clean.tile_data
        self.stack, self.model = tile_data.stack, tile_data.model
        self.good = self.stack.good | clean.rejected
        self.psf_sigma = fwhm_to_sigma(1.0) * psf_fwhms(self.stack)
        used = self.psf_sigma[self.good.any(dim=(1, 2))]
        self.sigma = float(used[used <= _WIDEST * used.median()].max())
        ky, kx = _frequencies(self.model, self.good.device)
        self.ky, self.kx, self.power = ky, kx, ky**2 + kx**2
        sky = self._gaussian(_SKY_SIZE)
        self.filters = [self._gaussian(size) - sky for size in _SIZES]
        self._variances = clean.variances
        self._inverse = self.model.target_transform * self.model.inverse_target_power
        self.star = self._inverse * self.model.target_transform
        if latent is None:
            estimator = LinearEstimator(self.model, self.stack.good / clean.variances)
            right = estimator.right_side(self.stack.images)
            latent = estimator.solve(right, (_PILOT_PENALTY_WEIGHT,), precision=_PILOT_PRECISION)[0]
        self._transform = self.model.transform(latent)
        self._residuals = self.stack.images - self.model.predict(latent)

    def _gaussian(self, size: float) -> torch.Tensor:
        return torch.exp(-2.0 * (math.pi * size * self.sigma) ** 2 * self.power)

    def _deconvolution(self, t: int) -> torch.Tensor:
        """Return the deconvolution filter of the PSF of an exposure."""
        otf = self.model.mean_otfs[t]
        return self._inverse * otf.conj() / (otf.abs() ** 2 + _FLOOR)

    def spectrum(self, t: int) -> torch.Tensor:
        """Return the transform of the sky seen by an exposure.

        Parameters
        ----------
        t
            Index of the exposure.

        Returns
        -------
        spectrum : `torch.Tensor`
            Shape (Hl, Wl // 2 + 1), complex, deconvolved: meaningful only
            times a filter.
        """
        index = torch.tensor([t], device=self.good.device)
        residual = self._residuals[t] * self.good[t] / self._area(t)
        image = self.model.sampling.adjoint(residual[None], index)[0]
        residual_transform = self.model.filtered(self.model.transform(image))
        return self._inverse * self._transform + self._deconvolution(t) * residual_transform

    def noise(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the noise of the fluxes of an exposure.

        Parameters
        ----------
        t
            Index of the exposure.

        Returns
        -------
        variance : `torch.Tensor`
            Shape latent_shape, variance of the narrow flux.
        whole : `torch.Tensor`
            Shape latent_shape, bool, whether hardly a pixel is missing.
        ratios : `torch.Tensor`
            Shape (4,), double, variances of both fluxes, their covariance, and
            the variance of a gradient, over the variance of the narrow flux.
        """
        index = torch.tensor([t], device=self.good.device)
        kernels = [self.model.filtered(psi * self._deconvolution(t)) for psi in self.filters]
        area = self._area(t)
        inside = self.good[t]
        presence = self.model.embed(self.model.sampling.mean(inside.float()[None], index)[0].clamp(0, 1))
        # Unusable pixels take the noise density of their
        # surroundings.
        density = inside * self._variances[t] / area
        density = self.model.embed(self.model.sampling.mean(density[None], index)[0])
        squared = self.model.transform(self.model.inverse_transform(kernels[0]) ** 2)
        total = float(squared[0, 0].real)
        share = self._convolve(squared / total, 1.0 - presence)
        variance = self._convolve(squared, density) / (1.0 - share).clamp(min=_MISSING)
        first, second = (kernel.abs() ** 2 for kernel in kernels)
        energies = torch.stack(
            [
                self.model.fold_transform(one)
                for one in (
                    first,
                    second,
                    (kernels[0] * kernels[1].conj()).real,
                    2.0 * math.pi**2 * first * self.power,
                )
            ]
        )
        # Rounding may leave anything off the exposure.
        floor = torch.finfo(variance.dtype).eps * variance.max().clamp(min=1e-30)
        return variance.clamp(min=float(floor)), share < _MISSING, (energies / energies[0]).double()

    def _area(self, t: int) -> torch.Tensor:
        area = self.model.sampling.area[t]
        return torch.where(area > 0, area, 1.0)

    def _convolve(self, kernel: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.model.inverse_transform(kernel * self.model.transform(image))

    def surroundings(self, image: torch.Tensor) -> torch.Tensor:
        """Return the flux around each pixel.

        Parameters
        ----------
        image
            Shape latent_shape, narrow fluxes.

        Returns
        -------
        light : `torch.Tensor`
            Shape latent_shape, equal to the flux for an isolated star.
        """
        transform = self.model.transform(image.clamp(min=0.0))
        return self.image(transform, self._gaussian(_SKY_SIZE)) * (1.0 + (_SKY_SIZE / _SIZES[0]) ** 2)

    def image(self, spectrum: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
        """Return the image of a filtered transform.

        Parameters
        ----------
        spectrum
            Shape (Hl, Wl // 2 + 1).
        factor
            Shape (Hl, Wl // 2 + 1), the filter.

        Returns
        -------
        image : `torch.Tensor`
            Shape latent_shape.
        """
        return self.model.inverse_transform(spectrum * factor)


def _frequencies(model: ForwardModel, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = model.latent_shape
    ky = torch.fft.fftfreq(height, device=device)[:, None]
    kx = torch.fft.rfftfreq(width, device=device)[None, :]
    return ky.expand(-1, width // 2 + 1), kx.expand(height, -1)
