# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How memory and time grow with the patch and its exposures."""

from __future__ import annotations

__all__ = ("main",)

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from ..processes import start_logging
from ..record import Table, make_page, make_parser, measure_sections, read_sections
from .consistency import measure_patches, measure_seams
from .cost import draw_memory, measure_memory, measure_time
from .detectors import measure_detectors
from .whole import measure_whole

_SECTIONS: dict[str, Callable[..., list[Table]]] = {
    "memory": measure_memory,
    "time": measure_time,
    "seams": measure_seams,
    "patches": measure_patches,
    "detectors": measure_detectors,
    "whole": measure_whole,
}

_INTRODUCTION = (
    "How memory and time grow with the patch and its exposures, and whether what is restored apart fits "
    "together. Exposures are synthetic: rotated by up to 4 degrees and dithered, on their own pixels, with a "
    "Gaussian PSF of 3.2 to 5.2 pixels that grows by 5 % over the patch, unit noise, and a star in every 900 "
    "pixels; the target is 3.2 pixels. Options are the defaults. Detector images are described in their own "
    "section."
)


def main(words: Sequence[str]) -> int:
    """Measure sections and write the page with all that are measured."""
    start_logging()
    options = _parse(words)

    def write() -> None:
        sections = read_sections(options.work, list(_SECTIONS))
        options.output.write_text(make_page(sections, title="Scaling", introduction=_INTRODUCTION))
        for section in sections:
            if section.name == "memory":
                draw_memory(section.tables[0]).savefig(options.output.with_suffix(".png"))

    measures = {
        name: partial(_SECTIONS[name], quick=options.quick, device=options.device)
        for name in options.sections
    }
    flags = " --quick" * options.quick
    if options.device != "cpu":
        flags += f" --device {options.device}"
    if "detectors" in measures:
        detectors = {"sizes": tuple(options.sizes), "visits": options.visits}
        measures["detectors"] = partial(measures["detectors"], **detectors)
        flags += f" --sizes {' '.join(map(str, options.sizes))} --visits {options.visits}"
    if "whole" in measures:
        # Its settings are not those of the other sections, and it has no GPU.
        whole = {"size": options.whole_size, "visits": options.whole_visits, "max_memory": options.max_memory}
        measures["whole"] = partial(measure_whole, quick=options.quick, folder=options.work, **whole)
        flags += f" --whole-size {options.whole_size} --whole-visits {options.whole_visits}"
        flags += f" --max-memory {options.max_memory:g}"
    command = f"{options.program} --sections {{}}{flags}"
    return int(measure_sections(measures, command.format, options.work, write, options.device) > 0)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("scaling", __doc__, work="measured sections")
    parser.set_defaults(program=parser.prog)
    parser.add_argument(
        "--sections",
        nargs="+",
        default=list(_SECTIONS),
        choices=list(_SECTIONS),
        metavar="SECTION",
        help=f"sections to measure ({', '.join(_SECTIONS)}); all by default",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[300, 600],
        metavar="SIZE",
        help="sides in pixels of the patches of detector images (%(default)s)",
    )
    parser.add_argument(
        "--visits", type=int, default=8, help="number of visits of detector images (%(default)s)"
    )
    parser.add_argument(
        "--whole-size",
        type=int,
        default=4200,
        metavar="SIZE",
        help="side in pixels of the patch that is restored whole (%(default)s)",
    )
    parser.add_argument("--whole-visits", type=int, default=16, help="number of its visits (%(default)s)")
    parser.add_argument(
        "--max-memory",
        type=float,
        default=8.0,
        metavar="GIB",
        help="limit on the memory of its restoration (%(default)s)",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device to compute on")
    parser.add_argument("--quick", action="store_true", help="tiny patches, to see that all works")
    return parser.parse_args(words)
