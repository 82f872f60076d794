# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated surveys that are there whole, or not at all."""

from __future__ import annotations

__all__ = ("Report", "require_repository", "simulate_whole")

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from ..simulation import SurveyOptions, SurveySummary, make_survey
from ._errors import CommandError

type Report = Callable[[int, int, str], None]
"""Called with the number done, the number to do, and a name."""


def simulate_whole(
    root: Path,
    options: SurveyOptions,
    *,
    registry: str | None = None,
    progress: Report,
    say: Callable[[str], None],
    complete: Callable[[], object] = lambda: None,
) -> SurveySummary:
    """Make a survey that is in its place when it is complete.

    Parameters
    ----------
    root
        Root of its repository, which must not exist.
    options
        The survey.
    registry
        URL of the database for its registry.
    progress
        Function that is told the number done, the number to do, and a name.
    say
        Function that shows a line to the user.
    complete
        Called when the survey is complete, before it is moved to its place.

    Returns
    -------
    summary : `lsst.astroclearnet.simulation.SurveySummary`
        Collections and data ID values.

    Raises
    ------
    CommandError
        If there is something else where it is made.
    """
    # A suffix would be taken for a file format.
    partial = root.with_name(f"{root.name.replace('.', '_')}_partial")
    if partial.exists():
        require_repository(partial)
        say(f"Deleting {partial}, which an interrupted simulation left.")
        shutil.rmtree(partial)
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        summary = make_survey(partial, options, registry=registry, progress=progress)
        complete()
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    # Paths in a repository are relative to its root.
    partial.rename(root)
    return dataclasses.replace(summary, root=str(root))


def require_repository(root: Path) -> None:
    """Refuse to delete what is no repository.

    Parameters
    ----------
    root
        Root of what is to be deleted.

    Raises
    ------
    CommandError
        If something else is there.
    """
    if root.exists() and not (root / "butler.yaml").is_file():
        raise CommandError(f"{root} is not a Butler repository and will not be deleted.")
