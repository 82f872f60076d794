# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the joint network on exposures that it does not see."""

from __future__ import annotations

__all__ = ("JointSample", "JointTrainer", "collect_joint_samples", "draw_guide")

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .._errors import NoUsableDataError
from .._options import RestoreOptions, TrainingOptions
from ..calibration import ExposureCalibration, calibrate_exposures
from ..estimate import BandImage, Estimator, Network
from ..exposures import ExposureSource, Tile
from ..forward import CleanTile, ForwardModel, TileReader
from ..joint import Guide, GuidedBank, JointNetwork, make_guide
from ..tiles import make_generator
from ._crops import crop_boxes, cut_crop
from ._patches import draw_tiles
from ._trainer import Trainer

_ALL = 0.5
"""Share of the samples that all other bands guide, beside those that by chance
are chosen."""

_SPURIOUS = 0.4
"""Share of the samples in which another band has light of its own, as from
artefacts and transients."""

_SPURIOUS_LIGHT = (0.5, 50.0)
"""Least and most such light, in units of a star of signal-to-noise ratio 1."""

_MOST_POINTS = 12
"""Largest number of spurious points in a tile, besides a line."""


@dataclasses.dataclass(frozen=True)
class JointSample:
    """What the joint network sees of a band, and what it has to predict.

    Attributes
    ----------
    bank
        Estimates from the exposures that it sees, guided by other bands.
    model
        Forward model of all exposures of the sample.
    held_out
        Shape (k,), indices of the exposures that it does not see.
    images
        Shape (k, h, w), the held-out exposures.
    inverse_sigma
        Shape (k, h, w), 1 / sigma, 0 where a pixel is not used.
    num_bands
        Number of bands that may have guided it, with the band itself.
    """

    bank: GuidedBank
    model: ForwardModel
    held_out: torch.Tensor
    images: torch.Tensor
    inverse_sigma: torch.Tensor
    num_bands: int


class JointTrainer(Trainer):
    """Training of a joint network, as of `Trainer`, on `JointSample`."""

    _even_light_share = 0.0

    @staticmethod
    def _make_network(penalty_weights: tuple[float, ...]) -> Any:
        return JointNetwork(len(penalty_weights))


@torch.no_grad()
def collect_joint_samples(
    sources: Mapping[str, ExposureSource],
    *,
    networks: Mapping[str, Network],
    target_fwhm: float,
    options: TrainingOptions,
    restoration: RestoreOptions,
    seed: int,
    device: torch.device,
) -> list[JointSample]:
    """Return training samples of some tiles of a patch in several bands.

    Exposures of one band are held out, and the others, with a random choice of
    the other bands, restore it.  In some samples another band has light of its
    own.

    Parameters
    ----------
    sources
        The exposures of each band, in a reproducible order.
    networks
        The network that restores each band on its own, on the device; all with
        as many penalty weights.
    target_fwhm
        FWHM in pixels of the target PSF.
    options
        Settings of the training.
    restoration
        Settings of the restoration.
    seed
        Seed of everything random.
    device
        Where to compute.

    Returns
    -------
    samples : `list` [`JointSample`]
        The samples, on the device.
    """
    generator = make_generator(seed)
    shape = next(iter(sources.values())).shape
    tiles = tuple(draw_tiles(shape, options, generator))
    readers = [TileReader(source, tiles, target_fwhm, device) for source in sources.values()]
    calibrations = [calibrate_exposures(reader, restoration) for reader in readers]
    samples = []
    for tile in tiles:
        bands = [
            _Band.observe(reader, calibration, tile, networks[name])
            for name, reader, calibration in zip(sources, readers, calibrations, strict=True)
        ]
        present = [band for band in bands if band is not None]
        for band in present:
            others = [other.image for other in present if other is not band]
            if others:
                samples += list(_make_samples(band, others, options, generator))
    return samples


@dataclasses.dataclass(frozen=True)
class _Band:
    """A band of a tile."""

    reader: TileReader
    calibration: ExposureCalibration
    clean: CleanTile
    network: Network
    image: BandImage

    @classmethod
    def observe(
        cls, reader: TileReader, calibration: ExposureCalibration, tile: Tile, network: Network
    ) -> _Band | None:
        """Restore a tile on its own; `None` without data."""
        tile_data = reader.read(tile)
        if tile_data is None or not calibration.has_data(tile_data):
            return None
        clean = calibration.clean(tile_data)
        every = torch.arange(len(clean.tile_data.exposures), device=reader.device)
        try:
            image = _restore(clean, every, network, calibration.options)
        except NoUsableDataError:
            return None
        return cls(reader, calibration, clean, network, image)


def _restore(
    clean: CleanTile, exposures: torch.Tensor, network: Network, options: RestoreOptions
) -> BandImage:
    """Restore some exposures of a tile."""
    stack = clean.tile_data.stack.select(exposures)
    weights = stack.good / clean.variances[exposures]
    model = ForwardModel.from_stack(stack, clean.tile_data.model.target_fwhm)
    tile = clean.tile_data.tile
    estimator = Estimator(network, model, weights, options, (tile.rows.start, tile.columns.start))
    return estimator.restore(stack.images)


def _make_samples(
    band: _Band,
    others: list[BandImage],
    options: TrainingOptions,
    generator: torch.Generator,
) -> Iterator[JointSample]:
    """Yield the samples of a band of a tile."""
    clean = band.clean
    stack, tile_data = clean.tile_data.stack, clean.tile_data
    present = stack.good.any(dim=(1, 2)).nonzero()[:, 0].cpu()
    low, high = options.seen_fraction
    for _ in range(options.num_splits):
        share = low + (high - low) * float(torch.rand((), generator=generator))
        number = min(max(round(share * len(present)), 1), len(present) - 1)
        if number < 1:
            return
        order = present[torch.randperm(len(present), generator=generator)]
        seen = order[:number].sort().values.to(stack.device)
        try:
            own = _restore(clean, seen, band.network, band.calibration.options)
        except NoUsableDataError:
            continue
        bank = GuidedBank.build(own, draw_guide(own, others, generator))
        held_out = set(tile_data.exposures[order[number:]].tolist())
        for box in crop_boxes(tile_data.tile, tile_data.model.grid.margin, options.crop_size, generator):
            cut_data = band.reader.read(box)
            if cut_data is None or not band.calibration.has_data(cut_data):
                continue
            cut = band.calibration.clean(cut_data)
            preferred = torch.randperm(len(cut_data.exposures), generator=generator).tolist()
            margin = own.estimator.model.grid.margin
            crop = cut_crop(clean, cut, bank, margin, held_out, preferred, options)
            if crop is not None:
                yield JointSample(**crop, num_bands=1 + len(others))


def draw_guide(band: BandImage, others: Sequence[BandImage], generator: torch.Generator) -> Guide:
    """Return what some of the other bands say, one of which in some cases has
    light of its own.

    Parameters
    ----------
    band
        The band.
    others
        Other bands.
    generator
        Source of random numbers, on the CPU.
    """
    number = int(torch.randint(1, len(others) + 1, (), generator=generator))
    all_draw, spurious_draw = torch.rand(2, generator=generator).tolist()
    if all_draw < _ALL:
        number = len(others)
    chosen = [others[k] for k in torch.randperm(len(others), generator=generator)[:number].tolist()]
    if spurious_draw < _SPURIOUS:
        k = int(torch.randint(number, (), generator=generator))
        chosen[k] = _add_light(chosen[k], _spurious_light(chosen[k], generator))
    return make_guide(band, chosen)


def _add_light(band: BandImage, light: torch.Tensor) -> BandImage:
    """Return a band with more light, latent_shape, in units of its noise."""
    light = light.to(band.restored) * band.estimator.debiaser.star_noise
    return dataclasses.replace(
        band,
        estimates=band.estimates + light,
        mixed=band.mixed + light,
        restored=band.restored + light,
    )


def _spurious_light(band: BandImage, generator: torch.Generator) -> torch.Tensor:
    """Draw points and a line at the target PSF, latent_shape."""
    model = band.estimator.model
    height, width = model.latent_shape
    low, high = _SPURIOUS_LIGHT
    points = torch.zeros(height, width)
    for _ in range(int(torch.randint(_MOST_POINTS + 1, (), generator=generator))):
        y, x, level = torch.rand(3, generator=generator).tolist()
        points[int(y * height), int(x * width)] += low * (high / low) ** level
    y, x, angle, level, has_line = torch.rand(5, generator=generator).tolist()
    if has_line < 0.5:
        along = torch.arange(-float(height + width), float(height + width), 0.5)
        rows = (y * height + along * math.sin(math.pi * angle)).round().long()
        columns = (x * width + along * math.cos(math.pi * angle)).round().long()
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        # Pixels of a line that overlap at the target PSF are about as wide.
        points[rows[inside], columns[inside]] = low * (high / low) ** level / model.target_fwhm
    gain = model.target_transform / model.fold_transform(model.target_transform)
    return model.filter_images(points.to(gain.device)[None], gain)[0]
