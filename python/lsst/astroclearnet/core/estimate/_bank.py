# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The bank of linear estimates that a network mixes."""

from __future__ import annotations

__all__ = ("FilterBank", "bank_noise", "log_noise_ratios", "mix_by_prior")

import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import torch

from ..exposures import largest_around
from ..forward import WEIGHT_FLOOR
from ._linear import LinearEstimator

SMOOTHED_FWHMS = (2.0, 4.0, 8.0, 16.0)
"""FWHM in pixels of the Gaussians that smooth the estimate of the strongest
penalty further: blank sky has structure on none of these scales."""


@dataclasses.dataclass(frozen=True)
class FilterBank:
    """Linear estimates from fine to smooth, and their noise.

    The estimates are those of some penalty weights, from the weakest to the
    strongest, and copies of the last, smoothed further by Gaussians.  What a
    network sees of them has no unit.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``.
    relative_weight, coverage
        Shape latent_shape, as in `LinearEstimator`, 0 beyond the patch.
    noise
        Shape (s,), noise of the estimates at full weight.
    step_noise
        Shape (s - 1,), noise of their successive differences at full weight.
    num_solved
        Number of penalty weights.
    """

    estimates: torch.Tensor
    relative_weight: torch.Tensor
    coverage: torch.Tensor
    noise: torch.Tensor
    step_noise: torch.Tensor
    num_solved: int

    @classmethod
    def build(
        cls, estimator: LinearEstimator, solved: torch.Tensor, penalty_weights: tuple[float, ...]
    ) -> Self:
        """Build the bank of some estimates.

        Parameters
        ----------
        estimator
            What they were made with.
        solved
            Shape ``(p, *latent_shape)``.
        penalty_weights
            Their penalty weights, rising.
        """
        model, gains = estimator.model, _smoothing_gains(estimator)
        smoothed = model.filter_images(solved[-1:].repeat(len(gains), 1, 1), gains)
        noise, step_noise = bank_noise(estimator, penalty_weights)
        return cls(
            estimates=torch.cat([solved, smoothed]),
            relative_weight=model.embed(estimator.relative_weight),
            coverage=model.embed(estimator.coverage),
            noise=noise,
            step_noise=step_noise,
            num_solved=len(solved),
        )

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Apply a function to everything that has the shape of an image.

        Parameters
        ----------
        function
            Acts on the last two axes: cuts, flips or rotates.
        """
        return dataclasses.replace(
            self,
            estimates=function(self.estimates),
            relative_weight=function(self.relative_weight),
            coverage=function(self.coverage),
        )

    @functools.cached_property
    def relative_noise(self) -> torch.Tensor:
        """Noise over that at full weight, latent_shape."""
        return self.relative_weight.clamp(min=WEIGHT_FLOOR).rsqrt()

    @property
    def sky_noise(self) -> torch.Tensor:
        """Noise of the estimate of the strongest penalty, latent_shape."""
        return self.noise[self.num_solved - 1] * self.relative_noise

    @property
    def log_ratios(self) -> torch.Tensor:
        """Logarithms of noise ratios, (2 s - 2,), see `log_noise_ratios`."""
        return log_noise_ratios(self.noise, self.step_noise)

    @functools.cached_property
    def _differences(self) -> torch.Tensor:
        """Successive differences in units of their noise."""
        steps = self.estimates[:-1] - self.estimates[1:]
        return steps.div_(self.step_noise[:, None, None] * self.relative_noise)

    @functools.cached_property
    def features(self) -> torch.Tensor:
        """What a network sees, shape ``(2 s + 1, *latent_shape)``.

        The estimates and their successive differences in units of their noise,
        compressed by asinh, the root of the relative weight, and the coverage.
        """
        scaled = self.estimates / (self.noise[:, None, None] * self.relative_noise)
        state = torch.stack([self.relative_weight.sqrt(), self.coverage])
        features = torch.cat([_asinh(scaled), _asinh(self._differences), state])
        # The layout in which convolutions are fastest.
        return features[None].contiguous(memory_format=torch.channels_last)[0]

    @functools.cached_property
    def log_prior(self) -> torch.Tensor:
        """Logarithm of the prior weights, shape ``(s, *latent_shape)``.

        An estimate is preferred to the next smoother one where the two differ
        by more than 3.7 sigma in the neighbourhood, which among the ten of
        them noise hardly does.
        """
        significance = self._differences.abs()
        # Within a few pixels of missing data fine estimates are extrapolations
        # and noisier than the weight in the pixel itself tells.  Smooth ones
        # are not, and must not be preferred beside the hole of a bright star.
        near = largest_around(1.0 - self.coverage[None], 9)
        significance[: self.num_solved - 1] *= 1.0 - near
        finer = torch.sigmoid(3.0 * (largest_around(significance, 5) - 3.7))
        remaining = torch.cumprod(1.0 - finer, dim=0)
        first = torch.ones_like(remaining[:1])
        shares = torch.cat([finer * torch.cat([first, remaining[:-1]]), remaining[-1:]])
        # No estimate is excluded: the network corrects logarithms.
        return shares.clamp(min=1e-3).log_()


def _asinh(values: torch.Tensor) -> torch.Tensor:
    """Return the inverse hyperbolic sine, four times as fast as by PyTorch."""
    size = values.square().add_(1.0).sqrt_().add_(values.abs()).log_()
    return size.copysign_(values)


def bank_noise(
    estimator: LinearEstimator, penalty_weights: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the noise of a bank of estimates at full weight, (s,), and of
    their successive differences, (s - 1,).

    Parameters
    ----------
    estimator
        What they are made with.
    penalty_weights
        Their penalty weights, rising.
    """
    gains = _smoothing_gains(estimator)
    variances, steps = estimator.bank_variances(torch.tensor(penalty_weights), gains)
    return variances.sqrt(), steps.clamp(min=0.0).sqrt()


def log_noise_ratios(noise: torch.Tensor, step_noise: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the noise of each estimate but the first, and of
    each difference, over that of the first, (2 s - 2,).

    They tell how sharp the exposures are, relative to the target PSF.

    Parameters
    ----------
    noise
        Shape (s,), noise of the estimates.
    step_noise
        Shape (s - 1,), noise of their successive differences.
    """
    return torch.cat([noise[1:], step_noise]).log() - noise[0].log()


def mix_by_prior(bank: FilterBank) -> torch.Tensor:
    """Return the mean of the estimates with the prior weights, latent_shape.

    Parameters
    ----------
    bank
        The estimates.
    """
    return (torch.softmax(bank.log_prior, dim=0) * bank.estimates).sum(dim=0)


def _smoothing_gains(estimator: LinearEstimator) -> torch.Tensor:
    """Return the transforms of the Gaussians, (4, Hl, Wl // 2 + 1)."""
    model = estimator.model
    return torch.stack([model.gaussian_transform(f, model.target_transform) for f in SMOOTHED_FWHMS])
