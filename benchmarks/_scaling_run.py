# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One restoration in a process of its own: its time and its memory."""

from __future__ import annotations

__all__ = ("measure_run", "run_in_process")

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from lsst.astroclearnet.core import (
    FitOptions,
    NoiseOptions,
    RestoreOptions,
    Tile,
    TilingOptions,
    plan_memory,
    restore_exposures,
)
from lsst.astroclearnet.core.exposures import TileGrid

from ._scaling_source import SyntheticSource

TARGET = 3.2
"""Target FWHM in pixels."""


def run_in_process(**settings: float | str) -> dict[str, float]:
    """Restore in a new process, so that its peak of memory is its own.

    Parameters
    ----------
    **settings
        Arguments of `measure_run`.

    Returns
    -------
    figures : `dict`
        What `measure_run` returned.
    """
    command = [sys.executable, "-m", "benchmarks._scaling_run", json.dumps(settings)]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=os.environ)
    figures: dict[str, float] = json.loads(result.stdout.strip().split("\n")[-1])
    return figures


def measure_run(
    *,
    size: int,
    exposures: int,
    max_tiles: int = 0,
    max_host_memory: float = TilingOptions.max_host_memory,
    max_tile_size: int = TilingOptions.max_tile_size,
    max_epochs: int = FitOptions.max_epochs,
    device: str = "cpu",
) -> dict[str, float]:
    """Restore a synthetic patch, or the first tiles of it.

    Parameters
    ----------
    size
        Side of the patch in pixels.
    exposures
        Number of exposures.
    max_tiles
        Number of tiles after which to stop; 0 for all.  The planes are those
        of the whole patch, so that the memory is, too.
    max_host_memory
        Limit in GiB.
    max_tile_size
        Limit in pixels.
    max_epochs
        Limit of the fit.
    device
        Device.

    Returns
    -------
    figures : `dict`
        ``num_tiles`` of the plan and the largest ``tile``, planned and
        measured ``host`` and ``device`` memory in GiB, and seconds: ``fit``
        until the first tile, ``tiles`` for those that were restored, of
        ``pixels`` pixels of the patch.
    """
    options = RestoreOptions(
        tiling=TilingOptions(max_host_memory=max_host_memory, max_tile_size=max_tile_size),
        fit=FitOptions(max_epochs=max_epochs),
        noise=NoiseOptions(),
    )
    source = SyntheticSource((size, size), exposures)
    plan = plan_memory(source, options, device=device)
    tiles = _largest_first(plan.grid)[: max_tiles or None]
    part = dataclasses.replace(plan, grid=TileGrid(plan.grid.shape, tiles))
    marks: list[float] = []
    start = time.perf_counter()
    restore_exposures(
        source,
        target_fwhm=TARGET,
        options=options,
        device=device,
        plan=part,
        tile_callback=lambda done, number: marks.append(time.perf_counter()),
    )
    own = [t.within for t in tiles]
    measured_device = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return {
        "num_tiles": float(len(plan.grid.tiles)),
        "tile": float(max(max(t.shape) for t in plan.grid.tiles)),
        "planned_host": plan.host_memory / 2**30,
        "planned_device": plan.device_memory / 2**30,
        "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "device": measured_device,
        "fit": marks[0] - start,
        "tiles": marks[-1] - marks[0],
        "pixels": float(sum((r.stop - r.start) * (c.stop - c.start) for r, c in own)),
    }


def _largest_first(grid: TileGrid) -> tuple[Tile, ...]:
    """Return the largest tiles first: those that nothing cuts off."""
    return tuple(sorted(grid.tiles, key=lambda t: -t.shape[0] * t.shape[1]))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_run(**json.loads(sys.argv[1]))) + "\n")
