# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restorations that are measured, in processes with a time limit."""

from __future__ import annotations

__all__ = (
    "Measurement",
    "TimedSource",
    "call_within",
    "device_memory",
    "make_options",
    "make_source",
    "measure_restoration",
    "synchronize",
    "warm_up",
)

import contextlib
import dataclasses
import importlib.util
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from lsst.astroclearnet.core import (
    ExposureCutouts,
    ExposureMaps,
    MemoryPlan,
    RestorationResult,
    RestoreOptions,
    TilingOptions,
    restore_exposures,
)

from ..processes import peak_memory, start_logging
from ..scaling.run import TARGET
from ..scaling.source import SyntheticSource

_GIB = 2.0**30

_SHARE = 0.9
"""Share of the memory of card and host that a restoration may take."""

_INTERVAL = 0.1
"""Seconds between two looks at the card, which has means over as long."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a restoration took.

    Attributes
    ----------
    seconds
        Time on the clock.
    reading
        Time in which exposures were read, or made.
    busy
        Share of the time in which a kernel ran on the card; NaN if unknown.
    device
        Peak of the memory on the card in bytes; 0 for a CPU.
    host
        Peak of the memory of the process in bytes.
    """

    seconds: float
    reading: float
    busy: float
    device: float
    host: float


class TimedSource:
    """A source of exposures that measures how long they take to read.

    Parameters
    ----------
    source
        The source.
    """

    resident_bytes = 0

    def __init__(self, source: SyntheticSource) -> None:
        self._source = source
        self.shape = source.shape
        self.num_exposures = source.num_exposures
        self.extent = source.extent
        self.seconds = 0.0

    def read(self, rows: slice, columns: slice) -> ExposureCutouts:
        """Return the exposures in a region."""
        start = time.perf_counter()
        try:
            return self._source.read(rows, columns)
        finally:
            self.seconds += time.perf_counter() - start


def measure_restoration(
    source: SyntheticSource,
    options: RestoreOptions,
    device: str,
    *,
    plan: MemoryPlan | None = None,
    maps: ExposureMaps | None = None,
) -> tuple[RestorationResult, Measurement]:
    """Restore a patch, and measure.

    Parameters
    ----------
    source
        Its exposures.
    options
        Settings.
    device
        Name of the device.
    plan
        Tiles.
    maps
        Receives tiles.
    """
    timed = TimedSource(source)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    with _watch(device) as samples:
        start = time.perf_counter()
        result = restore_exposures(
            timed, target_fwhm=TARGET, options=options, device=device, plan=plan, maps=maps, seed=1
        )
        synchronize(device)
        seconds = time.perf_counter() - start
    used = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    busy = float(np.mean(samples)) if samples else math.nan
    return result, Measurement(seconds, timed.seconds, busy, used, peak_memory() * 2**20)


@contextlib.contextmanager
def _watch(device: str) -> Iterator[list[float]]:
    """Sample how busy the card is, which needs the package ``pynvml``."""
    samples: list[float] = []
    if device == "cpu" or importlib.util.find_spec("pynvml") is None:
        yield samples
        return
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_INTERVAL):
            samples.append(torch.cuda.utilization() / 100.0)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def make_source(size: int, num_exposures: int) -> SyntheticSource:
    """Return exposures of a square patch, which all processors make.

    Parameters
    ----------
    size
        Side of the patch in pixels.
    num_exposures
        Number of exposures.
    """
    return SyntheticSource((size, size), num_exposures, threads=os.cpu_count() or 1)


def make_options(device: str, *, max_tile_size: int = 1 << 14, share: float = 1.0) -> RestoreOptions:
    """Return the defaults, but with what the machine has of memory.

    Parameters
    ----------
    device
        Name of the device.
    max_tile_size
        Largest side of a tile in pixels; no limit beside memory by default.
    share
        Share of the card that may be used.
    """
    limits = {"max_tile_size": max_tile_size}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    tiling = TilingOptions(max_host_memory=_SHARE * host, **limits)
    if device != "cpu":
        tiling = dataclasses.replace(tiling, max_device_memory=_SHARE * share * device_memory() / _GIB)
    return RestoreOptions(tiling=tiling)


def device_memory() -> int:
    """Return the memory of the card in bytes."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def synchronize(device: str) -> None:
    """Wait until the device has done all it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize()


def warm_up(device: str) -> float:
    """Restore a tiny patch, which compiles kernels; return the seconds."""
    return measure_restoration(SyntheticSource((96, 96), 2), RestoreOptions(), device)[1].seconds


def call_within[Result](seconds: float, function: Callable[..., Result], **options: object) -> Result | None:
    """Call a function of a module in a fresh process.

    Parameters
    ----------
    seconds
        Time after which the process is ended.
    function
        The function.
    **options
        Its arguments.

    Returns
    -------
    result
        What it returned; `None` if the time was over.
    """
    with multiprocessing.get_context("spawn").Pool(1, initializer=start_logging) as pool:
        try:
            return pool.apply_async(function, kwds=options).get(max(seconds, 1.0))
        except multiprocessing.TimeoutError:
            return None
