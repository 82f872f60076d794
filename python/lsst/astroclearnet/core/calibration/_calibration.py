# This file is tile_data of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Exposures that agree with each other: what does not is left out."""

from __future__ import annotations

__all__ = ("ExposureCalibration", "calibrate_exposures")

import dataclasses
from collections.abc import Iterable, Iterator

import torch

from .._options import BACKGROUND_MODELS, RestoreOptions
from ..exposures import Tile, model_variances
from ..forward import CleanTile, ForwardModel, TileData, TileReader, is_covered
from ..outliers import TileOutliers, likelihood_variances, reject_outliers
from ._alignment import align_exposures
from ._background import BackgroundDifferences, BackgroundTile, fit_backgrounds
from ._blank_sky import SkyNoise, log_sky_noise, measure_sky_noise
from ._offsets import ExposureOffsets, find_outlier_exposures, measure_offsets

_NUM_ROUNDS = 3
"""How often variances are measured at most: those of the others have a share
in what is left of an exposure."""


_ROUNDING = 0.03
"""Relative change of a variance that changes nothing."""


@dataclasses.dataclass(frozen=True)
class ExposureCalibration:
    """What makes the exposures of a patch agree.

    Attributes
    ----------
    background
        Differences of background to be removed.
    offsets
        By how much exposures departed from the others.
    outlier_exposures
        Why exposures are left out, by their index.
    suspects
        Why exposures that are not left out may be wrong, by their index.
    noise
        What blank sky tells of the variances.
    options
        Settings.
    """

    background: BackgroundDifferences
    offsets: ExposureOffsets
    outlier_exposures: dict[int, str]
    suspects: dict[int, str]
    noise: SkyNoise
    options: RestoreOptions
    _rejected: dict[Tile, TileOutliers]

    @classmethod
    def nothing(cls, num_exposures: int, options: RestoreOptions) -> ExposureCalibration:
        """Return what is known before exposures are compared.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.
        options
            Settings.

        Returns
        -------
        calibration : `ExposureCalibration`
            One that changes nothing.
        """
        return cls(
            background=BackgroundDifferences.none(num_exposures),
            offsets=ExposureOffsets.nothing(num_exposures),
            outlier_exposures={},
            suspects={},
            noise=SkyNoise.nothing(num_exposures),
            options=options,
            _rejected={},
        )

    def correct(self, tile_data: TileData) -> TileData:
        """Remove what is wrong with whole exposures.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        corrected : `TileData`
            Without the exposures that contradict others and the differences
            of background, with variances as blank sky has them, and with flux
            scales and positions corrected if that was asked for.
        """
        stack, model = tile_data.stack, tile_data.model
        out = [k for k, t in enumerate(tile_data.exposures.tolist()) if t in self.outlier_exposures]
        if out:
            stack = stack.replace(good=stack.good.clone())
            stack.good[out] = False
        offsets = self.offsets.values[:3, tile_data.exposures].to(stack.device)
        offsets[:, out] = 0.0
        if self.options.calibration.correct and bool(offsets.any()):
            stack = align_exposures(stack, offsets)
            model = ForwardModel.from_stack(stack, model.target_fwhm)
        background = self.background.within(tile_data.tile, tile_data.exposures)
        if bool(background.coefficients.any()):
            images = (stack.images - background.evaluate(model)) * stack.good
            stack = stack.replace(images=images)
        return self.noise.rescale(dataclasses.replace(tile_data, stack=stack, model=model))

    def leaves_data(self, tile_data: TileData) -> bool:
        """Tell whether a tile has data without the exposures left out.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        leaves : `bool`
            Whether the others cover any of its pixels.
        """
        kept = [t not in self.outlier_exposures for t in tile_data.exposures.tolist()]
        if all(kept):
            return True
        good = tile_data.stack.good & torch.tensor(kept, device=tile_data.stack.device)[:, None, None]
        return is_covered(tile_data.model, good)

    def clean(self, tile_data: TileData) -> CleanTile:
        """Remove from a tile what exposures do not agree in.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        clean : `CleanTile`
            What is left.
        """
        tile_data = self.correct(tile_data)
        rejected = self._find_rejected(tile_data)
        cleaned = tile_data.stack.replace(good=tile_data.stack.good & ~rejected)
        variances = likelihood_variances(cleaned, tile_data.model)
        return CleanTile(dataclasses.replace(tile_data, stack=cleaned), variances, rejected)

    def reject(self, tiles: Iterable[TileData]) -> ExposureCalibration:
        """Find outliers in all tiles.

        Parameters
        ----------
        parts
            The tiles.

        Returns
        -------
        calibration : `ExposureCalibration`
            The same, with the pixels that others contradict.
        """
        found = {}
        for tile_data in filter(self.leaves_data, tiles):
            corrected = self.correct(tile_data)
            outliers = reject_outliers(corrected.stack, corrected.model, self.options.rejection)
            found[tile_data.tile] = TileOutliers.from_tile(tile_data, outliers)
        return dataclasses.replace(self, _rejected=found)

    def _find_rejected(self, tile_data: TileData) -> torch.Tensor:
        """Return the pixels of a corrected tile that others contradict."""
        exact = self._rejected.get(tile_data.tile)
        known = [exact] if exact else [one for one in self._rejected.values() if one.covers(tile_data.tile)]
        if not known:
            return reject_outliers(tile_data.stack, tile_data.model, self.options.rejection)
        return known[0].within(tile_data) & tile_data.stack.good


def calibrate_exposures(reader: TileReader, options: RestoreOptions) -> ExposureCalibration:
    """Find out what exposures contradict each other in.

    Parameters
    ----------
    reader
        Tiles that cover the patch; they are gone through several times.
    options
        Settings.

    Returns
    -------
    calibration : `ExposureCalibration`
        What makes them agree.
    """
    number = reader.source.num_exposures
    clean = _clean(reader, ExposureCalibration.nothing(number, options))
    offsets = measure_offsets(map(clean.clean, reader), number)
    found = find_outlier_exposures(offsets, options.calibration)
    known = dataclasses.replace(
        ExposureCalibration.nothing(number, options),
        offsets=dataclasses.replace(offsets, sources=None),
        outlier_exposures=found.wrong,
        suspects=found.suspect,
    )
    if found.wrong or options.calibration.correct:
        # Everything was judged by exposures that were wrong.
        return _clean(reader, known)
    return dataclasses.replace(
        known, background=clean.background, noise=clean.noise, _rejected=clean._rejected
    )


def _clean(reader: TileReader, calibration: ExposureCalibration) -> ExposureCalibration:
    """Remove differences of background, check variances, and find outliers."""
    first = _flatten(reader, calibration)
    calibration = _check_variances(reader, dataclasses.replace(calibration, background=first)).reject(reader)
    # Artefacts that were not flagged had a share in the first backgrounds.
    second = _flatten(reader, calibration)
    total = dataclasses.replace(second, coefficients=first.coefficients + second.coefficients)
    return dataclasses.replace(calibration, background=total)


def _check_variances(reader: TileReader, calibration: ExposureCalibration) -> ExposureCalibration:
    """Rescale variances until blank sky agrees with them."""
    for _ in range(_NUM_ROUNDS):
        before = calibration.noise
        tiles = map(calibration.correct, filter(calibration.leaves_data, reader))
        noise = measure_sky_noise(tiles, reader.source.shape, before)
        calibration = dataclasses.replace(calibration, noise=noise)
        if torch.allclose(noise.factor, before.factor.expand_as(noise.factor), rtol=_ROUNDING):
            break
    log_sky_noise(calibration.noise)
    return calibration


def _flatten(reader: TileReader, calibration: ExposureCalibration) -> BackgroundDifferences:
    """Return the differences of background that are left."""
    number, options = reader.source.num_exposures, calibration.options.calibration
    if options.background == "none":
        return BackgroundDifferences.none(number)
    order = BACKGROUND_MODELS.index(options.background) - 1
    tiles = _BackgroundTiles(reader, calibration)
    return fit_backgrounds(tiles, reader.source.shape, number, order=order)


class _BackgroundTiles:
    """Tiles for the fit of backgrounds; a single one is kept.

    Parameters
    ----------
    reader
        Reads the tiles.
    calibration
        What is known already.
    """

    def __init__(self, reader: TileReader, calibration: ExposureCalibration) -> None:
        self._reader = reader
        self._calibration = calibration
        self._kept: list[BackgroundTile] = []

    def __iter__(self) -> Iterator[BackgroundTile]:
        if self._kept:
            yield from self._kept
            return
        for tile_data in filter(self._calibration.leaves_data, self._reader):
            made = self._make(tile_data)
            if len(self._reader.tiles) == 1:
                self._kept = [made]
            yield made

    def _make(self, tile_data: TileData) -> BackgroundTile:
        corrected = self._calibration.correct(tile_data)
        stack = corrected.stack
        if tile_data.tile in self._calibration._rejected:
            stack = stack.replace(good=stack.good & ~self._calibration._find_rejected(corrected))
        weights = stack.good / model_variances(stack)
        return BackgroundTile(tile_data.tile, tile_data.exposures, stack.images, corrected.model, weights)
