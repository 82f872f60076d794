# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of one patch from plain arrays."""

from __future__ import annotations

__all__ = ("restore", "restore_exposures")

import dataclasses
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ._agreement import Agreement, reach_agreement
from ._cell_noise import CellLayout
from ._device import (
    is_out_of_memory,
    limit_device_memory,
    make_generator,
    release_memory,
    select_device,
)
from ._errors import InputError, NoUsableDataError, RestorationError
from ._exposure_source import ExposureSource, StackSource
from ._exposure_stack import ArrayLike, ExposureStack
from ._fit import FitHistory, ProgressCallback, fit_network
from ._mosaic import ExposureMaps, Mosaic
from ._network import MixingNetwork
from ._options import NoiseOptions, RestoreOptions
from ._parts import Part, PartReader
from ._plan import MemoryPlan, plan_memory
from ._positions import PixelPositions
from ._result import FailedTile, RestorationResult, StackResult
from ._samples import TrainingSample, draw_windows, make_samples
from ._tile_restorer import TileRestorer, TileResult
from ._tiling import Tile

_LOG = logging.getLogger(__name__)

type TileCallback = Callable[[int, int], None]


def restore(  # noqa: PLR0913
    images: ArrayLike,
    variances: ArrayLike,
    good: ArrayLike,
    psfs: ArrayLike,
    *,
    target_fwhm: float,
    positions: PixelPositions | None = None,
    options: RestoreOptions | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    noise: ArrayLike | None = None,
    callback: ProgressCallback | None = None,
) -> StackResult:
    """Restore the sky at a target PSF from exposures of a patch.

    Parameters
    ----------
    images
        Shape (n, h, w), background-subtracted exposures in one unit.
    variances
        Shape (n, h, w), their variances in that unit squared.
    good
        Shape (n, h, w), boolean, `True` where a pixel may be used.
    psfs
        Shape (n, P, P), or (n, n_cells_y, n_cells_x, P, P) for PSFs that
        vary over a regular grid of cells covering the patch; on pixels of the
        patch.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of the result.
    positions
        Where the pixels of the exposures lie on the patch, for exposures on
        their own grids.  Without it they are co-registered: their pixels are
        those of the patch.
    options
        Settings; the defaults suit survey exposures.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    noise
        Shape (k, n, h, w), pure noise of exposures that were resampled, with
        the correlations which that gave it, k being at least
        ``options.noise.num_realizations``.  By default
        ``options.noise.num_draws`` of white noise are drawn.
    callback
        Called after each epoch with its number, loss and validation loss.

    Returns
    -------
    result : `StackResult`
        The restored image and what is known about it, on the CPU.

    Raises
    ------
    InputError
        If the arrays or options do not fit.
    NoUsableDataError
        If no pixel is usable.
    RestorationError
        If no tile of the patch can be restored.
    """
    options = options if options is not None else RestoreOptions()
    stack = ExposureStack.from_arrays(images, variances, good, psfs, positions=positions)
    order = _canonical_order(stack)
    draws = None if noise is None else _given_draws(noise, stack, options.noise)[:, order]
    maps = _DenseMaps(stack.num_exposures, stack.shape)
    result = restore_exposures(
        StackSource(stack.select(order), draws),
        target_fwhm=target_fwhm,
        options=options,
        device=device,
        seed=seed,
        maps=maps,
        callback=callback,
    )
    back = order.argsort().numpy()
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    for name in _BY_EXPOSURE:
        fields[name] = fields[name][back]
    fields["dropped"] = {int(order[t]): reason for t, reason in result.dropped.items()}
    return StackResult(**fields, weights=maps.weights[back], rejected=maps.rejected[back])


_BY_EXPOSURE = (
    "chi_square",
    "flux_error",
    "flux_sigma",
    "shift",
    "shift_sigma",
    "psf_width_error",
    "psf_width_sigma",
    "background",
    "background_sigma",
)
"""Attributes of a result that have an entry for each exposure."""


class _DenseMaps:
    """Maps of each exposure as a whole.

    Parameters
    ----------
    num_exposures
        Number of exposures.
    shape
        Height and width of the patch in pixels.
    """

    def __init__(self, num_exposures: int, shape: tuple[int, int]) -> None:
        self.weights = np.zeros((num_exposures, *shape), dtype=np.float32)
        self.rejected = np.zeros((num_exposures, *shape), dtype=bool)

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        self.weights[exposures, tile.own_rows, tile.own_columns] = weights
        self.rejected[exposures, tile.own_rows, tile.own_columns] = rejected


def _canonical_order(stack: ExposureStack) -> torch.Tensor:
    """Return an order that does not depend on how exposures are listed."""
    keys = zip(
        stack.psfs.square().sum(dim=(-1, -2)).mean(dim=(1, 2)).tolist(),
        stack.images.double().sum(dim=(1, 2)).tolist(),
        stack.variances.double().sum(dim=(1, 2)).tolist(),
        strict=True,
    )
    ranked = sorted(enumerate(keys), key=lambda item: item[1])
    return torch.tensor([index for index, _ in ranked])


def _given_draws(noise: ArrayLike, stack: ExposureStack, options: NoiseOptions) -> torch.Tensor:
    draws = torch.as_tensor(noise, dtype=torch.float32)
    least = max(1, options.num_realizations)
    if draws.shape[1:] != stack.images.shape or len(draws) < least:
        raise InputError(
            f"noise must have shape (k, *{tuple(stack.images.shape)}) with k at least {least}, "
            f"not {tuple(draws.shape)}."
        )
    return draws


def restore_exposures(
    source: ExposureSource,
    *,
    target_fwhm: float,
    options: RestoreOptions,
    device: str | torch.device = "auto",
    seed: int = 0,
    layout: CellLayout | None = None,
    plan: MemoryPlan | None = None,
    maps: ExposureMaps | None = None,
    callback: ProgressCallback | None = None,
    tile_callback: TileCallback | None = None,
) -> RestorationResult:
    """Restore the sky at a target PSF from exposures that are read in parts.

    What belongs to whole exposures, backgrounds, flux scales and positions,
    is found over the whole patch, and so is the network, which is fitted to
    a few windows of it.  Then the patch is restored tile by tile.

    Parameters
    ----------
    source
        The exposures, in an order that does not depend on chance.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of the result.
    options
        Settings.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    layout
        Cells of the patch, which are not divided between tiles; by default
        tiles are free, and the correlation of noise is in cells of 50 pixels.
    plan
        Tiles; by default those of `plan_memory`.
    maps
        Takes what is known of each exposure in each pixel.
    callback
        Called after each epoch with its number, loss and validation loss.
    tile_callback
        Called with the number of tiles done, and the number of all: at first
        with 0, when the network is fitted.

    Returns
    -------
    result : `RestorationResult`
        The restored image and what is known about it, on the CPU.

    Raises
    ------
    InputError
        If the options do not fit.
    NoUsableDataError
        If no pixel is usable.
    RestorationError
        If no tile can be restored.
    """
    chosen = select_device(device)
    if chosen.type == "cuda":
        limit_device_memory(chosen, options.tiling.max_device_memory)
    plan = plan if plan is not None else plan_memory(source, options, device=chosen.type, layout=layout)
    layout = layout if layout is not None else CellLayout.of_shape(source.shape)
    generator = make_generator(seed)
    reader = PartReader(source, plan.grid.tiles, target_fwhm, chosen)
    with torch.no_grad():
        agreement = reach_agreement(reader, options)
    network = MixingNetwork(options.network)
    network.initialize(generator)
    network.to(chosen)
    history = _fit(network, reader, agreement, generator, callback)
    mosaic = Mosaic(plan.grid, source.num_exposures, options.noise.num_realizations, layout)
    restorer = TileRestorer(network, agreement, seed, layout)
    done, failed = 0, []
    if tile_callback is not None:
        tile_callback(0, len(plan.grid.tiles))
    for number, tile in enumerate(plan.grid.tiles, 1):
        for outcome in _restore_tile(tile, reader, restorer, plan.grid.shape):
            if isinstance(outcome, FailedTile):
                failed.append(outcome)
                continue
            done += 1
            mosaic.add(outcome)
            if maps is not None:
                maps.add(outcome.tile, outcome.exposures, outcome.weights, outcome.rejected)
        if tile_callback is not None:
            tile_callback(number, len(plan.grid.tiles))
    if not done:
        if failed:
            raise RestorationError(f"No tile of the patch could be restored: {failed[0].reason}")
        raise NoUsableDataError("No exposure has a usable pixel that the others do not contradict.")
    return RestorationResult(
        **mosaic.finish(agreement),
        target_fwhm=target_fwhm,
        num_parameters=network.num_parameters,
        history=history,
        device=str(chosen),
        num_tiles=len(plan.grid.tiles),
        failed_tiles=tuple(failed),
    )


def _fit(
    network: MixingNetwork,
    reader: PartReader,
    agreement: Agreement,
    generator: torch.Generator,
    callback: ProgressCallback | None,
) -> FitHistory:
    """Fit the network to windows of the patch."""
    options = agreement.options
    with torch.no_grad():
        samples, most = _make_samples(reader, agreement, generator)
    if most < 2:
        return FitHistory(stop_reason="one exposure: nothing to hold out, filters mixed as initialised")
    if not samples:
        return FitHistory(stop_reason="exposures do not overlap: nothing to hold out")
    return fit_network(network, samples, options.fit, generator=generator, callback=callback)


def _make_samples(
    reader: PartReader, agreement: Agreement, generator: torch.Generator
) -> tuple[list[TrainingSample], int]:
    """Prepare windows; return also how many exposures one has at most."""
    options = agreement.options
    every = draw_windows(
        reader.source.shape, dataclasses.replace(options.fit, num_windows=_ALL_WINDOWS), generator
    )
    samples: list[TrainingSample] = []
    used, most = 0, 0
    for k in torch.randperm(len(every), generator=generator).tolist():
        rows, columns = every[k]
        part = reader.read(Tile(rows, columns, rows, columns))
        if part is None or len(part.exposures) < 2:
            most = max(most, 0 if part is None else len(part.exposures))
            continue
        settled = agreement.settle(part)
        stack = settled.part.stack
        most = max(most, int(stack.good.any(dim=(1, 2)).sum()))
        weights = stack.good / settled.variances
        found = make_samples(
            stack, weights, settled.part.model, options.network.strengths, options.fit, generator
        )
        samples += found
        used += bool(found)
        if used == options.fit.num_windows:
            break
    return samples, most


_ALL_WINDOWS = 1 << 30


def _restore_tile(
    tile: Tile, reader: PartReader, restorer: TileRestorer, shape: tuple[int, int]
) -> Iterator[TileResult | FailedTile]:
    """Restore a tile, in smaller ones if memory runs out.

    Nothing comes of a tile without a usable pixel.
    """
    try:
        part = reader.read(tile)
        if part is None or not _has_data(part, restorer.agreement):
            return
        yield restorer.restore(part)
        return
    except (RestorationError, torch.linalg.LinAlgError) as exc:
        _LOG.error("%s failed: %s", _name(tile), exc)
        yield FailedTile(tile.own_rows, tile.own_columns, f"{type(exc).__name__}: {exc}")
        return
    except (MemoryError, RuntimeError) as exc:
        smaller = tile.split(shape)
        if not is_out_of_memory(exc) or not smaller:
            raise
        _LOG.warning(
            "%s ran out of memory (%s); trying again in %d smaller tiles.", _name(tile), exc, len(smaller)
        )
    # Out of the handler, where the error no longer holds on to tensors.
    release_memory(reader.device)
    for part_of_it in smaller:
        yield from _restore_tile(part_of_it, reader, restorer, shape)


def _has_data(part: Part, agreement: Agreement) -> bool:
    """Tell whether any exposure is left that contradicts no other."""
    return any(t not in agreement.contradictions for t in part.exposures.tolist())


def _name(tile: Tile) -> str:
    rows, columns = tile.own_rows, tile.own_columns
    return f"The tile of rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop}"
