# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Report of a collection for the browser."""

from __future__ import annotations

__all__ = ("write_collection_report",)

import os
from collections.abc import Callable
from pathlib import Path

from lsst.daf.butler import Butler

from ..report import ReportError, read_contents, write_report
from ._errors import CommandError
from ._status_outputs import ButlerSource
from ._status_report import status_lines, status_sentence
from ._status_watch import CampaignWatch


def write_collection_report(
    butler: Butler,
    folder: str | os.PathLike[str],
    *,
    repository: str,
    name: str = "restored_coadd",
    task: str = "restoreCoadd",
    where: str = "",
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write a report of restored coadds, with how far their campaign is.

    Parameters
    ----------
    butler
        A Butler whose default collections hold the restored coadds.
    folder
        Where to write it; a report that is there is replaced.
    repository
        Where the repository is, for the lines that read from it.
    name
        Dataset type of the restored coadds.
    task
        Label of the task that restored them.
    where
        Constraint on the data IDs, in the language of Butler queries.
    progress
        Function called with the number done, the number to do, and a name.

    Returns
    -------
    index : `pathlib.Path`
        First page of the report.

    Raises
    ------
    CommandError
        If there is nothing to report, or something else in the folder.
    """
    title = f"Restored coadds in {', '.join(butler.collections.defaults)}"
    try:
        contents = read_contents(
            butler, title=title, repository=repository, name=name, where=where, progress=progress
        )
        return write_report(contents, folder, notes=_campaign_lines(butler, task, where))
    except ReportError as exc:
        raise CommandError(str(exc)) from exc


def _campaign_lines(butler: Butler, task: str, where: str) -> list[str]:
    """Say how far a campaign is.

    Parameters
    ----------
    butler
        A Butler with default collections.
    task
        Label of its task.
    where
        Constraint on the data IDs.

    Returns
    -------
    lines : `list` [`str`]
        Sentences; why it cannot be said, if the collections do not hold what
        it takes.
    """
    try:
        status = CampaignWatch(ButlerSource(butler, label=task, where=where), label=task).look()
    except CommandError as exc:
        return [f"How far the campaign is cannot be said. {exc}"]
    first = status_sentence(status)
    return [first, *(line for line in status_lines(status) if line.strip() and line != first)]
