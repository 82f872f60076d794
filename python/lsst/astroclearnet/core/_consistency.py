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

from ._depth import iterate_weight_maps
from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma

_LEAST_EXPOSURES = 2
"""Fewer cannot be compared."""

_NULL = 1e-6
"""Share of the largest eigenvalue below which a common error is unknown."""


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
    for a Gaussian of standard deviation sigma.  All e are fitted to the
    residuals together, because the image follows a wrong PSF in part, at each
    frequency by the share of the exposure in what is known there, and shows
    the rest in all other exposures.  Only differences between exposures can
    be known: an error that all share goes into the image.  Most exposures
    are taken to be right: the median error is zero.

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
        Shape (n, h, w), the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
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
    change = model.inverse_transform(curvature)
    information = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    projected = torch.zeros_like(information)
    for t, exposure in enumerate(torch.arange(len(images), device=images.device).split(1)):
        response = model.predict(change, exposure)[0]
        left = images[t] - model.predict(latent, exposure)[0]
        information[t] = (weights[t] * response**2).sum()
        projected[t] = (weights[t] * response * left).sum()
    known = information > 0
    if int(known.sum()) < _LEAST_EXPOSURES:
        return torch.zeros_like(fwhms), torch.full_like(fwhms, math.inf)
    # In units of the noise, of the changes of sigma^2.
    scale = information[known].rsqrt()
    normal = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
    normal = normal - _shares(model, curvature, weights)[known][:, known]
    inverse = torch.linalg.pinv(normal, rtol=_NULL, hermitian=True)
    change = scale * (inverse @ (scale * projected[known]))
    change = change - torch.quantile(change, 0.5)
    deviation = scale * inverse.diagonal().clamp(min=0).sqrt()
    variances = (fwhms.double() * fwhm_to_sigma(1.0)) ** 2
    errors, sigmas = torch.zeros_like(variances), torch.full_like(variances, math.inf)
    errors[known] = change / variances[known]
    sigmas[known] = deviation / variances[known]
    return errors.to(fwhms.dtype), sigmas.to(fwhms.dtype)


def _shares(model: ForwardModel, curvature: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return what the image follows of a change, (n, n), symmetric.

    An entry is the change of one exposure by the error of another, with both
    in units of the noise of their own changes.
    """
    typical = [maps.typical for maps in iterate_weight_maps(model, weights)]
    powers = torch.stack([weight * model.power(t) for t, weight in enumerate(typical)])
    # Where PSFs have no power left, the quotient leaves single precision.
    light = curvature.abs().double() ** 2
    multiplicity = torch.full_like(light, 2.0)
    multiplicity[:, [0, -1]] = 1.0
    shared = torch.zeros(len(powers), len(powers), dtype=torch.float64, device=powers.device)
    own = torch.zeros(len(powers), dtype=torch.float64, device=powers.device)
    # Rows of frequencies at a time, for double precision.
    for row, power in enumerate(powers.transpose(0, 1)):
        total = power.sum(dim=0).clamp(min=1e-30)
        shape, flat = multiplicity[row] * light[row], power.double()
        shared += (flat * (shape / total)) @ flat.T
        own += flat @ shape
    scale = own.clamp(min=1e-300).rsqrt()
    return scale[:, None] * shared * scale
