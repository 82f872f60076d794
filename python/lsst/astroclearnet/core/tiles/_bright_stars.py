# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bright stars that are put back into a restored tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.ndimage import binary_propagation

from ..calibration import ExposureCalibration
from ..estimate import Estimator
from ..forward import TileData
from ..noise import StarErrors
from ..stars import StarList, draw_stars

_STANDS_OUT = 3.0
"""Signal-to-noise ratio from which on light stands out."""


@dataclasses.dataclass(frozen=True)
class BrightStars:
    """Bright stars of a tile at the target PSF.

    Attributes
    ----------
    stars
        Those with light in the tile.
    tile_data
        The tile, without them.
    image
        Shape latent_shape, the stars.
    num_realizations
        Number of realisations of the errors that are kept.
    """

    stars: StarList
    tile_data: TileData
    image: torch.Tensor
    num_realizations: int

    @classmethod
    def draw(cls, calibration: ExposureCalibration, tile_data: TileData) -> BrightStars:
        """Draw the stars of a tile.

        Parameters
        ----------
        calibration
            The calibration that took them out.
        tile_data
            The tile.
        """
        stars = calibration.stars_near(tile_data)
        image = draw_stars(stars, tile_data.tile, tile_data.model).to(tile_data.stack.device)
        return cls(stars, tile_data, image, calibration.options.noise.num_realizations)

    def put_back(
        self, planes: dict[str, torch.Tensor], estimator: Estimator, seen: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add them to images, and their errors to variances and realisations.

        Parameters
        ----------
        planes
            Shape (..., H, W), planes of both images by field of
            `RestorationResult`; changed.
        estimator
            The fitted estimator.
        seen
            Shape (H, W), bool, pixels with data.
        seed
            Seed of the noise draws.

        Returns
        -------
        stands_out : `torch.Tensor`
            Shape (H, W), bool, where they stand out from noise.
        sigma : `torch.Tensor`
            Shape (H, W), standard deviation of their light there, relative.
        """
        if not len(self.stars):
            none = torch.zeros_like(seen)
            return none, none.to(self.image.dtype)
        image = self.tile_data.model.crop(self.image)
        # A linear estimate without data is noise that is amplified, in trails
        # of saturated pixels too.
        core = _connected(~seen & (image.square() > planes["linear_variance"]), ~seen)
        errors = StarErrors.estimate(
            self.stars,
            self.tile_data.tile,
            estimator.linear,
            estimator.linear_penalty_weight,
            seed,
            self.num_realizations,
        )
        for name, change in (
            ("image", image),
            ("variance", errors.variance),
            ("noise_realizations", errors.realizations),
        ):
            restored, linear = planes[name], planes[f"linear_{name}"]
            planes[name] = restored + change
            planes[f"linear_{name}"] = torch.where(core, restored, linear) + change
        stands_out = image > _STANDS_OUT * planes["linear_variance"].sqrt()
        return stands_out, errors.variance.sqrt() / image


def _connected(pixels: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the allowed pixels that are connected with some."""
    grown = binary_propagation(pixels.cpu().numpy(), np.ones((3, 3)), allowed.cpu().numpy())
    return torch.from_numpy(grown).to(pixels.device)
