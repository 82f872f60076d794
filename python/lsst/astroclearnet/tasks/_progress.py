# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Progress of long computations, in the log and on a terminal."""

from __future__ import annotations

__all__ = ("report_progress", "report_training")

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lsst.utils.logging import LsstLogAdapter, PeriodicLogger

from ..core import ProgressCallback

_INTERVAL = 20.0
"""Seconds between messages in the log."""


@dataclasses.dataclass(frozen=True)
class ProgressCallbacks:
    """What the restoration calls as it proceeds.

    Attributes
    ----------
    epoch
        To be called after each epoch of the fit.
    tile
        To be called after each tile with the number done and that of all.
    """

    epoch: ProgressCallback
    tile: Callable[[int, int], None]


@contextlib.contextmanager
def report_progress(log: LsstLogAdapter, description: str, max_epochs: int) -> Iterator[ProgressCallbacks]:
    """Report the epochs of a fit and the tiles of a patch.

    A message goes to the log every 20 seconds; where standard error is a
    terminal there is also a bar, whose full length is at first the largest
    number of epochs, which a fit rarely needs, and then the number of tiles.

    Parameters
    ----------
    log
        Log of the task.
    description
        What is restored, such as the data ID.
    max_epochs
        Largest number of epochs.

    Yields
    ------
    callbacks : ``ProgressCallbacks``
        To be called.
    """
    periodic = PeriodicLogger(log, interval=_INTERVAL)
    with _make_bar() as progress:
        bar = progress.add_task(description, total=max_epochs, state="")

        def report_epoch(epoch: int, loss: float, validation_loss: float) -> None:
            state = f"epoch {epoch}, held-out loss {validation_loss:.5f}"
            progress.update(bar, completed=epoch, state=state)
            periodic.log("Fit of %s: %s.", description, state)

        def report_tile(done: int, number: int) -> None:
            state = f"tile {done} of {number}"
            progress.update(bar, completed=done, total=number, state=state)
            periodic.log("Restoration of %s: %s.", description, state)

        yield ProgressCallbacks(report_epoch, report_tile)


@contextlib.contextmanager
def report_training(
    log: LsstLogAdapter, description: str, num_steps: int
) -> Iterator[Callable[[int, float, float | None], None]]:
    """Report the steps of a training.

    A message goes to the log every 20 seconds; where standard error is a
    terminal there is also a bar.

    Parameters
    ----------
    log
        Log of the task.
    description
        What the network is trained for.
    num_steps
        Number of all steps.

    Yields
    ------
    callback
        To be called after a step with its number, the mean loss of recent
        steps and the last validation loss, if there is one.
    """
    periodic = PeriodicLogger(log, interval=_INTERVAL)
    with _make_bar() as progress:
        bar = progress.add_task(description, total=num_steps, state="")

        def report_step(step: int, loss: float, validation_loss: float | None) -> None:
            state = f"step {step} of {num_steps}, loss {loss:.5f}"
            if validation_loss is not None:
                state += f", validation loss {validation_loss:.5f}"
            progress.update(bar, completed=step, state=state)
            periodic.log("Training of %s: %s.", description, state)

        yield report_step


def _make_bar() -> Progress:
    """Return a bar that is seen on terminals only."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
