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
from ..stars import NUM_ERRORS, StarList, draw_stars
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
        # Most stars are fitted alone.
        changes = list(stars.errors[:, :, stars.errors.any(dim=1).any(dim=0)].unbind(dim=2))
        number = len(changes)
        for draw in range(num_realizations):
            changes.append((stars.errors * _draw_numbers(stars, seed, draw)[:, None]).sum(dim=2))
        errors = torch.stack([draw_stars(stars, tile, model, change) for change in changes])
        errors = errors.to(linear.coverage.device)
        right = linear.normal(errors)
        left = errors - linear.solve(right, (penalty_weight,) * len(errors))
        left = model.crop(left)
        return cls(left[:number].square().sum(dim=0), left[number:])


def _draw_numbers(stars: StarList, seed: int, draw: int) -> torch.Tensor:
    """Return normal numbers, (m, NUM_ERRORS), the same in any tile and for
    stars that were fitted together.
    """
    found = []
    for y, x in stars.fit_position.tolist():
        origin = round(y) + _FAR, NUM_ERRORS * (round(x) + _FAR)
        found.append(white_noise(seed, draw, _DRAWN, origin, (1, NUM_ERRORS))[0])
    return torch.stack(found).double()
