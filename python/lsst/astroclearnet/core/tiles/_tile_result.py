# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A tile on its way: observed, finished, restored."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..estimate import BandImage
from ..exposures import Tile, close_holes
from ..forward import WEIGHT_FLOOR, CleanTile, psf_fwhms
from ..noise import Observation, RepeatedErrors
from ._bright_stars import BrightStars


@dataclasses.dataclass(frozen=True)
class TileResult:
    """A restored tile.

    Attributes
    ----------
    tile
        The tile.
    exposures
        Shape (m,), int64, indices of its exposures without outlier exposures.
    planes
        Planes of the tile, of shape (..., h, w), by field of
        `RestorationResult`; that of a median of pixels has their values.
    weights
        Shape (m, h, w), float32, inverse variances of the exposures in the
        pixels that the tile owns; 0 for unused pixels.
    rejected
        Shape (m, h, w), bool, outliers among them.
    deviations
        Shape (m,), double, sums of squared weighted residuals.
    expected
        Shape (m,), double, their expectations for noise alone.
    correlations
        Noise correlation, (31, 31), of cells that the tile owns, by the
        indices of the cell.
    scalars
        Numbers of the tile, by field of `RestorationResult`.
    """

    tile: Tile
    exposures: np.ndarray
    planes: dict[str, np.ndarray]
    weights: np.ndarray
    rejected: np.ndarray
    deviations: np.ndarray
    expected: np.ndarray
    correlations: dict[tuple[int, int], np.ndarray]
    scalars: dict[str, float]


@dataclasses.dataclass(frozen=True)
class ObservedTile:
    """A tile with its estimates, before errors are known.

    Attributes
    ----------
    clean
        The clean tile.
    stars
        Its bright stars.
    observation
        Estimator, estimates and noise of its exposures.
    """

    clean: CleanTile
    stars: BrightStars
    observation: Observation

    @property
    def owned(self) -> torch.Tensor:
        """Which pixels of exposures lie on pixels that the tile owns, shape
        (m, h, w), 1 or 0 (`torch.Tensor`).
        """
        assert self.observation.counted is not None
        return self.observation.counted

    @property
    def band_image(self) -> BandImage:
        """What other bands see of it (`BandImage`)."""
        return self.observation.estimator.band_image(self.observation.estimate)

    @property
    def has_data(self) -> torch.Tensor:
        """Pixels with data, and the holes that are inpainted, shape (H, W),
        bool (`torch.Tensor`).
        """
        widest = float(psf_fwhms(self.clean.tile_data.stack).max())
        seen = self.observation.estimator.linear.coverage > WEIGHT_FLOOR
        return close_holes(seen, max(1, round(widest)))

    def with_image(self, image: torch.Tensor) -> ObservedTile:
        """Return the tile with another restored image.

        Parameters
        ----------
        image
            Shape latent_shape, the image that takes its place.
        """
        estimate = self.observation.estimate.with_image(image)
        return dataclasses.replace(self, observation=dataclasses.replace(self.observation, estimate=estimate))


@dataclasses.dataclass(frozen=True)
class FinishedTile:
    """A restored tile, and what its image combined with others' needs.

    Attributes
    ----------
    result
        The restored tile, on the CPU.
    errors
        Errors of repeated observations.
    linear_variance
        Shape (H, W), variance of the linear image from noise.
    star_noise
        Shape (H, W), peak of a star of signal-to-noise ratio 1.
    seen, no_data
        Shape (H, W), bool, pixels of exposures, and pixels without a value.
    image
        Shape (H, W), the restored image.
    stars
        Shape (H, W), bright stars in it, which were put back.
    extra_variance
        Shape (H, W), its variance from PSFs and bright stars.
    noise_realizations
        Shape (k, H, W), realisations of its errors.
    """

    result: TileResult
    errors: RepeatedErrors
    linear_variance: torch.Tensor
    star_noise: torch.Tensor
    seen: torch.Tensor
    image: torch.Tensor
    stars: torch.Tensor
    extra_variance: torch.Tensor
    noise_realizations: torch.Tensor
    no_data: torch.Tensor
