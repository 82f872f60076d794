# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Exposure after exposure, in as many threads as PyTorch may use."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep PyTorch from threads of its own."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


def num_workers(device: torch.device) -> int:
    """Return how many exposures are worked on at once; 1 on a GPU.

    Parameters
    ----------
    device
        Device of the data.
    """
    return torch.get_num_threads() if device.type == "cpu" else 1


def ordered_map[T, S, R](
    function: Callable[[T, S], R], items: Iterable[T], scratch: Sequence[S]
) -> Iterator[R]:
    """Apply a function in threads; yield results in the order of the items.

    One thread works on an item from start to end, without gradients: results
    do not depend on the number of threads.

    Parameters
    ----------
    function
        Takes an item and memory of its own.
    items
        The items.
    scratch
        Memory for each thread; that of a result is used again for the next.
    """
    if len(scratch) == 1:
        for item in items:
            yield function(item, scratch[0])
        return
    pool = _pool(os.getpid(), len(scratch))
    free, running = list(scratch), deque[tuple[Future[R], S]]()
    with one_thread():
        for item in items:
            if not free:
                future, memory = running.popleft()
                yield future.result()
                free.append(memory)
            memory = free.pop()
            running.append((pool.submit(function, item, memory), memory))
        while running:
            yield running.popleft()[0].result()


@functools.lru_cache(maxsize=1)
def _pool(process: int, number: int) -> ThreadPoolExecutor:
    """Return threads; a forked process has none of those of its parent."""
    return ThreadPoolExecutor(number, "astroclearnet", _start_thread)


def _start_thread() -> None:
    # The library of Fourier transforms counts its threads by thread.
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
