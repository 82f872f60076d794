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
import math

import numpy as np
import torch
from scipy.ndimage import binary_propagation

from ..calibration import ExposureCalibration
from ..estimate import Estimator
from ..exposures import largest_around
from ..forward import TileData
from ..noise import StarErrors
from ..stars import StarList, draw_stars


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
    sigma
        Shape latent_shape, their standard deviation by that of their fluxes.
    num_realizations
        Number of realisations of the errors that are kept.
    """

    stars: StarList
    tile_data: TileData
    image: torch.Tensor
    sigma: torch.Tensor
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
        errors = torch.zeros(len(stars), 3, dtype=torch.float64)
        errors[:, 0] = stars.flux_sigma
        image, sigma = (
            draw_stars(stars, tile_data.tile, tile_data.model, changes).to(tile_data.stack.device)
            for changes in (None, errors)
        )
        return cls(stars, tile_data, image, sigma, calibration.options.noise.num_realizations)

    @property
    def light(self) -> torch.Tensor | None:
        """Image and ``sigma``, shape ``(2, *latent_shape)``, if there are
        stars.
        """
        return torch.stack([self.image, self.sigma]) if len(self.stars) else None

    def put_back(
        self, planes: dict[str, torch.Tensor], estimator: Estimator, seen: torch.Tensor, seed: int
    ) -> None:
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
        """
        if not len(self.stars):
            return
        model = self.tile_data.model
        image = model.crop(self.image)
        # A linear estimate without data is noise that is amplified, in trails
        # of saturated pixels too.
        core = _connected(~seen & (image.square() > planes["linear_variance"]), ~seen)
        changes = {"image": image}
        hidden = self.stars.select(self._reach_holes(seen))
        if len(hidden):
            errors = StarErrors.estimate(
                hidden,
                self.tile_data.tile,
                estimator.linear,
                estimator.linear_penalty_weight,
                seed,
                self.num_realizations,
            )
            changes |= {"variance": errors.variance, "noise_realizations": errors.realizations}
        for name in ("image", "variance", "noise_realizations"):
            restored, linear = planes[name], torch.where(core, planes[name], planes[f"linear_{name}"])
            change = changes.get(name, 0.0)
            planes[name], planes[f"linear_{name}"] = restored + change, linear + change

    def _reach_holes(self, seen: torch.Tensor) -> torch.Tensor:
        """Return which stars have light in missing data, (m,), bool."""
        tile, reach = self.tile_data.tile, math.ceil(2.0 * self.tile_data.model.target_fwhm)
        holes = largest_around((~seen).float(), 2 * reach + 1).cpu() > 0
        first = torch.tensor([tile.rows.start, tile.columns.start], dtype=torch.float64)
        last = torch.tensor(holes.shape) - 1
        places = (self.stars.positions - first).round().long()
        # Those beyond the border are near missing data.
        inside = ((places >= 0) & (places <= last)).all(dim=1)
        places = torch.minimum(places.clamp(min=0), last)
        return ~inside | holes[places[:, 0], places[:, 1]]


def _connected(pixels: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the allowed pixels that are connected with some."""
    grown = binary_propagation(pixels.cpu().numpy(), np.ones((3, 3)), allowed.cpu().numpy())
    return torch.from_numpy(grown).to(pixels.device)
