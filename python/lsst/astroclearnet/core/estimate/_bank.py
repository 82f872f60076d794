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

from ..forward import WEIGHT_FLOOR
from ._linear import LinearEstimator


@dataclasses.dataclass(frozen=True)
class FilterBank:
    """Linear estimates of several penalty weights, and their noise.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``, from the weakest to the strongest
        penalty.
    features
        Shape ``(2 s, *latent_shape)``, input of the network: the estimates
        and their successive differences in units of their noise, compressed by
        asinh, and the root of the relative weight.
    significance
        Shape ``(s - 1, *latent_shape)``, absolute successive differences in
        units of their noise, less where data are missing close by.
    covariances
        Shape (s, s), noise covariance of the estimates at full weight.
    """

    estimates: torch.Tensor
    features: torch.Tensor
    significance: torch.Tensor
    covariances: torch.Tensor

    @classmethod
    def build(
        cls, estimator: LinearEstimator, estimates: torch.Tensor, penalty_weights: tuple[float, ...]
    ) -> FilterBank:
        """Build the bank of some estimates.

        Parameters
        ----------
        estimator
            What they were made with.
        estimates
            Shape ``(s, *latent_shape)``.
        penalty_weights
            Their penalty weights, rising.
        """
        model = estimator.model
        covariances = estimator.covariances(torch.tensor(penalty_weights))
        relative_weight = model.embed(estimator.relative_weight)
        noise = relative_weight.clamp(min=WEIGHT_FLOOR).rsqrt()
        variances = covariances.diagonal()
        steps = variances[:-1] + variances[1:] - 2.0 * covariances.diagonal(offset=1)
        scaled = estimates / (variances.sqrt()[:, None, None] * noise)
        differences = (estimates[:-1] - estimates[1:]) / (steps.clamp(min=0).sqrt()[:, None, None] * noise)
        features = torch.cat([torch.asinh(scaled), torch.asinh(differences), relative_weight.sqrt()[None]])
        # The layout in which convolutions are fastest.
        features = features[None].contiguous(memory_format=torch.channels_last)[0]
        # Within a few pixels of missing data fine estimates are extrapolations
        # and noisier than the weight in the pixel itself tells.
        near = _largest_around(1.0 - model.embed(estimator.coverage)[None], 9)[0]
        return cls(
            estimates=estimates,
            features=features,
            significance=differences.abs() * (1.0 - near),
            covariances=covariances,
        )

    @functools.cached_property
    def log_prior(self) -> torch.Tensor:
        """Logarithm of the prior weights, shape ``(s, *latent_shape)``.

        An estimate is preferred to the next smoother one where the two differ
        by more than 3 sigma in the neighbourhood.
        """
        strongest = _largest_around(self.significance, 5)
        finer = torch.sigmoid(2.0 * (strongest - 3.0))
        remaining = torch.cumprod(1.0 - finer, dim=0)
        first = torch.ones_like(remaining[:1])
        shares = torch.cat([finer * torch.cat([first, remaining[:-1]]), remaining[-1:]])
        # No estimate is excluded: the network corrects logarithms.
        return shares.clamp(min=1e-3).log_()

    @property
    def unit(self) -> float:
        """Noise of the smoothest estimate at full weight (`float`)."""
        return float(self.covariances[-1, -1].sqrt())


def _largest_around(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return the largest value in a square around each pixel."""
    return torch.nn.functional.max_pool2d(images[None], size, stride=1, padding=size // 2)[0]
