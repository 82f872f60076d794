# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the network left in the exposures, given back linearly."""

from __future__ import annotations

__all__ = ("Debiaser",)

import dataclasses
import math

import torch

from .._options import DebiasingOptions
from ..exposures import smooth
from ..forward import DEPTH_FLOOR, ForwardModel, iterate_weight_maps
from ._linear import LinearEstimator
from ._precision import Precision

_NUM_PENALTY_WEIGHTS = 5
"""Number of filters between which the debiaser interpolates."""

_PRECISION = Precision(light=5e-3, noise=0.03)
"""Of corrections."""

_LINEAR_PRECISION = Precision(light=1e-3, noise=0.005, edge_noise=0.1)
"""Of the linear image, on which bright stars are measured."""

_DRAWN_PRECISION = Precision(light=0.05, noise=0.03)
"""Of what drawn noise adds to corrections."""

_DRAWN_LINEAR_PRECISION = Precision(light=0.05, noise=0.03, edge_noise=0.3)
"""Of the linear image of drawn noise."""

_SHARPEST = 5e-6
"""Strength, over that on blank sky, below which it never falls: noise rises
further, but the network's image needs no finer correction."""

_BRIGHTNESS_FWHM = 2.0
"""FWHM in pixels over which the penalty weight follows the brightness."""

_SURROUNDINGS = 2.0
"""FWHM, in units of that of the target PSF, of the surroundings above which a
point source stands out."""

_LARGEST_BRIGHTNESS_GAIN = 30.0
"""Largest fall of the penalty weight for light that does not stand out."""

_CONTRAST_GAIN = 2.0
"""How much more it falls for light that does."""

_LEVEL_FWHM = 24.0
"""FWHM in pixels of the scales on which the sky level is closed entirely."""

_LEVEL_STRENGTH = 0.1
"""Strength of the filter whose result is smoothed to that scale."""


@dataclasses.dataclass(frozen=True)
class Correction:
    """Linear estimates of what an image leaves of the exposures.

    Attributes
    ----------
    left
        Shape latent_shape, right-hand side of what is left.
    solved
        Shape ``(s, *latent_shape)``, one estimate for each penalty weight.
    """

    left: torch.Tensor
    solved: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Debiaser:
    """A linear filter of what an image leaves of the exposures.

    Read as Bayes, the image of the network is the mean of a prior, and the
    penalty of the filter the inverse of the variance of its error, which is
    white for the sky and grows with the brightness: without bound for light
    that stands out from its surroundings, where the network broadens what is
    sharp, and up to a bound for extended light, which it renders well,

        s = s_sky / (1 + min((S / S_0)^2, 30) + 2 (C / S_0)^2),

    S being the signal-to-noise ratio of a star with the brightness of the
    pixel as its peak, and C what of it stands out.  The filter of each pixel
    is interpolated between those of a few penalty weights.

    Attributes
    ----------
    estimator
        Linear estimates from the exposures.
    model
        Forward model of the exposures.
    linear_penalty_weight
        Strength of the filter of the linear image.
    penalty_weights
        Strengths of the filters of the restored image, rising to that of
        blank sky.
    significance
        The ratio S_0.
    star_noise
        Shape latent_shape, brightness of the peak of a star of
        signal-to-noise 1.
    """

    estimator: LinearEstimator
    model: ForwardModel
    linear_penalty_weight: float
    penalty_weights: tuple[float, ...]
    significance: float
    star_noise: torch.Tensor

    @classmethod
    def build(cls, model: ForwardModel, weights: torch.Tensor, options: DebiasingOptions) -> Debiaser:
        """Prepare the debiaser of a patch.

        Parameters
        ----------
        model
            Forward model of the exposures.
        weights
            Shape (n, h, w), inverse variances, 0 where a pixel is not used.
        options
            Settings.

        Returns
        -------
        debiaser : `Debiaser`
            The debiaser.
        """
        estimator = LinearEstimator(model, weights)
        sky = options.sky_penalty_weight
        ends = (math.log10(_SHARPEST * sky), math.log10(sky))
        return cls(
            estimator=estimator,
            model=model,
            linear_penalty_weight=estimator.penalty_weight_for(options.max_psf_residual),
            penalty_weights=tuple(torch.logspace(*ends, _NUM_PENALTY_WEIGHTS, dtype=torch.float64).tolist()),
            significance=options.star_signal_to_noise,
            star_noise=_star_noise(model, weights, estimator.full_weight),
        )

    def debias(self, images: torch.Tensor, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give back what an image left in the exposures.

        Parameters
        ----------
        images
            Shape (n, h, w), the exposures.
        latent
            Shape latent_shape, the image.

        Returns
        -------
        closed : `torch.Tensor`
            Shape latent_shape, the image with the correction whose penalty
            weight follows the brightness.
        linear : `torch.Tensor`
            Shape latent_shape, the linear image: at the target PSF for every
            flux.
        """
        right = self.estimator.right_side(images)
        return self.debias_right(right, latent)[0], self.linear_right(right)

    def debias_right(
        self, right: torch.Tensor, latent: torch.Tensor, near: Correction | None = None
    ) -> tuple[torch.Tensor, Correction]:
        """Do what `close` does for exposures given as a right-hand side.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        latent
            Shape latent_shape, the image.
        near
            Correction for the same light with other noise.  Only what differs
            is solved for, so that errors of bright light do not.

        Returns
        -------
        closed : `torch.Tensor`
            Shape latent_shape, the image with the correction whose penalty
            weight follows the brightness.
        correction : `Correction`
            The correction before it is mixed.
        """
        left = right - self.estimator.predicted_right_side(latent[None])[0]
        scale = torch.tensor(self.penalty_weights, dtype=left.dtype, device=left.device)[:, None, None]
        precision = _PRECISION if near is None else _DRAWN_PRECISION
        changed = left if near is None else left - near.left
        solved = self.estimator.solve_right(changed, self.penalty_weights, precision=precision).div_(
            1.0 + scale
        )
        correction = Correction(left, solved if near is None else solved + near.solved)
        closed = latent + (self._shares(latent) * correction.solved).sum(dim=0)
        return closed + self._level(right, closed), correction

    def linear_right(
        self, right: torch.Tensor, start: torch.Tensor | None = None, *, drawn: bool = False
    ) -> torch.Tensor:
        """Return the linear image of exposures given as a right-hand side.

        It is that of the exposures alone: what a network makes up where no
        exposure can tell has no place in it.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        start
            Shape latent_shape, a linear estimate that is close.
        drawn
            Whether the exposures are drawn noise.

        Returns
        -------
        linear : `torch.Tensor`
            Shape latent_shape, at the target PSF for every flux.
        """
        precision = _DRAWN_LINEAR_PRECISION if drawn else _LINEAR_PRECISION
        return self.estimator.solve_right(
            right, (self.linear_penalty_weight,), start=start, precision=precision
        )[0]

    def _shares(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the share of each penalty weight in each pixel."""
        ratio = latent / self.star_noise
        surroundings = smooth(
            torch.stack([ratio, torch.ones_like(ratio)]), _SURROUNDINGS * self.model.target_fwhm
        )
        contrast = ratio - surroundings[0] / surroundings[1]
        ratios = torch.stack([ratio, contrast]).clamp(min=0) / self.significance
        brightness, contrast = smooth(ratios, _BRIGHTNESS_FWHM) ** 2
        gain = 1.0 + brightness.clamp(max=_LARGEST_BRIGHTNESS_GAIN) + _CONTRAST_GAIN * contrast
        decades = torch.log10(gain)
        span = math.log10(self.penalty_weights[-1] / self.penalty_weights[0])
        # 0 for the brightest, and the number of the last filter on sky.
        position = (1.0 - decades / span).clamp(min=0) * (len(self.penalty_weights) - 1)
        index = torch.arange(len(self.penalty_weights), device=latent.device)[:, None, None]
        return (1.0 - (position - index).abs()).clamp(min=0)

    def _level(self, right: torch.Tensor, closed: torch.Tensor) -> torch.Tensor:
        """Return the large scales that are still left, which cost no noise."""
        model = self.model
        # Scaled to conserve flux, so that nothing is left of a constant.
        left = right - self.estimator.predicted_right_side(closed[None])[0]
        left = self.estimator.solve_right(left, (_LEVEL_STRENGTH,))[0]
        seen = model.embed(self.estimator.coverage)
        total = smooth((seen * left)[None], _LEVEL_FWHM)[0]
        return seen.sign() * total / smooth(seen[None], _LEVEL_FWHM)[0].clamp(min=DEPTH_FLOOR)


def _star_noise(model: ForwardModel, weights: torch.Tensor, full_weight: float) -> torch.Tensor:
    target_power = model.inverse_target_power.reciprocal()
    information = torch.zeros(model.shape, device=weights.device)
    norms = []
    for t, maps in enumerate(iterate_weight_maps(model, weights)):
        norms.append(model.fold_transform(model.power(t) * target_power))
        information.addcmul_(maps.weights[0], norms[-1])
    floor = DEPTH_FLOOR * full_weight * float(torch.stack(norms).mean())
    peak = model.fold_transform(model.target_transform)
    return peak * model.embed(information).clamp(min=floor).rsqrt()
