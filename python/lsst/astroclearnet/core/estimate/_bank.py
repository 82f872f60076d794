# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The bank of linear estimates that the network mixes."""

from __future__ import annotations

__all__ = ("FilterBank",)

import dataclasses
import functools

import torch

from ..forward import DEPTH_FLOOR, ForwardModel
from ._linear import LinearEstimator
from ._precision import Precision

_PRECISION = Precision(light=2e-2, noise=0.1)
"""Of estimates a network is fitted to."""

_REACH = 9
"""Side, in pixels, of the square in which missing data count."""

_SIGNIFICANCE = 3.0
"""Deviation, in sigma, from which a finer estimate is preferred a priori."""

_NEIGHBORHOOD = 5
"""Side, in pixels, of the square in which it is looked for."""

_PRIOR_FLOOR = 1e-3
"""A priori weight of an estimate that nothing speaks for."""


@dataclasses.dataclass(frozen=True)
class FilterBank:
    """Linear estimates of several penalty weights, and their noise.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``, from the weakest to the strongest
        penalty.
    features
        Shape ``(2 s, *latent_shape)``, what the network sees: the estimates
        and their successive differences in units of their noise, compressed by
        asinh, and the depth.
    significance
        Shape ``(s - 1, *latent_shape)``, absolute successive differences in
        units of their noise, less where data are missing close by.
    covariances
        Shape (s, s), noise covariance of the estimates at full depth.
    depth
        Shape latent_shape, weight of the data over its value at full depth.
    """

    estimates: torch.Tensor
    features: torch.Tensor
    significance: torch.Tensor
    covariances: torch.Tensor
    depth: torch.Tensor

    @classmethod
    def build(
        cls,
        model: ForwardModel,
        images: torch.Tensor,
        weights: torch.Tensor,
        penalty_weights: tuple[float, ...],
        exposures: torch.Tensor | None = None,
    ) -> FilterBank:
        """Solve for the estimates.

        Parameters
        ----------
        model
            Forward model of all exposures.
        images
            Shape (n, h, w).
        weights
            Shape (n, h, w), inverse variances, 0 where a pixel is not used.
        penalty_weights
            The penalty weights, rising.
        exposures
            Indices of the exposures to use; all by default.

        Returns
        -------
        bank : `FilterBank`
            The bank.
        """
        estimator = LinearEstimator(model, weights, exposures)
        estimates = estimator.solve_all(images, penalty_weights, precision=_PRECISION)
        return cls.from_estimates(model, estimator, estimates, penalty_weights)

    @classmethod
    def from_estimates(
        cls,
        model: ForwardModel,
        estimator: LinearEstimator,
        estimates: torch.Tensor,
        penalty_weights: tuple[float, ...],
    ) -> FilterBank:
        """Put estimates together with what is known of their noise.

        Parameters
        ----------
        model
            Forward model of all exposures.
        estimator
            Linear estimates from the exposures to use.
        estimates
            Shape ``(s, *latent_shape)``, the estimates.
        penalty_weights
            The penalty weights, rising.

        Returns
        -------
        bank : `FilterBank`
            The bank.
        """
        covariances = estimator.covariances(torch.tensor(penalty_weights))
        depth = model.embed(estimator.depth)
        noise = depth.clamp(min=DEPTH_FLOOR).rsqrt()
        variances = covariances.diagonal()
        steps = variances[:-1] + variances[1:] - 2.0 * covariances.diagonal(offset=1)
        scaled = estimates / (variances.sqrt()[:, None, None] * noise)
        differences = (estimates[:-1] - estimates[1:]) / (steps.clamp(min=0).sqrt()[:, None, None] * noise)
        features = torch.cat([torch.asinh(scaled), torch.asinh(differences), depth.sqrt()[None]])
        # The layout in which convolutions are fastest.
        features = features[None].contiguous(memory_format=torch.channels_last)[0]
        # Close to missing data fine estimates are extrapolations, noisier
        # than the depth in the pixel itself tells.
        missing = 1.0 - model.embed(estimator.coverage)
        near = torch.nn.functional.max_pool2d(missing[None], _REACH, stride=1, padding=_REACH // 2)[0]
        return cls(
            estimates=estimates,
            features=features,
            significance=differences.abs() * (1.0 - near),
            covariances=covariances,
            depth=depth,
        )

    @functools.cached_property
    def log_prior(self) -> torch.Tensor:
        """Logarithm of the weights that are taken a priori.

        Shape ``(s, *latent_shape)``.
        """
        return _prior(self.significance).log_()

    @property
    def unit(self) -> float:
        """Noise of the smoothest estimate at full depth (`float`)."""
        return float(self.covariances[-1, -1].sqrt())


def _prior(significance: torch.Tensor) -> torch.Tensor:
    """Return weights, (s, H, W), for significances, (s - 1, H, W).

    An estimate is preferred to the next smoother one where the two differ
    significantly in the neighbourhood.
    """
    strongest = torch.nn.functional.max_pool2d(
        significance[None], _NEIGHBORHOOD, stride=1, padding=_NEIGHBORHOOD // 2
    )[0]
    finer = torch.sigmoid(2.0 * (strongest - _SIGNIFICANCE))
    remaining = torch.cumprod(1.0 - finer, dim=0)
    first = torch.ones_like(remaining[:1])
    shares = torch.cat([finer * torch.cat([first, remaining[:-1]]), remaining[-1:]])
    return shares.clamp(min=_PRIOR_FLOOR)
