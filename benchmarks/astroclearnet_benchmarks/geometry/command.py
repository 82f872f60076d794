# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From calibrated visit images to the patch: what is lost on the way."""

from __future__ import annotations

__all__ = ("main",)

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..processes import Runner, start_logging
from ..record import Table, describe_code, make_page, make_parser, measure_sections, read_sections
from .accuracy import measure_accuracy
from .comparison import measure_comparison
from .noise import measure_noise
from .psf import measure_psf
from .reading import measure_reading

_SECTIONS: dict[str, Callable[..., list[Table]]] = {
    "accuracy": measure_accuracy,
    "comparison": measure_comparison,
    "noise": measure_noise,
    "psf": measure_psf,
    "reading": measure_reading,
}

_INTRODUCTION = (
    "From calibrated visit images to the patch: what is lost on the way. `native` is the likelihood on the "
    "exposures' own pixels; `resampled` the one on pixels that were brought to the patch by a Lanczos kernel "
    "of order 5. The truth is that of the simulation; stars have PSFs that vary over the detectors and are "
    "given as they truly are unless a table says otherwise. Errors are standard errors."
)


def main(words: Sequence[str]) -> int:
    """Measure sections and write the page with all that are measured."""
    start_logging()
    options = _parse(words)
    folder: Path = options.work / ("quick" if options.quick else "full")

    def write() -> None:
        sections = read_sections(folder, list(_SECTIONS))
        title = "From visit images to the patch"
        options.output.write_text(make_page(sections, title=title, introduction=_INTRODUCTION))

    if options.only_table:
        write()
        return 0
    runner = Runner(folder / "runs.jsonl", describe_code(), isolate=not options.quick)
    measures = {
        name: partial(_SECTIONS[name], runner, count=options.count, quick=options.quick)
        for name in options.sections
    }
    command = f"{options.program} --sections {{}} --count {options.count}{' --quick' * options.quick}"
    return int(measure_sections(measures, command.format, folder, write) > 0)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("geometry", __doc__, work="measured sections")
    parser.set_defaults(program=parser.prog)
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
