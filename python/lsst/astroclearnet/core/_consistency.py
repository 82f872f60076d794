# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether flux scale, position and PSF of exposures fit the others."""

from __future__ import annotations

__all__ = (
    "ExposureConsistency",
    "connected_exposures",
    "exposure_consistency",
)

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch

from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma
from ._pair_information import (
    NUM_TEMPLATES,
    angular_frequencies,
    calibrate_pairs,
    pair_information,
    template_multipliers,
)

_FAINT = 1e-6
"""Power of a PSF below which its change is not relative to it."""

_NULL = 1e-6
"""Share of the largest eigenvalue below which a common error is unknown."""


@dataclasses.dataclass(frozen=True)
class ExposureConsistency:
    """By how much each exposure departs from the ensemble.

    Only differences between exposures can be known: the median of each
    quantity is zero.  Where an exposure has no light, or shares none with
    others, its values are 0 and their standard deviations infinite.

    Attributes
    ----------
    flux_error
        Shape (n,), relative; positive where an exposure is brighter.
    flux_sigma
        Shape (n,), standard deviation of ``flux_error`` from noise.
    shift_y
        Shape (n,), pixels of the patch; positive where sources of an exposure
        lie at larger rows.
    shift_x
        Shape (n,), pixels of the patch, along columns.
    shift_sigma_y
        Shape (n,), standard deviation of ``shift_y``.
    shift_sigma_x
        Shape (n,), standard deviation of ``shift_x``.
    psf_width_error
        Shape (n,), relative; positive where an exposure is blurred more than
        its PSF says.
    psf_width_sigma
        Shape (n,), standard deviation of ``psf_width_error``.
    """

    flux_error: torch.Tensor
    flux_sigma: torch.Tensor
    shift_y: torch.Tensor
    shift_x: torch.Tensor
    shift_sigma_y: torch.Tensor
    shift_sigma_x: torch.Tensor
    psf_width_error: torch.Tensor
    psf_width_sigma: torch.Tensor

    def apply(self, function: Callable[[torch.Tensor], torch.Tensor]) -> ExposureConsistency:
        """Return what a function makes of each quantity.

        Parameters
        ----------
        function
            Function of a tensor of shape (n,).

        Returns
        -------
        consistency : `ExposureConsistency`
            Its results.
        """
        return ExposureConsistency(*(function(getattr(self, f.name)) for f in dataclasses.fields(self)))


def exposure_consistency(
    model: ForwardModel,
    light: torch.Tensor,
    latent: torch.Tensor,
    images: torch.Tensor,
    weights: torch.Tensor,
    fwhms: torch.Tensor,
) -> ExposureConsistency:
    """Fit flux scale, shift and PSF width of all exposures together.

    To first order an exposure that is brighter by a fraction f, shifted by
    (dy, dx), and whose PSF is wider by a fraction e, departs from the
    prediction m by

        f m - dy dm/dy - dx dm/dx + e sigma^2 (d^2/dx^2 + d^2/dy^2) m,

    the last exactly so for a Gaussian of standard deviation sigma.  All
    errors are fitted to the residuals together, because the image follows an
    error in part, at each frequency by the share of the exposure in what is
    known there, and shows the rest in all other exposures.  With the image
    solved for, what the exposures tell is the sum over pairs (t, s) of

        (a_t - a_s)^T S_ts (a_t - a_s) / 2,
        S_ts = sum over k of P_t P_s / (sum of all P) D^* D^T |L|^2,

    a_t being the four errors, L the transform of the light, D the multipliers
    of the templates, and P_t the power of the difference kernel over the
    variance.  Depths vary over the patch, so that the sum runs over
    overlapping blocks of it as well, with the overlap of each pair there.

    Parameters
    ----------
    model
        Forward model of the exposures.
    light
        Shape latent_shape, image that the templates are made of.  Its noise
        must be small: the power of the noise passes for light, of which the
        exposures would have to show the errors.
    latent
        Shape latent_shape, image that explains the exposures.
    images
        Shape (n, h, w), the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    fwhms
        Shape (n,), FWHM of the given PSFs in pixels of the patch.

    Returns
    -------
    consistency : `ExposureConsistency`
        Errors and their standard deviations, of the type of ``fwhms``.
    """
    pairs, alone = pair_information(model, light, weights)
    variances = (fwhms * fwhm_to_sigma(1.0)) ** 2
    projected, exact = _project(model, light, weights, images - model.predict(latent), variances)
    values, sigmas = (torch.zeros_like(projected), torch.full_like(projected, math.inf))
    overlap = pairs[..., 0, 0].clone().fill_diagonal_(0.0)
    known = overlap.sum(dim=1) > 0
    if bool(known.any()):
        pairs = calibrate_pairs(pairs[known][:, known], alone[known], exact[known])
        values[known], sigmas[known] = _solve(pairs, projected[known])
        for group in connected_exposures(overlap[known][:, known] > 0):
            members = known.nonzero()[group, 0]
            values[members] -= _medians(values[members], sigmas[members])
    for quantity in (values, sigmas):
        quantity[:, 3] /= variances
    flux, y, x, width = values.to(fwhms.dtype).T
    flux_sigma, y_sigma, x_sigma, width_sigma = sigmas.to(fwhms.dtype).T
    return ExposureConsistency(flux, flux_sigma, y, x, y_sigma, x_sigma, width, width_sigma)


def connected_exposures(overlaps: torch.Tensor) -> list[torch.Tensor]:
    """Return the groups of exposures that overlap, directly or by others.

    Parameters
    ----------
    overlaps
        Shape (n, n), bool, whether two exposures overlap.

    Returns
    -------
    groups : `list` [`torch.Tensor`]
        Indices of the exposures of each group.
    """
    number = len(overlaps)
    reached = overlaps | torch.eye(number, dtype=torch.bool, device=overlaps.device)
    for _ in range(number.bit_length()):
        reached = (reached.double() @ reached.double()) > 0
    first = reached.double().argmax(dim=1)
    return [(first == index).nonzero()[:, 0] for index in first.unique()]


def _dilation(model: ForwardModel, exposure: int) -> torch.Tensor:
    """Return the change of the transform of a PSF that grows, relative to it.

    It is k d/dk ln F(k), - k^2 sigma^2 for a Gaussian.  Shape
    (Hl, Wl // 2 + 1), real.
    """
    height, width = model.latent_shape
    transform = model.mean_otfs[exposure] * model.target_transform
    psf = model.inverse_transform(transform)
    ky, kx = angular_frequencies(height, width, psf)
    y = height * torch.fft.fftfreq(height, device=psf.device)[:, None]
    x = width * torch.fft.fftfreq(width, device=psf.device)
    derivative = -1.0j * (ky * model.transform(y * psf) + kx * model.transform(x * psf))
    return (derivative * transform.conj()).real / (transform.abs() ** 2 + _FAINT)


def _project(
    model: ForwardModel,
    light: torch.Tensor,
    weights: torch.Tensor,
    residual: torch.Tensor,
    variances: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return products of residuals with templates, and of templates.

    Shapes (n, 4) and (n, 4, 4), double.
    """
    phases = torch.tensor([1.0, -1.0j, -1.0j, 1.0], device=light.device)[:, None, None]
    transform = model.transform(light)
    products, information = [], []
    # One exposure at a time: the templates of all take four times the memory.
    for t in range(model.num_exposures):
        multipliers = template_multipliers(_dilation(model, t) / variances[t])
        templates = model.inverse_transform(phases * multipliers * transform)
        exposure = torch.full((NUM_TEMPLATES,), t, device=light.device)
        predicted = model.predict(templates, exposure).flatten(1).double()
        weighted = weights[t].flatten() * predicted
        products.append(weighted @ residual[t].flatten().double())
        information.append(weighted @ predicted.T)
    return torch.stack(products), torch.stack(information)


def _solve(pairs: torch.Tensor, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return errors and their standard deviations, (n, 4) each."""
    number = len(pairs)
    normal = -pairs.clone()
    index = torch.arange(number, device=pairs.device)
    # What all exposures share has no information, exactly.
    normal[index, index] += pairs.sum(dim=1)
    normal = normal.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    scale = normal.diagonal().clamp(min=1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, None] * normal * scale, rtol=_NULL, hermitian=True)
    values = scale * (inverse @ (scale * projected.flatten()))
    sigmas = scale * inverse.diagonal().clamp(min=0).sqrt()
    return values.reshape(projected.shape), sigmas.reshape(projected.shape)


def _medians(values: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Return the median of each column, weighted where values are uncertain.

    Half of the exposures count fully, the others by their uncertainty.
    """
    medians = []
    for column, sigma in zip(values.T.cpu().numpy(), sigmas.T.cpu().numpy(), strict=True):
        weight = 1.0 / np.maximum(sigma, np.median(sigma))
        order = np.argsort(column)
        middle = np.cumsum(weight[order]) - 0.5 * weight[order]
        medians.append(np.interp(0.5 * weight.sum(), middle, column[order]))
    return values.new_tensor(np.array(medians))
