# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a patch costs: the one place to edit when it costs something else."""

from __future__ import annotations

__all__ = ("COSTS", "Cost", "DeviceWork", "PatchCosts")

import dataclasses
from typing import Literal

type Kind = Literal["measured", "predicted", "assumed", "set"]
"""Whether a value was measured, follows from measured counts, is a guess, or
is a setting."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """A value, and where it comes from.

    Attributes
    ----------
    value
        The value.
    unit
        Its unit.
    kind
        How it is known.
    source
        Where it is from.
    """

    value: float
    unit: str
    kind: Kind
    source: str


@dataclasses.dataclass(frozen=True)
class DeviceWork:
    """Counted work of a patch of 4200x4200 pixels with 33 exposures on a GPU.

    Attributes
    ----------
    traffic
        Bytes that kernels read and write.
    launches
        Kernels that are launched.
    host_seconds
        Seconds in which the device waits for the host.
    """

    traffic: float
    launches: float
    host_seconds: float

    def predict(self) -> float:
        """Return microseconds a pixel and exposure.

        The memory bandwidth is 4.8 TB/s (data sheet of the NVIDIA H200), and a
        launch takes 7.5 microseconds (the middle of 5 to 10).
        """
        seconds = self.traffic / 4.8e12 + self.launches * 7.5e-6 + self.host_seconds
        return 1e6 * seconds / (4200**2 * 33)


@dataclasses.dataclass(frozen=True)
class PatchCosts:
    """All that a release needs to know of a patch and band, on one processor.

    Attributes
    ----------
    name
        The processor, and how its costs are known.
    on_gpu
        Whether a worker is a GPU.
    compute
        Time of a worker for each pixel of the patch and exposure.
    scatter
        Standard deviation of the logarithm of that time, between patches.
    overhead
        Time of a worker for each patch and band, whatever its size.
    cores
        Cores of the host that a worker occupies.
    speedup
        How many times faster a worker is with its cores than with one.
    cluster
        Patches in all their bands that share a process.
    start
        From the dispatch of a job to its first read.
    decode
        Rate at which a worker reads and decodes its inputs.
    prefetch
        1 if the next patch is read during the computation of one, else 0.
    read
        Stored size of a pixel of a visit image.
    write
        Stored size of a pixel of all outputs of a patch.
    datasets
        Datasets that a quantum writes, with its metadata and log.
    submit
        To build the graph of a submission, and to prepare its jobs.
    graph_quantum
        Further time for each quantum of it.
    graph_input
        Further time for each visit image that is the input of a quantum.
    graph_quantum_size
        Size of a quantum in the stored graph.
    graph_input_size
        Size of an input of a quantum in it.
    register
        To bring the outputs of a submission into the registry.
    register_dataset
        Further time for each dataset.
    failure
        Share of attempts that fail.
    loss
        Mean time between two losses of a worker.
    repair
        Time until a lost worker is replaced.
    straggler_share
        Share of quanta that take longer.
    straggler_factor
        How many times longer these take.
    """

    name: str
    on_gpu: bool
    compute: Cost
    scatter: Cost
    overhead: Cost
    cores: Cost
    speedup: Cost
    cluster: Cost
    start: Cost
    decode: Cost
    prefetch: Cost
    read: Cost
    write: Cost
    datasets: Cost
    submit: Cost
    graph_quantum: Cost
    graph_input: Cost
    graph_quantum_size: Cost
    graph_input_size: Cost
    register: Cost
    register_dataset: Cost
    failure: Cost
    loss: Cost
    repair: Cost
    straggler_share: Cost
    straggler_factor: Cost


_GRAPH = "`pipetask qgraph` for 45 and 405 quanta with 1 and 8 exposures, SQLite, commit 48ffbf1"
_COUNTS = "launches, waits and bytes counted on a stand-in (gpu.md)"

_CPU = PatchCosts(
    name="CPU",
    on_gpu=False,
    compute=Cost(
        36.0,
        "µs",
        "measured",
        "a patch of 2100 x 2100 pixels under the detectors of HSC in proportion (scaling.md, A whole patch)",
    ),
    scatter=Cost(0.2, "", "assumed", "between patches with few and with many bright stars"),
    overhead=Cost(3.7, "s", "measured", "3.3 to 4.0 s in a process that has restored a patch (doc, Scaling)"),
    cores=Cost(4, "", "set", "bps/resources/cpu.yaml; 10 GiB for 4 cores, of 16 GiB"),
    speedup=Cost(3.0, "", "assumed", "threads of one process on idle cores"),
    cluster=Cost(1, "patches", "set", "bps/clustering/patch.yaml"),
    start=Cost(
        35.5,
        "s",
        "assumed",
        "5.5 s until the first read (bps/README.md, measured), and 30 s for the batch system",
    ),
    decode=Cost(125.0, "MB/s", "measured", "53 ns a pixel of an image on one core (doc, Scaling)"),
    prefetch=Cost(0, "", "set", "as the task does"),
    read=Cost(6.6, "bytes", "measured", "visit_image of 108 MB with 4000x4072 pixels (RTN-109, Table 6)"),
    write=Cost(
        31.0,
        "bytes",
        "predicted",
        "plan of disk space of the task: two coadds with two realisations each, and the correlation of cells",
    ),
    datasets=Cost(
        6, "", "set", "two coadds, noise correlation, metrics, metadata and log (doc, Data products)"
    ),
    submit=Cost(16.4, "s", "measured", f"{_GRAPH}: 8.4 s; `bps prepare`: 8 s (bps/README.md)"),
    graph_quantum=Cost(0.3, "ms", "measured", _GRAPH),
    graph_input=Cost(0.36, "ms", "measured", _GRAPH),
    graph_quantum_size=Cost(590.0, "bytes", "measured", _GRAPH),
    graph_input_size=Cost(22.0, "bytes", "measured", _GRAPH),
    register=Cost(11.0, "s", "measured", "final job of 4 quanta (bps/README.md)"),
    register_dataset=Cost(1.0, "ms", "assumed", "one insertion into PostgreSQL"),
    failure=Cost(0.01, "", "assumed", "all causes but losses of nodes; each is tried again three times"),
    loss=Cost(
        229000.0,
        "h",
        "measured",
        "Trinity: 6 losses of 19,100 nodes in 3 days (glennklockwood.com, Job reliability)",
    ),
    repair=Cost(1.0, "h", "assumed", "a further batch job takes its place"),
    straggler_share=Cost(
        0.035,
        "",
        "assumed",
        "with the next row 14 % more wall time than CPU time, as tasks of Rubin have (DMTN-135, 2026)",
    ),
    straggler_factor=Cost(5.0, "", "assumed", "see the row above"),
)

_GPU_LOSS = Cost(
    50700.0, "h", "measured", "16,384 GPUs in 54 days: 419 unplanned interruptions (arXiv:2407.21783)"
)

_GPU = dataclasses.replace(
    _CPU,
    name="GPU, predicted",
    on_gpu=True,
    compute=Cost(
        DeviceWork(traffic=5.09e13, launches=254365, host_seconds=1.2).predict(),
        "µs",
        "predicted",
        f"50.9 TB, 254,365 launches, and 1.2 s of waits and transfers, from {_COUNTS}",
    ),
    overhead=Cost(3.7, "s", "assumed", "that of the CPU"),
    speedup=Cost(1.0, "", "set", "in the time a pixel already"),
    cluster=Cost(9, "patches", "set", "bps/clustering/patches.yaml"),
    loss=_GPU_LOSS,
)

_GPU_PREFETCHED = dataclasses.replace(
    _GPU,
    name="GPU, predicted, with prefetching (a goal)",
    overhead=Cost(3.0, "s", "assumed", "the goal for a patch that is not the first of its process"),
    decode=Cost(500.0, "MB/s", "assumed", "four cores that decode apart"),
    prefetch=Cost(1, "", "set", "the host is idle meanwhile"),
)

COSTS = (_CPU, _GPU, _GPU_PREFETCHED)
"""Costs that the record compares.  Whoever has measured others adds them
here."""
