# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Surveys of the commands ``simulate`` and ``demo``."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from ...simulation import INSTRUMENT, PIXEL_SCALE, SurveyOptions, SurveySummary, make_survey
from .._butler import require_repository
from .._pipetask import format_command, restore_command
from .._progress import Report

TARGET_FWHM = 0.53
"""Target PSF in arcsec: what ``plan --common`` proposes for the survey."""

DEFAULTS, TRUTH = f"{INSTRUMENT}/defaults", f"{INSTRUMENT}/truth"
"""Collections of a simulated survey: what a user has, and the truth."""

RESTORED, JOINT = "u/demo/restored", "u/demo/joint"
"""Collections of the coadds restored band by band and all bands together."""

_CELL_SIZE = 50


def make_options(
    *,
    seed: int,
    bands: tuple[str, ...],
    visits: int,
    patches: tuple[int, int],
    patch_cells: int,
    stars: float,
) -> SurveyOptions:
    """Return a survey, with truth images at the target PSF."""
    # Two detectors side by side; rotated and dithered, they hold the tract.
    height = _CELL_SIZE * (max(patches) * patch_cells + 2) + 120
    return SurveyOptions(
        seed=seed,
        bands=bands,
        visits_per_band=visits,
        num_patches=patches[::-1],
        patch_cells=patch_cells,
        stars_per_patch=stars,
        detector_grid=(1, 2),
        detector_shape=(height, height // 2 + 25),
        cell_size=_CELL_SIZE,
        truth_fwhm=TARGET_FWHM / PIXEL_SCALE,
    )


def simulate_survey(
    root: Path,
    options: SurveyOptions,
    *,
    registry: str | None = None,
    progress: Report,
    say: Callable[[str], None],
    complete: Callable[[], object] = lambda: None,
) -> SurveySummary:
    """Make a survey at a place where there is nothing.

    It is made beside its place and, when it is complete and ``complete`` has
    been called, moved there.
    """
    # A suffix would be taken for a file format.
    partial = root.with_name(f"{root.name.replace('.', '_')}_partial")
    if partial.exists():
        remove_repository(partial)
        say(f"Deleted {partial}, which an interrupted simulation left.")
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        summary = make_survey(partial, options, registry=registry, progress=progress)
        complete()
    except Exception:
        # Whatever failed, the corrected command must not find remains.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    # Paths in a repository are relative to its root.
    partial.rename(root)
    return dataclasses.replace(summary, root=str(root))


def remove_repository(root: Path) -> None:
    """Delete a repository, if it is there, and nothing else."""
    if root.exists():
        require_repository(root, " and will not be deleted")
        shutil.rmtree(root)


def survey_text(summary: SurveySummary) -> str:
    """Return what a survey holds, and how to restore it."""
    command = restore_command(summary.root, skymap=summary.skymap, inputs=summary.defaults, output=RESTORED)
    return (
        f"Repository:      {summary.root}\n"
        f"Visit images:    {summary.num_visit_images} of {summary.instrument} in {summary.visits_run}\n"
        f"Patches:         {len(summary.patches)} in tract {summary.tract} of sky map {summary.skymap!r}, "
        f"bands {', '.join(summary.bands)}\n"
        f"Direct coadds:   {summary.coadds_run} (deep_coadd)\n"
        f"Truth:           {summary.truth_run} (truth_catalogue, truth_image)\n"
        f"For pipelines:   {summary.defaults}\n"
        f"Restore it with\n$ {format_command(command)}"
    )
