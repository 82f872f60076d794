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
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .._errors import NoUsableDataError, RestorationError
from .._options import RestoreOptions, TrainingOptions
from ..calibration import ExposureCalibration, calibrate_exposures
from ..estimate import BandImage, Estimator, Network
from ..exposures import ExposureSource, Tile
from ..forward import CleanTile, ForwardModel, TileReader
from ..joint import Guide, GuidedBank, JointNetwork, make_guide
from ..tiles import BrightStars, make_generator
from ._crops import crop_boxes, cut_crop
from ._patches import draw_tiles
from ._trainer import Trainer

_LOG = logging.getLogger(__name__)

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
    bands
        Names of the bands that may have guided it, and of the band itself.
    """

    bank: GuidedBank
    model: ForwardModel
    held_out: torch.Tensor
    images: torch.Tensor
    inverse_sigma: torch.Tensor
    bands: tuple[str, ...]


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
    own.  A band that cannot be calibrated is left out, and so is a band in a
    tile that it cannot restore.

    Parameters
    ----------
    sources
        The exposures of each band, in a reproducible order.
    networks
        The network that restores each band on its own, on the device; all with
        the same penalty weights.
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

    Raises
    ------
    RestorationError
        If fewer than two bands can be calibrated.
    """
    generator = make_generator(seed)
    shape = next(iter(sources.values())).shape
    tiles = tuple(draw_tiles(shape, options, generator))
    bands = _calibrate(sources, tiles, networks, target_fwhm, restoration, device)
    samples = []
    for tile in tiles:
        observed = [(band, band.observe(tile)) for band in bands]
        present = [(band, *found) for band, found in observed if found is not None]
        if len(present) < 2:
            continue
        names = tuple(band.name for band, *_ in present)
        for band, clean, image in present:
            others = [other for *_, other in present if other is not image]
            for crop in _cut_samples(band, clean, others, options, generator):
                samples.append(JointSample(**crop, bands=names))
    return samples


@dataclasses.dataclass(frozen=True)
class _Band:
    """A calibrated band of a patch."""

    name: str
    reader: TileReader
    calibration: ExposureCalibration
    network: Network

    def read(self, tile: Tile) -> CleanTile | None:
        """Read and clean a tile; `None` if that cannot be done."""
        try:
            tile_data = self.reader.read(tile)
            if tile_data is None or not self.calibration.has_data(tile_data):
                return None
            return self.calibration.clean(tile_data)
        except RestorationError as exc:
            self._leave_out(tile, exc)
            return None

    def observe(self, tile: Tile) -> tuple[CleanTile, BandImage] | None:
        """Restore a tile on its own; `None` if that cannot be done."""
        clean = self.read(tile)
        if clean is None:
            return None
        every = torch.arange(len(clean.tile_data.exposures), device=self.reader.device)
        image = self.restore(clean, every)
        return None if image is None else (clean, image)

    def restore(self, clean: CleanTile, exposures: torch.Tensor) -> BandImage | None:
        """Restore some exposures of a tile; `None` if that cannot be done."""
        stack = clean.tile_data.stack.select(exposures)
        weights = stack.good / clean.variances[exposures]
        model = ForwardModel.from_stack(stack, clean.tile_data.model.target_fwhm)
        tile = clean.tile_data.tile
        # The margin of the model depends on the exposures.
        stars = BrightStars.draw(
            self.calibration, dataclasses.replace(clean.tile_data, stack=stack, model=model)
        )
        origin = tile.rows.start, tile.columns.start
        options = self.calibration.options
        try:
            estimator = Estimator(self.network, model, weights, options, origin, stars.image)
            return estimator.restore(stack.images)
        except RestorationError as exc:
            self._leave_out(tile, exc)
            return None

    def _leave_out(self, tile: Tile, error: RestorationError) -> None:
        """Log why a tile gives no samples, unless it only has no data."""
        if isinstance(error, NoUsableDataError):
            return
        rows, columns = tile.inner_rows, tile.inner_columns
        _LOG.warning(
            "The tile of band %s of rows %d to %d and columns %d to %d gives no samples: %s",
            self.name,
            rows.start,
            rows.stop,
            columns.start,
            columns.stop,
            error,
        )


def _calibrate(
    sources: Mapping[str, ExposureSource],
    tiles: Sequence[Tile],
    networks: Mapping[str, Network],
    target_fwhm: float,
    options: RestoreOptions,
    device: torch.device,
) -> list[_Band]:
    """Calibrate the bands, and leave out those that cannot be."""
    bands: list[_Band] = []
    errors: dict[str, str] = {}
    for name, source in sources.items():
        reader = TileReader(source, tiles, target_fwhm, device)
        try:
            bands.append(_Band(name, reader, calibrate_exposures(reader, options), networks[name]))
        except RestorationError as exc:
            _LOG.warning("Band %s is left out: %s", name, exc)
            errors[name] = str(exc)
    if errors and len(bands) < 2:
        words = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise RestorationError(f"Fewer than two bands can be calibrated. {words}")
    return bands


def _cut_samples(
    band: _Band,
    clean: CleanTile,
    others: list[BandImage],
    options: TrainingOptions,
    generator: torch.Generator,
) -> Iterator[dict[str, Any]]:
    """Yield what samples of a band of a tile have, by field."""
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
        own = band.restore(clean, seen)
        if own is None:
            continue
        bank = GuidedBank.build(own, draw_guide(own, others, generator))
        held_out = set(tile_data.exposures[order[number:]].tolist())
        for box in crop_boxes(tile_data.tile, tile_data.model.grid.margin, options.crop_size, generator):
            cut = band.read(box)
            if cut is None:
                continue
            preferred = torch.randperm(len(cut.tile_data.exposures), generator=generator).tolist()
            margin = own.estimator.model.grid.margin
            crop = cut_crop(clean, cut, bank, margin, held_out, preferred, options)
            if crop is not None:
                yield crop


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
