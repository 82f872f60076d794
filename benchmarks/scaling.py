# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run the benchmark of scaling: ``python -m benchmarks.scaling``."""

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

from ._geometry_table import Section, Table, make_page
from ._record import describe_code, describe_machine
from ._scaling_agreement import measure_patches, measure_seams
from ._scaling_cost import measure_memory, measure_time
from ._scaling_plot import draw_memory

_LOG = logging.getLogger("benchmarks")

_OUTPUT = Path(__file__).with_name("scaling.md")

_SECTIONS: dict[str, Callable[..., list[Table]]] = {
    "memory": measure_memory,
    "time": measure_time,
    "seams": measure_seams,
    "patches": measure_patches,
}

_INTRODUCTION = (
    "How memory and time grow with the patch and its exposures, and whether what is restored apart fits "
    "together. Exposures are synthetic: rotated by up to 4 degrees and dithered, on their own pixels, with a "
    "Gaussian PSF of 3.2 to 5.2 pixels that grows by 5 % over the patch, unit noise, and a star in every 900 "
    "pixels; the target is 3.2 pixels. Options are the defaults."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure sections and write the page with all that are measured.

    Parameters
    ----------
    arguments
        Words of the command line; those of the process by default.

    Returns
    -------
    status : `int`
        0.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = _parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.sections:
        _LOG.info("Section %s", name)
        section = Section(
            name=name,
            command=f"python -m benchmarks.scaling --sections {name}"
            + f" --device {options.device}" * (options.device != "cpu")
            + " --quick" * options.quick,
            code=describe_code(),
            date=datetime.date.today().isoformat(),
            machine=describe_machine(options.device),
            tables=_SECTIONS[name](quick=options.quick, device=options.device),
        )
        (options.work / f"{name}.json").write_text(json.dumps(dataclasses.asdict(section)))
    files = [options.work / f"{name}.json" for name in _SECTIONS]
    sections = [Section.from_dict(json.loads(file.read_text())) for file in files if file.exists()]
    options.output.write_text(make_page(sections, title="Scaling", introduction=_INTRODUCTION))
    for section in sections:
        if section.name == "memory":
            draw_memory(section.tables[0]).savefig(options.output.with_suffix(".png"))
    return 0


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="markdown file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("build/benchmarks/scaling"), help="folder of measured sections"
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        default=list(_SECTIONS),
        choices=list(_SECTIONS),
        metavar="SECTION",
        help=f"sections to measure ({', '.join(_SECTIONS)}); all by default",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device to compute on")
    parser.add_argument("--quick", action="store_true", help="tiny patches, to see that all works")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
