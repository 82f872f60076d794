# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From nothing to a comparison with the truth."""

from __future__ import annotations

__all__ = ("TARGET_FWHM", "DemoSummary", "demo_hints", "run_demo")

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from astropy.table import Table

from lsst.daf.butler import Butler, EmptyQueryResultError, MissingCollectionError, MissingDatasetTypeError

from ..simulation import INSTRUMENT, SurveyOptions
from ._comparison import compare_patches
from ._errors import CommandError
from ._picture import comparison_picture
from ._pipetask import format_command, program, restore_command, run_command
from ._simulate import Report, require_repository, simulate_whole
from ._web_report import write_collection_report
from ._whole import whole_file

TARGET_FWHM = 0.53
"""Target PSF in arcsec: what ``plan --common`` proposes for the survey."""

DEFAULTS, TRUTH = f"{INSTRUMENT}/defaults", f"{INSTRUMENT}/truth"
"""Collections of a simulated survey: what a user has, and the truth."""

RESTORED = "u/demo/restored"
"""Collection that the demo writes."""

_OPTIONS_FILE = "survey.json"
_RESUME = ("--extend-run", "--skip-existing", "--clobber-outputs")


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """What the demo made.

    Attributes
    ----------
    root
        Root of the repository.
    table
        The comparison.
    table_path, picture_path, report_path
        Files of the comparison, of the picture and of the report's first
        page.
    command
        The command that restored the coadds.
    resume_command
        The one that takes up a run that was interrupted.
    """

    root: Path
    table: Table
    table_path: Path
    picture_path: Path
    report_path: Path
    command: str
    resume_command: str


def run_demo(
    folder: str | os.PathLike[str],
    options: SurveyOptions,
    *,
    jobs: int,
    overwrite: bool,
    say: Callable[[str], None],
    progress: Callable[[], AbstractContextManager[Report]],
) -> DemoSummary:
    """Simulate a survey, restore its coadds and compare with the truth.

    What exists already is not made again, and what an interruption left
    incomplete is.

    Parameters
    ----------
    folder
        Directory to write to.
    options
        The survey.
    jobs
        Number of patches to restore at a time.
    overwrite
        Start afresh, and delete what an earlier run wrote.
    say
        Function that shows a line to the user.
    progress
        Function that returns a context, in which a function reports the
        number done, the number to do, and a name.

    Returns
    -------
    summary : `DemoSummary`
        What was made, and how.

    Raises
    ------
    CommandError
        If the directory holds another survey, or ``pipetask`` fails.
    """
    folder = Path(folder)
    root = folder / "repo"
    files = [folder / name for name in (_OPTIONS_FILE, "comparison.ecsv", "comparison.png")]
    if overwrite:
        _remove(root, files)
    _simulate(root, files[0], options, say, progress)
    common = ["-c", f"restoreCoadd:target_fwhm={TARGET_FWHM}", "-j", str(jobs)]
    command, resume_command = (
        restore_command(root, skymap=options.skymap, inputs=DEFAULTS, output=RESTORED, options=extra)
        for extra in (common, [*common, *_RESUME])
    )
    _restore(root, command, resume_command, say)
    say("Comparing the coadds with the truth.")
    butler = Butler.from_config(str(root), collections=[RESTORED, TRUTH])
    with progress() as report:
        table, patches = compare_patches(butler, progress=report)
    with whole_file(files[1]) as made:
        table.write(made, format="ascii.ecsv")
    with whole_file(files[2]) as made:
        comparison_picture(butler, patches).savefig(made)
    say("Writing the report.")
    with progress() as report:
        page = write_collection_report(
            Butler.from_config(str(root), collections=RESTORED),
            folder / "report",
            repository=str(root),
            progress=report,
        )
    return DemoSummary(
        root, table, files[1], files[2], page, format_command(command), format_command(resume_command)
    )


def demo_hints(summary: DemoSummary) -> str:
    """Return where everything is, and what to do next.

    Parameters
    ----------
    summary
        What the demo made.

    Returns
    -------
    text : `str`
        Lines for the terminal.
    """
    root, butler = summary.root, program("butler")
    shown = [
        [butler, "query-collections", str(root)],
        [butler, "query-datasets", str(root), "restored_coadd*", "--collections", RESTORED],
        [program("astroclearnet"), "status", str(root), RESTORED],
        [program("astroclearnet"), "report", str(root), RESTORED, "--output", "my_report"],
    ]
    listing = "\n".join(f"$ {format_command(command)}" for command in shown)
    (patch, band) = summary.table["patch", "band"][0]
    return f"""
Repository: {root}
Table:      {summary.table_path}
Picture:    {summary.picture_path}
Report:     {summary.report_path}

The coadds were restored with
$ {summary.command}
If that is interrupted, take it up again with this; an empty quantum graph means that nothing is left to do:
$ {summary.resume_command}

See what there is:
{listing}

Read a restored coadd in Python:
    from lsst.daf.butler import Butler
    butler = Butler.from_config({str(root)!r}, collections={RESTORED!r})
    (ref,) = butler.query_datasets("restored_coadd", where="patch = {patch} AND band = '{band}'")
    coadd = butler.get(ref)                              # lsst.images.cells.CellCoadd, nJy
    image = butler.get(ref.makeComponentRef("image"))    # a component alone
    print(coadd.metadata, image.bbox)"""


def _remove(root: Path, files: list[Path]) -> None:
    """Delete what an earlier run of the demo wrote.

    Parameters
    ----------
    root
        Root of its repository.
    files
        Other files.

    Raises
    ------
    CommandError
        If there is a directory which is no repository.
    """
    require_repository(root)
    for path in files:
        path.unlink(missing_ok=True)
    if root.exists():
        shutil.rmtree(root)


def _simulate(
    root: Path,
    options_file: Path,
    options: SurveyOptions,
    say: Callable[[str], None],
    progress: Callable[[], AbstractContextManager[Report]],
) -> None:
    """Make the survey unless it is there.

    It is written beside its place and moved there when it is complete, so
    that what an interruption leaves is never taken for a survey.

    Parameters
    ----------
    root
        Root of its repository.
    options_file
        File with the options of the survey, written when it is complete.
    options
        The survey.
    say
        Function that shows a line to the user.
    progress
        As of `run_demo`.

    Raises
    ------
    CommandError
        If there is something else in its place.
    """
    content = json.dumps(dataclasses.asdict(options), indent=2, sort_keys=True)
    if root.exists():
        if not options_file.is_file():
            raise CommandError(
                f"{root} exists, but holds no survey of the demo; choose another directory, or --overwrite "
                "to delete it."
            )
        if options_file.read_text() != content:
            raise CommandError(
                f"{root} holds a survey with other options (see {options_file}); choose another directory, "
                "or --overwrite to delete it."
            )
        say(f"The simulated survey is in {root} already.")
        return
    say(f"Simulating a survey of bands {', '.join(options.bands)} into {root}.")
    with progress() as report:
        simulate_whole(
            root, options, progress=report, say=say, complete=lambda: options_file.write_text(content)
        )


def _restore(root: Path, command: list[str], resume_command: list[str], say: Callable[[str], None]) -> None:
    """Restore the coadds that are not there.

    Parameters
    ----------
    root
        Root of the repository.
    command
        Command for a repository without restored coadds.
    resume_command
        Command that adds what is missing.
    say
        Function that shows a line to the user.
    """
    butler = Butler.from_config(str(root))
    expected, done = _patches(butler, "deep_coadd", DEFAULTS), _patches(butler, "restored_coadd", RESTORED)
    if expected <= done & _patches(butler, "restored_coadd_quality", RESTORED):
        say(f"All {len(expected)} restored coadds are in {RESTORED} already.")
        return
    chosen = resume_command if _exists(butler, RESTORED) else command
    say(f"Restoring {len(expected - done)} coadds, and measuring them:\n$ {format_command(chosen)}")
    run_command(chosen)


def _exists(butler: Butler, collection: str) -> bool:
    """Tell whether a repository has a collection.

    Parameters
    ----------
    butler
        A Butler.
    collection
        Name of the collection.

    Returns
    -------
    exists : `bool`
        Whether it is there.
    """
    try:
        butler.collections.get_info(collection)
    except MissingCollectionError:
        return False
    return True


def _patches(butler: Butler, dataset_type: str, collection: str) -> set[tuple[int, int, str]]:
    """Return the patches and bands that have a dataset.

    Parameters
    ----------
    butler
        A Butler.
    dataset_type
        Name of the dataset type.
    collection
        Where to look.

    Returns
    -------
    patches : `set` [`tuple`]
        Tract, patch and band of each.
    """
    try:
        refs = butler.query_datasets(dataset_type, collections=collection)
    except (EmptyQueryResultError, MissingCollectionError, MissingDatasetTypeError):
        return set()
    return {(int(ref.dataId["tract"]), int(ref.dataId["patch"]), str(ref.dataId["band"])) for ref in refs}
