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
from collections.abc import Mapping

from rich.table import Table as RichTable

from lsst.daf.butler import Butler, MissingDatasetTypeError
from lsst.images.cells import PatchDefinition

from ..adapters import SkyMapGeometry, patch_geometry_from_skymap, predict_disk_bytes
from ..core import (
    CellLayout,
    ExposureCutouts,
    RestoreOptions,
    plan_bands_memory,
    plan_memory,
)
from ._errors import CommandError
from ._plan_sample import CampaignSample, TractPatch
from ._tables import make_table, number, text

_GIB = 2.0**30

_CPU_TIME = 36e-6
"""Seconds of a CPU for a pixel and exposure: benchmarks/scaling.md, for a
patch of 2100x2100 pixels, before bright stars were fitted."""

_JOINT_TIME = 0.05
"""Additional CPU time of bands together, over that of one after the other:
99.8 against 95.1 s for a patch of 250x250 pixels in three bands of 16
exposures, on a busy machine."""

_EXPOSURE_BYTES = 9.0
"""Bytes of a pixel of an exposure: image, variance and mask."""

_CELL_SIZE = 100
"""Side in pixels of the cells of a sky map without cells, as by default."""

_RESIDENT_SHARE = 0.25
"""Share of the memory of the process up to which exposures are in it."""


@dataclasses.dataclass(frozen=True)
class RestorationCost:
    """What the restoration of a campaign takes."""

    way: str
    num_quanta: int
    cpu_hours: float
    memory: float  # of the largest process in GiB
    disk: float  # GiB


@dataclasses.dataclass(frozen=True)
class _ExpectedExposures:
    """Exposures that cover a patch, an `ExposureSource` to be planned for."""

    shape: tuple[int, int]
    num_exposures: int
    max_resident: float

    @property
    def resident_bytes(self) -> int:
        height, width = self.shape
        return int(min(self.max_resident, _EXPOSURE_BYTES * height * width * self.num_exposures))

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        return self.num_exposures, rows.stop - rows.start, columns.stop - columns.start

    def read(self, rows: slice, columns: slice) -> ExposureCutouts | None:
        raise NotImplementedError


def predict_costs(butler: Butler, sample: CampaignSample) -> tuple[RestorationCost, RestorationCost]:
    """Predict what a campaign takes on a CPU with the default settings, with
    its bands restored alone and together.

    Visit images count as if they covered the patches that they overlap.
    """
    patches = _read_patches(butler, sample)
    options = RestoreOptions()
    limit = _RESIDENT_SHARE * options.tiling.max_host_memory * _GIB
    hours, memory, disk = 0.0, [0.0, 0.0], [0.0, 0.0]
    for key, counts in sample.counts.items():
        patch = patches[key]
        layout = CellLayout(
            (patch.cells.cell_shape.y, patch.cells.cell_shape.x),
            (0, 0),
            (patch.cells.grid_size.i, patch.cells.grid_size.j),
        )
        shape = (patch.outer_bbox.y.size, patch.outer_bbox.x.size)
        alone = [_ExpectedExposures(shape, number, limit) for number in counts.values()]
        together = {
            band: _ExpectedExposures(shape, number, limit / len(counts)) for band, number in counts.items()
        }
        plans = [plan_memory(source, options, device="cpu", layout=layout) for source in alone]
        plans.append(plan_bands_memory(together, options, device="cpu", layout=layout))
        memory[0] = max(memory[0], *(plan.host_memory for plan in plans[:-1]))
        memory[1] = max(memory[1], plans[-1].host_memory)
        hours += _CPU_TIME * shape[0] * shape[1] * sum(counts.values()) / 3600.0
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
            "together", len(sample.counts), (1.0 + _JOINT_TIME) * hours, memory[1] / _GIB, disk[1] / _GIB
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


def _read_patches(butler: Butler, sample: CampaignSample) -> Mapping[TractPatch, PatchDefinition]:
    """Return the geometry of the patches."""
    if sample.skymap is None:
        raise CommandError("The repository has no sky map, and so no patches whose cost is known.")
    for name in ("skymap_geometry", "skyMap"):
        try:
            ref = butler.find_dataset(name, skymap=sample.skymap)
        except MissingDatasetTypeError:
            continue
        if ref is None:
            continue
        dataset = butler.get(ref)
        if name == "skyMap":
            return {
                (tract, patch): patch_geometry_from_skymap(
                    dataset, name=sample.skymap, tract=tract, patch=patch, cell_size=_CELL_SIZE
                ).definition
                for tract, patch in sample.counts
            }
        geometry = SkyMapGeometry.from_dict(dataset)
        return {key: geometry.patch(*key).definition for key in sample.counts}
    raise CommandError(
        f"There is no skymap_geometry or skyMap of {sample.skymap!r} in the input collections, from which "
        "the costs are predicted."
    )
