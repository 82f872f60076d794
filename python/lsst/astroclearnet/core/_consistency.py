# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Whether the PSFs that were given fit the exposures."""

from __future__ import annotations

__all__ = ("psf_width_errors",)

import math

import torch

from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma
from ._noise_model import masked_medians

_LEAST_FREEDOM = 1e-2
"""Share of the data that the other exposures must have."""


def psf_width_errors(
    model: ForwardModel,
    light: torch.Tensor,
    latent: torch.Tensor,
    images: torch.Tensor,
    weights: torch.Tensor,
    fwhms: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return by how much the PSF of each exposure is wider than given.

    To first order a PSF that is wider by a fraction e adds
    e sigma^2 (d^2/dx^2 + d^2/dy^2) m to the predicted exposure m, exactly so
    for a Gaussian of standard deviation sigma; e is fitted to the residuals.
    The image follows a wrong PSF in part, at each frequency by the share of
    the exposure in what is known there, and the fit is corrected for that.
    Only differences between exposures can be known: an error that all share
    goes into the image.

    Parameters
    ----------
    model
        Forward model of the exposures.
    light
        Shape latent_shape, image from which the change by a wider PSF is
        computed.  Its noise must be small: what it shares with the exposures
        passes for an error of the sharpest ones.
    latent
        Shape latent_shape, image that explains the exposures.
    images
        Shape (n, H, W), the exposures.
    weights
        Shape (n, H, W), inverse variances, 0 where a pixel is not used.
    fwhms
        Shape (n,), FWHM of the given PSFs in pixels.

    Returns
    -------
    errors : `torch.Tensor`
        Shape (n,), relative errors of the widths; positive where an exposure
        is blurred more than its PSF says.
    sigmas : `torch.Tensor`
        Shape (n,), their standard deviations from noise; infinite, with an
        error of 0, without light or without other exposures.
    """
    height, width = model.latent_shape
    ky = torch.fft.fftfreq(height, device=latent.device)[:, None]
    kx = torch.fft.rfftfreq(width, device=latent.device)[None, :]
    curvature = -4.0 * math.pi**2 * (ky**2 + kx**2) * model.transform(light)
    variances = torch.stack([fwhms.new_tensor(fwhm_to_sigma(float(f)) ** 2) for f in fwhms])
    response = model.predict(model.inverse_transform(curvature)) * variances[:, None, None]
    information = (weights * response**2).sum(dim=(1, 2))
    residual = images - model.predict(latent)
    fitted = (weights * response * residual).sum(dim=(1, 2)) / information.clamp(min=1e-30)
    free = 1.0 - _leverages(model, curvature, weights)
    known = (information > 0) & (free > _LEAST_FREEDOM)
    sigmas = torch.where(known, (information * free).clamp(min=1e-30).rsqrt(), math.inf)
    return torch.where(known, fitted / free.clamp(min=_LEAST_FREEDOM), 0.0), sigmas


def _leverages(model: ForwardModel, curvature: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return how much of a change of each exposure the image follows, (n,)."""
    typical = masked_medians(weights, weights > 0, 0.0)
    power = model.mean_otfs.abs() ** 2
    share = typical[:, None, None] * power
    share = share / share.sum(dim=0).clamp(min=1e-30)
    spectrum = power * curvature.abs() ** 2
    total = model.fold_transform(spectrum)
    return model.fold_transform(share * spectrum) / total.clamp(min=1e-30)
