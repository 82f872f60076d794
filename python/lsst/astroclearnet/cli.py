# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``astroclearnet`` and its subcommands.

Everything but click is imported by the subcommand that needs it, so that help
is shown at once.  That excludes the option decorators of `lsst.daf.butler.cli`
(3 s to import); options shared with ``butler`` have its names and meaning.
"""

from __future__ import annotations

__all__ = ("cli", "main")

import logging
from collections.abc import Sequence
from typing import Any

import click

from . import __version__
from ._cli_group import CommandGroup, make_console
from ._cli_options import (
    JOINT_TASK,
    POSITIVE,
    TASK,
    input_option,
    registry_option,
    repo_argument,
    skymap_option,
    split_words,
    table_option,
    task_option,
    where_option,
)
from ._cli_simulated import compare, demo, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        Words after the name of the command; those of the process by default.

    Returns
    -------
    status : `int`
        Exit status: 0; 1 on failure, told in one line; 2 on wrong usage.
    """
    try:
        cli.main(arguments, prog_name="astroclearnet")
    except SystemExit as exc:
        return int(exc.code or 0)


@click.group(
    "astroclearnet",
    cls=CommandGroup,
    epilog="Coadds are restored by pipetask; 'ingest', 'simulate' and 'demo' print the command.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
    },
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Tools around the task restoreCoadd."""
    logging.basicConfig(level=logging.ERROR, format="%(name)s %(levelname)s: %(message)s")


for _command in (demo, simulate, compare):
    cli.add_command(_command)


@cli.command()
@repo_argument
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--skymap", required=True, metavar="NAME", help="Name of the sky map.")
@click.option("--cell-size", type=POSITIVE, default=50, metavar="N", help="Side of a cell in pixels.")
@click.option(
    "--pixel-scale",
    type=float,
    metavar="ARCSEC",
    help="Pixel scale of the sky map; that of the finest image if not given.",
)
@click.option(
    "--patches",
    "num_patches",
    type=POSITIVE,
    default=1,
    metavar="N",
    help="Patches along each side of the field.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Replace images whose file has changed since it was ingested; else they are named.",
)
@registry_option
def ingest(repo: str, files: tuple[str, ...], **options: Any) -> None:
    """Copy VisitImage files into a Butler repository.

    A sky map is defined around them. REPO is the directory of the repository,
    made if absent.
    """
    from .commands import ingest_files
    from .commands._progress import show_progress

    console = make_console()
    with show_progress(console) as progress:
        summary = ingest_files(repo, files, progress=progress, **options)
    console.print(summary.text, markup=False)


@cli.command("refine-skymap")
@repo_argument
@click.option("--skymap", metavar="NAME", help="Sky map to refine; required if there are several.")
@click.option(
    "--factor",
    type=click.IntRange(2, 4),
    required=True,
    metavar="N",
    help="Ratio of the pixel scales, 2 to 4.",
)
@click.option("--name", metavar="NAME", help="Name of the finer sky map; if not given NAME_xN.")
def refine_skymap(repo: str, skymap: str | None, factor: int, name: str | None) -> None:
    """Register a sky map with smaller pixels.

    It has the same tracts and patches as one in the repository REPO, which
    stays as it is.
    """
    from .commands._refine import refine

    make_console().print(refine(repo, skymap=skymap, factor=factor, name=name).text, markup=False)


@cli.command()
@repo_argument
@input_option("Collections of the visit images.", required=True)
@click.option(
    "--dataset-type", default="visit_image", metavar="NAME", help="Dataset type of the visit images."
)
@skymap_option
@where_option
@click.option(
    "--bands",
    multiple=True,
    callback=split_words,
    metavar="BAND,...",
    help="Bands to plan for; all if not given.",
)
@click.option(
    "--max-noise",
    default=2.0,
    metavar="X",
    help="Bound on the blank-sky rms, in sky sigma of the inverse-variance coadd.",
)
@click.option("--common", is_flag=True, help="One target PSF for all bands.")
@click.option(
    "--joint",
    is_flag=True,
    help="Plan for bands that are restored together, which have one target PSF; show what that costs.",
)
@click.option(
    "--max-exposures",
    type=POSITIVE,
    default=60,
    metavar="N",
    help="Visit images of a band to read at most, evenly spaced among its patches and visits.",
)
@table_option
def plan(
    repo: str,
    inputs: tuple[str, ...],
    max_noise: float,
    common: bool,
    joint: bool,
    output: str | None,
    **selection: Any,
) -> None:
    """Propose the target PSF of a campaign.

    It follows from the PSFs and variances of the visit images in the
    repository REPO.
    """
    from .commands._atomic_files import require_place, write_table
    from .commands._butler import open_butler
    from .commands._plan import plan_campaign, plan_lines, plan_table
    from .commands._plan_costs import costs_table, predict_costs
    from .commands._plan_sample import sample_campaign
    from .commands._progress import show_progress

    require_place(output)
    butler = open_butler(repo, inputs)
    console = make_console()
    with show_progress(console) as progress:
        sample = sample_campaign(butler, progress=progress, **selection)
    proposed = plan_campaign(sample, max_noise=max_noise, common=common or joint)
    costs = predict_costs(butler, sample) if joint else None
    if output:
        write_table(proposed.table(), output)
    console.print(plan_table(proposed))
    if costs is not None:
        console.print(costs_table(costs))
    for line in plan_lines(proposed, JOINT_TASK if joint else TASK):
        console.print(line, markup=False)


@cli.command()
@repo_argument
@click.argument("collection", required=False)
@input_option("Collections of the inputs, where COLLECTION has none.")
@where_option
@skymap_option
@task_option
@click.option(
    "--graph",
    metavar="FILE",
    help="Quantum graph of batch jobs under way, which the registry does not know yet (bps); in place of "
    "COLLECTION.",
)
@click.option("--watch", type=POSITIVE, metavar="SECONDS", help="Update until all patches have ended.")
@click.option(
    "--max-read",
    type=POSITIVE,
    default=100,
    metavar="N",
    help="Patches of each band and state whose logs and metrics are read at most.",
)
@table_option
@click.option("--check", is_flag=True, help="Exit with status 1 if a patch failed or is not finished.")
def status(
    repo: str,
    collection: str | None,
    inputs: tuple[str, ...],
    graph: str | None,
    task: str,
    watch: int | None,
    max_read: int,
    output: str | None,
    check: bool,
    **selection: Any,
) -> None:
    """Show the progress of a campaign.

    Counts patches by state, and tells why some failed and the time and memory
    used. REPO is the repository and COLLECTION that of the outputs.
    """
    from .commands._atomic_files import require_place, write_table
    from .commands._butler import open_butler
    from .commands._errors import CommandError
    from .commands._progress import show_progress
    from .commands._status import CampaignWatch
    from .commands._status_report import follow_campaign, show_status
    from .commands._status_sources import ButlerSource, GraphSource, StatusSource

    if (collection is None) == (graph is None):
        raise CommandError("Give either a collection or, with --graph, a quantum graph.")
    require_place(output)
    source: StatusSource
    if collection is None:
        source = GraphSource(repo, str(graph), label=task)
    else:
        source = ButlerSource(open_butler(repo, [collection, *inputs]), label=task, **selection)
    console = make_console()
    with show_progress(console) as report:
        progress = report if console.is_terminal else None
        campaign = CampaignWatch(source, label=task, max_read=max_read, progress=progress)
        found = campaign.look(progress)
    if watch:
        found = follow_campaign(campaign.look, console, interval=watch, first=found)
    if output:
        write_table(found.table(), output)
    show_status(found, console)
    if check and not found.is_complete:
        raise CommandError(found.remaining)


@cli.command()
@repo_argument
@click.argument("collections", metavar="COLLECTION,...", callback=split_words)
@click.option(
    "--output", required=True, metavar="FOLDER", help="Folder of the report; one that is there is replaced."
)
@where_option
@click.option(
    "--dataset-type", "name", default="restored_coadd", metavar="NAME", help="Dataset type of the coadds."
)
@task_option
def report(repo: str, collections: tuple[str, ...], output: str, **options: Any) -> None:
    """Write web pages of restored coadds.

    They show metrics, verdicts and pictures. REPO is the repository and
    COLLECTION that of the outputs.
    """
    from .commands._butler import open_butler
    from .commands._progress import show_progress
    from .commands._web_report import write_collection_report

    butler = open_butler(repo, collections)
    console = make_console()
    with show_progress(console) as progress:
        index = write_collection_report(butler, output, repository=repo, progress=progress, **options)
    console.print(f"Report: {index}", markup=False)


@cli.command()
@repo_argument
@click.argument("collections", metavar="COLLECTION,...", callback=split_words)
@click.option("--tract", type=click.IntRange(min=0), required=True, metavar="N", help="Tract to show.")
@skymap_option
@click.option(
    "--bands",
    default=["i,r,g"],
    multiple=True,
    callback=split_words,
    metavar="BAND,...",
    help="Bands to write; two or three are also red, (green) and blue of a colour HiPS.",
)
@click.option("--output", required=True, metavar="FOLDER", help="Folder that the HiPS are written into.")
@click.option(
    "--dataset-type", "name", default="restored_coadd", metavar="NAME", help="Dataset type of the coadds."
)
@click.option(
    "--order",
    type=click.IntRange(3, 14),
    metavar="N",
    help="HEALPix order of the finest tiles; that with pixels nearest to those of the coadds if not given.",
)
@click.option(
    "--stretch",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="NJY",
    help="Range (nJy a pixel) of the linear part of the colour stretch, as that of makeTractPicture; chosen "
    "by the noise if not given.",
)
def hips(repo: str, collections: tuple[str, ...], output: str, skymap: str | None, **options: Any) -> None:
    """Write HiPS of the restored coadds of a tract.

    FITS tiles for each band and coloured PNG tiles, for Aladin, Firefly or a
    HiPS server. REPO is the repository and COLLECTION that of the coadds.
    """
    from .commands._butler import choose_sky_map, open_butler
    from .commands._errors import CommandError
    from .commands._hips import write_hips
    from .commands._progress import show_progress

    butler = open_butler(repo, collections)
    chosen = choose_sky_map(butler, skymap)
    if chosen is None:
        raise CommandError(f"{repo} has no sky map.")
    console = make_console()
    with show_progress(console) as progress:
        lines = write_hips(butler, output, skymap=chosen, progress=progress, **options)
    for line in lines:
        console.print(line, markup=False)
