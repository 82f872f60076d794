# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a process takes before the first patch is restored."""

from __future__ import annotations

__all__ = ("measure_start",)

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..record import Table

_SCRIPT = """
import json, time
marks = [time.process_time()]
import torch
torch.set_num_threads(1)
marks.append(time.process_time())
from lsst.astroclearnet.core import FitOptions, RestoreOptions, restore
from astroclearnet_benchmarks.scaling.source import SyntheticSource
marks.append(time.process_time())
stack = SyntheticSource((64, 64), 3).read(slice(0, 64), slice(0, 64)).stack
for _ in range(2):
    marks.append(time.process_time())
    restore(stack.images, stack.variances, stack.good, stack.psfs, positions=stack.positions,
            target_fwhm=3.2, device="cpu", seed=1, options=RestoreOptions(fit=FitOptions(max_epochs=1)))
    marks.append(time.process_time())
print(json.dumps(marks))
"""

_REPEATS = 5


def measure_start(*, quick: bool) -> Table:
    """Measure fresh processes, with and without compiled functions."""
    with tempfile.TemporaryDirectory() as folder:
        first = [_run(Path(folder) / str(number)) for number in range(1 if quick else 2)]
        later = [_run(Path(folder) / "0") for _ in range(1 if quick else _REPEATS)]
    rows = [_row("first on a machine", first), _row("later", later)]
    legend = (
        "CPU seconds of a process from its start, on one thread, medians. A first patch is one of 64x64 "
        "pixels and 3 exposures, less the time of the same patch again: what is loaded and compiled for it. "
        "Compiled functions are kept on disk (NUMBA_CACHE_DIR), so that only the first process compiles."
    )
    return Table("Start", legend, rows)


def _run(cache: Path) -> list[float]:
    """Return the stages of a process that keeps what it compiles."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    marks = np.array(json.loads(result.stdout.strip().split("\n")[-1]))
    stages = np.diff(marks)
    return [float(s) for s in (stages[0], stages[1], stages[3] - stages[5])]


def _row(name: str, runs: list[list[float]]) -> dict[str, str]:
    torch_import, core_import, first = np.median(np.array(runs), axis=0)
    return {
        "process": name,
        "import torch (s)": f"{torch_import:.1f}",
        "import the core (s)": f"{core_import:.1f}",
        "first patch (s)": f"{first:.1f}",
    }
