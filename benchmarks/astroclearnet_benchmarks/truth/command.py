# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How true restored images look, measured against the truth."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ..processes import FAILURES, Runner, start_logging
from ..quality.methods import GROUPS, METHODS
from ..record import Section, describe_code, make_page, make_parser
from .cases import DEFAULT_SUITES, SUITES, Case, expose
from .figures import make_rows
from .files import has_products, read_products, write_exposures
from .measure import measure_case, restore_case
from .seeds import FINAL_SENTENCE, development_seeds, final_seeds
from .table import make_coverage_tables, make_tables

_LOG = logging.getLogger(__name__)

_NUM_FINAL = {
    "field": 16,
    "injections": 30,
    "hosts": 10,
    "companions": 8,
    "crowded": 4,
    "cluster": 4,
    "nebula": 4,
    "dithered": 8,
}
"""Final scenes: what two cores restore in an hour."""

_NUM_OTHERS = 3
"""Final scenes of other methods."""

_COMPARED = ("restore", "inverse_variance")
"""Methods that make the images of `LIMITS`."""
_NUM_DEVELOPMENT = 3
_SHAPE, _QUICK_SHAPE = (256, 256), (128, 128)
_DEFAULT_GROUPS = ("ours", "baselines")
_LIMIT_SETTING = (3.0, 12)
"""Target FWHM and number of exposures that limits are for."""


def main(words: Sequence[str]) -> int:
    """Run what is missing and write the tables.

    Parameters
    ----------
    words
        Options of the command line.

    Returns
    -------
    status : `int`
        1 if something failed.
    """
    start_logging()
    options = _parse(words)
    cases = [case for suite in options.suites for case in _cases(options, suite, few=False)]
    if options.export is not None:
        for case in cases:
            write_exposures(case, expose(case), options.export)
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    tasks = list(_plan(options))
    for name, folder in options.images:
        if not any(images == folder for _, _, images in tasks):
            raise SystemExit(f"{folder} has no image of {name}: none is named CASE-plain.fits or .npz.")
    runner = Runner(options.work / "records.jsonl", describe_code(), isolate=options.jobs > 0)
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        records = list(pool.map(lambda task: _run(runner, *task), tasks))
    measured = [(case, record) for (_, case, _), record in zip(tasks, records, strict=True) if record]
    if measured:
        options.output.write_text(_make_page(measured, options))
    return int(len(measured) < len(tasks))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("truth", __doc__, work="records of runs")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=[n for n, m in METHODS.items() if m.group in _DEFAULT_GROUPS and m.is_installed],
        choices=[*GROUPS, *METHODS],
        metavar="METHOD",
        help=f"groups ({', '.join(GROUPS)}) or methods ({', '.join(METHODS)}); ours and baselines by default",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=_read_images,
        default=[],
        metavar="NAME=FOLDER",
        help="images that other methods made of what --export wrote, of all or some cases",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write the exposures as files and run nothing"
    )
    parser.add_argument(
        "--suites", nargs="+", default=list(DEFAULT_SUITES), choices=SUITES, help="what to measure"
    )
    parser.add_argument("--final", action="store_true", help="the seeds of the published table")
    parser.add_argument("--count", type=int, help="number of scenes of each suite, instead of that planned")
    parser.add_argument("--targets", nargs="+", type=float, default=[3.0], help="target FWHM in pixels")
    parser.add_argument("--exposures", nargs="+", type=int, default=[12], help="numbers of exposures")
    parser.add_argument("--quick", action="store_true", help="one small scene of each, to see that all works")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes; 0 to start none")
    options = parser.parse_args(words)
    options.words = list(words)
    chosen = set(options.methods)
    options.methods = [name for name, method in METHODS.items() if chosen & {name, method.group}]
    return options


def _read_images(text: str) -> tuple[str, Path]:
    """Read ``NAME=FOLDER``."""
    name, separator, folder = text.partition("=")
    if not (name and separator and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that is there")
    return name, Path(folder).resolve()


def _cases(options: argparse.Namespace, suite: str, *, few: bool) -> list[Case]:
    """Return the cases of a suite, all or a few."""
    planned = _NUM_FINAL[suite] if options.final else _NUM_DEVELOPMENT
    number = options.count or (1 if options.quick else min(planned, _NUM_OTHERS) if few else planned)
    seeds = final_seeds(suite, number) if options.final else development_seeds(number)
    shape = _QUICK_SHAPE if options.quick else _SHAPE
    return [
        Case(suite, seed, target, exposures, shape)
        for seed, target, exposures in itertools.product(seeds, options.targets, options.exposures)
    ]


def _plan(options: argparse.Namespace) -> Iterator[tuple[str, Case, Path | None]]:
    """Yield name of the method, case and the folder of its images."""
    for suite in options.suites:
        for name in options.methods:
            method = METHODS[name]
            takes_grids = method.group == "ours"
            if (method.kinds is None or SUITES[suite] in method.kinds) and (
                suite != "dithered" or takes_grids
            ):
                yield from ((name, case, None) for case in _cases(options, suite, few=name not in _COMPARED))
        for name, folder in options.images:
            cases = _cases(options, suite, few=False)
            yield from ((name, case, folder) for case in cases if has_products(case, folder))


def _run(runner: Runner, name: str, case: Case, folder: Path | None) -> dict[str, Any] | None:
    """Run a method on a case; `None` if it fails."""
    try:
        if folder is not None:
            return measure_images(name, case, folder)
        return runner(measure_method, name, case)
    except (*FAILURES, BrokenProcessPool):
        _LOG.exception("%s failed on %s", name, case.name)
        return None


def measure_method(name: str, case: Case) -> dict[str, Any]:
    """Restore a case with a method and measure its products.

    Parameters
    ----------
    name
        Name of the method, one of
        `~astroclearnet_benchmarks.quality.methods.METHODS`.
    case
        The case.

    Returns
    -------
    record : `dict`
        As of `measure_case`.
    """
    exposures = expose(case)
    products, _ = restore_case(METHODS[name].run, case, exposures)
    return measure_case(case, exposures, products)


def measure_images(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Measure the images that a method made of the files of a case.

    Parameters
    ----------
    name
        Name of the row.
    case
        The case.
    folder
        Folder of the images.

    Returns
    -------
    record : `dict`
        As of `measure_case`.
    """
    return measure_case(case, expose(case), read_products(case, folder, name))


def _make_page(measured: Sequence[tuple[Case, dict[str, Any]]], options: argparse.Namespace) -> str:
    """Write a section for each target and number of exposures."""
    settings: dict[tuple[float, int], dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for case, record in measured:
        scenes = settings[case.target_fwhm, case.num_exposures]
        # All methods that have seen a scene share a record.
        scenes.setdefault((case.suite, case.seed), {}).update(record)
    command = f"python -m astroclearnet_benchmarks truth {' '.join(options.words)}"
    sections = []
    for (target, number), scenes in sorted(settings.items()):
        by_suite = defaultdict(list)
        for (suite, _), record in scenes.items():
            by_suite[suite].append(record)
        rows = make_rows(by_suite)
        judged = ["restored_coadd", *(name for name, _ in options.images)]
        tables = make_tables(rows, judged, with_limits=(target, number) == _LIMIT_SETTING)
        for name in judged:
            tables += make_coverage_tables(by_suite.get("field", ()), name)
        title = f"target of {target:g} pixels, {number} exposures"
        sections.append(Section.measured(title, command, tables))
    seeds = (
        f"Final seeds, from SHA-256 of: {FINAL_SENTENCE}"
        if options.final
        else "Development seeds, which were looked at before."
    )
    return make_page(sections, title="How true restored images look", introduction=seeds)
