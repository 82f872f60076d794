# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training crops: small squares with some exposures held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from .._errors import NoUsableDataError
from .._options import TrainingOptions
from ..calibration import ExposureCalibration
from ..estimate import FilterBank, LinearEstimator, Precision, TrainingSample, mix_by_prior
from ..exposures import Tile, largest_around
from ..forward import CleanTile, ForwardModel, TileReader
from ..joint import GuidedBank

_PRECISION = Precision(light=2e-2, noise=0.1)
"""Of estimates that a network is trained on."""

_HOLES_PER_PIXEL = 1e-4
"""Holes that are made in the exposures seen: somewhat more than there are
saturated stars and defects that all exposures share."""

_LARGEST_GAIN = 1.5
"""Largest factor by which a frequency of the image may be amplified in a
held-out exposure: one much sharper than the target PSF cannot be predicted,
not even from the true sky."""

_LARGEST_HOLE = 15
"""Side in pixels of the largest hole: the saturated core of a bright star."""


def make_crops(
    reader: TileReader,
    calibration: ExposureCalibration,
    penalty_weights: tuple[float, ...],
    options: TrainingOptions,
    generator: torch.Generator,
) -> Iterator[TrainingSample]:
    """Yield training crops of the tiles of a patch.

    Of each tile, exposures are held out at random several times, and the tile
    is cut into crops, whose edges the loss does not see.  In the exposures
    seen, but not in those held out, there are random holes, half of them in
    bright sources, so that in-painting is learned too.

    Parameters
    ----------
    reader
        The tiles.
    calibration
        Calibration of the exposures.
    penalty_weights
        Those of the filter bank.
    options
        Settings.
    generator
        Source of random numbers, on the CPU.

    Yields
    ------
    sample : `TrainingSample`
        A crop; the grid of its model lies within that of its bank's estimates.
    """
    for tile in reader.tiles:
        tile_data = reader.read(tile)
        if tile_data is None or not calibration.has_data(tile_data):
            continue
        clean = calibration.clean(tile_data)
        banks = list(_make_banks(clean, penalty_weights, options, generator))
        if not banks:
            continue
        for box in crop_boxes(tile, clean.tile_data.model.grid.margin, options.crop_size, generator):
            cut_data = reader.read(box)
            if cut_data is None or not calibration.has_data(cut_data):
                continue
            cut = calibration.clean(cut_data)
            # Splits predict the same exposures where they can, so that fewer
            # have their interpolation stored.
            preferred = torch.randperm(len(cut_data.exposures), generator=generator).tolist()
            for bank, held_out in banks:
                sample = _make_crop(clean, cut, bank, held_out, preferred, options)
                if sample is not None:
                    yield sample


def _make_banks(
    clean: CleanTile,
    penalty_weights: tuple[float, ...],
    options: TrainingOptions,
    generator: torch.Generator,
) -> Iterator[tuple[FilterBank, set[int]]]:
    """Yield banks of random exposures, with the numbers of the others."""
    stack, model = clean.tile_data.stack, clean.tile_data.model
    weights = stack.good / clean.variances
    present = stack.good.any(dim=(1, 2)).nonzero()[:, 0].cpu()
    peaks = torch.zeros(0, 2, dtype=torch.int64)
    low, high = options.seen_fraction
    for _ in range(options.num_splits):
        share = low + (high - low) * float(torch.rand((), generator=generator))
        number = min(max(round(share * len(present)), 1), len(present) - 1)
        if number < 1:
            return
        order = present[torch.randperm(len(present), generator=generator)]
        seen = order[:number].sort().values.to(stack.device)
        holes = _draw_holes(model.shape, peaks, generator).to(stack.device)
        try:
            estimator = LinearEstimator(model, weights * ~model.sampling.look_up(holes), seen)
        except NoUsableDataError:
            continue
        right = estimator.right_side(stack.images)
        solved = estimator.solve(right, penalty_weights, precision=_PRECISION)
        bank = FilterBank.build(estimator, solved, penalty_weights)
        peaks = _bright_peaks(model, bank)
        exposures = clean.tile_data.exposures
        yield bank, set(exposures[order[number:]].tolist())


def _draw_holes(shape: tuple[int, int], peaks: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw the pixels of squares at random places and at peaks, (H, W)."""
    number = int(torch.poisson(torch.tensor(_HOLES_PER_PIXEL * shape[0] * shape[1]), generator=generator))
    holes = torch.zeros(shape, dtype=torch.bool)
    for index in range(number):
        if index % 2 and len(peaks):
            y, x = peaks[int(torch.randint(len(peaks), (), generator=generator))].tolist()
        else:
            y, x = (int(torch.randint(length, (), generator=generator)) for length in shape)
        half = int(torch.randint(1, _LARGEST_HOLE // 2 + 1, (), generator=generator))
        holes[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1] = True
    return holes


def _bright_peaks(model: ForwardModel, bank: FilterBank) -> torch.Tensor:
    """Return rows and columns of maxima above 30 sigma, (k, 2)."""
    image = model.crop(bank.estimates[bank.num_solved // 2] / bank.sky_noise)
    highest = largest_around(image, 9)
    return ((image == highest) & (image > 30.0)).nonzero().cpu()


def crop_boxes(tile: Tile, margin: int, size: int, generator: torch.Generator) -> Iterator[Tile]:
    """Yield boxes at random places of a grid, which with their margin have a
    given size.

    Parameters
    ----------
    tile
        What they lie in.
    margin, size
        Margin around a box, and side with it, in pixels.
    generator
        Source of random numbers.
    """
    ranges = []
    for axis in (tile.rows, tile.columns):
        length = axis.stop - axis.start
        number = max(1, round(length / (size - 2 * margin)))
        side = min(size - 2 * margin, length // number)
        first = axis.start + int(torch.randint(length - number * side + 1, (), generator=generator))
        ranges.append([slice(first + k * side, first + (k + 1) * side) for k in range(number)])
    for rows in ranges[0]:
        for columns in ranges[1]:
            yield Tile(rows, columns, rows, columns)


def _make_crop(
    whole: CleanTile,
    cut: CleanTile,
    bank: FilterBank,
    held_out: set[int],
    preferred: list[int],
    options: TrainingOptions,
) -> TrainingSample | None:
    """Return the crop of a tile where it is cut, if anything is held out."""
    crop = cut_crop(whole, cut, bank, whole.tile_data.model.grid.margin, held_out, preferred, options)
    if crop is None:
        return None
    exposures = cut.tile_data.exposures.tolist()
    return TrainingSample(
        **crop,
        validation=torch.zeros_like(crop["images"], dtype=torch.bool),
        num_seen=sum(t not in held_out for t in exposures),
        origin=(cut.tile_data.tile.rows.start, cut.tile_data.tile.columns.start),
    )


def cut_crop(
    whole: CleanTile,
    cut: CleanTile,
    bank: FilterBank | GuidedBank,
    margin: int,
    held_out: set[int],
    preferred: list[int],
    options: TrainingOptions,
) -> dict[str, Any] | None:
    """Return what samples of single and several bands have in common.

    Parameters
    ----------
    whole, cut
        The tile and the crop.
    bank, margin
        Bank of the tile, and its margin in pixels.
    held_out
        Numbers of the exposures that it does not see.
    preferred
        Order in which exposures are chosen among these.
    options
        Settings.

    Returns
    -------
    crop : `dict` or `None`
        Bank, model, and the held-out exposures; `None` without any.
    """
    stack, model = cut.tile_data.stack, cut.tile_data.model
    weights = stack.good / cut.variances
    exposures = cut.tile_data.exposures.tolist()
    gains = model.mean_otfs.abs().amax(dim=(1, 2)).tolist()
    chosen = [
        k
        for k in preferred
        if exposures[k] in held_out and gains[k] < _LARGEST_GAIN and bool(weights[k].any())
    ]
    if not chosen:
        return None
    index = torch.tensor(sorted(chosen[: options.max_held_out]), device=stack.device)
    starts = (
        inner.start - outer.start + margin - model.grid.margin
        for inner, outer in (
            (cut.tile_data.tile.rows, whole.tile_data.tile.rows),
            (cut.tile_data.tile.columns, whole.tile_data.tile.columns),
        )
    )
    # The cut may end beyond the tile's image, at the price of a few repeated
    # rows far from what is scored.
    rows, columns = (
        torch.arange(start, start + length, device=stack.device).clamp(0, full - 1)
        for start, length, full in zip(starts, model.latent_shape, bank.estimates.shape[-2:], strict=True)
    )
    cut_bank = bank.map(lambda maps: maps[..., rows[:, None], columns].clone())
    expected = cut_bank.estimates[0] if isinstance(cut_bank, GuidedBank) else mix_by_prior(cut_bank)
    light = model.predict(expected, index)
    variances = 1.0 / weights[index] + (options.light_error * light) ** 2
    images = stack.images[index]
    return {
        # Without what was computed of it for the light.
        "bank": dataclasses.replace(cut_bank),
        "model": model,
        "held_out": index,
        "images": images,
        "inverse_sigma": variances.rsqrt(),
    }
