# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``demo``: from nothing to a comparison with the truth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from astropy.table import Table

from lsst.daf.butler import Butler

from ...simulation import SurveyOptions
from .._atomic_files import atomic_file, write_table
from .._butler import find_datasets
from .._errors import CommandError
from .._pipetask import JOINT_PIPELINE, format_command, program, restore_command, run_command
from .._progress import Report
from .._web_report import write_collection_report
from ._catalogue import color_magnitude_picture
from ._comparison import compare_patches
from ._joint import compare_joint, joint_picture
from ._picture import comparison_picture
from ._survey import DEFAULTS, JOINT, RESTORED, TARGET_FWHM, TRUTH, remove_repository, simulate_survey

_RESUME = ("--extend-run", "--skip-existing", "--clobber-outputs")


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """Files that the demo made, and the commands that restored its coadds."""

    root: Path
    table: Table
    table_path: Path
    picture_path: Path
    report_path: Path
    command: str
    resume_command: str
    joint_table: Table | None
    joint_path: Path


def run_demo(
    folder: Path,
    options: SurveyOptions,
    *,
    jobs: int,
    overwrite: bool,
    say: Callable[[str], None],
    progress: Callable[[], AbstractContextManager[Report]],
) -> DemoSummary:
    """Simulate a survey, restore its coadds and compare with the truth, except
    what is there already.
    """
    root = folder / "repo"
    names = ("survey.json", "comparison.ecsv", "comparison.png", "colors.png", "joint.ecsv", "joint.png")
    paths = [folder / name for name in names]
    options_file, table_path, picture_path, color_path, joint_table_path, joint_path = paths
    if overwrite:
        remove_repository(root)
        for path in paths:
            path.unlink(missing_ok=True)
    _simulate(root, options_file, options, say, progress)
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
    write_table(table, table_path)
    with atomic_file(picture_path) as made:
        comparison_picture(butler, patches).savefig(made)
    figure = color_magnitude_picture(butler, list(options.bands))
    if figure is not None:
        with atomic_file(color_path) as made:
            figure.savefig(made)
    joint_table = None
    if len(options.bands) > 1:
        _restore_joint(root, options.skymap, jobs, say)
        butler = Butler.from_config(str(root), collections=[JOINT, RESTORED, TRUTH])
        joint_table = compare_joint(butler, patches)
        write_table(joint_table, joint_table_path)
        with atomic_file(joint_path) as made:
            joint_picture(butler, patches).savefig(made)
    say("Writing the report.")
    with progress() as report:
        page = write_collection_report(
            Butler.from_config(str(root), collections=RESTORED),
            folder / "report",
            repository=str(root),
            progress=report,
        )
    return DemoSummary(
        root,
        table,
        table_path,
        picture_path,
        page,
        format_command(command),
        format_command(resume_command),
        joint_table,
        joint_path,
    )


def demo_hints(summary: DemoSummary) -> str:
    """Return where everything is, and what to do next."""
    root, butler = summary.root, program("butler")
    shown = [
        [butler, "query-collections", str(root)],
        [butler, "query-datasets", str(root), "restored_coadd*", "--collections", RESTORED],
        [program("astroclearnet"), "status", str(root), RESTORED],
        [program("astroclearnet"), "report", str(root), RESTORED, "--output", "my_report"],
    ]
    listing = "\n".join(f"$ {format_command(command)}" for command in shown)
    (patch, band) = summary.table["patch", "band"][0]
    joint = "" if summary.joint_table is None else f"Joint:      {summary.joint_path}\n"
    return f"""
Repository: {root}
Table:      {summary.table_path}
Picture:    {summary.picture_path}
Report:     {summary.report_path}
{joint}
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


def _simulate(
    root: Path,
    options_file: Path,
    options: SurveyOptions,
    say: Callable[[str], None],
    progress: Callable[[], AbstractContextManager[Report]],
) -> None:
    """Make the survey unless it is there, as a file with its options tells."""
    content = json.dumps(dataclasses.asdict(options), indent=2, sort_keys=True)
    if not root.exists():
        say(f"Simulating a survey of bands {', '.join(options.bands)} into {root}.")
        with progress() as report:
            simulate_survey(
                root, options, progress=report, say=say, complete=lambda: options_file.write_text(content)
            )
        return
    advice = "choose another directory, or --overwrite to delete it."
    if not options_file.is_file():
        raise CommandError(f"{root} exists, but holds no survey of the demo; {advice}")
    if options_file.read_text() != content:
        raise CommandError(f"{root} holds a survey with other options (see {options_file}); {advice}")
    say(f"The simulated survey is in {root} already.")


def _restore(root: Path, command: list[str], resume_command: list[str], say: Callable[[str], None]) -> None:
    """Restore the coadds that are not there."""
    butler = Butler.from_config(str(root))
    expected, done = _patches(butler, "deep_coadd", DEFAULTS), _patches(butler, "restored_coadd", RESTORED)
    if expected <= done & _patches(butler, "restored_coadd_quality", RESTORED):
        say(f"All {len(expected)} restored coadds are in {RESTORED} already.")
        return
    chosen = resume_command if RESTORED in butler.collections.query("*") else command
    say(f"Restoring {len(expected - done)} coadds, and measuring them:\n$ {format_command(chosen)}")
    run_command(chosen)


def _restore_joint(root: Path, skymap: str, jobs: int, say: Callable[[str], None]) -> None:
    """Restore all bands of each patch together, where that was not done."""
    butler = Butler.from_config(str(root))
    expected = {key[:2] for key in _patches(butler, "restored_coadd", RESTORED)}
    refs = find_datasets(butler, "restored_coadd_joint_detection", JOINT)
    if expected <= {(int(ref.dataId["tract"]), int(ref.dataId["patch"])) for ref in refs}:
        say(f"All bands of {len(expected)} patches are restored together in {JOINT} already.")
        return
    # Half of the usual draws of noise: the demonstration has to be short.
    fields = (f"target_fwhm={TARGET_FWHM}", "do_plot=False", "restoration.noise.num_draws=3")
    options = [word for field in fields for word in ("-c", f"restoreCoaddBands:{field}")]
    options += ["-j", str(jobs)]
    if JOINT in butler.collections.query("*"):
        options += _RESUME
    command = restore_command(
        root, skymap=skymap, inputs=DEFAULTS, output=JOINT, options=options, pipeline=JOINT_PIPELINE
    )
    say(f"Restoring the bands of {len(expected)} patches together:\n$ {format_command(command)}")
    run_command(command)


def _patches(butler: Butler, dataset_type: str, collection: str) -> set[tuple[int, int, str]]:
    """Return tract, patch and band of the datasets of a type."""
    refs = find_datasets(butler, dataset_type, collection)
    return {(int(ref.dataId["tract"]), int(ref.dataId["patch"]), str(ref.dataId["band"])) for ref in refs}
