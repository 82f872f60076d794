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

from collections.abc import Sequence

import torch

from ._depth import DEPTH_FLOOR, weight_maps
from ._forward_model import ForwardModel
from ._noise_model import smooth
from ._star_image import star_departure, strength_for_departure

_COVERAGE_FWHM = 8.0
"""FWHM in pixels over which the penalty follows the coverage."""

_PENALTY_FLOOR = 0.02
"""Penalty, relative to that of full depth, where there is no data."""

_TOLERANCE = 3e-3
"""Residual of the normal equations at which a solution is good enough."""

_MAX_ITERATIONS = 25
"""Bound on conjugate-gradient steps."""


class LinearEstimator:
    """Regularised least squares for the sky at the target PSF.

    For strength s the estimate minimises

        sum over t of w(t) (y(t) - k(t) * R)^2 + s |h * (q R)|^2

    with the weights w(t) = good(t) / variance(t), q^2 close to their sum over
    exposures, and h the filter that undoes the target PSF: the penalty is
    white for the sky itself, so that frequencies are damped where the target
    PSF leaves no signal anyway.  It is scaled by 1 + s, which conserves flux.
    As a function of the exposures it is a sum of depth-wise convolutions, one
    filter for each exposure, wherever the weights do not vary; solving the
    normal equations by preconditioned conjugate gradients makes it exact for
    masks, edges and PSFs that vary.

    Parameters
    ----------
    model
        Forward model of all exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    exposures
        Indices of the exposures to use; all by default.
    """

    def __init__(
        self, model: ForwardModel, weights: torch.Tensor, exposures: torch.Tensor | None = None
    ) -> None:
        self._model = model
        self._exposures = (
            torch.arange(model.num_exposures, device=weights.device) if exposures is None else exposures
        )
        self._weights = weights[self._exposures]
        depths = weight_maps(model, self._weights, self._exposures)
        self.full_weight = float(depths.typical.sum())
        self.depth = depths.weights.sum(dim=0) / self.full_weight
        """Sum of weights over its value at full depth, shape (H, W)."""
        self.coverage = (depths.typical[:, None, None] * depths.presence).sum(dim=0) / self.full_weight
        """Share of the exposures that are used, by weight, shape (H, W)."""
        self._root_penalty = self._penalty().sqrt()
        power = model.mean_otfs[self._exposures].abs() ** 2
        self._power = (depths.typical[:, None, None] * power).sum(dim=0) / self.full_weight
        self._whitening = model.inverse_target_power

    def _penalty(self) -> torch.Tensor:
        """Return the square of the factor q of the penalty.

        It follows the photon noise of sources, but the coverage only
        smoothly: a step of q at the edge of a mask would make q R smooth
        across it, and not R.
        """
        photon_noise = torch.where(self.coverage > DEPTH_FLOOR, self.depth / self.coverage, 1.0)
        coverage = smooth(self._model.embed(self.coverage)[None], _COVERAGE_FWHM)[0]
        outside = 1.0 - self._model.embed(torch.ones_like(photon_noise))
        return (
            self.full_weight
            * coverage.clamp(min=_PENALTY_FLOOR)
            * (self._model.embed(photon_noise) + outside)
        )

    def solve_all(
        self, images: torch.Tensor, strengths: Sequence[float], *, tolerance: float = _TOLERANCE
    ) -> torch.Tensor:
        """Return the estimates of several strengths.

        Each starts from the one of the next stronger penalty, which is
        cheaper to find.

        Parameters
        ----------
        images
            Shape (n, h, w), all exposures of the model.
        strengths
            Strengths of the penalty, rising.
        tolerance
            Residual of the normal equations, relative to that of a zero
            image, at which to stop.

        Returns
        -------
        latents : `torch.Tensor`
            Shape (s, *latent_shape).
        """
        estimates: list[torch.Tensor] = []
        for strength in reversed(strengths):
            start = estimates[-1] if estimates else None
            estimates.append(self.solve(images, strength, start=start, tolerance=tolerance))
        return torch.stack(estimates[::-1])

    def solve(
        self,
        images: torch.Tensor,
        strength: float,
        *,
        start: torch.Tensor | None = None,
        tolerance: float = _TOLERANCE,
    ) -> torch.Tensor:
        """Return the estimate of one strength.

        Parameters
        ----------
        images
            Shape (n, h, w), all exposures of the model.
        strength
            Strength of the penalty relative to the weights.
        start
            Shape latent_shape, where to start; by default at the solution for
            weights that do not vary.
        tolerance
            Residual of the normal equations, relative to that of a zero
            image, at which to stop.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape.
        """
        model = self._model
        root = self._root_penalty.reciprocal()
        inverse_power = 1.0 / (self._power + strength * self._whitening)

        def precondition(residual: torch.Tensor) -> torch.Tensor:
            transform = model.transform(residual * root) * inverse_power
            return model.inverse_transform(transform) * root

        right = model.adjoint(self._weights * images[self._exposures], self._exposures)
        solution = precondition(right) if start is None else start / (1.0 + strength)
        residual = right - self._normal(solution, strength)
        search = precondition(residual)
        product = (residual * search).sum()
        limit = tolerance**2 * (right * precondition(right)).sum()
        for _ in range(_MAX_ITERATIONS):
            if product <= limit:
                break
            image = self._normal(search, strength)
            step = product / (search * image).sum()
            solution = solution + step * search
            residual = residual - step * image
            correction = precondition(residual)
            previous, product = product, (residual * correction).sum()
            search = correction + (product / previous) * search
        return solution * (1.0 + strength)

    def departure(self, strength: float) -> float:
        """Return how far the image of a star is from the target PSF.

        Parameters
        ----------
        strength
            Strength of the penalty relative to the weights.

        Returns
        -------
        departure : `float`
            Largest difference over the peak, at full depth.
        """
        return star_departure(self._model, self._power, strength)

    def strength_for(self, departure: float) -> float:
        """Return the strength that keeps stars at the target PSF.

        Parameters
        ----------
        departure
            Largest difference between the image of a star and the target PSF,
            over the peak.

        Returns
        -------
        strength : `float`
            The largest such strength between 1e-8 and 0.1, within a tenth; if
            there is none, that of the smallest departure.
        """
        return strength_for_departure(self._model, self._power, departure)

    def covariances(self, strengths: torch.Tensor) -> torch.Tensor:
        """Return the covariance of estimates of several strengths.

        Parameters
        ----------
        strengths
            Shape (s,).

        Returns
        -------
        covariances : `torch.Tensor`
            Shape (s, s), covariance of two estimates in one pixel at full
            depth, for noise that is white in each exposure.
        """
        s = strengths.to(self._power)[:, None, None]
        response = (1.0 + s) / (self._power + s * self._whitening)
        full = self._model.fold_transform(self._power * response[:, None] * response[None, :])
        return full / self.full_weight

    def _normal(self, latent: torch.Tensor, strength: float) -> torch.Tensor:
        model, root = self._model, self._root_penalty
        weighted = self._weights * model.predict(latent, self._exposures)
        penalty = model.inverse_transform(model.transform(root * latent) * self._whitening)
        return model.adjoint(weighted, self._exposures) + strength * root * penalty
