# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run the benchmark of the geometry: ``python -m benchmarks.geometry``."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import dataclasses
import datetime
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ._geometry_accuracy import measure_accuracy
from ._geometry_comparison import measure_comparison
from ._geometry_noise import measure_noise
from ._geometry_psf import measure_psf
from ._geometry_reading import measure_reading
from ._geometry_table import Section, Table, make_page
from ._geometry_ways import Runner
from ._record import describe_code, describe_machine

_LOG = logging.getLogger("benchmarks")

_OUTPUT = Path(__file__).with_name("geometry.md")

_SECTIONS: dict[str, Callable[..., list[Table]]] = {
    "accuracy": measure_accuracy,
    "comparison": measure_comparison,
    "noise": measure_noise,
    "psf": measure_psf,
    "reading": measure_reading,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure sections and write the page with all that are measured.

    Parameters
    ----------
    arguments
        Words of the command line; those of the process by default.

    Returns
    -------
    status : `int`
        0, or 1 if a section failed.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = _parse(arguments)
    folder: Path = options.work / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    runner = Runner(folder / "runs.jsonl", describe_code(), isolate=not options.quick)
    failures = 0
    for name in [] if options.only_table else options.sections:
        _LOG.info("Section %s", name)
        try:
            tables = _SECTIONS[name](runner, count=options.count, quick=options.quick)
        except Exception:
            # The others must not suffer; the exit status tells.
            _LOG.exception("Section %s failed", name)
            failures += 1
            continue
        section = Section(
            name=name,
            command=_command(name, options),
            code=describe_code(),
            date=datetime.date.today().isoformat(),
            machine=describe_machine(),
            tables=tables,
        )
        (folder / f"{name}.json").write_text(json.dumps(dataclasses.asdict(section)))
        _write(folder, options.output)
    if options.only_table:
        _write(folder, options.output)
    return int(failures > 0)


def _write(folder: Path, output: Path) -> None:
    """Write the page of all sections that were ever measured."""
    files = [folder / f"{name}.json" for name in _SECTIONS]
    sections = [Section.from_dict(json.loads(file.read_text())) for file in files if file.exists()]
    output.write_text(make_page(sections))


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.geometry", description=__doc__)
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="markdown file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("build/benchmarks/geometry"), help="folder of measured sections"
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        default=list(_SECTIONS),
        choices=list(_SECTIONS),
        metavar="SECTION",
        help=f"sections to measure ({', '.join(_SECTIONS)}); all by default",
    )
    parser.add_argument("--count", type=int, default=6, help="number of scenes of the comparison")
    parser.add_argument("--quick", action="store_true", help="tiny scenes, to see that all works")
    parser.add_argument(
        "--only-table", action="store_true", help="measure nothing; write what was measured before"
    )
    return parser.parse_args(words)


def _command(section: str, options: argparse.Namespace) -> str:
    """Return the command that measures a section, wherever it is written."""
    quick = " --quick" if options.quick else ""
    return f"python -m benchmarks.geometry --sections {section} --count {options.count}{quick}"


if __name__ == "__main__":
    sys.exit(main())
