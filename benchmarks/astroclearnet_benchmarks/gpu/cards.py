# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of GPUs from their data sheets, for predictions."""

from __future__ import annotations

__all__ = ("CARDS", "LAUNCH_SECONDS", "LINK_BANDWIDTH", "WAIT_SECONDS", "Card")

import dataclasses

LAUNCH_SECONDS = 5e-6
"""Time of the host to launch a function of PyTorch, at the lower end of 5 to
25 microseconds; the bare launch of CUDA takes 2 to 4 of them (Gray 2019,
"Getting started with CUDA graphs", developer.nvidia.com/blog/cuda-graphs)."""

WAIT_SECONDS = 10e-6
"""Time in which the device is idle when the host waits for it: a kernel of 2.9
microseconds takes 9.6 if it is waited for (ibid.), and the next launches."""

LINK_BANDWIDTH = 50e9
"""Bytes per second between host and device: PCIe Gen 5 x16, 64e9 one way (host
of the H200 in MLPerf's inference_results_v4.1), of which 80 % are reached from
pinned memory; from other memory it is several times slower."""


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes
    ----------
    memory
        Its memory in bytes.
    bandwidth
        Bandwidth of its memory in bytes per second.
    source
        Where both are from.
    """

    memory: float
    bandwidth: float
    source: str


CARDS = {
    "H200": Card(141e9, 4.8e12, "www.nvidia.com/en-us/data-center/h200"),
    "H100 SXM": Card(80e9, 3.35e12, "www.nvidia.com/en-us/data-center/h100"),
    "A100 80GB SXM": Card(80e9, 2.039e12, "nvidia-a100-datasheet-us-nvidia-1758950-r4"),
    "L40S": Card(48e9, 0.864e12, "www.nvidia.com/en-us/data-center/l40s"),
}
