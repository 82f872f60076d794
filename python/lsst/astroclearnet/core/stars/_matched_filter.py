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


@dataclasses.dataclass(frozen=True)
class MatchedFilter:
    """The best point source of each position.

    Attributes
    ----------
    score
        Shape latent_shape, product of PSFs and data over the variance.
    information
        Shape latent_shape, one over the variance of the flux.
    """

    score: torch.Tensor
    information: torch.Tensor

    @property
    def flux(self) -> torch.Tensor:
        """The flux, shape latent_shape (`torch.Tensor`)."""
        return self.score / self.information

    @property
    def significance(self) -> torch.Tensor:
        """The flux over its standard deviation, shape latent_shape
        (`torch.Tensor`).
        """
        return self.score * self.information.rsqrt()


_LEAST_INFORMATION = 1e-8
"""Information, relative to the largest, below which there is no data."""


def matched_filter(
    model: ForwardModel, psfs: torch.Tensor, weights: torch.Tensor, images: torch.Tensor
) -> MatchedFilter:
    """Fit a point source of free flux at each position.

    Pixels without data do not count: of a star with a masked core it is its
    wings that are fitted.

    Parameters
    ----------
    model
        Forward model of the exposures.
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P).
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    images
        Shape (n, h, w), the exposures.
    """
    right = model.adjoint(images, weights=weights)
    score = model.filter_images(right[None], model.target_transform)[0]
    # Amid a large core there is little beside what surrounds it.
    information = torch.zeros(model.latent_shape, dtype=torch.float64, device=weights.device)
    means = psfs.mean(dim=(1, 2)).square()
    for t, weight in enumerate(weights):
        data = (weight * model.sampling.area[t])[None]
        # Interpolation leaves the sum as it is.
        on_grid = model.transform(model.sampling.adjoint(data, [t])[0].double())
        information += model.inverse_transform(on_grid * model.transfer(means[t]).conj())
    floor = _LEAST_INFORMATION * information.max()
    score = torch.where(information > floor, score, 0.0)
    return MatchedFilter(score, information.clamp(min=floor).to(score))
