# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

type Report = Callable[[int, int, str], None]
"""Called with the number done, the number to do, and a name."""


@contextmanager
def show_progress(console: Console) -> Iterator[Report]:
    """Show progress as a bar on a terminal, else as a line for every eighth
    and at the end.
    """
    if not console.is_terminal:
        last: list[int] = []

        def write_line(done: int, total: int, name: str) -> None:
            if not last or done * 8 // total != last[0] * 8 // total or done == total:
                console.print(f"  {done}/{total} {name}", markup=False)
            last[:] = done, total

        yield write_line
        # The end of what was begun last is not reported.
        if last and last[0] < last[1]:
            console.print(f"  {last[1]}/{last[1]} done", markup=False)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)
