# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""A patch that is restored through the Butler, with what it costs."""

from __future__ import annotations

__all__ = ("RESTORED", "restore_patch")

import time
from typing import Any
from unittest import mock

import torch

from lsst.astroclearnet.core import MemoryPlan
from lsst.astroclearnet.simulation import PIXEL_SCALE
from lsst.astroclearnet.tasks import RestoreCoaddTask
from lsst.ctrl.mpexec.cli.pipetask import cli
from lsst.daf.butler import Butler

from ..processes import peak_memory
from .survey import SurveyPatch

RESTORED = "u/benchmark/restored"
"""Collection of the outputs."""

_PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml"


def restore_patch(patch: SurveyPatch, target_fwhm: float, max_memory: float) -> dict[str, Any]:
    """Run ``pipetask`` in this process, and record what it took.

    The pipeline is that of simulated surveys: restoration, its measurement,
    summary and picture.  One that was interrupted is repeated from its start.

    Parameters
    ----------
    patch
        The patch.
    target_fwhm
        FWHM of the target PSF in pixels.
    max_memory
        Limit on the memory in GiB.

    Returns
    -------
    figures : `dict`
        Of the process: ``wall`` and ``cpu`` seconds, and peak ``memory`` in
        GiB.  Of the restoration: ``plan``, in words; ``planned`` and ``peak``
        memory in GiB; ``tiles``, first and one after last row and column that
        each owns; ``restore_cpu``; number of ``threads``.  ``output`` is what
        the datasets take on disk in GiB.
    """
    plans: list[MemoryPlan] = []
    task_cpu: list[float] = []
    original, original_run = RestoreCoaddTask._plan_memory, RestoreCoaddTask.run

    def plan(self: RestoreCoaddTask, *arguments: Any) -> MemoryPlan:
        plans.append(original(self, *arguments))
        return plans[-1]

    def run(self: RestoreCoaddTask, **arguments: Any) -> Any:
        before = time.process_time()
        try:
            return original_run(self, **arguments)
        finally:
            task_cpu.extend([time.process_time() - before, peak_memory() / 2**10])

    words = [
        *("run", "-b", str(patch.root), "-p", _PIPELINE, "-i", patch.collection, "-o", RESTORED),
        *("-d", f"skymap='{patch.options.skymap}'", "--register-dataset-types"),
        *("-c", f"restoreCoadd:target_fwhm={target_fwhm * PIXEL_SCALE}"),
        *("-c", f"restoreCoadd:restoration.tiling.max_host_memory={max_memory}"),
        *("-j", "1"),
    ]
    start, cpu = time.perf_counter(), time.process_time()
    with (
        mock.patch.object(RestoreCoaddTask, "_plan_memory", plan),
        mock.patch.object(RestoreCoaddTask, "run", run),
    ):
        cli.main(["--log-level", "lsst.astroclearnet=VERBOSE", *words], standalone_mode=False)
    return {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "memory": peak_memory() / 2**10,
        "output": _output_bytes(patch) / 2**30,
        "plan": str(plans[0]),
        "planned": plans[0].host_memory / 2**30,
        "restore_cpu": task_cpu[0],
        "peak": task_cpu[1],
        "tiles": _tiles(plans[0]),
        "threads": torch.get_num_threads(),
    }


def _tiles(plan: MemoryPlan) -> list[list[int]]:
    """Return the pixels of the patch, without its border, of each tile."""
    top, left = (0, 0) if plan.cells is None else plan.cells.border
    return [
        [
            max(0, tile.inner_rows.start - top),
            tile.inner_rows.stop - top,
            max(0, tile.inner_columns.start - left),
            tile.inner_columns.stop - left,
        ]
        for tile in plan.grid.tiles
    ]


def _output_bytes(patch: SurveyPatch) -> int:
    """Return the bytes of the datasets of the restoration."""
    butler = Butler.from_config(str(patch.root))
    run = max(name for name in butler.collections.query("*") if name.startswith(f"{RESTORED}/"))
    refs = butler.query_all_datasets([run], limit=None)
    return sum(butler.getURI(ref).size() for ref in refs if butler.stored(ref))
