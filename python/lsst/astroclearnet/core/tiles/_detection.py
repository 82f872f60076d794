# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The white image of all bands, for detecting."""

from __future__ import annotations

__all__ = ("DetectionImage",)

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
import torch

from .._errors import RestorationError
from ..exposures import Tile, TileGrid, smooth
from ..noise import restored_variance
from ._mosaic import BlendedPlanes
from ._result import MaskBit
from ._tile_result import FinishedTile, ObservedTile
from ._white_tile import WhiteTile

_BRIGHTNESS_FWHM = 2.0
"""FWHM in pixels over which brightness is averaged, as that of a band."""


@dataclasses.dataclass(frozen=True)
class DetectionImage:
    """Weighted mean of all bands, restored as one image.

    The weights are the same everywhere, the inverse variance of the PSF flux
    of a star in each band, in the first tile with data of the band, so that
    unit and PSF are those of the bands.  Where a band has no data the mean is
    that of the others, and where one alone has, the image is that of the
    band.

    Attributes
    ----------
    image
        Shape (H, W), float32; NaN where no band has data.
    variance
        Shape (H, W), float32, expected squared error of ``image``, from
        noise that was drawn in all bands together.
    mask
        Shape (H, W), uint8, `MaskBit` values: ``NO_DATA`` where no band has
        data, ``INPAINTED`` where no band has a usable pixel, ``CLIPPED`` where
        an exposure of any was rejected.
    weights
        Weight of each band where all have data, of sum 1.
    noise_realizations
        Shape (k, H, W), float32, realisations of the errors of ``image``.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    weights: dict[str, float]
    noise_realizations: np.ndarray


class DetectionMosaic:
    """The detection image, assembled from tiles.

    Parameters
    ----------
    grid
        The tiles.
    num_realizations
        Number of noise realisations.
    """

    def __init__(self, grid: TileGrid, num_realizations: int) -> None:
        shapes = {
            "image": grid.shape,
            "variance": grid.shape,
            "noise_realizations": (num_realizations, *grid.shape),
        }
        self._blended = BlendedPlanes(grid, shapes)
        self._mask = np.full(grid.shape, MaskBit.NO_DATA, np.uint8)
        self._weights: dict[str, float] = {}

    def weigh(self, bands: Mapping[str, ObservedTile]) -> list[float]:
        """Return the weights of bands, of any sum.

        Parameters
        ----------
        bands
            A tile of each by name.
        """
        for name, band in bands.items():
            # Where it has no data its weight does not matter.
            self._weights.setdefault(name, 1.0 / band.observation.estimator.linear.flux_variance)
        return [self._weights[name] for name in bands]

    def add(self, tile: Tile, bands: Mapping[str, FinishedTile], white: WhiteTile | None) -> None:
        """Add a tile of all bands that have data in it.

        Parameters
        ----------
        tile
            The tile.
        bands
            The bands by name, at least one, that `weigh` knows.
        white
            Their mean, restored as one image; without it, it is that of their
            images.

        Raises
        ------
        RestorationError
            If its pixels are not finite.
        """
        planes = _combine(list(bands.values()), [self._weights[name] for name in bands], white)
        self._blended.add(tile, planes)
        mask = _combine_masks([band.result.planes["mask"] for band in bands.values()])
        self._mask[tile.inner_rows, tile.inner_columns] = mask[tile.within]

    def finish(self, names: Collection[str]) -> DetectionImage:
        """Return the detection image.

        Parameters
        ----------
        names
            The bands that are in it.
        """
        known = {name: weight for name, weight in sorted(self._weights.items()) if name in names}
        weights = {name: weight / sum(known.values()) for name, weight in known.items()}
        return DetectionImage(**self._blended.finish(self._mask), mask=self._mask, weights=weights)


def _combine(
    bands: list[FinishedTile], weights: list[float], white: WhiteTile | None
) -> dict[str, np.ndarray]:
    """Return the planes of a tile."""
    present = torch.stack([weight * ~band.no_data for band, weight in zip(bands, weights, strict=True)])
    shares = present / present.sum(dim=0).clamp(min=1e-30)

    def mean(planes: list[torch.Tensor]) -> torch.Tensor:
        parts = [share * plane.nan_to_num() for share, plane in zip(shares, planes, strict=True)]
        return torch.stack(parts).sum(dim=0)

    def variance_of_mean(planes: list[torch.Tensor]) -> torch.Tensor:
        parts = [share**2 * plane.nan_to_num() for share, plane in zip(shares, planes, strict=True)]
        return torch.stack(parts).sum(dim=0)

    number = min(len(band.errors.restored) for band in bands)
    restored = mean([band.errors.restored[:number] for band in bands])
    image = mean([band.image for band in bands])
    if white is not None:
        several = (present > 0.0).sum(dim=0) > 1
        restored = torch.where(several, white.errors[:number], restored)
        image = torch.where(several, white.image + mean([band.stars for band in bands]), image)
    nowhere = ~(present > 0.0).any(dim=0)
    linear = torch.where(nowhere, 1.0, variance_of_mean([band.linear_variance for band in bands]))
    star_noise = variance_of_mean([band.star_noise**2 for band in bands]).clamp(min=1e-30).sqrt()
    brightness = smooth((image / star_noise).clamp(min=0.0)[None], _BRIGHTNESS_FWHM)[0]
    # A hole of one band is none of the image, but its light there is unknown.
    seen = torch.stack([band.seen | band.no_data for band in bands]).all(dim=0) & ~nowhere
    # The light is that of the same sky in all bands.
    unseen_light = mean([band.errors.unseen_light.sqrt() for band in bands]).square()
    variance = restored_variance(restored, unseen_light, linear, brightness, seen)
    kept = len(bands[0].noise_realizations)
    extra_noise = mean([band.noise_realizations - band.errors.restored[:kept] for band in bands])
    planes = {
        "image": image,
        "variance": variance + variance_of_mean([band.extra_variance for band in bands]),
        "noise_realizations": restored[:kept] + extra_noise,
    }
    if not all(bool((torch.isfinite(plane) | nowhere).all()) for plane in planes.values()):
        raise RestorationError("Pixels of the detection image are not finite.")
    return {name: torch.where(nowhere, torch.nan, plane).cpu().numpy() for name, plane in planes.items()}


def _combine_masks(masks: list[np.ndarray]) -> np.ndarray:
    """Return the mask of a tile."""
    no_data = [(mask & MaskBit.NO_DATA) > 0 for mask in masks]
    unseen = [
        missing | ((mask & MaskBit.INPAINTED) > 0) for mask, missing in zip(masks, no_data, strict=True)
    ]
    clipped = [
        ((mask & MaskBit.CLIPPED) > 0) & ~missing for mask, missing in zip(masks, no_data, strict=True)
    ]
    nowhere = np.all(no_data, axis=0)
    combined = np.where(nowhere, MaskBit.NO_DATA, 0).astype(np.uint8)
    combined[np.all(unseen, axis=0) & ~nowhere] |= np.uint8(MaskBit.INPAINTED)
    combined[np.any(clipped, axis=0)] |= np.uint8(MaskBit.CLIPPED)
    return combined
