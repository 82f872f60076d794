# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time and memory of growing patches on a GPU."""

from __future__ import annotations

__all__ = ("measure_cost",)

import dataclasses
import logging
import time

import torch

from lsst.astroclearnet.core import plan_memory
from lsst.astroclearnet.core.exposures import TileGrid

from ..record import Table, compare, format_value
from .run import (
    Measurement,
    call_within,
    make_options,
    make_source,
    measure_restoration,
    synchronize,
    warm_up,
)

_LOG = logging.getLogger(__name__)

_GIB = 2.0**30

_STEPS = ((300, 8), (700, 16), (1400, 33), (4200, 33))
_QUICK_STEPS = ((112, 2), (128, 2))

_GOAL = 60.0
"""Seconds for the last patch, with reading."""

_PART = 1024
"""Side in pixels of the tile that stands for a patch that would take too
long."""

_MARGIN = 1.3
"""Ratio of time that is left and predicted with which a patch is begun."""

_PROFILED = (700, 16)
_QUICK_PROFILED = (112, 2)

_PROFILE_SHARE = 0.2
"""Share of the time that is kept for the profile."""

_NUM_KERNELS = 15


@dataclasses.dataclass(frozen=True)
class PatchRun:
    """A patch, or a tile of one, that was restored.

    Attributes
    ----------
    measurement
        What it took.
    start
        Seconds of a tiny patch before, in which kernels are compiled.
    pixels
        Pixels of the patch that were restored.
    num_tiles
        Tiles of the plan.
    planned
        Planned memory on the card in bytes.
    """

    measurement: Measurement
    start: float
    pixels: int
    num_tiles: int
    planned: float


def measure_cost(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Restore patches while the time lasts, and profile one of them."""
    end = time.monotonic() + seconds
    growing = _measure_patches(device, end - _PROFILE_SHARE * seconds, quick)
    return [growing, _profile(device, end, quick)]


def _measure_patches(device: str, end: float, quick: bool) -> Table:
    steps, rows = list(_QUICK_STEPS if quick else _STEPS), []
    rate = 0.0
    while steps:
        size, exposures = steps.pop(0)
        left = end - time.monotonic()
        if steps and rate and _MARGIN * rate * steps[-1][0] ** 2 * steps[-1][1] < left:
            # The last patch fits already.
            (size, exposures), steps = steps[-1], []
        too_long = _MARGIN * rate * size**2 * exposures > left
        if too_long and _MARGIN * rate * _PART**2 * exposures > left:
            _LOG.warning("No time is left for %dx%d pixels with %d exposures", size, size, exposures)
            break
        run = call_within(
            left, restore_patch, size=size, exposures=exposures, device=device, part=_PART if too_long else 0
        )
        if run is None:
            _LOG.warning("%dx%d pixels with %d exposures took more than %.0f s", size, size, exposures, left)
            break
        rate = run.measurement.seconds / (run.pixels * exposures)
        rows.append(_row(size, exposures, run, size == _STEPS[-1][0]))
    legend = (
        "Exposures on their own pixels with varying PSFs, which all threads of the host make when they "
        "are read; default options, but tiles as large as card and host hold, in a process of its own that "
        "has restored a tiny patch before (its start). Patches grow until the time is over. Of one that "
        f"would take longer, a tile of up to {_PART} pixels is calibrated and restored, and the time of the "
        "whole is extrapolated by pixels. The share of reading is that of the time in which nothing else "
        "happens. The card is busy while any kernel runs, as its driver says (with the package `pynvml`)."
    )
    return Table("Time and memory", legend, rows)


def _row(size: int, exposures: int, run: PatchRun, last: bool) -> dict[str, str]:
    taken = run.measurement
    factor = size**2 / run.pixels
    whole = taken.seconds * factor
    return {
        "patch": f"{size} x {size}",
        "exposures": str(exposures),
        "tiles": str(run.num_tiles),
        "restored": "all" if run.pixels == size**2 else "a tile",
        "start (s)": f"{run.start:.1f}",
        "time (s)": f"{taken.seconds:.1f}",
        "whole patch (s)": f"{whole:.1f}" + " extrapolated" * (factor > 1.0),
        "without reading (s)": f"{(taken.seconds - taken.reading) * factor:.1f}",
        "goal": compare(whole, _GOAL, " s") if last else "-",
        "microseconds a pixel and exposure": f"{1e6 * taken.seconds / (run.pixels * exposures):.3g}",
        "reading (%)": f"{100.0 * taken.reading / taken.seconds:.0f}",
        "card busy (%)": format_value(taken.busy, 100.0),
        "card, planned (GiB)": format_value(run.planned / _GIB),
        "card, measured (GiB)": format_value(taken.device / _GIB),
        "measured / planned": format_value(taken.device / run.planned if run.planned else float("nan")),
        "host (GiB)": f"{taken.host / _GIB:.1f}",
    }


def restore_patch(*, size: int, exposures: int, device: str, part: int = 0) -> PatchRun:
    """Restore a synthetic patch, or one of its tiles.

    Parameters
    ----------
    size
        Its side in pixels.
    exposures
        Number of exposures.
    device
        Name of the device.
    part
        Largest side of the one tile that is restored; 0 for the whole patch.
    """
    start = warm_up(device)
    source = make_source(size, exposures)
    options = make_options(device, max_tile_size=part) if part else make_options(device)
    plan = plan_memory(source, options, device=device)
    tiles = plan.grid.tiles
    if part:
        tiles = (max(tiles, key=lambda tile: tile.shape[0] * tile.shape[1]),)
    restored = dataclasses.replace(plan, grid=TileGrid(plan.grid.shape, tiles))
    _, measurement = measure_restoration(source, options, device, plan=restored)
    own = [tile.within for tile in tiles]
    pixels = sum((r.stop - r.start) * (c.stop - c.start) for r, c in own)
    return PatchRun(measurement, start, pixels, len(plan.grid.tiles), plan.device_memory)


def _profile(device: str, end: float, quick: bool) -> Table:
    size, exposures = _QUICK_PROFILED if quick else _PROFILED
    left = end - time.monotonic()
    found = call_within(left, profile_patch, size=size, exposures=exposures, device=device)
    rows, busy = ([], float("nan")) if found is None else found
    legend = (
        f"Kernels of a restoration of {size}x{size} pixels and {exposures} exposures, from PyTorch's "
        f"profiler, the first {_NUM_KERNELS} by their time. Together all kernels ran for "
        f"{format_value(busy, 100.0)} % of the time on the clock, which the profiler makes longer: the goal "
        "is 80 %." + f" **Not finished within {left:.0f} s.**" * (found is None)
    )
    return Table("Where the time of the card goes", legend, rows)


def profile_patch(*, size: int, exposures: int, device: str) -> tuple[list[dict[str, str]], float]:
    """Return the kernels that take longest, and the share of all."""
    warm_up(device)
    on_cpu = device == "cpu"
    activity = torch.profiler.ProfilerActivity.CPU if on_cpu else torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as profile:
        source = make_source(size, exposures)
        seconds = measure_restoration(source, make_options(device), device)[1].seconds
        synchronize(device)
    name = "self_cpu_time_total" if on_cpu else "self_device_time_total"
    kernels = sorted(
        ((1e-6 * getattr(event, name), event.count, event.key) for event in profile.key_averages()),
        reverse=True,
    )
    total = sum(kernel[0] for kernel in kernels)
    rows = [
        {
            "kernel": key.replace("|", "/")[:80],
            "calls": str(count),
            "time (s)": f"{spent:.3f}",
            "share of all kernels (%)": f"{100.0 * spent / total:.1f}",
        }
        for spent, count, key in kernels[:_NUM_KERNELS]
    ]
    return rows, total / seconds
