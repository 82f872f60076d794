# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Show how far a restoration of many patches is."""

from __future__ import annotations

__all__ = ("follow_campaign", "show_status", "status_lines", "status_sentence", "status_tables")

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from ._comparison_tables import format_number
from ._status import WRITTEN, BandStatus, CampaignStatus, Reason
from ._status_outputs import PatchState

_SECONDS = "\N{DOUBLE PRIME}"
_GIBIBYTE = 2.0**30
_MAX_REASONS = 5
"""Different reasons that are shown."""

_MAX_LENGTH = 160
"""Characters of a reason that are shown."""


def status_tables(status: CampaignStatus) -> list[RichTable]:
    """Lay out a summary for reading.

    Parameters
    ----------
    status
        The summary.

    Returns
    -------
    tables : `list` [`rich.table.Table`]
        One of how many patches are done and, if any is, one of what they
        took.
    """
    counts = RichTable(title="Patches")
    figures = RichTable(
        title="Restored patches: medians, time and memory",
        caption="Seeing: FWHM of the PSFs that went in; target: FWHM of the PSF that comes out. Time of a "
        "patch on the clock. Host memory: peak of a patch or, if that is not known, of its process so far. "
        "Hours spent include failures and earlier attempts; left: what failed and unfinished patches will "
        "take at the median of their band.",
    )
    counts.add_column("band")
    figures.add_column("band")
    for name in ("expected", *PatchState, "with\nwarnings"):
        counts.add_column(str(name), justify="right")
    for name in (
        "exposures",
        f"seeing\n({_SECONDS})",
        f"target\n({_SECONDS})",
        "time\n(s)",
        "host memory\n(GiB)",
        "\nmax",
        "device memory\nmax (GiB)",
        f"{status.unit}-hours\nspent",
        f"{status.unit}-hours\nleft",
    ):
        figures.add_column(name, justify="right")
    bands = [*status.bands, status.total] if len(status.bands) > 1 else list(status.bands)
    for number, band in enumerate(bands):
        style = "bold" if band is status.total else None
        end = number + 2 == len(bands)
        numbers = [len(band.patches), *(band.counts[state] for state in PatchState)]
        counts.add_row(band.band, *map(str, numbers), _warned(band), style=style, end_section=end)
        figures.add_row(band.band, *_figures(status, band), style=style, end_section=end)
    return [counts, figures] if any(status.total.counts[state] for state in WRITTEN) else [counts]


def status_sentence(status: CampaignStatus) -> str:
    """Say in one line how far a restoration is.

    Parameters
    ----------
    status
        The summary.

    Returns
    -------
    sentence : `str`
        Number of patches in each state, and the hours left.
    """
    total = status.total
    states = ", ".join(f"{total.counts[state]} {state}" for state in PatchState if total.counts[state])
    hours = status.hours_left(total)
    left = f", {_hours(hours)} {status.unit}-hours left" if math.isfinite(hours) and hours else ""
    number = len(total.patches)
    return f"{number} {'patch' if number == 1 else 'patches'}: {states}{left}"


def status_lines(status: CampaignStatus) -> Iterator[str]:
    """Say why patches failed, and what the others were warned of.

    Parameters
    ----------
    status
        The summary.

    Yields
    ------
    line : `str`
        The last one says in short how far the restoration is.
    """
    for state, title in (
        (PatchState.FAILED, "Failed"),
        (PatchState.PARTIAL, "Restored in part"),
        (PatchState.NO_WORK, "Without work"),
    ):
        yield from _reason_lines(title, status.reasons(state))
    yield from _reason_lines("With warnings", status.warnings())
    total = status.total
    finished = len(total.patches) - total.counts[PatchState.UNFINISHED]
    read = sum(patch.details is not None for patch in status.patches)
    if read < finished:
        yield f"Reasons, warnings and figures are those of {read} of the {finished} patches that ended."
    for unit, hours in total.hours_spent.items():
        if unit != status.unit:
            yield f"Some patches ran on another device: {_hours(hours)} {unit}-hours spent."
    yield status_sentence(status)


def show_status(status: CampaignStatus, console: Console) -> None:
    """Show a summary.

    Parameters
    ----------
    status
        The summary.
    console
        Where to write.
    """
    for table in status_tables(status):
        console.print(table)
    for line in status_lines(status):
        console.print(line, markup=False)


def follow_campaign(
    look: Callable[[], CampaignStatus], console: Console, *, interval: float, first: CampaignStatus
) -> CampaignStatus:
    """Show how far a restoration is until all patches have ended.

    Parameters
    ----------
    look
        Function that looks how far it is.
    console
        Where to show it: as tables with a bar on a terminal, else as a line
        whenever something has changed.
    interval
        Time between two looks in s.
    first
        What a first look found.

    Returns
    -------
    status : `CampaignStatus`
        What the last look found; an interruption from the keyboard ends the
        show, too.
    """
    status = first
    with suppress(KeyboardInterrupt):
        if not console.is_terminal:
            console.print(status_sentence(status), markup=False)
            while status.total.counts[PatchState.UNFINISHED]:
                time.sleep(interval)
                before, status = status_sentence(status), look()
                if status_sentence(status) != before:
                    console.print(status_sentence(status), markup=False)
            return status
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("patches ended,"), TimeRemainingColumn())
        bar = Progress(*columns, speed_estimate_period=86400.0)
        task = bar.add_task("", total=len(status.patches), completed=_ended(status))
        with Live(Group(*status_tables(status), bar), console=console, transient=True) as live:
            while status.total.counts[PatchState.UNFINISHED]:
                time.sleep(interval)
                status = look()
                bar.update(task, completed=_ended(status))
                live.update(Group(*status_tables(status), bar))
    return status


def _ended(status: CampaignStatus) -> int:
    """Return the number of patches that have ended.

    Parameters
    ----------
    status
        The summary.

    Returns
    -------
    number : `int`
        The number.
    """
    return len(status.patches) - status.total.counts[PatchState.UNFINISHED]


def _warned(band: BandStatus) -> str:
    """Format the number of patches with warnings.

    Parameters
    ----------
    band
        A band.

    Returns
    -------
    text : `str`
        The number, and of how many if not all were read.
    """
    written = sum(band.counts[state] for state in WRITTEN)
    return f"{band.num_warned}" if len(band.read) == written else f"{band.num_warned} of {len(band.read)}"


def _figures(status: CampaignStatus, band: BandStatus) -> Iterator[str]:
    """Format what the patches of a band took.

    Parameters
    ----------
    status
        The summary.
    band
        A band.

    Yields
    ------
    cell : `str`
        A dash where nothing is known.
    """
    yield format_number(band.median("num_exposures"), 0)
    yield format_number(band.median("seeing"), 2)
    yield format_number(band.median("target_fwhm"), 2)
    yield format_number(band.median_time, 1)
    yield format_number(band.median("host_memory") / _GIBIBYTE, 2)
    yield format_number(band.maximum("host_memory") / _GIBIBYTE, 2)
    yield format_number(band.maximum("device_memory") / _GIBIBYTE, 2)
    yield _hours(band.hours_spent.get(status.unit, 0.0))
    yield _hours(status.hours_left(band))


def _hours(hours: float) -> str:
    """Format hours.

    Parameters
    ----------
    hours
        The hours.

    Returns
    -------
    text : `str`
        With three digits; a dash for NaN.
    """
    return f"{hours:.3g}" if hours >= 0.01 or hours == 0.0 else "-" if math.isnan(hours) else "<0.01"


def _reason_lines(title: str, reasons: Sequence[Reason]) -> Iterator[str]:
    """List reasons with the number of their patches.

    Parameters
    ----------
    title
        What they are the reasons of.
    reasons
        The reasons, the most frequent first.

    Yields
    ------
    line : `str`
        Nothing if there is no reason.
    """
    if reasons:
        yield f"{title}:"
    for reason in reasons[:_MAX_REASONS]:
        text = " ".join(reason.text.split())
        if len(text) > _MAX_LENGTH:
            text = f"{text[: _MAX_LENGTH - 3]}..."
        others = f" and {len(reason.patches) - 1} more" if len(reason.patches) > 1 else ""
        yield f"  {reason.patches[0]}{others}: {text}"
    if len(reasons) > _MAX_REASONS:
        yield f"  ... and {len(reasons) - _MAX_REASONS} other kinds."
