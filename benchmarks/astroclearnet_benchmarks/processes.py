# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Functions in processes of their own, for their peak memory."""

from __future__ import annotations

__all__ = (
    "FAILURES",
    "Runner",
    "call_in_process",
    "current_memory",
    "make_pool",
    "peak_memory",
    "start_logging",
)

import json
import logging
import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)

FAILURES = (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError)
"""What a measurement may raise on some data or machine; others are mistakes in
the code, and end a benchmark."""


def start_logging() -> None:
    """Log what is done, with the time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def make_pool(jobs: int = 1) -> ProcessPoolExecutor:
    """Return fresh processes that log."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=start_logging)


def call_in_process[Result](function: Callable[..., Result], *args: Any, **options: Any) -> Result:
    """Call a function of a module in a fresh process."""
    with make_pool() as pool:
        return pool.submit(function, *args, **options).result()


def peak_memory() -> float:
    """Return the largest memory of this process so far in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def current_memory() -> float:
    """Return the memory of this process in MiB, its peak if unknown."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_memory()
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Runner:
    """Calls functions in fresh processes and keeps what they return.

    A benchmark that was stopped goes on where it was, and more scenes can be
    added.  Threads may share it.

    Parameters
    ----------
    records
        File of what was measured before.
    code
        Version of the code; what another one measured is not used.
    isolate
        Whether to start processes; else everything is run in this one.
    """

    def __init__(self, records: Path, code: str, *, isolate: bool = True) -> None:
        self._records = records
        self._code = code
        self._isolate = isolate
        self._lock = threading.Lock()

    def __call__(self, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Call a function of a module, or return what it returned before."""
        key = f"{self._code}: {function.__name__}{args!r}"
        with self._lock:
            lines = self._records.read_text().splitlines() if self._records.exists() else []
        for line in lines:
            content: dict[str, Any] = json.loads(line)
            if content["key"] == key:
                return dict(content["record"])
        start = time.perf_counter()
        record = call_in_process(function, *args) if self._isolate else function(*args)
        _LOG.info("%s%r: %.0f s", function.__name__, args, time.perf_counter() - start)
        with self._lock, self._records.open("a") as file:
            file.write(json.dumps({"key": key, "record": record}) + "\n")
        return record
