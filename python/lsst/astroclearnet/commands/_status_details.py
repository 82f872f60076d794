# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reason, warnings, time and memory of a patch, from its log and metadata."""

from __future__ import annotations

import dataclasses
import logging
import math
import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from lsst.daf.butler import DatasetRef
from lsst.daf.butler.logging import ButlerLogRecord, ButlerLogRecords
from lsst.pipe.base import QuantumSuccessCaveats
from lsst.pipe.base import automatic_connection_constants as acc
from lsst.pipe.base.quantum_graph import (
    PredictedDatasetModel,
    PredictedQuantumDatasetsModel,
    ProvenanceQuantumScanModels,
)
from lsst.pipe.base.resource_usage import QuantumResourceUsage

from ._status_sources import PatchOutputs, PatchState

_FAILED = " failed. Exception "
_NO_WORK = (" exited early with no work found: ", "; saving metadata and skipping: ")
"""What stands before the reason in the log of an executor."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Wall-clock time, and CPU time of all threads, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.wall + other.wall, self.cpu + other.cpu)


@dataclasses.dataclass(frozen=True)
class PatchDetails:
    """Outcome of the restoration of a patch; NaN is not known."""

    state: PatchState
    reason: str = ""  # why there is no coadd, or only part of one
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()  # of the last attempt
    earlier: Usage = Usage()  # of earlier attempts in the same run
    device: str = ""
    host_memory: float = math.nan  # peak in bytes, or that of the process so far
    device_memory: float = math.nan
    num_failed_tiles: int = 0
    num_exposures: int = 0  # used
    seeing: float = math.nan  # median FWHM of their PSFs in arcsec
    target_fwhm: float = math.nan  # arcsec


def read_details(get: Callable[[DatasetRef], Any], outputs: PatchOutputs, label: str) -> PatchDetails:
    """Read the log, the metadata and the metrics of a patch, of which the log
    or the metadata are there.

    Keys that other versions of the task do not write may be absent.
    """
    state = outputs.state
    own = outputs.metadata if outputs.metadata is not None and state is not PatchState.FAILED else None
    records = None
    if outputs.log is not None and (own is None or outputs.log.run == own.run):
        records = get(outputs.log)
    written = None if own is None else get(own)
    try:
        scan = ProvenanceQuantumScanModels.from_metadata_and_logs(_any_quantum(label), written, records)
    except ValidationError:
        # What the executor adds to the records is not as here expected.
        records = ButlerLogRecords.from_records(records or ())
        scan = ProvenanceQuantumScanModels.from_metadata_and_logs(_any_quantum(label), written, records)
    last = scan.attempts[-1]
    metadata = scan.metadata.attempts[-1]
    content = {} if metadata is None else metadata.to_dict()
    task = content.get(label, {})
    # Where bands are restored together, each has a group of its own.
    groups = [task, *(group for group in task.values() if isinstance(group, Mapping))]
    num_failed = sum(int(group.get("patch_num_failed_tiles", 0)) for group in groups)
    if state is PatchState.DONE:
        is_partial = (last.caveats or QuantumSuccessCaveats(0)) & QuantumSuccessCaveats.PARTIAL_OUTPUTS_ERROR
        if is_partial or num_failed:
            state = PatchState.PARTIAL
    elif state is PatchState.PARTIAL and "quantum" in content and "failure" not in task:
        # An unforeseen error after the outputs were written.
        state = PatchState.FAILED
    found: dict[str, Any] = {"device": str(task.get("network_device", ""))}
    if state in (PatchState.DONE, PatchState.PARTIAL) and outputs.metrics:
        found |= _read_metrics([get(ref) for ref in outputs.metrics])
    *earlier, usage = (
        _usage(attempt.resource_usage, log)
        for attempt, log in zip(scan.attempts, scan.logs.attempts, strict=True)
    )
    log = scan.logs.attempts[-1] or []
    if state is PatchState.DONE:
        reason = ""
    elif last.exception is not None:
        reason = f"{last.exception.type_name.rpartition('.')[2]}: {last.exception.message}"
    else:
        reason = f"{num_failed} tile(s) failed" if num_failed else _find_reason(state, log)
    memory = math.nan if last.resource_usage is None else last.resource_usage.memory
    return PatchDetails(
        state=state,
        reason=reason,
        warnings=tuple(_list_warnings(log, label)),
        usage=usage,
        earlier=sum(earlier, Usage()),
        host_memory=float(task.get("peak_host_memory", memory)),
        device_memory=float(task.get("peak_device_memory", math.nan)),
        num_failed_tiles=num_failed,
        **found,
    )


def _any_quantum(label: str) -> PredictedQuantumDatasetsModel:
    """Return a quantum with new IDs: those of its graph, which may not be at
    hand, matter to provenance graphs alone.
    """
    outputs = {
        name: [PredictedDatasetModel(dataset_id=uuid.uuid4(), dataset_type_name=f"{label}{name}", run="")]
        for name in (acc.LOG_OUTPUT_CONNECTION_NAME, acc.METADATA_OUTPUT_CONNECTION_NAME)
    }
    return PredictedQuantumDatasetsModel(quantum_id=uuid.uuid4(), task_label=label, outputs=outputs)


def _usage(usage: QuantumResourceUsage | None, log: Iterable[ButlerLogRecord] | None) -> Usage:
    """Return the time of an attempt.

    Where the metadata are lost, as those of failures with several processes
    are, the log tells how long it took.
    """
    if usage is not None:
        return Usage(usage.total_time, usage.run_time_cpu)
    times = [record.asctime for record in log or ()]
    wall = (max(times) - min(times)).total_seconds() if times else 0.0
    return Usage(wall, wall)


def _read_metrics(bands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return attributes of `PatchDetails` from the metrics of its bands."""
    exposures = [exposure for metrics in bands for exposure in metrics.get("exposures", ())]
    widths = [e["psf_fwhm"] for e in exposures if e.get("used_fraction", 1.0) > 0.0]
    found = {
        "num_exposures": len(widths),
        "seeing": statistics.median(widths) if widths else math.nan,
        "target_fwhm": float(bands[0].get("image", {}).get("target_fwhm", math.nan)),
    }
    device = bands[0].get("network", {}).get("device")
    return found if device is None else {**found, "device": str(device)}


def _find_reason(state: PatchState, log: list[ButlerLogRecord]) -> str:
    """Return type and message of the exception, or why there is no work."""
    marks = _NO_WORK if state is PatchState.NO_WORK else (_FAILED,)
    for record in reversed(log):
        for mark in marks:
            if mark in record.message:
                return record.message.partition(mark)[2].removesuffix(".")
        if state is not PatchState.NO_WORK and record.levelno >= logging.ERROR:
            return record.message
    return "no reason in its log"


def _list_warnings(log: Iterable[ButlerLogRecord], label: str) -> list[str]:
    """Return warnings of the task, its subtasks and this package."""
    return [
        record.message
        for record in log
        if record.levelno == logging.WARNING
        and f"{record.name}.".startswith((f"lsst.{label}.", "lsst.astroclearnet."))
    ]
