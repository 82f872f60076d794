# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tiles that do not fit onto the card are restored in smaller ones."""

from __future__ import annotations

__all__ = ("measure_retries",)

import dataclasses

import numpy as np
import torch

from lsst.astroclearnet.core import RestorationResult, RestoreOptions, Tile, plan_memory
from lsst.astroclearnet.core.exposures import OVERLAP

from ..record import Table
from .run import call_within, make_options, make_source, measure_restoration, warm_up

_GIB = 2.0**30

_TOO_LITTLE = 0.6
"""Limit over the memory that a patch takes in one tile."""


class _TileRecord:
    """Keeps which tiles were restored."""

    def __init__(self) -> None:
        self.tiles: list[Tile] = []

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        self.tiles.append(tile)


def measure_retries(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Restore a patch with a limit that is too small for its plan."""
    rows = call_within(seconds, run_out_of_memory, device=device, quick=quick)
    legend = (
        f"A patch that is planned as one tile, with the memory that it takes; with {100 * _TOO_LITTLE:.0f} % "
        "of it, in the same plan, so that memory runs out; and planned in tiles that own a quarter each. "
        "Differences of the image are to the first, in units of the declared sigma: those of the last are "
        "what tiles alone make." + f" **Not finished within {seconds:.0f} s.**" * (rows is None)
    )
    return [Table("Out of memory", legend, rows or [])]


def run_out_of_memory(*, device: str, quick: bool) -> list[dict[str, str]]:
    """Return the rows of the table."""
    size, exposures = (208, 3) if quick else (500, 12)
    warm_up(device)
    source = make_source(size, exposures)
    options = make_options(device)
    plan = plan_memory(source, options, device=device)
    whole, taken = measure_restoration(source, options, device, plan=plan)
    rows = [_row("one tile", len(plan.grid.tiles), taken.seconds, options, whole, whole)]
    _release(device)
    limit = _TOO_LITTLE * taken.device / _GIB or options.tiling.max_device_memory
    small = dataclasses.replace(options, tiling=dataclasses.replace(options.tiling, max_device_memory=limit))
    record = _TileRecord()
    retried, taken = measure_restoration(source, small, device, plan=plan, maps=record)
    name = "too little memory"
    if len(record.tiles) == len(plan.grid.tiles):
        name += ", **which did not run out**"
    rows.append(_row(name, len(record.tiles), taken.seconds, small, retried, whole))
    _release(device)
    halved = make_options(device, max_tile_size=size // 2 + 2 * OVERLAP)
    smaller = plan_memory(source, halved, device=device)
    tiled, taken = measure_restoration(source, halved, device, plan=smaller)
    rows.append(_row("planned in tiles", len(smaller.grid.tiles), taken.seconds, halved, tiled, whole))
    return rows


def _row(
    name: str,
    num_tiles: int,
    seconds: float,
    options: RestoreOptions,
    result: RestorationResult,
    whole: RestorationResult,
) -> dict[str, str]:
    difference = (result.image - whole.image) / np.sqrt(whole.variance)
    return {
        "run": name,
        "limit (GiB)": f"{options.tiling.max_device_memory:.2f}",
        "tiles restored": str(num_tiles),
        "tiles failed": str(len(result.failed_tiles)),
        "time (s)": f"{seconds:.1f}",
        "rms difference (sigma)": f"{np.sqrt(np.nanmean(difference**2)):.2g}",
        "largest (sigma)": f"{np.nanmax(np.abs(difference)):.2g}",
    }


def _release(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
