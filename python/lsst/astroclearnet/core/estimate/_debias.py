# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Debiasing: a linear correction computed from the residuals."""

from __future__ import annotations

__all__ = ("Debiaser",)

import dataclasses
import functools
import math

import torch

from .._options import DebiasingOptions
from ..exposures import largest_around, smooth
from ..forward import WEIGHT_FLOOR, ForwardModel, iterate_weight_maps
from ._linear import LinearEstimator
from ._precision import Precision

_PRECISION = Precision(light=5e-3, noise=0.03)
"""Of corrections."""

_LINEAR_PRECISION = Precision(light=5e-4, noise=0.0025, edge_noise=0.1)
"""Of the linear image, on which bright stars are measured."""

_BRIGHTNESS_FWHM = 2.0
"""FWHM in pixels over which brightness is averaged."""

_LEVEL_FWHM = 24.0
"""FWHM in pixels of the scales on which all residual light is added."""

_LEVEL_PENALTY_WEIGHT = 0.1

_REACH = 15
"""Side in pixels of the square that a source has in the exposures."""

_LIGHT_ERROR = 0.03
"""Error of what is left of a source relative to its light, from PSFs and
masked cores: without it a saturated star had a dark or bright disc of 5 sigma
around it, as wide as the level."""


@dataclasses.dataclass(frozen=True)
class Debiased:
    """A debiased image, with what it was made from.

    Attributes
    ----------
    image
        Shape latent_shape, the debiased image.
    mixed
        Shape latent_shape, the image before.
    corrections
        Shape ``(s, *latent_shape)``, corrections of the penalty weights.
    right
        Shape latent_shape, right-hand side of the normal equations.
    """

    image: torch.Tensor
    mixed: torch.Tensor
    corrections: torch.Tensor
    right: torch.Tensor


class Debiaser:
    """Adds to an image a linear estimate from its residuals.

    Read as Bayes, the image of the network is the mean of a prior, and the
    penalty of the estimate the inverse of the variance of its error, which
    grows with the brightness, from nothing where it is dark: without bound for
    light that stands out from its surroundings, where the network broadens
    what is sharp, and up to a bound for extended light, which it renders well,

        s = s_0 / (min((S / S_0)^2, 30) + 2 (C / S_0)^2),

    S being the signal-to-noise ratio of a star with the brightness of the
    pixel as its peak, and C what of it stands out.  The correction in each
    pixel is interpolated between those of a few penalty weights.

    Parameters
    ----------
    model
        Forward model of the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    options
        Settings.
    bright_stars
        Shape latent_shape, stars at the target PSF that were taken out of the
        exposures: what a fit left of them is corrected as their light is.

    Attributes
    ----------
    linear_penalty_weight
        That of the linear image.
    penalty_weights
        Those of the corrections, rising to s_0; where s is larger, less is
        corrected.
    star_noise
        Shape latent_shape, peak of a star of signal-to-noise 1.
    """

    def __init__(
        self,
        model: ForwardModel,
        weights: torch.Tensor,
        options: DebiasingOptions,
        bright_stars: torch.Tensor | None = None,
    ) -> None:
        self.model = model
        self._bright_stars = bright_stars
        self.linear = LinearEstimator(model, weights)
        self.linear_penalty_weight = self.linear.penalty_weight_for(options.max_psf_residual)
        faint = options.faint_penalty_weight
        # At 5e-6 of that the network's image needs no finer correction, and
        # the noise would only rise further.
        ends = (math.log10(5e-6 * faint), math.log10(faint))
        self.penalty_weights = tuple(torch.logspace(*ends, 5, dtype=torch.float64).tolist())
        self._significance = options.star_signal_to_noise
        self.star_noise = _star_noise(model, weights, self.linear.full_weight)

    @property
    def flux_noise(self) -> torch.Tensor:
        """Noise of the PSF flux of a star (`torch.Tensor`), shape
        latent_shape: the Cramer-Rao bound.
        """
        return self.star_noise / self.model.fold_transform(self.model.target_transform)

    def brightness(self, image: torch.Tensor) -> torch.Tensor:
        """Return the signal-to-noise ratio of stars with the brightness of
        pixels as their peaks, latent_shape.

        Parameters
        ----------
        image
            Shape latent_shape.
        """
        ratio = self._with_stars(image) / self.star_noise
        return smooth(ratio.clamp(min=0.0)[None], _BRIGHTNESS_FWHM)[0]

    def debias(self, right: torch.Tensor, mixed: torch.Tensor) -> Debiased:
        """Add to an image the linear estimate from its residuals.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        mixed
            Shape latent_shape, the image.
        """
        residual = right - self.linear.normal(mixed[None])[0]
        solved = self.linear.solve(residual, self.penalty_weights, precision=_PRECISION)
        corrections = solved.div_(1.0 + self._numbers)
        image = self._correct(mixed, corrections)
        # Not divided by 1 + s: of a constant nothing must be left.  A penalty
        # weight of 0.1 is solved in few steps, and it is smoothed anyway.
        residual = right - self.linear.normal(image[None])[0]
        light = self.linear.solve(residual, (_LEVEL_PENALTY_WEIGHT,))[0]
        return Debiased(image + self._level(light, image), mixed, corrections, right)

    def debias_again(
        self, noise: torch.Tensor, mixed: torch.Tensor, first: Debiased, expected: torch.Tensor
    ) -> torch.Tensor:
        """Debias an image of the same light with other noise.

        Only differences are solved for, as drawn noise.

        Parameters
        ----------
        noise
            Shape latent_shape, right-hand side of the noise alone.
        mixed
            Shape latent_shape, the image.
        first
            The first debiased image, or what it was made from with the light
            for its image.
        expected
            Shape latent_shape, right-hand side of what that image predicts.

        Returns
        -------
        debiased : `torch.Tensor`
            Shape latent_shape.
        """
        linear = self.linear
        # What is left of the first image goes into the correction, and out of
        # it again.
        change = noise + (expected - first.right) - linear.normal_of_noise((mixed - first.mixed)[None])[0]
        found = linear.solve_noise(change[None], self.penalty_weights).div_(1.0 + self._numbers)
        image = self._correct(mixed, found.add_(first.corrections))
        change = noise - linear.normal_of_noise((image - first.image)[None])[0]
        light = linear.solve_noise(change[None], (_LEVEL_PENALTY_WEIGHT,))[0]
        return image + self._level(light, image)

    def linear_image(self, right: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Return the linear image: at the target PSF for every flux.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        start
            Shape latent_shape, a linear estimate that is close.
        """
        weights = (self.linear_penalty_weight,)
        return self.linear.solve(right, weights, start=start, precision=_LINEAR_PRECISION)[0]

    @functools.cached_property
    def _numbers(self) -> torch.Tensor:
        """Penalty weights of the corrections, (s, 1, 1)."""
        return torch.tensor(self.penalty_weights, device=self.star_noise.device)[:, None, None]

    def _correct(self, mixed: torch.Tensor, corrections: torch.Tensor) -> torch.Tensor:
        """Add its share of each correction."""
        return mixed + (self._shares(mixed) * corrections).sum(dim=0)

    def _with_stars(self, image: torch.Tensor) -> torch.Tensor:
        """Add the stars that were taken out."""
        return image if self._bright_stars is None else image + self._bright_stars

    def _shares(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the share of each penalty weight in each pixel."""
        ratio = self._with_stars(latent) / self.star_noise
        # A star stands out from its surroundings over twice the target PSF.
        surroundings = smooth(torch.stack([ratio, torch.ones_like(ratio)]), 2.0 * self.model.target_fwhm)
        contrast = ratio - surroundings[0] / surroundings[1]
        ratios = torch.stack([ratio, contrast]).clamp(min=0) / self._significance
        # Smoothed, lest the penalty weight follow the noise of single pixels.
        brightness, contrast = smooth(ratios, _BRIGHTNESS_FWHM) ** 2
        gain = brightness.clamp(max=30.0) + 2.0 * contrast
        decades = torch.log10(gain)
        span = math.log10(self.penalty_weights[-1] / self.penalty_weights[0])
        # 0 for the brightest, and beyond the last filter on blank sky.
        position = (1.0 - decades / span).clamp(min=0) * (len(self.penalty_weights) - 1)
        index = torch.arange(len(self.penalty_weights), device=latent.device)[:, None, None]
        return (1.0 - (position - index).abs()).clamp(min=0)

    def _level(self, light: torch.Tensor, debiased: torch.Tensor) -> torch.Tensor:
        """Return the residual light on large scales, which costs no noise."""
        near = largest_around(self._with_stars(debiased), _REACH)
        trusted = self._level_weight / (1.0 + (_LIGHT_ERROR * near / self._level_noise) ** 2)
        total = smooth((trusted * light)[None], _LEVEL_FWHM)[0]
        share = smooth(trusted[None], _LEVEL_FWHM)[0].clamp(min=WEIGHT_FLOOR)
        return self._level_weight.sign() * total / share

    @functools.cached_property
    def _level_weight(self) -> torch.Tensor:
        return self.model.embed(self.linear.coverage)

    @functools.cached_property
    def _level_noise(self) -> torch.Tensor:
        """Noise of the estimate that the level is made of, latent_shape."""
        weight = self.model.embed(self.linear.relative_weight).clamp(min=WEIGHT_FLOOR)
        return (self.linear.variances(torch.tensor([_LEVEL_PENALTY_WEIGHT])) / weight).sqrt()


def _star_noise(model: ForwardModel, weights: torch.Tensor, full_weight: float) -> torch.Tensor:
    """Return the peak of a star of signal-to-noise 1, latent_shape."""
    target_power = model.inverse_target_power.reciprocal()
    information = torch.zeros(model.shape, device=weights.device)
    norms = []
    for t, maps in enumerate(iterate_weight_maps(model, weights)):
        norms.append(model.fold_transform(model.power(t) * target_power))
        information.addcmul_(maps.weights[0], norms[-1])
    floor = WEIGHT_FLOOR * full_weight * float(torch.stack(norms).mean())
    peak = model.fold_transform(model.target_transform)
    return peak * model.embed(information).clamp(min=floor).rsqrt()
