# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Point sources that fit exposures best, position by position."""

from __future__ import annotations

import dataclasses

import torch

from ..forward import ForwardModel

_LEAST_INFORMATION = 1e-8
"""Information, relative to the largest, below which there is no data."""


@dataclasses.dataclass(frozen=True)
class MatchedFilter:
    """Fits a point source of free flux at each position.

    Pixels without data do not count: of a star with a masked core it is its
    wings that are fitted.

    Attributes
    ----------
    model
        Forward model of the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    information
        Shape latent_shape, one over the variance of the flux; infinite where
        there is no data.
    """

    model: ForwardModel
    weights: torch.Tensor
    information: torch.Tensor

    @classmethod
    def build(cls, model: ForwardModel, psfs: torch.Tensor, weights: torch.Tensor) -> MatchedFilter:
        """Build the filter.

        Parameters
        ----------
        model
            Forward model of the exposures.
        psfs
            Shape (n, n_cells_y, n_cells_x, P, P), their PSFs.
        weights
            Shape (n, h, w), inverse variances, 0 where a pixel is not used.
        """
        # Amid a large core there is little beside what surrounds it.
        total = torch.zeros(model.latent_shape, dtype=torch.float64, device=weights.device)
        means = psfs.mean(dim=(1, 2)).square()
        for t, weight in enumerate(weights):
            data = (weight * model.sampling.area[t])[None]
            # Interpolation leaves the sum as it is.
            on_grid = model.transform(model.sampling.adjoint(data, [t])[0].double())
            total += model.inverse_transform(on_grid * model.transfer(means[t]).conj())
        known = total > _LEAST_INFORMATION * total.max()
        return cls(model, weights, torch.where(known, total, torch.inf).to(torch.float32))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return products of PSFs and exposures over the variance.

        Parameters
        ----------
        images
            Shape (n, h, w), the exposures.

        Returns
        -------
        score : `torch.Tensor`
            Shape latent_shape; the flux times the information.
        """
        right = self.model.adjoint(images, weights=self.weights)
        score = self.model.filter_images(right[None], self.model.target_transform)[0]
        return torch.where(self.information.isfinite(), score, 0.0)

    def significance(self, score: torch.Tensor) -> torch.Tensor:
        """Return fluxes over their standard deviations, latent_shape.

        Parameters
        ----------
        score
            Shape latent_shape.
        """
        return score * self.information.rsqrt()
