# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tiles of a patch with their exposures, read one at a time."""

from __future__ import annotations

__all__ = ("CleanTile", "TileData", "TileReader")

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from .._errors import InputError
from ..exposures import ExposureCutouts, ExposureSource, ExposureStack, Tile, kernel_fwhm
from ._model import ForwardModel
from ._weight_maps import iterate_weight_maps

_WIDEST_TARGET = 2.5
"""Width of the target PSF over that of the sharpest exposure beyond which its
linear image is wrong: by 2 % here, by 3 % at 3, and by 30 % at 4."""


@dataclasses.dataclass(frozen=True)
class TileData:
    """A tile and the exposures that see it.

    Attributes
    ----------
    tile
        The tile.
    exposures
        Shape (m,), int64, which exposures of the patch these are.
    stack
        The exposures.
    model
        Their forward model.
    origins
        Row and column, in its own pixels, of the first pixel that the arrays
        hold of each exposure.
    noise
        Shape (k, m, h, w), noise of the pixels on the CPU, where it is known.
    """

    tile: Tile
    exposures: torch.Tensor
    stack: ExposureStack
    model: ForwardModel
    origins: tuple[tuple[int, int], ...]
    noise: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class CleanTile:
    """A calibrated tile without outliers, with variances for the likelihood.

    Attributes
    ----------
    tile_data
        The tile; outliers are not good.
    variances
        Shape (m, h, w), variances of the likelihood.
    rejected
        Shape (m, h, w), bool, outliers.
    """

    tile_data: TileData
    variances: torch.Tensor
    rejected: torch.Tensor


class TileReader:
    """Reads tiles of a patch, one at a time.

    A single tile is read once and kept; of several none is.

    Parameters
    ----------
    source
        The exposures.
    tiles
        The tiles.
    target_fwhm
        FWHM of the target PSF in pixels.
    device
        Where to put the exposures.
    """

    def __init__(
        self, source: ExposureSource, tiles: Sequence[Tile], target_fwhm: float, device: torch.device
    ) -> None:
        self.source = source
        self.tiles = tuple(tiles)
        self.target_fwhm = target_fwhm
        self.device = device
        self._kept: TileData | None = None

    def __iter__(self) -> Iterator[TileData]:
        """Read tiles that can be restored; raise if all are refused."""
        refused: InputError | None = None
        found = False
        for tile in self.tiles:
            try:
                tile_data = self.read(tile)
            except InputError as exc:
                refused = exc
                continue
            if tile_data is not None:
                found = True
                yield tile_data
        if refused is not None and not found:
            raise refused

    def release(self) -> None:
        """Forget the tile that is kept."""
        self._kept = None

    def read(self, tile: Tile) -> TileData | None:
        """Read a tile.

        Parameters
        ----------
        tile
            A tile, also one that is not among those of the reader.

        Returns
        -------
        tile_data : `TileData` or `None`
            The tile with its exposures; `None` if none has a usable pixel, or
            none of its pixels is covered by usable ones.

        Raises
        ------
        InputError
            If the target PSF is much wider than that of an exposure.
        """
        if self._kept is not None and self._kept.tile == tile:
            return self._kept
        cut = self.source.read(tile.rows, tile.columns)
        tile_data = None if cut is None else self._make(tile, cut)
        if tile_data is not None and not is_covered(tile_data.model, tile_data.stack.good):
            tile_data = None
        if tile_data is not None:
            _require_resolution(tile_data)
        if self.tiles == (tile,):
            self._kept = tile_data
        return tile_data

    def _make(self, tile: Tile, cut: ExposureCutouts) -> TileData:
        stack = cut.stack.to(self.device)
        model = ForwardModel.from_stack(stack, self.target_fwhm)
        return TileData(tile, cut.exposures, stack, model, cut.origins, cut.noise)


def is_covered(model: ForwardModel, good: torch.Tensor) -> bool:
    """Tell whether any pixel of a tile has data, and not slivers alone.

    Parameters
    ----------
    model
        Forward model of the exposures.
    good
        Shape (m, h, w), bool, usable pixels.

    Returns
    -------
    covered : `bool`
        Whether an exposure covers any.
    """
    weights = good.to(torch.float32)
    return any(bool(maps.used.any()) for maps in iterate_weight_maps(model, weights))


def psf_fwhms(stack: ExposureStack) -> torch.Tensor:
    """Return how wide the PSFs of exposures are.

    Parameters
    ----------
    stack
        The exposures.

    Returns
    -------
    fwhms : `torch.Tensor`
        Shape (m,), FWHM in pixels of the patch of the mean PSF of each.
    """
    widths = [kernel_fwhm(psf) for psf in stack.psfs.mean(dim=(1, 2)).cpu().numpy()]
    return torch.tensor(widths, device=stack.device)


def _require_resolution(tile_data: TileData) -> None:
    """Refuse a target PSF that is much wider than those of the exposures."""
    sharpest, target = float(psf_fwhms(tile_data.stack).min()), tile_data.model.target_fwhm
    if target > _WIDEST_TARGET * sharpest:
        raise InputError(
            f"target_fwhm={target:.2f} pixels is more than {_WIDEST_TARGET:g} times the FWHM of the sharpest "
            f"exposure, {sharpest:.2f} pixels: restore to a sharper PSF, and smooth the result.",
            target_fwhm=target,
        )
