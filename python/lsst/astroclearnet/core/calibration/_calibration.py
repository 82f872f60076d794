# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Relative calibration of the exposures of a patch."""

from __future__ import annotations

__all__ = ("ExposureCalibration", "calibrate_exposures")

import dataclasses
import logging
import weakref
from collections.abc import Iterable, Iterator

import torch

from .._options import RestoreOptions
from ..exposures import Tile, model_variances
from ..forward import CleanTile, TileData, TileReader, is_covered
from ..outliers import Outliers, PsfErrors, TileOutliers, likelihood_variances, reject_outliers
from ..stars import StarList, find_stars, stars_in_exposures
from ._background_differences import BackgroundDifferences
from ._background_fit import BackgroundTile, fit_backgrounds
from ._offsets import ExposureOffsets, find_outlier_exposures, measure_offsets
from ._psf_refinement import PsfRefinement
from ._psf_residuals import PsfResiduals, measure_psf_residuals
from ._sky_noise import SkyNoise, log_sky_noise, measure_sky_noise

_LOG = logging.getLogger(__name__)

_MAX_ROUNDS = 3
"""Limit on measurements of variances, which depend on those of other
exposures."""

_TOLERANCE = 0.03
"""Relative change of a variance at which it has converged."""


@dataclasses.dataclass(frozen=True)
class ExposureCalibration:
    """Relative calibration of exposures, and their outliers.

    Attributes
    ----------
    background
        Background differences, to be subtracted.
    offsets
        Offsets of flux scale, position and PSF width, which are not corrected.
    dropped
        Reasons why exposures are dropped, by index.
    suspect
        Reasons why other exposures may be wrong, by index.
    noise
        Variances measured in blank sky.
    psf_errors
        How much exposures differ where light has structure.
    stars
        Bright stars, to be taken out.
    refinement
        Errors of their PSFs.
    options
        Settings.
    """

    background: BackgroundDifferences
    offsets: ExposureOffsets
    dropped: dict[int, str]
    suspect: dict[int, str]
    noise: SkyNoise
    psf_errors: PsfErrors
    stars: StarList
    refinement: PsfRefinement
    options: RestoreOptions
    _rejected: dict[Tile, TileOutliers]
    _latents: dict[Tile, torch.Tensor]
    # Clean tiles, for as long as the tiles that were read are kept.
    _cleaned: weakref.WeakKeyDictionary[TileData, CleanTile] = dataclasses.field(
        init=False, repr=False, default_factory=weakref.WeakKeyDictionary
    )

    @classmethod
    def unknown(cls, num_exposures: int, options: RestoreOptions) -> ExposureCalibration:
        """Return the calibration that changes nothing.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.
        options
            Settings.
        """
        return cls(
            background=BackgroundDifferences.unknown(num_exposures),
            offsets=ExposureOffsets.unknown(num_exposures),
            dropped={},
            suspect={},
            noise=SkyNoise.unknown(num_exposures),
            psf_errors=PsfErrors.unknown(num_exposures),
            stars=StarList.empty(),
            refinement=PsfRefinement.unknown(num_exposures),
            options=options,
            _rejected={},
            _latents={},
        )

    def apply(self, tile_data: TileData) -> TileData:
        """Apply the calibration to a tile.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        corrected : `TileData`
            The tile without outlier exposures and background differences,
            with refined PSFs, and with variances as measured in blank sky.
        """
        stack, model = tile_data.stack, tile_data.model
        out = [k for k, t in enumerate(tile_data.exposures.tolist()) if t in self.dropped]
        if out:
            stack = stack.replace(good=stack.good.clone())
            stack.good[out] = False
        background = self.background.within(tile_data.tile, tile_data.exposures)
        if bool(background.coefficients.any()):
            images = (stack.images - background.evaluate(tile_data.model)) * stack.good
            stack = stack.replace(images=images)
        if self.refinement.is_applied:
            stack = stack.replace(psfs=self.refinement.correct(stack.psfs, tile_data.exposures))
            model = model.with_psfs(stack.psfs)
        return self.noise.rescale(dataclasses.replace(tile_data, stack=stack, model=model))

    def has_data(self, tile_data: TileData) -> bool:
        """Return whether a tile has data without the outlier exposures.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        leaves : `bool`
            Whether the other exposures cover any of its pixels.
        """
        kept = [t not in self.dropped for t in tile_data.exposures.tolist()]
        if all(kept):
            return True
        good = tile_data.stack.good & torch.tensor(kept, device=tile_data.stack.device)[:, None, None]
        return is_covered(tile_data.model, good)

    def stars_near(self, tile_data: TileData) -> StarList:
        """Return the stars with light in a tile.

        Parameters
        ----------
        tile_data
            The tile.
        """
        return self.stars.near(tile_data.tile, tile_data.stack.psfs.shape[-1] // 2 + 1)

    def star_light(self, tile_data: TileData) -> torch.Tensor:
        """Return the light of stars in exposures of a tile, (m, h, w).

        Parameters
        ----------
        tile_data
            The tile.
        """
        origin = tile_data.tile.rows.start, tile_data.tile.columns.start
        return stars_in_exposures(self.stars_near(tile_data), tile_data.stack, tile_data.model, origin)

    def clean(self, tile_data: TileData) -> CleanTile:
        """Calibrate a tile, reject outliers and take bright stars out.

        Outliers are rejected, and variances expected, with the light of the
        stars.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        clean : `CleanTile`
            The clean tile.
        """
        if tile_data in self._cleaned:
            return self._cleaned[tile_data]
        applied = self.apply(tile_data)
        rejected = self._find_rejected(applied)
        stack = applied.stack.replace(good=applied.stack.good & ~rejected)
        variances = likelihood_variances(stack, applied.model, self._latents.get(applied.tile))
        clean = CleanTile(dataclasses.replace(applied, stack=stack), variances, rejected)
        self._cleaned[tile_data] = clean = self._without_stars(clean)
        return clean

    def find_stars(self, reader: TileReader) -> ExposureCalibration:
        """Find the bright stars of the patch.

        Parameters
        ----------
        reader
            The tiles.

        Returns
        -------
        calibration : `ExposureCalibration`
            The calibration that takes them out.
        """
        options = self.options.stars
        if not options.enabled:
            return self
        found = [
            find_stars(self.clean(tile_data), options, reader.source.shape)
            for tile_data in filter(self.has_data, reader)
        ]
        calibration = dataclasses.replace(self, stars=StarList.merge(found))
        for tile_data, clean in self._cleaned.items():
            calibration._cleaned[tile_data] = calibration._without_stars(clean)
        return calibration

    def _without_stars(self, clean: CleanTile) -> CleanTile:
        """Take the stars out of a clean tile."""
        if not len(self.stars_near(clean.tile_data)):
            return clean
        stack = clean.tile_data.stack
        images = torch.where(stack.good, stack.images - self.star_light(clean.tile_data), 0.0)
        tile_data = dataclasses.replace(clean.tile_data, stack=stack.replace(images=images))
        return dataclasses.replace(clean, tile_data=tile_data)

    def reject(self, tiles: Iterable[TileData]) -> ExposureCalibration:
        """Find outliers in all tiles, how much exposures differ, and the
        errors of their PSFs.

        Parameters
        ----------
        tiles
            The tiles.

        Returns
        -------
        calibration : `ExposureCalibration`
            The calibration with the outliers.
        """
        found, fits, residuals = {}, [], []
        for tile_data in filter(self.has_data, tiles):
            corrected = self.apply(tile_data)
            outliers = self._reject(corrected)
            found[tile_data.tile] = TileOutliers.from_tile(tile_data, outliers.rejected)
            fits.append((tile_data.exposures, outliers.psf_errors))
            residuals += self._measure_psfs(corrected, outliers)
        number, options = len(self.psf_errors.amplitudes), self.options.calibration
        if options.psf_refinement in ("apply", "stars") and not residuals:
            _LOG.warning("PSFs are not refined, which takes three exposures and the rejection of outliers.")
        refinement = PsfRefinement.solve(residuals, number, options.psf_error, options.psf_refinement)
        psf_errors = PsfErrors.solve(fits, number, refinement.corrected_errors())
        return dataclasses.replace(self, psf_errors=psf_errors, refinement=refinement, _rejected=found)

    def _measure_psfs(self, corrected: TileData, outliers: Outliers) -> list[PsfResiduals]:
        """Return what a calibrated tile tells about PSFs, if anything."""
        predictor, residuals = outliers.predictor, outliers.residuals
        if self.options.calibration.psf_refinement == "off" or predictor is None or residuals is None:
            return []
        max_residual = self.options.debiasing.max_psf_residual
        return [measure_psf_residuals(corrected, predictor, residuals, max_residual)]

    def _reject(self, corrected: TileData) -> Outliers:
        return reject_outliers(corrected.stack, corrected.model, self.options.rejection)

    def _changes_weights(self) -> bool:
        """Return whether any pixel is rejected or has another variance."""
        rejects = any(tile.packed.any() for tile in self._rejected.values())
        return rejects or bool((self.noise.factor != 1.0).any())

    def _find_rejected(self, tile_data: TileData) -> torch.Tensor:
        """Return outliers among the pixels of a corrected tile."""
        known = next((one for one in self._rejected.values() if one.covers(tile_data.tile)), None)
        if known is None:
            return self._reject(tile_data).rejected
        return known.within(tile_data) & tile_data.stack.good


def calibrate_exposures(reader: TileReader, options: RestoreOptions) -> ExposureCalibration:
    """Calibrate the exposures of a patch relative to each other.

    Parameters
    ----------
    reader
        Tiles covering the patch; they are iterated over several times.
    options
        Settings.

    Returns
    -------
    calibration : `ExposureCalibration`
        The calibration.
    """
    number = reader.source.num_exposures
    first = _measure(reader, ExposureCalibration.unknown(number, options))
    offsets = measure_offsets(map(first.clean, reader), number, first._latents)
    found = find_outlier_exposures(offsets, options.calibration)
    known = dataclasses.replace(
        ExposureCalibration.unknown(number, options),
        offsets=dataclasses.replace(offsets, sources=None),
        dropped=found.dropped,
        suspect=found.suspect,
    )
    if found.dropped:
        # The outlier exposures had a share in all measurements.
        return _measure(reader, known).find_stars(reader)
    known = dataclasses.replace(
        known,
        background=first.background,
        noise=first.noise,
        psf_errors=first.psf_errors,
        refinement=first.refinement,
        _rejected=first._rejected,
        _latents=first._latents,
    )
    known._cleaned.update(first._cleaned)
    return known.find_stars(reader)


def _measure(reader: TileReader, calibration: ExposureCalibration) -> ExposureCalibration:
    """Measure background differences, variances and outliers."""
    first = _measure_backgrounds(reader, calibration)
    calibration = _check_variances(reader, first).reject(reader)
    if not calibration._changes_weights():
        return calibration
    # Unflagged artefacts had a share in the first backgrounds.
    second = _measure_backgrounds(reader, calibration)
    coefficients = first.background.coefficients + second.background.coefficients
    return dataclasses.replace(
        second, background=dataclasses.replace(second.background, coefficients=coefficients)
    )


def _check_variances(reader: TileReader, calibration: ExposureCalibration) -> ExposureCalibration:
    """Rescale variances until they fit the noise of blank sky."""
    latents: dict[Tile, torch.Tensor] | None = calibration._latents
    for _ in range(_MAX_ROUNDS):
        before = calibration.noise
        tiles = map(calibration.apply, filter(calibration.has_data, reader))
        noise = measure_sky_noise(tiles, reader.source.shape, before, latents)
        calibration = dataclasses.replace(calibration, noise=noise)
        if torch.allclose(noise.factor, before.factor.expand_as(noise.factor), rtol=_TOLERANCE):
            break
        # Those are estimates for the given variances.
        latents = None
    log_sky_noise(calibration.noise)
    return calibration


def _measure_backgrounds(reader: TileReader, calibration: ExposureCalibration) -> ExposureCalibration:
    """Measure the remaining background differences, and estimate the sky."""
    number, options = reader.source.num_exposures, calibration.options.calibration
    if options.background == "none":
        return calibration
    order = {"constant": 0, "plane": 1}[options.background]
    tiles = _BackgroundTiles(reader, calibration)
    background = fit_backgrounds(tiles, reader.source.shape, number, order=order)
    return dataclasses.replace(calibration, background=background, _latents=tiles.latents)


class _BackgroundTiles:
    """Tiles for the fit of backgrounds; a single one is kept in memory."""

    def __init__(self, reader: TileReader, calibration: ExposureCalibration) -> None:
        self._reader = reader
        self._calibration = calibration
        self._only: list[BackgroundTile] = []
        self.latents = dict(calibration._latents)

    def __iter__(self) -> Iterator[BackgroundTile]:
        for made in self._only or map(self._make, filter(self._calibration.has_data, self._reader)):
            if len(self._reader.tiles) == 1:
                self._only = [made]
            yield made
            if made.latent is not None:
                self.latents[made.tile] = made.latent

    def _make(self, tile_data: TileData) -> BackgroundTile:
        corrected = self._calibration.apply(tile_data)
        stack, tile = corrected.stack, tile_data.tile
        if tile in self._calibration._rejected:
            stack = stack.replace(good=stack.good & ~self._calibration._find_rejected(corrected))
        weights = stack.good / model_variances(stack)
        latent = self.latents.get(tile)
        return BackgroundTile(tile, tile_data.exposures, stack.images, corrected.model, weights, latent)
