# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What errors of fitted stars leave in images."""

from __future__ import annotations

__all__ = ("StarErrors",)

import dataclasses

import torch

from ..estimate import LinearEstimator
from ..exposures import Tile
from ..stars import StarList, draw_stars
from ._white_noise import white_noise

_DRAWN = 7 << 24
"""Number that noise is drawn with for stars: no exposure has it."""

_FAR = 1 << 20
"""Added to pixels, which may be off the patch, but not negative."""


@dataclasses.dataclass(frozen=True)
class StarErrors:
    """Errors of images from those of the stars that are put back.

    What is fitted too much is missing in the exposures, and an estimate from
    these finds it again wherever there are data: what is left is the error
    less its linear estimate, in the core.

    Attributes
    ----------
    variance
        Shape (H, W).
    realizations
        Shape (k, H, W), errors for drawn errors of the stars.
    """

    variance: torch.Tensor
    realizations: torch.Tensor

    @classmethod
    def estimate(
        cls,
        stars: StarList,
        tile: Tile,
        linear: LinearEstimator,
        penalty_weight: float,
        seed: int,
        num_realizations: int,
    ) -> StarErrors:
        """Estimate them.

        Parameters
        ----------
        stars
            Stars with light in the tile.
        tile
            The tile.
        linear
            Linear estimator of the exposures.
        penalty_weight
            Its penalty weight.
        seed
            Seed of the draws.
        num_realizations
            Number of draws.
        """
        model = linear.model
        values, vectors = torch.linalg.eigh(stars.covariance)
        # Independent errors of unit variance, (m, 3, 3).
        directions = (vectors * values.clamp(min=0.0).sqrt()[:, None]).transpose(1, 2)
        changes = [directions[:, k] for k in range(3)]
        for draw in range(num_realizations):
            numbers = _draw_numbers(stars, seed, draw)
            changes.append((numbers[:, :, None] * directions).sum(dim=1))
        errors = torch.stack([draw_stars(stars, tile, model, change) for change in changes])
        errors = errors.to(linear.coverage.device)
        right = linear.normal(errors)
        left = errors - linear.solve(right, (penalty_weight,) * len(errors))
        left = model.crop(left)
        return cls(left[:3].square().sum(dim=0), left[3:])


def _draw_numbers(stars: StarList, seed: int, draw: int) -> torch.Tensor:
    """Return normal numbers, (m, 3), the same in any tile."""
    found = [
        white_noise(seed, draw, _DRAWN, (round(y) + _FAR, 4 * (round(x) + _FAR)), (1, 3))[0]
        for y, x in stars.positions.tolist()
    ]
    return torch.stack(found).double()
