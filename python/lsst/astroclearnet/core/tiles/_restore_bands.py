# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Joint restoration of the bands of a patch, tile by tile."""

from __future__ import annotations

__all__ = ("BandsResult", "restore_bands")

import dataclasses
import logging
from collections.abc import Mapping

import torch

from .._errors import InputError, RestorationError
from .._options import RestoreOptions
from ..estimate import ProgressCallback, RestorationModel, collect_solves
from ..exposures import ExposureSource, Tile, TileGrid
from ..joint import JointModel, WhiteEstimator
from ..noise import CellLayout, RepeatedErrors, repeat_bands
from ._attempts import attempt, restore_in_pieces
from ._band_restoration import BandRestoration
from ._choose_joint_model import check_joint_model, choose_joint_model
from ._detection import DetectionImage, DetectionMosaic
from ._device import limit_device_memory, release_memory, select_device
from ._memory_plan import MemoryPlan, plan_bands_memory
from ._mosaic import ExposureMaps
from ._restore_exposures import TileCallback
from ._result import FailedTile, RestorationResult
from ._tile_result import FinishedTile, ObservedTile
from ._white_tile import RepeatedWhite, WhiteTile

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BandsResult:
    """The bands of a patch, restored together.

    Attributes
    ----------
    results
        The restoration of each band.
    failed
        The error of each band that was not restored.
    detection
        Mean of all bands, restored as one image, for detecting.
    joint_network
        Identity of the joint network; empty for a single band, which is
        restored on its own.
    joint_doubt
        Why the joint network may not suit the bands; empty if nothing speaks
        against it.
    """

    results: dict[str, RestorationResult]
    failed: dict[str, RestorationError]
    detection: DetectionImage
    joint_network: str
    joint_doubt: str


def restore_bands(  # noqa: PLR0913
    sources: Mapping[str, ExposureSource],
    *,
    target_fwhm: float,
    options: RestoreOptions,
    seeds: Mapping[str, int],
    models: Mapping[str, RestorationModel] | None = None,
    joint_model: JointModel | None = None,
    device: str | torch.device = "auto",
    layout: CellLayout | None = None,
    plan: MemoryPlan | None = None,
    maps: Mapping[str, ExposureMaps] | None = None,
    callback: ProgressCallback | None = None,
    tile_callback: TileCallback | None = None,
) -> BandsResult:
    """Restore the bands of a patch, each with the help of the others.

    Each band is calibrated and restored as by `restore_exposures`.  Then the
    joint network mixes its images with those of the other bands, in the colour
    of the band, where light is faint and the bands do not disagree.  A single
    band is restored as by `restore_exposures`, and so are pixels that no
    other band covers.  Linear images stay strictly per band.

    Parameters
    ----------
    sources
        The exposures of each band, in a reproducible order.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of all results.
    options
        Settings.
    seeds
        Seed of everything random in each band, as for a single one.
    models
        Trained network of each band, if that is what ``options.model`` asks
        for.
    joint_model
        Trained joint network; by default that of the package.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    layout
        Cells of the patch, which are not divided between tiles; by default
        tiles are free, and noise correlations are in cells of 50 pixels.
    plan
        Tiles; by default those of `plan_bands_memory`.
    maps
        What receives weights and outliers of each exposure, by band.
    callback
        Called after each epoch of a fit with its number, loss and validation
        loss.
    tile_callback
        Called with the numbers of finished and of all tiles, first with 0
        when the networks are known.

    Returns
    -------
    result : `BandsResult`
        The restored bands, on the CPU.

    Raises
    ------
    InputError
        If there is no band, bands differ in shape, a seed or a model is
        missing, the joint network takes another number of penalty weights, or
        it does not suit the bands and the options say that this is an error.
    NoUsableDataError
        If no pixel of any band is usable.
    RestorationError
        If no band can be restored.
    """
    _check_input(sources, seeds, options, models)
    joint_model = choose_joint_model(sources, joint_model, options, models)
    torch_device = select_device(device)
    if torch_device.type == "cuda":
        limit_device_memory(torch_device, options.tiling.max_device_memory)
    # In any order of the bands sums are the same, to the last bit.
    sources = {name: sources[name] for name in sorted(sources)}
    if plan is None:
        plan = plan_bands_memory(sources, options, device=torch_device.type, layout=layout)
    layout = layout or plan.cells or CellLayout.of_shape(plan.grid.shape)
    bands, errors = _prepare_bands(
        sources, plan, target_fwhm, options, seeds, models, torch_device, layout, maps, callback
    )
    # Smaller ones, where memory ran out.
    tiles = next(reversed(bands.values())).reader.tiles if bands else ()
    if len(bands) < 2:
        joint_model = None
    networks = {name: band.chosen for name, band in bands.items()}
    doubt = "" if joint_model is None else check_joint_model(joint_model, networks, options)
    grid = TileGrid(plan.grid.shape, tiles)
    for band in bands.values():
        band.start(grid)
    detection = DetectionMosaic(grid, options.noise.num_realizations)
    restorer = _JointRestorer(bands, None if joint_model is None else joint_model.to(torch_device), detection)
    if tile_callback is not None:
        tile_callback(0, len(tiles))
    for number, tile in enumerate(tiles, 1):
        for piece, (found, white) in restore_in_pieces(tile, restorer.restore, plan, restorer.release):
            finished = {name: each for name, each in found.items() if isinstance(each, FinishedTile)}
            for name, band in bands.items():
                each = found[name]
                band.add(piece, each.result if isinstance(each, FinishedTile) else each)
            if finished:
                attempt(piece, lambda: detection.add(piece, finished, white))  # noqa: B023
        if tile_callback is not None:
            tile_callback(number, len(tiles))
    results, failed = _finish_bands(bands, errors)
    return BandsResult(
        results=results,
        failed=failed,
        detection=detection.finish(results),
        joint_network="" if joint_model is None else joint_model.identity,
        joint_doubt=doubt,
    )


def _prepare_bands(
    sources: Mapping[str, ExposureSource],
    plan: MemoryPlan,
    target_fwhm: float,
    options: RestoreOptions,
    seeds: Mapping[str, int],
    models: Mapping[str, RestorationModel] | None,
    device: torch.device,
    layout: CellLayout,
    maps: Mapping[str, ExposureMaps] | None,
    callback: ProgressCallback | None,
) -> tuple[dict[str, BandRestoration], dict[str, RestorationError]]:
    """Calibrate the bands; return those that cannot be, and why."""
    bands: dict[str, BandRestoration] = {}
    errors: dict[str, RestorationError] = {}
    tiles = plan.grid.tiles

    def release() -> None:
        for band in bands.values():
            band.reader.release()

    for name, source in sources.items():
        try:
            bands[name] = BandRestoration.prepare(
                source,
                tiles,
                plan,
                target_fwhm,
                options,
                model=None if models is None else models[name],
                device=device,
                seed=seeds[name],
                layout=layout,
                maps=None if maps is None else maps.get(name),
                callback=callback,
                release=release,
            )
        except RestorationError as exc:
            _LOG.error("Band %s is left out: %s", name, exc)
            errors[name] = _without_tensors(exc)
            continue
        tiles = bands[name].reader.tiles
    return bands, errors


def _without_tensors(error: RestorationError) -> RestorationError:
    """Return an error without tracebacks, whose frames have tensors, those of
    the errors before it too.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _finish_bands(
    bands: Mapping[str, BandRestoration], errors: dict[str, RestorationError]
) -> tuple[dict[str, RestorationResult], dict[str, RestorationError]]:
    """Return the results, and the errors of bands that have none."""
    results: dict[str, RestorationResult] = {}
    for name, band in bands.items():
        try:
            results[name] = band.finish()
        except RestorationError as exc:
            errors[name] = _without_tensors(exc)
    failed = dict(sorted(errors.items()))
    if not results:
        kinds = {type(exc) for exc in failed.values()}
        words = "; ".join(f"{name}: {exc}" for name, exc in failed.items())
        facts = {
            f"{name}_{key}": fact for name, exc in failed.items() for key, fact in exc.diagnostics.items()
        }
        kind = kinds.pop() if len(kinds) == 1 else RestorationError
        raise kind(f"No band of the patch could be restored. {words}", **facts)
    return results, failed


@dataclasses.dataclass(frozen=True)
class _JointRestorer:
    """Restores tiles of several bands.

    Attributes
    ----------
    bands
        The bands.
    model
        The joint model, on the device; `None` for a single band.
    detection
        Knows the weights of the bands in their mean.
    """

    bands: Mapping[str, BandRestoration]
    model: JointModel | None
    detection: DetectionMosaic

    def release(self) -> None:
        """Release the memory of tiles that are not restored."""
        for band in self.bands.values():
            band.reader.release()
        release_memory(next(iter(self.bands.values())).reader.device)

    @torch.no_grad()
    def restore(self, tile: Tile) -> tuple[dict[str, FinishedTile | FailedTile | None], WhiteTile | None]:
        """Restore a tile of all bands.

        Parameters
        ----------
        tile
            The tile.

        Returns
        -------
        found
            What became of each band; `None` without data.
        white
            Mean of the bands, if there are several and all were restored.
        """
        outcomes: dict[str, FinishedTile | FailedTile | None] = {}
        observed: dict[str, ObservedTile] = {}
        for name, band in self.bands.items():
            with collect_solves(band.solves):
                outcome = attempt(tile, lambda band=band: band.observe(tile), name)  # type: ignore[misc]
            if isinstance(outcome, ObservedTile):
                observed[name] = outcome
            else:
                outcomes[name] = outcome
        if not observed:
            return outcomes, None
        joint = attempt(tile, lambda: self._combine(observed))
        if joint is None or isinstance(joint, FailedTile):
            return outcomes | dict.fromkeys(observed, joint), None
        *of_bands, white = joint
        for (name, each), error in zip(*of_bands, strict=True):
            band = self.bands[name]
            with collect_solves(band.solves):
                outcomes[name] = attempt(
                    tile,
                    lambda band=band, each=each, error=error: band.restorer.finish(each, error),  # type: ignore[misc]
                    name,
                )
        is_whole = all(isinstance(outcomes[name], FinishedTile) for name in observed)
        return outcomes, white if is_whole else None

    def _combine(
        self, observed: Mapping[str, ObservedTile]
    ) -> tuple[list[tuple[str, ObservedTile]], list[RepeatedErrors], WhiteTile | None]:
        """Return bands with joint images, the errors of these, and the mean of
        the bands.
        """
        weights = self.detection.weigh(observed)
        solves = [self.bands[name].solves for name in observed]
        if self.model is None:
            errors = repeat_bands([each.observation for each in observed.values()], None, solves)
            return list(observed.items()), errors, None
        single = [each.band_image for each in observed.values()]
        joint = self.model.combine(single)
        pairs = [
            (name, each.with_image(image))
            for (name, each), image in zip(observed.items(), joint, strict=True)
        ]
        observations = [each.observation for _, each in pairs]
        if len(pairs) == 1:
            return pairs, repeat_bands(observations, self.model.combine, solves), None
        white = WhiteEstimator.build(single, weights, [each.has_data for each in observed.values()])
        repeated = RepeatedWhite(self.model, white, joint)
        errors = repeat_bands(observations, repeated.combine, solves)
        return pairs, errors, repeated.finish(single)


def _check_input(
    sources: Mapping[str, ExposureSource],
    seeds: Mapping[str, int],
    options: RestoreOptions,
    models: Mapping[str, RestorationModel] | None,
) -> None:
    """Refuse bands that do not go together."""
    if not sources:
        raise InputError("There is no band to restore: give the exposures of at least one.")
    shapes = {source.shape for source in sources.values()}
    if len(shapes) > 1:
        shown = ", ".join(f"{name} {source.shape}" for name, source in sources.items())
        raise InputError(f"Bands must have the shape of the same patch, not {shown}.")
    for what, given in (("seed", seeds), ("model", models)):
        missing = [] if given is None else sorted(set(sources) - set(given))
        if missing:
            raise InputError(f"The {what} of band {', '.join(missing)} is missing.")
    if len(set(seeds.values())) < len(seeds):
        shown = ", ".join(f"{name} {seed}" for name, seed in seeds.items())
        raise InputError(
            f"Bands with equal seeds would have the same noise drawn: {shown}. Give each its own."
        )
    if (models is not None) != (options.model.source == "dataset"):
        raise InputError(
            f"Option source={options.model.source!r} of the model "
            + ("needs trained models." if models is None else "does not go with models that are given."),
            option="source",
        )
