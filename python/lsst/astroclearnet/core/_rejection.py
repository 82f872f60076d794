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

import dataclasses

import torch

from ._exposure_stack import ExposureStack
from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma
from ._linear import LinearEstimator
from ._noise_model import masked_medians, model_variances, smooth
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
    first = True
    for _ in range(options.num_rounds):
        good = stack.good & ~rejected
        deviation = _deviations(_Predictor.build(stack, model, good), options, uniform=first)
        found = _regions(deviation, stack.good, model.sampling, options)
        if torch.equal(found, rejected):
            break
        rejected, first = found, False
    return rejected


@dataclasses.dataclass(frozen=True)
class _Predictor:
    """Predicts each exposure from the others.

    With P the power of all exposures, W their weight, s the strength and N
    what the residuals make of the right-hand side, so that the change R of
    the estimate obeys (P + s W) R = N, the one without exposure t follows

        (P - P(t) + s (W - w(t))) (R + change) = N - N(t).
    """

    stack: ExposureStack
    model: ForwardModel
    good: torch.Tensor
    latent: torch.Tensor
    data_weights: torch.Tensor
    areas: torch.Tensor
    numerator: torch.Tensor
    power: torch.Tensor

    @classmethod
    def build(cls, stack: ExposureStack, model: ForwardModel, good: torch.Tensor) -> _Predictor:
        """Make what all exposures share.

        Parameters
        ----------
        stack
            The exposures.
        model
            Their forward model.
        good
            Shape (n, h, w), bool, pixels to use.

        Returns
        -------
        predictor : `_Predictor`
            The predictor.
        """
        # Constant weights: the sums are diagonal in Fourier space.
        weights = good.any(dim=(1, 2)) / masked_medians(stack.variances, good, 1.0)
        estimator = LinearEstimator(model, good * weights[:, None, None])
        latent = estimator.solve(stack.images, _STRENGTH, tolerance=1e-2, edges=True)
        areas = _mean_areas(model, stack)
        shape = model.inverse_target_power.shape
        predictor = cls(
            stack=stack,
            model=model,
            good=good,
            latent=latent,
            data_weights=weights,
            areas=areas,
            numerator=torch.zeros(shape, dtype=torch.complex64, device=good.device),
            # The adjoint of the sampling holds one factor of the area.
            power=model.total_power(weights * areas),
        )
        for t in range(stack.num_exposures):
            predictor.numerator.add_(predictor.own(t, predictor.predict(t)))
        return predictor

    def predict(self, exposure: int) -> torch.Tensor:
        """Predict an exposure from all.

        Parameters
        ----------
        exposure
            Its index.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (1, h, w).
        """
        return self.model.predict(self.latent, self._index(exposure))

    def own(self, exposure: int, prediction: torch.Tensor) -> torch.Tensor:
        """Return what the residuals of an exposure add to the numerator.

        Parameters
        ----------
        exposure
            Its index.
        prediction
            Shape (1, h, w), what is predicted from all.

        Returns
        -------
        numerator : `torch.Tensor`
            Shape (Hl, Wl // 2 + 1), complex.
        """
        # Pixels without data then count as agreeing with the prediction,
        # margins included.
        residual = torch.where(self.good[exposure], self.stack.images[exposure] - prediction, 0.0)
        image = self.model.sampling.adjoint(residual, self._index(exposure))[0]
        seen = self.model.filtered(self.model.transform(image))
        return self.data_weights[exposure] * self.model.mean_otfs[exposure].conj() * seen

    def from_others(self, exposure: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict an exposure from the others.

        Parameters
        ----------
        exposure
            Its index.

        Returns
        -------
        prediction : `torch.Tensor`
            Shape (1, h, w), from all exposures.
        others : `torch.Tensor`
            Shape (1, h, w), from the others.
        variance : `torch.Tensor`
            Variance of the latter from the noise of the others.
        """
        model, weights = self.model, self.data_weights * self.areas
        prediction = self.predict(exposure)
        otf, total = model.mean_otfs[exposure], weights.sum()
        rest = self.power - weights[exposure] * model.power(exposure)
        gain = 1.0 / (rest + _STRENGTH * (total - weights[exposure]) * model.inverse_target_power)
        change = (weights[exposure] / total) * self.numerator - self.own(exposure, prediction)
        correction = model.inverse_transform(model.filtered(change * gain * otf))
        others = prediction + model.sampling.observe(correction[None], self._index(exposure))
        variance = model.fold_transform(model.power(exposure) * gain**2 * rest)
        return prediction, others, variance * self.areas[exposure] ** 2

    def _index(self, exposure: int) -> torch.Tensor:
        return torch.tensor([exposure], device=self.good.device)


def _mean_areas(model: ForwardModel, stack: ExposureStack) -> torch.Tensor:
    """Return the mean area of the pixels of each exposure, (n,)."""
    area = model.sampling.area
    if not area.ndim:
        return area.expand(stack.num_exposures)
    number = (area > 0).sum(dim=(1, 2)).clamp(min=1)
    return area.sum(dim=(1, 2)) / number


def _deviations(predictor: _Predictor, options: RejectionOptions, *, uniform: bool) -> torch.Tensor:
    """Return deviations from what the others predict, in units of its error.

    Shape (n, h, w).  The variances of an exposure are uniform or those of the
    predicted light.
    """
    stack = predictor.stack.replace(good=predictor.good)
    deviations = torch.empty_like(stack.images)
    for t in range(stack.num_exposures):
        one = stack.select(torch.tensor([t], device=stack.device))
        prediction, others, variance = predictor.from_others(t)
        variances = model_variances(one, None if uniform else prediction)
        good = predictor.stack.good[t]
        deviations[t] = _deviation(one.images, others, variances + variance, good, options)[0]
    return deviations


def _deviation(
    images: torch.Tensor,
    others: torch.Tensor,
    variances: torch.Tensor,
    good: torch.Tensor,
    options: RejectionOptions,
) -> torch.Tensor:
    """Return the deviations of one exposure, (1, h, w)."""
    gradient_y, gradient_x = torch.gradient(others, dim=(1, 2))
    systematic = (options.psf_tolerance * others) ** 2 + options.shift_tolerance**2 * (
        gradient_x**2 + gradient_y**2
    )
    # An error of the PSF shows beside the peak as well as on it.
    systematic = torch.nn.functional.max_pool2d(systematic, 3, stride=1, padding=1)
    deviation = (images - others) * (variances + systematic).rsqrt() * good
    # Noise of unit variance has this rms after the smoothing.
    noise = 1.0 / (2.0 * fwhm_to_sigma(_TRAIL_FWHM) * torch.pi**0.5)
    smoothed = smooth(deviation.clamp(-10.0, 10.0), _TRAIL_FWHM) / noise
    return torch.where(smoothed.abs() > deviation.abs(), smoothed, deviation)


def _regions(
    deviation: torch.Tensor, good: torch.Tensor, sampling: Sampling, options: RejectionOptions
) -> torch.Tensor:
    """Return the pixels that deviate alone, (n, h, w), bool.

    The deviations are overwritten.
    """
    size = deviation.abs_()
    # Exposures are compared where they meet: on the patch.
    near = sampling.largest(size)
    first = second = torch.zeros_like(near[0])
    for one in near:
        one.copy_(torch.nn.functional.max_pool2d(one[None], 3, stride=1, padding=1)[0])
        second = torch.maximum(second, torch.minimum(first, one))
        first = torch.maximum(first, one)
    alone, strongest = torch.empty_like(near, dtype=torch.bool), torch.empty_like(near, dtype=torch.bool)
    for t, one in enumerate(near):
        other = torch.where(one == first, second, first)
        torch.gt(one, _OBJECTION_RATIO * other, out=alone[t])
        torch.ge(one, other, out=strongest[t])
    del near
    alone, strongest = sampling.look_up(alone), sampling.look_up(strongest)
    seeds = alone & good & (size > options.high_threshold)
    allowed = strongest & good & (size > options.low_threshold)
    for one, limits in zip(seeds, allowed, strict=True):
        one.copy_(_grow(one, limits))
    return seeds


def _grow(grown: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Grow seeds into connected pixels that are allowed, (h, w), bool."""
    while bool(grown.any()):
        near = torch.nn.functional.max_pool2d(grown[None].float(), 3, stride=1, padding=1)[0]
        bigger = (near > 0) & allowed
        if torch.equal(bigger, grown):
            break
        grown = bigger
    return grown
