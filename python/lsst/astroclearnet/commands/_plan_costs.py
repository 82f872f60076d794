# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a campaign takes, with its bands restored alone and together."""

from __future__ import annotations

import dataclasses

from rich.table import Table as RichTable

from lsst.daf.butler import Butler

from ..adapters import predict_disk_bytes
from ..core import RestoreOptions, plan_bands_memory, plan_memory
from ._errors import CommandError
from ._patch_cost import CPU_TIME, CoveringExposures, cell_layout
from ._plan_sample import CampaignSample
from ._sky_map_patches import read_sky_map
from ._tables import make_table, number, text

_GIB = 2.0**30

_JOINT_TIME = 2.7e-5
"""Additional CPU time of bands together in seconds per pixel and band: 22
against 15 s for four bands of 256x256 pixels."""


@dataclasses.dataclass(frozen=True)
class RestorationCost:
    """What the restoration of a campaign takes."""

    way: str
    num_quanta: int
    cpu_hours: float
    memory: float  # of the largest process in GiB
    disk: float  # GiB


def predict_costs(butler: Butler, sample: CampaignSample) -> tuple[RestorationCost, RestorationCost]:
    """Predict what a campaign takes on a CPU with the default settings, with
    its bands restored alone and together.

    Visit images count as if they covered the patches that they overlap.
    """
    read_patch = read_sky_map(butler, sample.skymap)
    if read_patch is None:
        raise CommandError(
            "What a campaign costs follows from its sky map: there is no skymap_geometry or skyMap of "
            f"{sample.skymap!r} in the input collections."
            if sample.skymap
            else "The repository has no sky map, and so no patches whose cost is known."
        )
    options = RestoreOptions()
    hours, joint_hours, memory, disk = 0.0, 0.0, [0.0, 0.0], [0.0, 0.0]
    for key, counts in sample.counts.items():
        patch = read_patch(key).definition
        layout, shape = cell_layout(patch), patch.outer_bbox.shape
        alone = [CoveringExposures(shape, number, sample.side) for number in counts.values()]
        together = {
            band: CoveringExposures(shape, number, sample.side, num_bands=len(counts))
            for band, number in counts.items()
        }
        plans = [plan_memory(source, options, device="cpu", layout=layout) for source in alone]
        plans.append(plan_bands_memory(together, options, device="cpu", layout=layout))
        memory[0] = max(memory[0], *(plan.host_memory for plan in plans[:-1]))
        memory[1] = max(memory[1], plans[-1].host_memory)
        hours += CPU_TIME * shape[0] * shape[1] * sum(counts.values()) / 3600.0
        if len(counts) > 1:
            joint_hours += _JOINT_TIME * shape[0] * shape[1] * len(counts) / 3600.0
        for k, joint in enumerate((False, True)):
            disk[k] += predict_disk_bytes(
                patch,
                num_realizations=options.noise.num_realizations,
                do_linear=True,
                num_bands=len(counts),
                joint=joint,
            )
    num_alone = sum(len(counts) for counts in sample.counts.values())
    return (
        RestorationCost("alone", num_alone, hours, memory[0] / _GIB, disk[0] / _GIB),
        RestorationCost(
            "together", len(sample.counts), hours + joint_hours, memory[1] / _GIB, disk[1] / _GIB
        ),
    )


def costs_table(costs: tuple[RestorationCost, RestorationCost]) -> RichTable:
    """Lay out the costs for a terminal."""
    return make_table(
        "Cost of restoring the bands alone and together, predicted",
        [dataclasses.asdict(cost) for cost in costs],
        {"bands": text("way")},
        {
            "quanta": number("num_quanta", 0),
            "CPU-hours": number("cpu_hours", 2),
            "memory of a process\n(GiB)": number("memory", 1),
            "coadds on disk\n(GiB)": number("disk", 2),
        },
        caption="With the default settings, on CPUs. Every visit image counts as if it covered the patch. "
        "Smaller tiles keep the memory below tiling.max_host_memory.",
    )
