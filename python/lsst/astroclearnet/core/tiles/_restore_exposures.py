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

from collections.abc import Callable

import torch

from .._options import RestoreOptions
from ..estimate import ProgressCallback, RestorationModel, collect_solves
from ..exposures import ExposureSource, TileGrid
from ..noise import CellLayout
from ._attempts import attempt, restore_in_pieces
from ._band_restoration import BandRestoration
from ._device import limit_device_memory, select_device
from ._memory_plan import MemoryPlan, plan_memory
from ._mosaic import ExposureMaps
from ._result import RestorationResult

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
    band = BandRestoration.prepare(
        source,
        plan.grid.tiles,
        plan,
        target_fwhm,
        options,
        model=model,
        device=torch_device,
        seed=seed,
        layout=layout or plan.cells or CellLayout.of_shape(source.shape),
        maps=maps,
        callback=callback,
    )
    band.start(TileGrid(source.shape, band.reader.tiles))
    number = len(band.grid.tiles)
    if tile_callback is not None:
        tile_callback(0, number)
    with collect_solves(band.solves):
        for done, tile in enumerate(band.grid.tiles, 1):
            for piece, outcome in restore_in_pieces(
                tile, lambda t: attempt(t, lambda: band.restore(t)), plan, band.release
            ):
                band.add(piece, outcome)
            if tile_callback is not None:
                tile_callback(done, number)
    return band.finish()
