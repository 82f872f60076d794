# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of a patch from exposures that are read in tiles."""

from __future__ import annotations

__all__ = ("restore_exposures",)

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .._errors import NoUsableDataError, RestorationError
from .._options import RestoreOptions
from ..calibration import ExposureCalibration, calibrate_exposures
from ..estimate import ProgressCallback, RestorationModel, collect_solves
from ..exposures import ExposureSource, Tile, TileGrid
from ..forward import TileReader
from ..noise import CellLayout
from ._choose_network import ChosenNetwork, choose_network
from ._device import is_out_of_memory, limit_device_memory, make_generator, release_memory, select_device
from ._memory_plan import MemoryPlan, plan_memory
from ._mosaic import ExposureMaps, Mosaic
from ._result import FailedTile, RestorationResult
from ._tile_restorer import TileRestorer, TileResult

_LOG = logging.getLogger(__name__)

type TileCallback = Callable[[int, int], None]


def restore_exposures(  # noqa: PLR0913
    source: ExposureSource,
    *,
    target_fwhm: float,
    options: RestoreOptions,
    model: RestorationModel | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    layout: CellLayout | None = None,
    plan: MemoryPlan | None = None,
    maps: ExposureMaps | None = None,
    callback: ProgressCallback | None = None,
    tile_callback: TileCallback | None = None,
) -> RestorationResult:
    """Restore the sky at a target PSF from exposures that are read in tiles.

    Exposures are calibrated, and the network is chosen, over the whole patch,
    which is then restored tile by tile.

    Parameters
    ----------
    source
        The exposures, in a reproducible order.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of the result.
    options
        Settings.
    model
        Trained network, if that is what ``options.model`` asks for.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    layout
        Cells of the patch, which are not divided between tiles; by default
        tiles are free, and noise correlations are in cells of 50 pixels.
    plan
        Tiles; by default those of `plan_memory`.
    maps
        Receives weights and outliers of each exposure.
    callback
        Called after each epoch of a fit with its number, loss and validation
        loss.
    tile_callback
        Called with the numbers of finished and of all tiles, first with 0
        when the network is known.

    Returns
    -------
    result : `RestorationResult`
        The restored image with its errors, on the CPU.

    Raises
    ------
    InputError
        If the options are inconsistent, or the trained network does not suit
        the exposures and they say that this is an error.
    NoUsableDataError
        If no pixel is usable.
    RestorationError
        If no tile can be restored.
    """
    torch_device = select_device(device)
    if torch_device.type == "cuda":
        limit_device_memory(torch_device, options.tiling.max_device_memory)
    plan = plan if plan is not None else plan_memory(source, options, device=torch_device.type, layout=layout)
    layout = layout or plan.cells or CellLayout.of_shape(source.shape)
    with collect_solves() as solves:
        reader, calibration, chosen = _prepare(
            source, plan, target_fwhm, options, model, torch_device, seed, callback
        )
        grid = TileGrid(source.shape, reader.tiles)
        mosaic = Mosaic(grid, source.num_exposures, options.noise.num_realizations, layout)
        restorer = TileRestorer(chosen.network, calibration, seed, layout)
        done, failed = 0, []
        if tile_callback is not None:
            tile_callback(0, len(grid.tiles))
        for number, tile in enumerate(grid.tiles, 1):
            for piece, outcome in _restore_tile(tile, reader, restorer, plan):
                if isinstance(outcome, TileResult):
                    done += 1
                    mosaic.add(outcome)
                elif outcome is not None:
                    failed.append(outcome)
                if maps is not None:
                    maps.add(piece, *_exposure_maps(piece, outcome))
            if tile_callback is not None:
                tile_callback(number, len(grid.tiles))
    if not done:
        if failed:
            raise RestorationError(f"No tile of the patch could be restored: {failed[0].reason}")
        raise NoUsableDataError(
            "No pixel of the patch is covered by usable pixels of exposures that are not outliers."
        )
    return RestorationResult(
        **mosaic.finish(calibration),
        target_fwhm=target_fwhm,
        network=chosen.identity,
        network_doubt=chosen.doubt,
        held_out_loss=chosen.held_out_loss,
        num_parameters=chosen.network.num_parameters,
        history=chosen.history,
        device=str(torch_device),
        num_tiles=len(grid.tiles),
        failed_tiles=tuple(failed),
        solves=solves,
    )


def _prepare(
    source: ExposureSource,
    plan: MemoryPlan,
    target_fwhm: float,
    options: RestoreOptions,
    model: RestorationModel | None,
    device: torch.device,
    seed: int,
    callback: ProgressCallback | None,
) -> tuple[TileReader, ExposureCalibration, ChosenNetwork]:
    """Calibrate exposures and choose the network; smaller tiles on OOM."""
    tiles = plan.grid.tiles
    while True:
        reader = TileReader(source, tiles, target_fwhm, device)
        generator = make_generator(seed)
        try:
            with torch.no_grad():
                calibration = calibrate_exposures(reader, options)
            chosen = choose_network(reader, calibration, model, generator, callback)
            return reader, calibration, chosen
        except (MemoryError, RuntimeError) as exc:
            smaller = [piece for tile in tiles for piece in plan.split(tile)]
            if not is_out_of_memory(exc) or len(smaller) == len(tiles):
                raise
            _LOG.warning(
                "Out of memory (%s): trying again with %d tiles instead of %d.", exc, len(smaller), len(tiles)
            )
        tiles = tuple(smaller)
        reader.release()
        release_memory(device)


def _restore_tile(
    tile: Tile, reader: TileReader, restorer: TileRestorer, plan: MemoryPlan
) -> Iterator[tuple[Tile, TileResult | FailedTile | None]]:
    """Restore a tile, in smaller ones on OOM; yield `None` without data."""
    try:
        tile_data = reader.read(tile)
        if tile_data is None or not restorer.calibration.has_data(tile_data):
            yield tile, None
        else:
            yield tile, restorer.restore(tile_data)
        return
    except NoUsableDataError as exc:
        _LOG.info("%s has no data: %s", _name(tile), exc)
        yield tile, None
        return
    except (RestorationError, torch.linalg.LinAlgError) as exc:
        _LOG.error("%s failed: %s", _name(tile), exc)
        yield tile, FailedTile(tile.inner_rows, tile.inner_columns, f"{type(exc).__name__}: {exc}")
        return
    except (MemoryError, RuntimeError) as exc:
        smaller = plan.split(tile)
        if not is_out_of_memory(exc) or len(smaller) == 1:
            raise
        _LOG.warning(
            "%s ran out of memory (%s); trying again in %d smaller tiles.", _name(tile), exc, len(smaller)
        )
    # Outside the handler, where the exception no longer references tensors.
    tile_data = None
    reader.release()
    release_memory(reader.device)
    for piece in smaller:
        yield from _restore_tile(piece, reader, restorer, plan)


def _exposure_maps(
    tile: Tile, outcome: TileResult | FailedTile | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return exposures, weights and rejected pixels of a tile."""
    if isinstance(outcome, TileResult):
        return outcome.exposures, outcome.weights, outcome.rejected
    shape = [own.stop - own.start for own in (tile.inner_rows, tile.inner_columns)]
    weights = np.zeros((0, *shape), dtype=np.float32)
    return np.zeros(0, dtype=np.int64), weights, weights > 0


def _name(tile: Tile) -> str:
    rows, columns = tile.inner_rows, tile.inner_columns
    return f"The tile of rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop}"
