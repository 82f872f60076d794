# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Significance of residuals beyond what may differ between exposures."""

from __future__ import annotations

import math

import torch

from ..exposures import fwhm_to_sigma, largest_around, smooth
from ._leave_one_out import TRAIL_FWHM, Prediction

_NUM_REWEIGHTS = 5
"""Rounds of reweighting of the local fits; they converge in three or four."""

_LACK_OF_FIT = 0.25
"""Error of local fits, relative to what they remove."""

_LEAST_LACK = 0.003
"""Their least error, relative to structure: the median error of fitted PSFs
over their peak."""

_FLAT_FIELD = 0.02
"""Standard deviation of the relative flux scale of smooth light."""

_FLAT_FIELD_FWHM = 24.0
"""FWHM, in pixels, over which the flux scale of smooth light is fitted."""

_CHUNK, _GPU_CHUNK = 1 << 17, 1 << 21
"""Numbers of neighbours that the cache of a CPU holds, and that keep a GPU
busy."""


def significance(
    image: torch.Tensor, variances: torch.Tensor, good: torch.Tensor, prediction: Prediction
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return residuals of an exposure in units of their error.

    The templates of the prediction are fitted to the neighbours of each pixel,
    with weights that fall with their residuals (Cauchy), so that an artefact
    does not explain itself.  The error of the residual of the fit holds the
    noise of exposure and prediction, that of the fit, and a share of what was
    fitted, for templates are not exact.

    Parameters
    ----------
    image
        Shape (1, h, w), the exposure.
    variances
        Shape (1, h, w), its variances.
    good
        Shape (1, h, w), bool, pixels to judge and to fit to.
    prediction
        The exposure, predicted from the others.

    Returns
    -------
    significance : `torch.Tensor`
        Shape (1, h, w), signed, of the pixel or of its neighbourhood
        (smoothed for faint trails), whichever is larger; 0 where not good.
    plain : `torch.Tensor`
        Shape (1, h, w), that of pixels without a fit.
    """
    noise = variances + prediction.variance
    # The model has no aliases of the power at the Nyquist frequency.
    aliases = math.exp(-0.5 * (math.pi * fwhm_to_sigma(prediction.fwhm)) ** 2)
    least = ((_LEAST_LACK + aliases) * prediction.structure) ** 2 + prediction.border**2
    lack = least
    allowed = prediction.templates.square().sum(dim=0, keepdim=True) + lack
    # Where little may differ it is added to the noise instead of being fitted.
    fit = _LocalFit(prediction.templates, (allowed > 0.25 * noise) & good, prediction.fwhm)
    residual = (image - prediction.light) * good
    base = (prediction.light - prediction.structure).clamp(min=0.0)
    systematic, error = allowed, torch.zeros_like(noise)
    fitted = torch.zeros_like(residual)
    rest = residual
    for _ in range(_NUM_REWEIGHTS):
        # Half the weight at 3 sigma.
        robust = good / (1.0 + rest.square() / (noise + error + systematic) / 9.0)
        scale = _flat_field(residual - fitted, base, robust / (noise + allowed))
        fitted, error = fit.solve(residual - scale, robust / (noise + lack))
        lack = least + largest_around((_LACK_OF_FIT * fitted) ** 2, 3)
        systematic = torch.where(fit.pixels, lack, allowed)
        rest = (residual - scale - fitted) * good
    single = rest * (noise + error + systematic).rsqrt()
    plain = (residual - scale) * good * noise.rsqrt()
    return _stronger(single, _smoothed(rest, variances, prediction, error + systematic, good)), plain


def _stronger(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the value of larger size."""
    return torch.where(other.abs() > one.abs(), other, one)


def _flat_field(residual: torch.Tensor, base: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the residual light of a flux scale that varies slowly."""
    number = 4.0 * torch.pi * fwhm_to_sigma(_FLAT_FIELD_FWHM) ** 2
    information = number * smooth(weights * base**2, _FLAT_FIELD_FWHM) + _FLAT_FIELD**-2
    return base * (number * smooth(weights * base * residual, _FLAT_FIELD_FWHM)) / information


def _smoothed(
    residual: torch.Tensor,
    variances: torch.Tensor,
    prediction: Prediction,
    systematic: torch.Tensor,
    good: torch.Tensor,
) -> torch.Tensor:
    """Return the significance of residuals smoothed for faint trails."""
    weights = good / (variances + prediction.variance)
    # Clipped at 10 sigma, lest single pixels look like trails.
    limit = 10.0 * (variances + prediction.variance + systematic).sqrt()
    total = smooth(weights * torch.minimum(torch.maximum(residual, -limit), limit), TRAIL_FWHM)
    # The squared profile is narrower by the root of two.
    white = smooth(weights**2 * variances, TRAIL_FWHM / 2.0**0.5)
    white = white / (4.0 * torch.pi * fwhm_to_sigma(TRAIL_FWHM) ** 2)
    # The noise of the prediction is correlated; errors of light add up.
    shared = prediction.smooth_share * smooth(weights * prediction.variance.sqrt(), TRAIL_FWHM) ** 2
    coherent = smooth(weights * systematic.sqrt(), TRAIL_FWHM) ** 2
    return good * total * (white + shared + coherent).clamp(min=1e-30).rsqrt()


class _LocalFit:
    """Fits templates, (k, h, w), around some pixels, (1, h, w), bool.

    Their coefficients have zero mean and unit variance a priori.
    """

    def __init__(self, templates: torch.Tensor, pixels: torch.Tensor, fwhm: float) -> None:
        self.pixels = pixels
        # Gaussian weights, 1.5 times as wide as the PSF.
        sigma = fwhm_to_sigma(max(fwhm, 2.0)) * 1.5
        radius = max(2, round(2.0 * sigma))
        r = torch.arange(-radius, radius + 1, dtype=templates.dtype, device=templates.device)
        self._profile = torch.exp(-0.5 * (r / sigma) ** 2)
        padded = torch.nn.functional.pad(templates, (radius,) * 4)
        self._width = padded.shape[-1]
        self._templates = padded.flatten(1).T.contiguous()
        offsets = torch.arange(2 * radius + 1, device=pixels.device)
        self._offsets = (offsets[:, None] * self._width + offsets).flatten()
        rows, columns = pixels[0].nonzero(as_tuple=True)
        self._corners = rows * self._width + columns

    def solve(self, residual: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit the neighbours of each pixel, without itself; return the fit in
        the pixel, 0 where there is none, and its variance, (1, h, w) both.
        """
        fitted, variance = torch.zeros_like(residual), torch.zeros_like(residual)
        if not len(self._corners):
            return fitted, variance
        radius = len(self._profile) // 2
        flat_residual, flat_weights = (
            torch.nn.functional.pad(x, (radius,) * 4).flatten() for x in (residual, weights)
        )
        profile = (self._profile[:, None] * self._profile).flatten()
        middle = len(profile) // 2
        profile[middle] = 0.0
        values, errors = [], []
        chunk = _CHUNK if profile.device.type == "cpu" else _GPU_CHUNK
        for corners in self._corners.split(max(1, chunk // len(profile))):
            index = corners[:, None] + self._offsets
            # A star of high S/N is known to more digits than single precision
            # has, and its templates resemble each other.
            inverse_sigma = (profile * flat_weights[index]).double().sqrt_()[..., None]
            templates = self._templates[index] * inverse_sigma
            normal = templates.mT @ templates
            diagonal = normal.diagonal(dim1=-2, dim2=-1)
            # With a ridge above the rounding errors of double precision.
            diagonal.add_(1.0 + 2.0**-46 * diagonal.sum(dim=-1, keepdim=True))
            right = templates.mT @ (inverse_sigma * flat_residual[index][..., None])
            own = self._templates[index[:, middle], :, None].double()
            factor = torch.linalg.cholesky(normal)
            solved = own.mT @ torch.cholesky_solve(torch.cat((right, own), dim=-1), factor)
            values.append(solved[:, 0, 0])
            errors.append(solved[:, 0, 1])
        fitted[self.pixels] = torch.cat(values).to(fitted.dtype)
        variance[self.pixels] = torch.cat(errors).to(variance.dtype)
        return fitted, variance
