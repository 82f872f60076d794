# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run a benchmark: ``python -m astroclearnet_benchmarks NAME ...``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

BENCHMARKS = (
    "quality",
    "truth",
    "training",
    "geometry",
    "scaling",
    "speed",
    "rejection",
    "alarms",
    "stars",
    "demand",
    "deblending",
    "objects",
    "psf_errors",
    "halos",
    "finer_grids",
    "shear",
    "joint",
    "template",
    "release",
    "gpu",
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark that the first word names with the others."""
    name, *rest = (sys.argv[1:] if words is None else words) or [""]
    if name not in BENCHMARKS:
        sys.stderr.write(f"usage: python -m {__package__} {{{','.join(BENCHMARKS)}}} ...\n")
        return 2
    status: int = importlib.import_module(f".{name}.command", __package__).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
