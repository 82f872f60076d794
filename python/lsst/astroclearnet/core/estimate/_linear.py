# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Regularised linear estimates of the sky at the target PSF."""

from __future__ import annotations

__all__ = ("LinearEstimator",)

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch

from ..forward import WEIGHT_FLOOR, ForwardModel, TypicalModel
from ._conjugate_gradients import Solution
from ._equations import RegularizedEquations
from ._patch_weights import PatchWeights
from ._precision import ErrorMeasure, Precision
from ._smooth_light import SmoothLight
from ._solves import record_solve
from ._star_image import light_residual, penalty_weight_for_residual, star_psf_residual
from ._stationary import StationaryEquations

_PRECISION = Precision()
"""Of estimates that nobody measures on."""

_NOISE_PRECISION = Precision(light=0.05, noise=0.03)
"""Of estimates of drawn noise that are mixed."""

_TYPICAL_PENALTY_WEIGHT = 1e-3

_LARGEST_ERROR = 0.25
"""Relative error of the stationary equations up to which they serve for drawn
noise.  It is 0.10 to 0.14 for usual exposures and 0.22 for a slope of the
noise by a factor of nine, and 0.97 for patches of eight pixels, in which it
differs by a factor of 25."""


class LinearEstimator:
    """Regularised least squares for the sky at the target PSF.

    For penalty weight s the estimate minimises::

        sum over t of w(t) (y(t) - k(t) * R)^2 + s |h * (q R)|^2

    with the weights w(t) = good(t) / variance(t), q^2 close to their sum over
    exposures, and h the filter that undoes the target PSF: the penalty is
    white for the sky itself, so that frequencies are damped where the target
    PSF leaves no signal anyway.  It is scaled by 1 + s, which conserves flux.
    The normal equations are solved by preconditioned conjugate gradients.

    Parameters
    ----------
    model
        Forward model of all exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    exposures
        Indices of the exposures to use; all by default.

    Raises
    ------
    NoUsableDataError
        If no pixel of the patch is covered by more than half.
    """

    def __init__(
        self, model: ForwardModel, weights: torch.Tensor, exposures: torch.Tensor | None = None
    ) -> None:
        self.model = model
        self._exposures = model.sampling.indices(exposures)
        self._selected = exposures
        self._weights = weights if exposures is None else weights[exposures]
        self._on_patch = PatchWeights(model, self._weights, self._exposures)
        self._power = model.total_power(self._on_patch.shares, self._exposures)
        self._whitening = model.inverse_target_power
        self._root_penalty = self._on_patch.penalty().sqrt()

    @property
    def full_weight(self) -> float:
        """Sum of the weights at full weight (`float`)."""
        return self._on_patch.full_weight

    @property
    def relative_weight(self) -> torch.Tensor:
        """Sum of weights over its value at full weight, (H, W)."""
        return self._on_patch.relative_weight

    @property
    def coverage(self) -> torch.Tensor:
        """Share of the full weight that is present, (H, W)."""
        return self._on_patch.coverage

    @functools.cached_property
    def flux_variance(self) -> float:
        """Variance of the PSF flux of a star at full weight (`float`): the
        Cramer-Rao bound.
        """
        star_power = self._power / self.model.inverse_target_power
        return 1.0 / (self.full_weight * float(self.model.fold_transform(star_power)))

    def right_side(self, images: torch.Tensor) -> torch.Tensor:
        """Return the right-hand side A'W y of the normal equations.

        Parameters
        ----------
        images
            Shape (n, h, w), all exposures of the model.
        """
        some = images if self._selected is None else images[self._selected]
        return self.model.adjoint(some, self._exposures, weights=self._weights)

    def normal(self, latents: torch.Tensor) -> torch.Tensor:
        """Return A'W A of images: the right-hand sides of what they predict.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``.
        """
        return self.model.normal(latents, self._weights, self._exposures)

    @functools.cached_property
    def _typical_normal(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What multiplies images with about A'WA, where pixels have to be
        interpolated.
        """
        if self.model.sampling.prefilter is None:
            return None
        return TypicalModel(self.model, self._exposures, self._on_patch.shares, self._weights).normal

    def solve(
        self,
        right: torch.Tensor,
        penalty_weights: Sequence[float],
        *,
        start: torch.Tensor | None = None,
        precision: Precision = _PRECISION,
    ) -> torch.Tensor:
        """Return the estimates of penalty weights, ``(s, *latent_shape)``.

        Parameters
        ----------
        right
            Right-hand side, shape latent_shape, or one for each estimate.
        penalty_weights
            Weights of the penalty, relative to those of the exposures.
        start
            Estimates that are close, shape latent_shape, or one for each.
        precision
            Errors at which to stop.
        """
        right = right if right.ndim == 3 else right[None]
        light = self._smooth_light.fit(right)
        equations = self._equations(penalty_weights)
        scale = 1.0 + equations.penalty_weights[:, None, None]
        begin = None if start is None else (start - light) / scale
        solution = equations.solve(right, light, begin, precision)
        return _recorded(solution).mul_(scale).add_(light)

    def refine(
        self,
        right: torch.Tensor,
        penalty_weight: float,
        *,
        start: torch.Tensor,
        prior: torch.Tensor,
        light: torch.Tensor,
        precision: Precision,
    ) -> torch.Tensor:
        """Return the estimate whose difference from a prior is penalised.

        Parameters
        ----------
        right
            Right-hand side, shape latent_shape.
        penalty_weight
            Weight of the penalty.
        start
            Estimate that is close, shape latent_shape.
        prior
            Shape latent_shape: smooth light, or an estimate that is iterated.
        light
            Shape latent_shape, smooth light, which does not count in relative
            errors.
        precision
            Error at which to stop.

        Returns
        -------
        estimate : `torch.Tensor`
            Shape latent_shape.
        """
        equations = self._equations((penalty_weight,))
        number = equations.penalty_weights[:, None, None]
        noise = self._variances(1.0 / (self._power + number * self._whitening)).sqrt()
        equations = dataclasses.replace(equations, noise=noise, counted=(prior - light)[None])
        solution = equations.solve(right[None], prior[None], (start - prior)[None], precision)
        return _recorded(solution)[0].add_(prior)

    def smooth_light(self, right: torch.Tensor) -> torch.Tensor:
        """Return the smooth light of the data, continued beyond them.

        Parameters
        ----------
        right
            Right-hand side, shape latent_shape.

        Returns
        -------
        light : `torch.Tensor`
            Shape latent_shape.
        """
        return self._smooth_light.fit(right[None])[0]

    def _equations(self, penalty_weights: Sequence[float]) -> RegularizedEquations:
        weights = torch.tensor(penalty_weights, dtype=torch.float32, device=self._weights.device)
        return RegularizedEquations(
            exact=self.normal,
            typical=self._typical_normal,
            penalise=self._penalise,
            stationary=self.stationary,
            measure=self._measure,
            penalty_weights=weights,
            noise=self.variances(weights).sqrt() / (1.0 + weights),
        )

    def solve_noise(self, right: torch.Tensor, penalty_weights: Sequence[float]) -> torch.Tensor:
        """Return about the estimates of drawn noise.

        Where the stationary equations are good enough, their solutions differ
        from those of `solve` by a tenth of the noise of the finest estimate,
        and less of smoother ones.  Elsewhere the exact equations are solved,
        with smooth light.

        Parameters
        ----------
        right
            Shape ``(b, *latent_shape)``, right-hand sides: one for each
            penalty weight, or one for all or with all.
        penalty_weights
            Weights of the penalty.
        """
        if not self.is_stationary:
            number = max(len(right), len(penalty_weights))
            each = penalty_weights if len(penalty_weights) == number else (*penalty_weights,) * number
            return self.solve(right.expand(number, -1, -1), each, precision=_NOISE_PRECISION)
        weights = torch.tensor(penalty_weights, dtype=torch.float32, device=right.device)
        factors = self.stationary.factors(weights)
        return self.stationary.solve(right, factors).mul_(1.0 + weights[:, None, None])

    def normal_of_noise(self, images: torch.Tensor) -> torch.Tensor:
        """Return about what `normal` does, for drawn noise.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``.
        """
        return self.stationary.normal(images) if self.is_stationary else self.normal(images)

    @functools.cached_property
    def is_stationary(self) -> bool:
        """Whether the stationary equations are good enough for drawn noise
        (`bool`): whether they find a typical error back.
        """
        stationary, model = self.stationary, self.model
        white = torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(0))
        root = stationary.local_weight.clamp(min=0.0).sqrt()
        right = model.filter_images(white.to(root)[None], self._power.sqrt()).mul_(root)
        factors = stationary.factors(torch.tensor([_TYPICAL_PENALTY_WEIGHT], device=root.device))
        typical = stationary.solve(right, factors)
        exact = self.normal(typical).add_(self._penalise(typical), alpha=_TYPICAL_PENALTY_WEIGHT)
        error = stationary.solve(exact, factors).sub_(typical)
        # In units of the noise, where there are data.
        unit = model.embed(self.relative_weight * (self.coverage > WEIGHT_FLOOR))
        error, typical = ((unit * image.square()).sum() for image in (error, typical))
        return bool(error < _LARGEST_ERROR**2 * typical)

    def _penalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Multiply images with the matrix of the penalty."""
        filtered = self.model.filter_images(latents * self._root_penalty, self._whitening)
        return filtered.mul_(self._root_penalty)

    @functools.cached_property
    def _smooth_light(self) -> SmoothLight:
        power = None if self.model.psf_varies else self._power
        # A bound method would keep the estimator, and its tile, alive until
        # the garbage collector comes.
        normal = functools.partial(self.model.normal, weights=self._weights, exposures=self._exposures)
        return SmoothLight(self.model, power, normal, self.full_weight, self._weights.device)

    @functools.cached_property
    def stationary(self) -> StationaryEquations:
        """The equations as those of slowly varying weights and PSFs
        (`StationaryEquations`).
        """
        return StationaryEquations(
            self.model, self._power, self._on_patch.local(self._power), self._root_penalty
        )

    @functools.cached_property
    def _measure(self) -> ErrorMeasure:
        return ErrorMeasure(self._on_patch.covered(), self._on_patch.smooth_weight())

    def psf_residual(self, penalty_weight: float) -> float:
        """Return `star_psf_residual` at full weight.

        Parameters
        ----------
        penalty_weight
            Weight of the penalty.
        """
        return star_psf_residual(self.model, self._power, penalty_weight)

    def light_residual(self, penalty_weight: float, light: torch.Tensor) -> torch.Tensor:
        """Return `light_residual` at full weight, latent_shape.

        Parameters
        ----------
        penalty_weight
            Weight of the penalty.
        light
            Shape latent_shape, light at the target PSF.
        """
        return light_residual(self.model, self._power, penalty_weight, light)

    def penalty_weight_for(self, residual: float) -> float:
        """Return `penalty_weight_for_residual` at full weight.

        Parameters
        ----------
        residual
            The largest `psf_residual` that is allowed.
        """
        return penalty_weight_for_residual(self.model, self._power, residual)

    def variances(self, penalty_weights: torch.Tensor) -> torch.Tensor:
        """Return the noise variances of estimates in one pixel, (s,), at full
        weight, for noise that is white in each exposure.

        Parameters
        ----------
        penalty_weights
            Shape (s,).
        """
        return self._variances(self._responses(penalty_weights))

    def bank_variances(
        self, penalty_weights: torch.Tensor, gains: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noise variances of a bank, (s,), and of its successive
        differences, (s - 1,), in the sense of `variances`.

        Parameters
        ----------
        penalty_weights
            Shape (p,), those of the first estimates.
        gains
            Shape (s - p, Hl, Wl // 2 + 1), what the transform of the last of
            them is multiplied with for the others.
        """
        responses = self._responses(penalty_weights)
        responses = torch.cat([responses, responses[-1] * gains])
        return self._variances(responses), self._variances(responses[:-1] - responses[1:])

    def _responses(self, penalty_weights: torch.Tensor) -> torch.Tensor:
        """Return estimates over the right-hand side, by frequency."""
        s = penalty_weights.to(self._power)[:, None, None]
        gain = self._smooth_light.gain
        rest = 1.0 - gain * self._power
        return gain + rest * (1.0 + s) / (self._power + s * self._whitening)

    def _variances(self, responses: torch.Tensor) -> torch.Tensor:
        return self.model.fold_transform(self._power * responses**2) / self.full_weight


def _recorded(solution: Solution) -> torch.Tensor:
    """Return the solutions, and record how they converged."""
    for steps, error in zip(solution.steps, solution.errors, strict=True):
        record_solve("linear_estimate", steps=steps, residual=error)
    return solution.values
