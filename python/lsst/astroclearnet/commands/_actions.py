# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the subcommands do with their arguments.

Those that simulate or compare with a simulated truth need packages which an
installation for restoring alone does not have, and import them when they run.
"""

from __future__ import annotations

__all__ = ("ACTIONS",)

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lsst.daf.butler import Butler, MissingCollectionError

from ._errors import CommandError
from ._ingest import ingest_files
from ._pipetask import format_command, restore_command
from ._progress import show_progress
from ._web_report import write_collection_report
from ._whole import require_place, whole_file

if TYPE_CHECKING:
    from ..simulation import SurveyOptions

_STATES = {
    "new": "new",
    "unchanged": "there already",
    "replaced": "replaced",
    "differs": "there already with other content, and left as they are there",
}
"""What became of the files of an ingest, in words."""

CELL_SIZE = 50
"""Side in pixels of the cells of simulated patches."""

TASK = "restoreCoadd"
"""Label of the task in the pipelines of this package."""


def demo_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``demo``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.
    """
    from ._comparison_tables import comparison_tables
    from ._demo import RESTORED, demo_hints, run_demo
    from ._status_outputs import ButlerSource
    from ._status_report import show_status
    from ._status_watch import CampaignWatch

    summary = run_demo(
        options.outdir,
        _survey_options(options),
        jobs=options.jobs,
        overwrite=options.overwrite,
        say=lambda line: console.print(line, markup=False),
        progress=lambda: show_progress(console),
    )
    source = ButlerSource(_open(str(summary.root), [RESTORED]), label=TASK)
    show_status(CampaignWatch(source, label=TASK).look(), console)
    for table in comparison_tables(summary.table):
        console.print(table)
    console.print(demo_hints(summary), markup=False)


def simulate_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``simulate``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.
    """
    from ._demo import RESTORED
    from ._simulate import simulate_whole

    if os.path.lexists(options.repo):
        raise CommandError(f"{options.repo} exists already; choose another directory.")
    with show_progress(console) as progress:
        summary = simulate_whole(
            Path(options.repo),
            _survey_options(options),
            registry=options.registry,
            progress=progress,
            say=lambda line: console.print(line, markup=False),
        )
    command = restore_command(options.repo, skymap=summary.skymap, inputs=summary.defaults, output=RESTORED)
    console.print(
        f"Repository:      {summary.root}\n"
        f"Visit images:    {summary.num_visit_images} of {summary.instrument} in {summary.visits_run}\n"
        f"Patches:         {len(summary.patches)} in tract {summary.tract} of sky map {summary.skymap!r}, "
        f"bands {', '.join(summary.bands)}\n"
        f"Plain coadds:    {summary.coadds_run} (deep_coadd)\n"
        f"Truth:           {summary.truth_run} (truth_catalogue, truth_image)\n"
        f"For pipelines:   {summary.defaults}\n"
        f"Restore it with\n$ {format_command(command)}",
        markup=False,
    )


def ingest_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``ingest``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.
    """
    with show_progress(console) as progress:
        summary = ingest_files(
            options.repo,
            options.files,
            skymap=options.skymap,
            cell_size=options.cell_size,
            pixel_scale=options.pixel_scale,
            num_patches=options.patches,
            registry=options.registry,
            replace=options.replace,
            progress=progress,
        )
    (tract,) = summary.geometry.tracts
    height, width = tract.bbox.shape
    user = os.environ.get("USER") or "me"
    command = restore_command(
        options.repo, skymap=options.skymap, inputs=summary.defaults, output=f"u/{user}/restored"
    )
    console.print(
        f"Repository:      {summary.root}\n"
        f"Visit images:    {summary.num_visit_images} of {summary.instrument}"
        f" ({', '.join(f'{number} {_STATES[state]}' for state, number in summary.states.items())})\n"
        f"Sky map:         {options.skymap!r}, {width}x{height} pixels of "
        f"{tract.pixel_scale_arcsec:g} arcsec at RA {tract.ra_deg:.5f}, Dec {tract.dec_deg:+.5f}\n"
        f"For pipelines:   {summary.defaults}\n"
        f"Restore it with\n$ {format_command(command)}",
        markup=False,
    )


def plan_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``plan``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.
    """
    from ._campaign import sample_campaign
    from ._plan import plan_campaign, plan_lines, plan_tables

    require_place(options.output)
    butler = _open(options.repo, options.input.split(","))
    with show_progress(console) as progress:
        sample = sample_campaign(
            butler,
            dataset_type=options.dataset_type,
            skymap=options.skymap,
            where=options.where,
            bands=options.bands,
            max_exposures=options.max_exposures,
            progress=progress,
        )
    plan = plan_campaign(sample, max_noise=options.max_noise, common=options.common)
    if options.output:
        with whole_file(options.output) as made:
            plan.table().write(made, format="ascii.ecsv")
    for tabular in plan_tables(plan):
        console.print(tabular)
    for line in plan_lines(plan):
        console.print(line, markup=False)


def status_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``status``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.

    Raises
    ------
    CommandError
        If it is not said where to look, or if ``--check`` is given and a
        patch failed or is not finished.
    """
    from ._status_graph import GraphSource
    from ._status_outputs import ButlerSource, PatchState, StatusSource
    from ._status_report import follow_campaign, show_status
    from ._status_watch import CampaignWatch

    if (options.collection is None) == (options.graph is None):
        raise CommandError("Give either a collection or, with --graph, a quantum graph.")
    require_place(options.output)
    source: StatusSource
    if options.graph is not None:
        _require_repository(options.repo)
        source = GraphSource(options.repo, options.graph, label=options.task)
    else:
        inputs = options.input.split(",") if options.input else []
        butler = _open(options.repo, [options.collection, *inputs])
        source = ButlerSource(butler, label=options.task, skymap=options.skymap, where=options.where)
    with show_progress(console) as report:
        progress = report if console.is_terminal else None
        watch = CampaignWatch(source, label=options.task, max_read=options.max_read, progress=progress)
        status = watch.look(progress)
    if options.watch:
        status = follow_campaign(watch.look, console, interval=options.watch, first=status)
    if options.output:
        with whole_file(options.output) as made:
            status.table().write(made, format="ascii.ecsv")
    show_status(status, console)
    if options.check and not status.is_complete:
        counts = status.total.counts
        raise CommandError(
            f"Patches that failed: {counts[PatchState.FAILED]}; not finished: "
            f"{counts[PatchState.UNFINISHED]}."
        )


def compare_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``compare``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.
    """
    from ._comparison import compare_patches
    from ._comparison_tables import comparison_tables

    require_place(options.output)
    butler = _open(options.repo, [options.collection, options.truth])
    with show_progress(console) as progress:
        table, _ = compare_patches(butler, progress=progress)
    if options.output:
        with whole_file(options.output) as made:
            table.write(made, format="ascii.ecsv")
    for tabular in comparison_tables(table):
        console.print(tabular)


def report_action(options: argparse.Namespace, console: Console) -> None:
    """Run the subcommand ``report``.

    Parameters
    ----------
    options
        Its arguments.
    console
        Where to write.

    Raises
    ------
    CommandError
        If there is nothing to report, or the folder holds something else.
    """
    with show_progress(console) as progress:
        index = write_collection_report(
            _open(options.repo, options.collection.split(",")),
            options.output,
            repository=options.repo,
            name=options.dataset_type,
            task=options.task,
            where=options.where,
            progress=progress,
        )
    console.print(f"Report: {index}", markup=False)


def _open(root: str, collections: Sequence[str]) -> Butler:
    """Open a repository for reading.

    Parameters
    ----------
    root
        Root of the repository.
    collections
        Collections to search.

    Returns
    -------
    butler : `lsst.daf.butler.Butler`
        A client.

    Raises
    ------
    CommandError
        If there is no such repository or collection.
    """
    _require_repository(root)
    try:
        butler = Butler.from_config(root, collections=collections)
        # Nothing else looks whether they exist before a query is made.
        butler.collections.query(collections)
        return butler
    except MissingCollectionError as exc:
        raise CommandError(f"{root}: {exc}") from exc


def _require_repository(root: str) -> None:
    """Refuse what is no repository.

    Parameters
    ----------
    root
        Root of the repository.

    Raises
    ------
    CommandError
        If there is none.
    """
    if not os.path.isfile(os.path.join(root, "butler.yaml")):
        raise CommandError(f"{root} is not a Butler repository.")


def _survey_options(options: argparse.Namespace) -> SurveyOptions:
    """Return the survey that the arguments define.

    Parameters
    ----------
    options
        Arguments of `_add_survey_options`.

    Returns
    -------
    survey : `lsst.astroclearnet.simulation.SurveyOptions`
        The survey, with truth images at the target PSF of the demo.
    """
    from ..simulation import PIXEL_SCALE, SurveyOptions
    from ._demo import TARGET_FWHM

    if len(options.patches) > 2:
        raise CommandError(f"--patches takes one number or two, not {len(options.patches)}.")
    # Two detectors side by side; rotated and dithered, they hold the tract.
    height = CELL_SIZE * (max(options.patches) * options.patch_cells + 2) + 120
    return SurveyOptions(
        seed=options.seed,
        bands=tuple(options.bands),
        visits_per_band=options.visits,
        num_patches=(options.patches[-1], options.patches[0]),
        patch_cells=options.patch_cells,
        stars_per_patch=options.stars,
        detector_grid=(1, 2),
        detector_shape=(height, height // 2 + 25),
        cell_size=CELL_SIZE,
        truth_fwhm=TARGET_FWHM / PIXEL_SCALE,
    )


ACTIONS: dict[str, Callable[[argparse.Namespace, Console], None]] = {
    "demo": demo_action,
    "simulate": simulate_action,
    "ingest": ingest_action,
    "plan": plan_action,
    "status": status_action,
    "compare": compare_action,
    "report": report_action,
}
"""What each subcommand does with its arguments, and where it writes."""
