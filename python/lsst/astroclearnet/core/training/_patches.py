# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training samples of a patch, from exposures that are read in tiles."""

from __future__ import annotations

__all__ = ("collect_samples",)

from collections.abc import Iterator

import torch

from .._options import RestoreOptions, TrainingOptions
from ..calibration import calibrate_exposures
from ..estimate import TrainingSample
from ..exposures import ExposureSource, Tile
from ..forward import TileReader
from ..tiles import make_generator
from ._crops import make_crops


def collect_samples(
    source: ExposureSource,
    *,
    target_fwhm: float,
    options: TrainingOptions,
    restoration: RestoreOptions,
    seed: int,
    device: torch.device,
) -> list[TrainingSample]:
    """Return training samples of some tiles of a patch.

    Exposures are calibrated, and outliers rejected, as they are before a
    restoration, but on these tiles alone.

    Parameters
    ----------
    source
        The exposures, in a reproducible order.
    target_fwhm
        FWHM in pixels of the target PSF.
    options
        Settings of the training.
    restoration
        Settings of calibration and rejection; the penalty weights of the
        filter bank are those of its network.
    seed
        Seed of tiles, held-out exposures and holes.
    device
        Where to compute.

    Returns
    -------
    samples : `list` [`TrainingSample`]
        The samples, on the device; none where no two exposures overlap.

    Raises
    ------
    InputError
        If the target PSF is much wider than that of an exposure.
    """
    generator = make_generator(seed)
    tiles = tuple(draw_tiles(source.shape, options, generator))
    reader = TileReader(source, tiles, target_fwhm, device)
    with torch.no_grad():
        calibration = calibrate_exposures(reader, restoration)
        return list(make_crops(reader, calibration, restoration.network.penalty_weights, options, generator))


def draw_tiles(
    shape: tuple[int, int], options: TrainingOptions, generator: torch.Generator
) -> Iterator[Tile]:
    """Yield different tiles of a grid that covers the patch, at random.

    Parameters
    ----------
    shape
        Height and width of the patch in pixels.
    options
        Settings.
    generator
        Source of random numbers.
    """
    starts = []
    for length in shape:
        side = min(options.tile_size, length)
        number = max(1, length // side)
        starts.append([(round(k * (length - side) / max(number - 1, 1)), side) for k in range(number)])
    grid = [(y, x) for y in starts[0] for x in starts[1]]
    for index in torch.randperm(len(grid), generator=generator)[: options.tiles_per_patch].tolist():
        rows, columns = (slice(first, first + side) for first, side in grid[index])
        yield Tile(rows, columns, rows, columns)
