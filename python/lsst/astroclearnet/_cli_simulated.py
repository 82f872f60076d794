# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Subcommands that make, restore and judge a simulated survey."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ._cli_group import make_console
from ._cli_options import POSITIVE, TASK, registry_option, repo_argument, survey_options, table_option


@click.command()
@click.argument("outdir")
@click.option("--jobs", type=POSITIVE, default=2, metavar="N", help="Patches to restore at a time.")
@click.option("--overwrite", is_flag=True, help="Delete what an earlier demo wrote there.")
@survey_options
def demo(outdir: str, jobs: int, overwrite: bool, **survey: Any) -> None:
    """Simulate a survey, restore it and compare with the truth.

    OUTDIR is the directory to write to; what an earlier demo completed there
    is kept.
    """
    from .commands._butler import open_butler
    from .commands._demonstration._comparison import comparison_tables
    from .commands._demonstration._demo import demo_hints, run_demo
    from .commands._demonstration._joint import joint_table
    from .commands._demonstration._survey import RESTORED, make_options
    from .commands._progress import show_progress
    from .commands._status import CampaignWatch
    from .commands._status_report import show_status
    from .commands._status_sources import ButlerSource

    console = make_console()
    summary = run_demo(
        Path(outdir),
        make_options(**survey),
        jobs=jobs,
        overwrite=overwrite,
        say=lambda line: console.print(line, markup=False),
        progress=lambda: show_progress(console),
    )
    source = ButlerSource(open_butler(str(summary.root), [RESTORED]), label=TASK)
    show_status(CampaignWatch(source, label=TASK).look(), console)
    for table in comparison_tables(summary.table):
        console.print(table)
    if summary.joint_table is not None:
        console.print(joint_table(summary.joint_table))
    console.print(demo_hints(summary), markup=False)


@click.command()
@repo_argument
@registry_option
@survey_options
def simulate(repo: str, registry: str | None, **survey: Any) -> None:
    """Simulate a survey into a new Butler repository.

    The truth is there as well. REPO is the directory of the repository, which
    must not exist.
    """
    from .commands._demonstration._survey import make_options, simulate_survey, survey_text
    from .commands._errors import CommandError
    from .commands._progress import show_progress

    if os.path.lexists(repo):
        raise CommandError(f"{repo} exists already; choose another directory.")
    console = make_console()
    with show_progress(console) as progress:
        summary = simulate_survey(
            Path(repo),
            make_options(**survey),
            registry=registry,
            progress=progress,
            say=lambda line: console.print(line, markup=False),
        )
    console.print(survey_text(summary), markup=False)


@click.command()
@repo_argument
@click.option("--collection", required=True, metavar="NAME", help="Collection of the restored coadds.")
@click.option("--truth", default="HSC-Sim/truth", metavar="NAME", help="Collection of the truth catalogue.")
@table_option
def compare(repo: str, collection: str, truth: str, output: str | None) -> None:
    """Compare coadds of a simulated survey with its truth.

    Measures restored coadds in the repository REPO beside the direct coadds.
    """
    from .commands._atomic_files import require_place, write_table
    from .commands._butler import open_butler
    from .commands._demonstration._comparison import compare_patches, comparison_tables
    from .commands._progress import show_progress

    require_place(output)
    butler = open_butler(repo, [collection, truth])
    console = make_console()
    with show_progress(console) as progress:
        table, _ = compare_patches(butler, progress=progress)
    if output:
        write_table(table, output)
    for tabular in comparison_tables(table):
        console.print(tabular)
