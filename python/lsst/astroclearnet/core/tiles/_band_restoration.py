# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration of one band of a patch, whose tiles are made elsewhere."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .._errors import NoUsableDataError, RestorationError
from .._options import RestoreOptions
from ..calibration import ExposureCalibration, calibrate_exposures
from ..estimate import ProgressCallback, RestorationModel, SolveStatus, collect_solves
from ..exposures import ExposureSource, Tile, TileGrid
from ..forward import TileData, TileReader
from ..noise import CellLayout
from ._choose_network import ChosenNetwork, choose_network
from ._device import is_out_of_memory, make_generator, release_memory
from ._memory_plan import MemoryPlan
from ._mosaic import ExposureMaps, Mosaic
from ._result import FailedTile, RestorationResult
from ._tile_restorer import TileRestorer
from ._tile_result import ObservedTile, TileResult

_LOG = logging.getLogger(__name__)

type Outcome = TileResult | FailedTile | None


@dataclasses.dataclass
class BandRestoration:
    """Exposures of a band that are calibrated, and the tiles made so far.

    Attributes
    ----------
    reader
        Reads its tiles.
    chosen
        Its network.
    restorer
        Restores its tiles, with its calibration.
    solves
        Status of its iterative solves.
    maps
        Receives weights and outliers of each exposure.
    """

    reader: TileReader
    chosen: ChosenNetwork
    restorer: TileRestorer
    solves: dict[str, SolveStatus]
    maps: ExposureMaps | None

    @classmethod
    def prepare(  # noqa: PLR0913
        cls,
        source: ExposureSource,
        tiles: Sequence[Tile],
        plan: MemoryPlan,
        target_fwhm: float,
        options: RestoreOptions,
        *,
        model: RestorationModel | None,
        device: torch.device,
        seed: int,
        layout: CellLayout,
        maps: ExposureMaps | None,
        callback: ProgressCallback | None,
        release: Callable[[], None] = lambda: None,
    ) -> BandRestoration:
        """Calibrate the exposures of a band and choose its network.

        Parameters
        ----------
        source
            As of `restore_exposures`.
        tiles
            Tiles, which are made smaller if memory runs out.
        plan
            What splits tiles.
        target_fwhm, options, model, device, seed, layout, maps, callback
            As of `restore_exposures`.
        release
            Called before smaller tiles are tried, to release other memory.
        """
        with collect_solves() as solves:
            reader, calibration, chosen = _calibrate(
                source, tiles, plan, target_fwhm, options, model, device, seed, callback, release
            )
        restorer = TileRestorer(chosen.network, calibration, seed, layout)
        return cls(reader, chosen, restorer, solves, maps)

    def start(self, grid: TileGrid) -> None:
        """Start an empty patch.

        Parameters
        ----------
        grid
            Its tiles.
        """
        options, number = self.restorer.calibration.options, self.reader.source.num_exposures
        self.grid = grid
        self._mosaic = Mosaic(grid, number, options.noise.num_realizations, self.restorer.layout)
        self._done = 0
        self._failed: list[FailedTile] = []

    def read(self, tile: Tile) -> TileData | None:
        """Read a tile, if it has data without the outlier exposures.

        Parameters
        ----------
        tile
            The tile.
        """
        tile_data = self.reader.read(tile)
        if tile_data is None or not self.restorer.calibration.has_data(tile_data):
            return None
        return tile_data

    def release(self) -> None:
        """Release the memory of a tile that is not restored."""
        self.reader.release()
        release_memory(self.reader.device)

    def restore(self, tile: Tile) -> TileResult | None:
        """Restore a tile on its own.

        Parameters
        ----------
        tile
            The tile.
        """
        tile_data = self.read(tile)
        return None if tile_data is None else self.restorer.restore(tile_data)

    def observe(self, tile: Tile) -> ObservedTile | None:
        """Observe a tile, for a joint restoration.

        Parameters
        ----------
        tile
            The tile.

        Raises
        ------
        RestorationError
            If its image is not finite, which other bands must not see.
        """
        tile_data = self.read(tile)
        if tile_data is None:
            return None
        observed = self.restorer.observe(tile_data)
        if not bool(torch.isfinite(observed.band_image.restored).all()):
            raise RestorationError("Pixels of the restored image are not finite.")
        return observed

    def add(self, tile: Tile, outcome: Outcome) -> None:
        """Add a tile to the patch.

        Parameters
        ----------
        tile
            The tile.
        outcome
            What became of it; `None` without data.
        """
        if isinstance(outcome, TileResult):
            self._done += 1
            self._mosaic.add(outcome)
        elif outcome is not None:
            self._failed.append(outcome)
        if self.maps is not None:
            self.maps.add(tile, *_exposure_maps(tile, outcome))

    def finish(self) -> RestorationResult:
        """Return the restored patch.

        Raises
        ------
        NoUsableDataError
            If no pixel is usable.
        RestorationError
            If no tile could be restored.
        """
        if not self._done:
            if self._failed:
                raise RestorationError(f"No tile of the patch could be restored: {self._failed[0].reason}")
            raise NoUsableDataError(
                "No pixel of the patch is covered by usable pixels of exposures that are not outliers."
            )
        return RestorationResult(
            **self._mosaic.finish(self.restorer.calibration),
            target_fwhm=self.reader.target_fwhm,
            network=self.chosen.identity,
            network_doubt=self.chosen.doubt,
            held_out_loss=self.chosen.held_out_loss,
            num_parameters=self.chosen.network.num_parameters,
            history=self.chosen.history,
            device=str(self.reader.device),
            num_tiles=len(self.grid.tiles),
            failed_tiles=tuple(self._failed),
            solves=self.solves,
        )


def _calibrate(
    source: ExposureSource,
    tiles: Sequence[Tile],
    plan: MemoryPlan,
    target_fwhm: float,
    options: RestoreOptions,
    model: RestorationModel | None,
    device: torch.device,
    seed: int,
    callback: ProgressCallback | None,
    release: Callable[[], None],
) -> tuple[TileReader, ExposureCalibration, ChosenNetwork]:
    """Calibrate exposures and choose the network; smaller tiles on OOM."""
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
        release()
        release_memory(device)


def _exposure_maps(tile: Tile, outcome: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return exposures, weights and rejected pixels of a tile."""
    if isinstance(outcome, TileResult):
        return outcome.exposures, outcome.weights, outcome.rejected
    shape = [own.stop - own.start for own in (tile.inner_rows, tile.inner_columns)]
    weights = np.zeros((0, *shape), dtype=np.float32)
    return np.zeros(0, dtype=np.int64), weights, weights > 0
