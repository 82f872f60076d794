# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Web pages of a collection, with the status of its campaign."""

from __future__ import annotations

import os
from pathlib import Path

from lsst.daf.butler import Butler

from ..report import ReportError, read_contents, write_report
from ._errors import CommandError
from ._progress import Report
from ._status import CampaignWatch
from ._status_report import status_lines, status_sentence
from ._status_sources import ButlerSource


def write_collection_report(
    butler: Butler,
    folder: str | os.PathLike[str],
    *,
    repository: str,
    name: str = "restored_coadd",
    task: str = "restoreCoadd",
    where: str = "",
    progress: Report | None = None,
) -> Path:
    """Write a report of the restored coadds in the default collections, and
    return its first page; a report in the folder is replaced.
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
    """Return the status, or why it is not known."""
    try:
        status = CampaignWatch(ButlerSource(butler, label=task, where=where), label=task).look()
    except CommandError as exc:
        return [f"The status of the campaign is not known. {exc}"]
    first = status_sentence(status)
    return [first, *(line for line in status_lines(status) if line.strip() and line != first)]
