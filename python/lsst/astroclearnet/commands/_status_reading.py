# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Read what the restoration of a patch says of itself."""

from __future__ import annotations

__all__ = ("PatchDetails", "Usage", "read_details")

import dataclasses
import datetime
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lsst.daf.butler import DatasetRef
from lsst.daf.butler.logging import ButlerLogRecords
from lsst.pipe.base import QuantumSuccessCaveats, TaskMetadata
from lsst.pipe.base.resource_usage import QuantumResourceUsage

from ._status_outputs import PatchOutputs, PatchState

_FAILED = " failed. Exception "
_NO_WORK = (" exited early with no work found: ", "; saving metadata and skipping: ")
"""What stands before the reason in the log of an executor."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Time of one attempt, or of several.

    Attributes
    ----------
    wall, cpu
        Wall-clock time, and CPU time of all threads, in seconds.
    """

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.wall + other.wall, self.cpu + other.cpu)


@dataclasses.dataclass(frozen=True)
class PatchDetails:
    """What the restoration of a patch says of itself.

    Attributes
    ----------
    state
        How far the patch is.
    reason
        Why there is no coadd or only part of one; empty if all is well.
    warnings
        What the task warned of.
    usage
        Time of the last attempt.
    earlier
        Time of earlier attempts in the same run that the executor has kept.
    device
        Name of the device that it was restored on, if known.
    host_memory, device_memory
        Peak use in bytes; NaN if not known.  Where nothing better is known,
        the first is that of the process so far.
    num_failed_tiles
        Tiles that could not be restored.
    num_exposures
        Exposures that were used.
    seeing
        Median FWHM of their PSFs in arcsec; NaN if not known.
    target_fwhm
        FWHM of the PSF of the coadd in arcsec; NaN if not known.
    """

    state: PatchState
    reason: str = ""
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    earlier: Usage = Usage()
    device: str = ""
    host_memory: float = math.nan
    device_memory: float = math.nan
    num_failed_tiles: int = 0
    num_exposures: int = 0
    seeing: float = math.nan
    target_fwhm: float = math.nan


def read_details(get: Callable[[DatasetRef], Any], outputs: PatchOutputs, label: str) -> PatchDetails:
    """Read what the restoration of a patch says of itself.

    Parameters
    ----------
    get
        Function that reads a dataset.
    outputs
        Its datasets, of which at least the log or the metadata are there.
    label
        Label of the task.

    Returns
    -------
    details : `PatchDetails`
        What the log, the metadata and the metrics hold; keys that other
        versions of the task do not write may be absent.
    """
    state = outputs.state
    own = outputs.metadata if outputs.metadata is not None and state is not PatchState.FAILED else None
    log = None
    if outputs.log is not None and (own is None or outputs.log.run == own.run):
        log = get(outputs.log)
    # The executor keeps the metadata of a failed quantum in its log.
    extra: Mapping[str, Any] = {} if log is None else log.extra or {}
    metadata = get(own) if own is not None else _parse(extra.get("metadata"))
    content = {} if metadata is None else metadata.to_dict()
    task = content.get(label, {})
    if state is PatchState.DONE and _is_partial(task, content.get("quantum", {})):
        state = PatchState.PARTIAL
    elif state is PatchState.PARTIAL and "quantum" in content and "failure" not in task:
        # An error that the task did not foresee, when the outputs were there.
        state = PatchState.FAILED
    found: dict[str, Any] = {"device": str(task.get("fit_device", ""))}
    if state in (PatchState.DONE, PatchState.PARTIAL) and outputs.metrics is not None:
        found |= _read_metrics(get(outputs.metrics))
    usage, memory = _usage(metadata, [record.asctime for record in log or ()])
    return PatchDetails(
        state=state,
        reason=_find_reason(state, task, log),
        warnings=() if log is None else tuple(_list_warnings(log, label)),
        usage=usage,
        earlier=_earlier_usage(extra),
        host_memory=float(task.get("peak_host_memory", memory)),
        device_memory=float(task.get("peak_device_memory", math.nan)),
        num_failed_tiles=int(task.get("patch_num_failed_tiles", 0)),
        **found,
    )


def _parse(content: Any) -> TaskMetadata | None:
    """Return the metadata that a log holds.

    Parameters
    ----------
    content
        What is in its place.

    Returns
    -------
    metadata : `lsst.pipe.base.TaskMetadata` or `None`
        The metadata, if any.
    """
    return None if content is None else TaskMetadata.model_validate(content)


def _usage(metadata: TaskMetadata | None, times: Sequence[datetime.datetime]) -> tuple[Usage, float]:
    """Return the time and the memory of an attempt.

    Parameters
    ----------
    metadata
        Its metadata, if there are any.
    times
        Time of each of its log records: where the metadata are lost, as those
        of failures with several processes are, they tell how long it took.

    Returns
    -------
    usage : `Usage`
        The time; zero if nothing is known.
    memory : `float`
        Peak of its process so far in bytes; NaN if it is not known.
    """
    usage = None if metadata is None else QuantumResourceUsage.from_task_metadata(metadata)
    if usage is not None:
        return Usage(usage.total_time, usage.run_time_cpu), usage.memory
    wall = (max(times) - min(times)).total_seconds() if times else 0.0
    return Usage(wall, wall), math.nan


def _earlier_usage(extra: Mapping[str, Any]) -> Usage:
    """Return the time of earlier attempts in the same run.

    Parameters
    ----------
    extra
        What the log holds beside its records.

    Returns
    -------
    usage : `Usage`
        The time of those that the executor has kept.
    """
    total = Usage()
    for attempt in extra.get("previous_attempts", ()):
        times = [
            datetime.datetime.fromisoformat(str(record["asctime"])) for record in attempt.get("logs", ())
        ]
        total += _usage(_parse(attempt.get("metadata")), times)[0]
    return total


def _is_partial(task: Mapping[str, Any], quantum: Mapping[str, Any]) -> bool:
    """Tell whether a quantum that succeeded wrote part of a coadd only.

    Parameters
    ----------
    task, quantum
        What the task and the executor wrote into its metadata.

    Returns
    -------
    is_partial : `bool`
        Whether it did.
    """
    caveats = QuantumSuccessCaveats(int(quantum.get("caveats", 0)))
    return bool(
        caveats & QuantumSuccessCaveats.PARTIAL_OUTPUTS_ERROR or task.get("patch_num_failed_tiles", 0)
    )


def _read_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the metrics say.

    Parameters
    ----------
    metrics
        Content of ``restored_coadd_metrics``.

    Returns
    -------
    found : `dict`
        Attributes of `PatchDetails`.
    """
    widths = [e["psf_fwhm"] for e in metrics.get("exposures", ()) if e.get("used_fraction", 1.0) > 0.0]
    found = {
        "num_exposures": len(widths),
        "seeing": statistics.median(widths) if widths else math.nan,
        "target_fwhm": float(metrics.get("image", {}).get("target_fwhm", math.nan)),
    }
    device = metrics.get("fit", {}).get("device")
    return found if device is None else {**found, "device": str(device)}


def _find_reason(state: PatchState, task: Mapping[str, Any], log: ButlerLogRecords | None) -> str:
    """Return why there is no coadd, or only part of one.

    Parameters
    ----------
    state
        How far the patch is.
    task
        What the task wrote into its metadata.
    log
        Its log.

    Returns
    -------
    reason : `str`
        Type and message of an exception; the message alone for a patch
        without work.
    """
    if state is PatchState.DONE:
        return ""
    failure = task.get("failure")
    if failure is None and log is not None and log.extra:
        failure = log.extra.get("exception")
    if isinstance(failure, Mapping):
        return _describe(str(failure.get("type_name", failure.get("type", ""))), str(failure.get("message")))
    if number := int(task.get("patch_num_failed_tiles", 0)):
        return f"{number} tile(s) failed"
    for record in reversed(log or ()):
        for mark in _NO_WORK if state is PatchState.NO_WORK else (_FAILED,):
            if mark in record.message:
                return record.message.partition(mark)[2].removesuffix(".")
        if state is not PatchState.NO_WORK and record.levelno >= logging.ERROR:
            return record.message
    return "no reason in its log"


def _describe(type_name: str, message: str) -> str:
    """Return an exception as one text.

    Parameters
    ----------
    type_name
        Name of its type with that of the package.
    message
        Its message.

    Returns
    -------
    text : `str`
        Name of the type and message.
    """
    return f"{type_name.rpartition('.')[2]}: {message}"


def _list_warnings(log: ButlerLogRecords, label: str) -> Iterator[str]:
    """List what a task warned of.

    Parameters
    ----------
    log
        Its log.
    label
        Its label.

    Yields
    ------
    message : `str`
        A warning of the task, its subtasks or this package.
    """
    loggers = (f"lsst.{label}", "lsst.astroclearnet")
    for record in log:
        if record.levelno == logging.WARNING and any(
            record.name == name or record.name.startswith(f"{name}.") for name in loggers
        ):
            yield record.message
