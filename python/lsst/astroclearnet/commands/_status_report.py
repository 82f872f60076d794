# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Show the status of a campaign."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from ._status import BandStatus, CampaignStatus, Reason
from ._status_sources import PatchState
from ._tables import ARCSEC, Columns, format_number, make_table

_GIBIBYTE = 2.0**30

_MAX_REASONS = 5
"""Different reasons that are shown."""

_MAX_LENGTH = 160
"""Characters of a reason that are shown."""


def status_tables(status: CampaignStatus) -> list[RichTable]:
    """Lay out the number of patches in each state and, if any has a coadd, the
    time and memory used.
    """
    states: Columns = {str(state): _count(state) for state in PatchState}
    counts: Columns = {"expected": lambda band: str(len(band.patches)), **states, "with\nwarnings": _warned}
    metrics: Columns = {
        "exposures": lambda band: format_number(band.median("num_exposures"), 0),
        f"seeing\n({ARCSEC})": lambda band: format_number(band.median("seeing"), 2),
        f"target\n({ARCSEC})": lambda band: format_number(band.median("target_fwhm"), 2),
        "time\n(s)": lambda band: format_number(band.median_time, 1),
        "host memory\n(GiB)": lambda band: format_number(band.median("host_memory") / _GIBIBYTE, 2),
        "\nmax": lambda band: format_number(band.maximum("host_memory") / _GIBIBYTE, 2),
        "device memory\nmax (GiB)": lambda band: format_number(band.maximum("device_memory") / _GIBIBYTE, 2),
        f"{status.unit}-hours\nspent": lambda band: _hours(band.hours_spent.get(status.unit, 0.0)),
        f"{status.unit}-hours\nleft": lambda band: _hours(status.hours_left(band)),
    }
    caption = (
        "Seeing: FWHM of the PSFs of the exposures; target: FWHM of the PSF of the coadd. Time: "
        "wall-clock time of a patch. Host memory: peak of a patch or, if that is not known, of its process "
        "so far. Hours spent include failures and earlier attempts; left: failed and unfinished patches at "
        "the median of their band."
    )
    tables: list[tuple[str, Columns, str | None]] = [("Patches", counts, None)]
    if status.total.num_written:
        tables.append(("Restored patches: medians, time and memory", metrics, caption))
    return [
        make_table(
            title,
            [*status.bands, status.total] if len(status.bands) > 1 else list(status.bands),
            {"band": lambda band: band.band},
            columns,
            group=lambda band: band is status.total,
            is_bold=lambda band: band is status.total,
            caption=words,
        )
        for title, columns, words in tables
    ]


def status_sentence(status: CampaignStatus) -> str:
    """Return the number of patches in each state, and the hours left."""
    total = status.total
    states = ", ".join(f"{total.counts[state]} {state}" for state in PatchState if total.counts[state])
    hours = status.hours_left(total)
    left = f", {_hours(hours)} {status.unit}-hours left" if math.isfinite(hours) and hours else ""
    number = len(total.patches)
    return f"{number} {'patch' if number == 1 else 'patches'}: {states}{left}"


def status_lines(status: CampaignStatus) -> Iterator[str]:
    """Yield reasons and warnings, and at last the sentence."""
    for state, title in (
        (PatchState.FAILED, "Failed"),
        (PatchState.PARTIAL, "Restored in part"),
        (PatchState.NO_WORK, "Without work"),
    ):
        yield from _reason_lines(title, status.reasons(state))
    yield from _reason_lines("With warnings", status.warnings())
    read = sum(patch.details is not None for patch in status.patches)
    if read < _num_ended(status):
        ended = _num_ended(status)
        yield f"Reasons, warnings and metrics are those of {read} of the {ended} patches that ended."
    for unit, hours in status.total.hours_spent.items():
        if unit != status.unit:
            yield f"Some patches ran on another device: {_hours(hours)} {unit}-hours spent."
    yield status_sentence(status)


def show_status(status: CampaignStatus, console: Console) -> None:
    """Write tables and lines."""
    for table in status_tables(status):
        console.print(table)
    for line in status_lines(status):
        console.print(line, markup=False)


def follow_campaign(
    look: Callable[[], CampaignStatus], console: Console, *, interval: float, first: CampaignStatus
) -> CampaignStatus:
    """Show the status, every ``interval`` seconds, until all patches have
    ended or the keyboard interrupts; return the last one.

    On a terminal it is shown as tables with a bar, else as a line whenever
    something has changed.
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
        task = bar.add_task("", total=len(status.patches), completed=_num_ended(status))
        with Live(Group(*status_tables(status), bar), console=console, transient=True) as live:
            while status.total.counts[PatchState.UNFINISHED]:
                time.sleep(interval)
                status = look()
                bar.update(task, completed=_num_ended(status))
                live.update(Group(*status_tables(status), bar))
    return status


def _num_ended(status: CampaignStatus) -> int:
    """Return the number of patches that have ended."""
    return len(status.patches) - status.total.counts[PatchState.UNFINISHED]


def _count(state: PatchState) -> Callable[[BandStatus], str]:
    return lambda band: str(band.counts[state])


def _warned(band: BandStatus) -> str:
    """Format the number of patches with warnings, among those read."""
    is_all = len(band.read) == band.num_written
    return f"{band.num_warned}" if is_all else f"{band.num_warned} of {len(band.read)}"


def _hours(hours: float) -> str:
    """Format hours with three digits; a dash for NaN."""
    return f"{hours:.3g}" if hours >= 0.01 or hours == 0.0 else "-" if math.isnan(hours) else "<0.01"


def _reason_lines(title: str, reasons: Sequence[Reason]) -> Iterator[str]:
    """List reasons with the number of their patches, under a title."""
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
