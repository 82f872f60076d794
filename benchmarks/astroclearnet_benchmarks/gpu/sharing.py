# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Several processes on one card."""

from __future__ import annotations

__all__ = ("measure_sharing",)

import dataclasses
import multiprocessing
import time
from multiprocessing.synchronize import Barrier

import torch

from lsst.astroclearnet.core import RestoreOptions

from ..processes import start_logging
from ..record import Table
from .run import Measurement, device_memory, make_options, make_source, measure_restoration, warm_up

_GIB = 2.0**30

_NUMBERS = (1, 2, 4)
_QUICK_NUMBERS = (1, 2)

_barrier: Barrier


@dataclasses.dataclass(frozen=True)
class SharedRun:
    """One of several restorations at the same time.

    Attributes
    ----------
    measurement
        What it took.
    used
        Memory in bytes that all of them had taken from the card at the end.
    """

    measurement: Measurement
    used: float


def measure_sharing(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Restore the same patch in more and more processes at a time."""
    size, exposures = (112, 2) if quick else (400, 12)
    end = time.monotonic() + seconds
    rows: list[dict[str, str]] = []
    alone = 0.0
    for number in _QUICK_NUMBERS if quick else _NUMBERS:
        runs = _run_together(number, end - time.monotonic(), size, exposures, device)
        if runs is None:
            break
        slowest = max(run.measurement.seconds for run in runs)
        alone = alone or slowest
        options = make_options(device, share=1.0 / number)
        limit = options.tiling.max_device_memory if device != "cpu" else float("nan")
        rows.append(
            {
                "processes": str(number),
                "limit of each (GiB)": f"{limit:.1f}",
                "slowest (s)": f"{slowest:.1f}",
                "patches a minute": f"{60.0 * number / slowest:.1f}",
                "throughput over one process": f"{number * alone / slowest:.2f}",
                "peak of each (GiB)": f"{max(run.measurement.device for run in runs) / _GIB:.2f}",
                "taken from the card, all (GiB)": f"{max(run.used for run in runs) / _GIB:.2f}",
            }
        )
    legend = (
        f"A patch of {size}x{size} pixels and {exposures} exposures in each process, all begun at the same "
        "time after a tiny one; each has its share of 90 % of the memory of the card as `max_device_memory`. "
        "What is taken from the card has the contexts of CUDA and the caches of the allocator in it."
    )
    return [Table("Several processes on a card", legend, rows)]


def _run_together(
    number: int, seconds: float, size: int, exposures: int, device: str
) -> list[SharedRun] | None:
    context = multiprocessing.get_context("spawn")
    arguments = [(size, exposures, device, 1.0 / number)] * number
    barrier = context.Barrier(number)
    with context.Pool(number, initializer=_join, initargs=(barrier,)) as pool:
        try:
            return pool.starmap_async(restore_together, arguments, chunksize=1).get(max(seconds, 1.0))
        except multiprocessing.TimeoutError:
            return None


def _join(barrier: Barrier) -> None:
    """Keep what processes meet at, in each of them."""
    global _barrier
    _barrier = barrier
    start_logging()


def restore_together(size: int, exposures: int, device: str, share: float) -> SharedRun:
    """Restore a patch when all processes are ready.

    Parameters
    ----------
    size
        Its side in pixels.
    exposures
        Number of exposures.
    device
        Name of the device.
    share
        Share of the card.
    """
    warm_up(device)
    options: RestoreOptions = make_options(device, share=share)
    _barrier.wait()
    _, measurement = measure_restoration(make_source(size, exposures), options, device)
    _barrier.wait()
    used = device_memory() - torch.cuda.mem_get_info()[0] if device != "cpu" else 0
    _barrier.wait()
    return SharedRun(measurement, used)
