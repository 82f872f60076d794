# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Rejection of pixels that the other exposures contradict."""

from __future__ import annotations

__all__ = ("reject_outliers",)

import torch

from ._exposure_stack import ExposureStack
from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma
from ._linear import LinearEstimator
from ._noise_model import model_variances, smooth
from ._options import RejectionOptions
from ._sampling import Sampling

_STRENGTH = 1e-4
"""Strength of the estimate that exposures are predicted from."""

_MIN_EXPOSURES = 3
"""With two exposures one cannot tell which of them is wrong."""

_OBJECTION_RATIO = 1.3
"""How much further than any other exposure an outlier must lie."""

_TRAIL_FWHM = 3.0
"""FWHM, in pixels, of the smoothing that brings out faint trails."""


def reject_outliers(stack: ExposureStack, model: ForwardModel, options: RejectionOptions) -> torch.Tensor:
    """Find pixels in which one exposure contradicts all others.

    Each exposure is predicted from the others; in Fourier space leaving one
    out is one subtraction from the sums that make the regularised estimate.
    A pixel deviates when data minus prediction, alone or smoothed over a few
    pixels, exceeds the threshold in units of an error that holds the noise of
    both and what a small error of PSF or position would make of the predicted
    brightness.  A region grows from pixels above the high threshold into
    connected ones above the low threshold.  Where another exposure deviates
    about as much, the model is wrong there and nothing is rejected.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    options
        Thresholds and tolerances.

    Returns
    -------
    rejected : `torch.Tensor`
        Shape (n, h, w), bool; always `False` where a pixel was not good.
        With fewer than three exposures nothing is rejected.
    """
    rejected = torch.zeros_like(stack.good)
    if not options.enabled or int(stack.good.any(dim=(1, 2)).sum()) < _MIN_EXPOSURES:
        return rejected
    prediction: torch.Tensor | None = None
    for _ in range(options.num_rounds):
        good = stack.good & ~rejected
        variances = model_variances(stack.replace(good=good), prediction)
        # Constant weights: the sums below are diagonal in Fourier space.
        levels = model_variances(stack.replace(good=good))
        estimator = LinearEstimator(model, good / levels)
        prediction = model.predict(estimator.solve(stack.images, _STRENGTH, tolerance=1e-2))
        others, predictor_variance = _predict_from_others(stack, model, good, levels, prediction)
        deviation = _deviations(stack, others, variances + predictor_variance, options)
        found = _regions(deviation, stack.good, model.sampling, options)
        if torch.equal(found, rejected):
            break
        rejected = found
    return rejected


def _predict_from_others(
    stack: ExposureStack,
    model: ForwardModel,
    good: torch.Tensor,
    levels: torch.Tensor,
    prediction: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return leave-one-out predictions and their variances, (n, 1, 1)."""
    area = _mean_areas(model, stack)
    # The adjoint of the sampling holds one factor of the area already.
    data_weights = (good.any(dim=(1, 2)) / levels[:, 0, 0])[:, None, None]
    weights = data_weights * area
    otfs = model.mean_otfs
    power = weights * otfs.abs() ** 2
    residual = torch.where(good, stack.images - prediction, torch.zeros((), device=good.device))
    # Work on residuals: pixels without data then count as agreeing with the
    # prediction, margins included.
    numerator = data_weights * otfs.conj() * model.filtered(model.transform(model.sampling.adjoint(residual)))
    total, total_power, total_weight = numerator.sum(0), power.sum(0), weights.sum()
    others = torch.empty_like(stack.images)
    variance = torch.zeros_like(weights)
    for t in range(stack.num_exposures):
        weight = total_weight - weights[t]
        rest = total_power - power[t]
        gain = 1.0 / (rest + _STRENGTH * weight * model.inverse_target_power)
        # With (P + s W) R = N for all exposures, the estimate without t obeys
        # (P - P_t + s (W - w_t)) (R + change) = N - N_t.
        change = ((weights[t] / total_weight) * total - numerator[t]) * gain
        correction = model.inverse_transform(model.filtered(change * otfs[t]))
        only = torch.tensor([t], device=good.device)
        others[t] = prediction[t] + model.sampling.observe(correction[None], only)[0]
        variance[t] = model.fold_transform(otfs[t].abs() ** 2 * gain**2 * rest) * area[t] ** 2
    return others, variance


def _mean_areas(model: ForwardModel, stack: ExposureStack) -> torch.Tensor:
    """Return the mean area of the pixels of each exposure, (n, 1, 1)."""
    area = model.sampling.area.to(stack.images).expand_as(stack.images)
    number = (area > 0).sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return area.sum(dim=(1, 2), keepdim=True) / number


def _deviations(
    stack: ExposureStack, others: torch.Tensor, variances: torch.Tensor, options: RejectionOptions
) -> torch.Tensor:
    gradient_y = torch.gradient(others, dim=1)[0]
    gradient_x = torch.gradient(others, dim=2)[0]
    systematic = (options.psf_tolerance * others) ** 2 + options.shift_tolerance**2 * (
        gradient_x**2 + gradient_y**2
    )
    # An error of the PSF shows beside the peak as well as on it.
    systematic = torch.nn.functional.max_pool2d(systematic, 3, stride=1, padding=1)
    deviation = (stack.images - others) * (variances + systematic).rsqrt() * stack.good
    # Noise of unit variance has this rms after the smoothing.
    noise = 1.0 / (2.0 * fwhm_to_sigma(_TRAIL_FWHM) * torch.pi**0.5)
    smoothed = smooth(deviation.clamp(-10.0, 10.0), _TRAIL_FWHM) / noise
    return torch.where(smoothed.abs() > deviation.abs(), smoothed, deviation)


def _regions(
    deviation: torch.Tensor, good: torch.Tensor, sampling: Sampling, options: RejectionOptions
) -> torch.Tensor:
    size = deviation.abs()
    # Exposures are compared where they meet: on the patch.
    near = torch.nn.functional.max_pool2d(sampling.largest(size), 3, stride=1, padding=1)
    top = near.topk(2, dim=0).values
    strongest_other = torch.where(near == top[0], top[1], top[0])
    alone = sampling.look_up(near > _OBJECTION_RATIO * strongest_other)
    strongest = sampling.look_up(near >= strongest_other)
    seeds = good & alone & (size > options.high_threshold)
    allowed = good & strongest & (size > options.low_threshold)
    grown = seeds
    while True:
        spread = torch.nn.functional.max_pool2d(grown.float(), 3, stride=1, padding=1) > 0
        bigger = spread & allowed
        if torch.equal(bigger, grown):
            return grown
        grown = bigger
