# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time, memory and agreement on a GPU, or their prediction without one."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from ..processes import start_logging
from ..record import Table, make_page, make_parser, measure_sections, read_sections
from .agreement import measure_agreement
from .cost import measure_cost
from .kernels import measure_kernels
from .prediction import measure_prediction
from .retries import measure_retries
from .sharing import measure_sharing

_PREDICTION = "prediction"

_SECTIONS: dict[str, tuple[Callable[..., list[Table]], float]] = {
    "agreement": (measure_agreement, 90.0),
    "cost": (measure_cost, 230.0),
    "sharing": (measure_sharing, 75.0),
    "retries": (measure_retries, 60.0),
    "kernels": (measure_kernels, 45.0),
    _PREDICTION: (measure_prediction, 90.0),
}
"""What measures a section, and its seconds: together less than ten minutes.
The last one only counts, and takes that long on a slow machine."""

_INTRODUCTION = (
    "What a restoration takes on a GPU, and whether it gives what a CPU gives. Sections that need a card are "
    "here if the command was run where there is one; each ends within its share of ten minutes, and says "
    "what it left out. The prediction needs no card, and is no measurement. Exposures are those of "
    "[scaling](scaling.md)."
)


def main(words: Sequence[str]) -> int:
    """Measure sections and write the page with all that are measured."""
    start_logging()
    options = _parse(words)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = list(options.sections)
    if device == "cpu":
        names = [name for name in names if name == _PREDICTION]
        left_out = ", ".join(name for name in options.sections if name != _PREDICTION)
        if left_out:
            sys.stderr.write(f"There is no CUDA device here, which these sections need: {left_out}.\n")
        if not names:
            return 1
        sys.stderr.write("Only the prediction is made, from counts on a stand-in; it is no measurement.\n")

    def write() -> None:
        sections = read_sections(options.work, list(_SECTIONS))
        options.output.write_text(make_page(sections, title="GPU", introduction=_INTRODUCTION))

    measures = {
        name: partial(_SECTIONS[name][0], device=device, seconds=_SECTIONS[name][1], quick=options.quick)
        for name in names
    }
    command = f"{options.program} --sections {{}}{' --quick' * options.quick}"
    return int(measure_sections(measures, command.format, options.work, write, device) > 0)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("gpu", __doc__, work="measured sections")
    parser.set_defaults(program=parser.prog)
    shares = ", ".join(f"{name} {seconds:.0f} s" for name, (_, seconds) in _SECTIONS.items())
    parser.add_argument(
        "--sections",
        nargs="+",
        default=list(_SECTIONS),
        choices=list(_SECTIONS),
        metavar="SECTION",
        help=f"sections to measure, each with the time that it takes at most ({shares}); all by default",
    )
    parser.add_argument("--quick", action="store_true", help="tiny patches, to see that all works")
    return parser.parse_args(words)
