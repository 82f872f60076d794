# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Uncertainty of a restored image."""

from __future__ import annotations

__all__ = ("draw_noise", "noise_ratio", "non_negative_error", "propagate_noise")

import math

import torch

from ._forward_model import ForwardModel
from ._linear import LinearEstimator
from ._options import NetworkOptions


def draw_noise(variances: torch.Tensor, number: int, generator: torch.Generator) -> torch.Tensor:
    """Draw white Gaussian noise of the exposures.

    Parameters
    ----------
    variances
        Shape (n, H, W).
    number
        Number of realisations k.
    generator
        Source of random numbers, on the CPU.

    Returns
    -------
    noise : `torch.Tensor`
        Shape (k, n, H, W).
    """
    white = torch.randn((number, *variances.shape), generator=generator).to(variances.device)
    return white * variances.sqrt()


def propagate_noise(
    noise: torch.Tensor,
    mixture: torch.Tensor,
    model: ForwardModel,
    weights: torch.Tensor,
    options: NetworkOptions,
) -> torch.Tensor:
    """Pass noise through the fitted estimator, closure included.

    Parameters
    ----------
    noise
        Shape (k, n, H, W), noise of the exposures.
    mixture
        Shape (s, *latent_shape), weights that the network gave the bank.
    model
        Forward model of the exposures.
    weights
        Shape (n, H, W), inverse variances, 0 where a pixel is not used.
    options
        Strengths of the bank and of the closure.

    Returns
    -------
    propagated : `torch.Tensor`
        Shape (k, *latent_shape).
    """
    if not len(noise):
        return mixture.new_empty((0, *mixture.shape[1:]))
    estimator = LinearEstimator(model, weights)
    propagated = []
    for draw in noise:
        mixed = (mixture * estimator.solve_all(draw, options.strengths)).sum(dim=0)
        propagated.append(mixed + estimator.close(draw, mixed, options.closure_strength))
    return torch.stack(propagated)


def non_negative_error(excess: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return the expected squared error of a clipped estimate.

    An unbiased estimate u with Gaussian error is replaced by max(u, 0).  With
    a flat prior on non-negative brightness the truth follows a Gaussian
    around u cut off at 0; the expected squared distance of the clipped value
    from it is its variance plus the squared distance of its mean.

    Parameters
    ----------
    excess
        The estimate u above the level at which it is clipped.
    variance
        Its variance, of the same shape.

    Returns
    -------
    error : `torch.Tensor`
        Expected squared error; far above the level it equals ``variance``.
    """
    sigma = variance.sqrt()
    ratio = (excess / sigma).clamp(min=-30.0)
    # Inverse Mills ratio phi(r) / Phi(r), stable for negative r.
    hazard = math.sqrt(2.0 / math.pi) / torch.special.erfcx(-ratio / math.sqrt(2.0))
    mean = ratio + hazard
    spread = 1.0 - hazard * mean
    return variance * (spread + (mean - ratio.clamp(min=0)) ** 2)


def noise_ratio(propagated: torch.Tensor, variance: torch.Tensor, used: torch.Tensor) -> float:
    """Return how much noisier realisations are than the predicted variance.

    Parameters
    ----------
    propagated
        Shape (k, H, W), noise passed through the estimator.
    variance
        Shape (H, W), predicted for white noise.
    used
        Shape (H, W), bool, pixels to compare.

    Returns
    -------
    ratio : `float`
        Measured over predicted variance; 1 without realisations.
    """
    if not len(propagated) or not bool(used.any()):
        return 1.0
    return float((propagated**2 / variance)[:, used].mean())
