# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Summary of a large restoration: samples, projections, and what is shown."""

from __future__ import annotations

import dataclasses
import datetime
import io
import logging
import math
import uuid
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from lsst.astroclearnet.commands._progress import Report
from lsst.astroclearnet.commands._status import CampaignStatus, CampaignWatch, PatchStatus
from lsst.astroclearnet.commands._status_details import PatchDetails, Usage, read_details
from lsst.astroclearnet.commands._status_report import (
    follow_campaign,
    status_lines,
    status_sentence,
    status_tables,
)
from lsst.astroclearnet.commands._status_sources import PatchKey, PatchOutputs, PatchState
from lsst.daf.butler import DatasetRef
from lsst.daf.butler.logging import ButlerLogRecord, ButlerLogRecords
from lsst.pipe.base import TaskMetadata

START = datetime.datetime(2026, 11, 25, 12, 0, 0, tzinfo=datetime.UTC)


def metadata_of(seconds: float, *, cores: float = 1.0, **values: Any) -> TaskMetadata:
    """Return the metadata of a quantum of a given duration."""
    times = {"prep": 0.0, "init": 0.0, "start": 0.0, "end": seconds}
    quantum: dict[str, Any] = {"caveats": 0}
    for name, time in times.items():
        quantum[f"{name}Utc"] = (START + datetime.timedelta(seconds=time)).isoformat()
        quantum[f"{name}CpuTime"] = cores * time
        quantum[f"{name}MaxResidentSetSize"] = 2**30
    return TaskMetadata.from_dict({"restoreCoadd": values, "quantum": quantum})


def log_of(*messages: str, seconds: float = 0.0, level: int = logging.WARNING) -> ButlerLogRecords:
    """Return a log whose records are evenly spaced in time."""
    step = seconds / max(1, len(messages) - 1)
    return ButlerLogRecords.from_records(
        ButlerLogRecord(
            name="lsst.restoreCoadd",
            asctime=START + datetime.timedelta(seconds=step * number),
            message=message,
            levelno=level,
            levelname=logging.getLevelName(level),
            filename="",
            pathname="",
            lineno=1,
            process=1,
            processName="",
            MDC={},
        )
        for number, message in enumerate(messages)
    )


class Source:
    """A campaign in memory."""

    def __init__(self, num_patches: int) -> None:
        self.keys = [PatchKey(band, 0, patch) for band in "gr" for patch in range(num_patches)]
        self.outputs: dict[PatchKey, PatchOutputs] = {}
        self.contents: dict[uuid.UUID, Any] = {}
        self.num_read = Counter[uuid.UUID]()

    def put(self, key: PatchKey, **contents: Any) -> None:
        """Let a patch have datasets."""
        refs = {}
        for field, content in contents.items():
            refs[field] = cast(DatasetRef, SimpleNamespace(id=uuid.uuid4(), run="run"))
            self.contents[refs[field].id] = content
        metrics = tuple(refs.pop(field) for field in list(refs) if field == "metrics")
        self.outputs[key] = PatchOutputs(**refs, metrics=metrics)

    def finish(self, key: PatchKey, seconds: float = 3600.0, **options: Any) -> None:
        """Let a patch be done."""
        metrics = {
            "exposures": [{"psf_fwhm": 0.7}],
            "image": {"target_fwhm": 0.6},
            "network": {"device": "cuda"},
        }
        contents = {"log": log_of(), "coadd": None, "metrics": metrics, **options}
        self.put(key, metadata=metadata_of(seconds, cores=2.0), **contents)

    def find_expected(self, progress: Report | None = None) -> frozenset[PatchKey]:
        return frozenset(self.keys)

    def find_outputs(self) -> dict[PatchKey, PatchOutputs]:
        return dict(self.outputs)

    def get(self, ref: DatasetRef) -> Any:
        self.num_read[ref.id] += 1
        return self.contents[ref.id]


def watch(source: Source, **options: Any) -> CampaignWatch:
    return CampaignWatch(source, label="restoreCoadd", **options)


def status_of(*patches: tuple[PatchState, PatchDetails | None]) -> CampaignStatus:
    """Return the status of patches of one band."""
    return CampaignStatus(
        [
            PatchStatus(PatchKey("i", 0, number), state, details)
            for number, (state, details) in enumerate(patches)
        ]
    )


def details_of(device: str = "cuda:0", seconds: float = 3600.0, **options: Any) -> PatchDetails:
    """Return what was read of a patch that is done, on a quarter of a core."""
    return PatchDetails(PatchState.DONE, usage=Usage(seconds, seconds / 4.0), device=device, **options)


def test_large_campaigns_are_sampled() -> None:
    """If it fails, a look at a campaign of a hundred tracts reads a hundred
    thousand files, or the same ones again at each look.
    """
    source = Source(400)
    for number, key in enumerate(source.keys):
        if number % 4:
            source.finish(key, seconds=3600.0 if key.band == "g" else 7200.0)
        elif number % 8:
            source.put(key, log=log_of("x failed. Exception OSError: full", level=logging.ERROR))
    campaign = watch(source, max_read=20)
    status = campaign.look()
    assert status.total.counts == {PatchState.DONE: 600, PatchState.FAILED: 100, PatchState.UNFINISHED: 100}
    read = [patch for patch in status.patches if patch.details is not None]
    assert Counter((p.key.band, p.state) for p in read) == dict.fromkeys(
        [(band, state) for band in "gr" for state in (PatchState.DONE, PatchState.FAILED)], 20
    )
    # Spread over the campaign: the mean of 40 uniform numbers.
    mean = sum(patch.key.patch for patch in read) / len(read)
    assert mean == pytest.approx(200.0, abs=4.0 * 400.0 / math.sqrt(12.0 * len(read)))
    (reason,) = status.reasons(PatchState.FAILED)
    assert (reason.text, len(reason.patches)) == ("OSError: full", 40)
    # Sums are for all patches, and what is left follows from each band.
    assert status.total.hours_spent == {"GPU": pytest.approx(300.0 + 600.0)}
    assert [status.hours_left(band) for band in status.bands] == pytest.approx([100.0, 200.0])
    assert status.hours_left(status.total) == pytest.approx(300.0)
    text = "\n".join(status_lines(status))
    assert "metrics are those of 80 of the 700 patches that ended" in text
    before = dict(source.num_read)
    source.finish(next(key for key in source.keys if key not in source.outputs))
    campaign.look()
    assert max(source.num_read.values()) == 1
    # The sample changes by the new patch at most.
    assert sum(source.num_read.values()) <= sum(before.values()) + 3


def test_bands_are_in_order_of_wavelength() -> None:
    """If it fails, each table has bands in another order."""
    keys = [PatchKey(band, 0, 0) for band in ("z", "N921", "i", "y", "g", "r", "u")]
    status = CampaignStatus([PatchStatus(key, PatchState.UNFINISHED) for key in keys])
    assert [band.band for band in status.bands] == ["u", "g", "r", "i", "z", "y", "N921"]


def test_one_patch_is_not_many() -> None:
    """If it fails, a sentence is no English."""
    assert status_sentence(status_of((PatchState.UNFINISHED, None))) == "1 patch: 1 not finished"


def test_hours_of_the_device() -> None:
    """If it fails, hours of a GPU are projected from those of a CPU, or a
    process that waits for its GPU costs nothing.
    """
    missing = (PatchState.UNFINISHED, None)
    ran = [details_of(), details_of(seconds=7200.0), details_of("cpu", seconds=36000.0)]
    status = status_of(*((PatchState.DONE, details) for details in ran), missing)
    assert status.unit == "GPU"
    assert status.total.hours_spent == {"GPU": 3.0, "CPU": 2.5}
    assert status.hours_left(status.total) == 1.5
    assert status_sentence(status) == "4 patches: 3 done, 1 not finished, 1.5 GPU-hours left"
    assert "Some patches ran on another device: 2.5 CPU-hours spent." in list(status_lines(status))
    status = status_of((PatchState.DONE, details_of("cpu")), missing, missing)
    assert (status.unit, status.hours_left(status.total)) == ("CPU", 0.5)
    # A failed patch has to be done again, and its attempts were not free.
    attempt = PatchDetails(
        PatchState.FAILED, reason="x", usage=Usage(360.0, 360.0), earlier=Usage(720.0, 720.0)
    )
    status = status_of((PatchState.DONE, details_of()), (PatchState.FAILED, attempt))
    assert status.hours_left(status.total) == 1.0
    assert status.total.hours_spent["GPU"] == pytest.approx(1.3)
    assert math.isnan(status_of((PatchState.FAILED, attempt)).total.hours)


def test_time_of_failures() -> None:
    """If it fails, time lost to failures is not counted: only some executors
    keep the metadata of a failed quantum.
    """
    source = Source(1)
    log = log_of("start", "task failed. Exception OSError: full", seconds=90.0, level=logging.ERROR)
    before = log_of("start", "end", seconds=40.0)
    attempts = [
        {"metadata": metadata_of(50.0).model_dump()},
        {"metadata": {}, "logs": [record.model_dump() for record in before]},
    ]
    log.extra = {"metadata": {}, "previous_attempts": attempts}
    source.put(source.keys[0], log=log)
    details = read_details(source.get, source.outputs[source.keys[0]], "restoreCoadd")
    assert (details.state, details.reason) == (PatchState.FAILED, "OSError: full")
    assert (details.usage.wall, details.earlier.wall) == (90.0, 90.0)
    log.extra = {"metadata": metadata_of(60.0, cores=2.0).model_dump()}
    details = read_details(source.get, source.outputs[source.keys[0]], "restoreCoadd")
    assert details.usage == Usage(60.0, 120.0)


def test_records_of_other_versions() -> None:
    """If it fails, a patch has no reason because the executor writes more or
    less beside the records.
    """
    source = Source(1)
    log = log_of("start", "task failed. Exception OSError: full", seconds=90.0, level=logging.ERROR)
    log.extra = {"exception": {"unheard_of": 1}}
    source.put(source.keys[0], log=log)
    details = read_details(source.get, source.outputs[source.keys[0]], "restoreCoadd")
    assert (details.state, details.reason) == (PatchState.FAILED, "OSError: full")
    assert details.usage.wall == 90.0


def test_metrics_of_other_versions() -> None:
    """If it fails, what another version of the task writes ends the command,
    or peaks of memory are not those of the patch.
    """
    source = Source(1)
    key = source.keys[0]
    source.put(key, metadata=metadata_of(5.0, network_device="cpu"), coadd=None, metrics={})
    details = read_details(source.get, source.outputs[key], "restoreCoadd")
    assert (details.state, details.device, details.num_exposures) == (PatchState.DONE, "cpu", 0)
    assert math.isnan(details.seeing)
    assert details.host_memory == 2**30
    values = {"peak_host_memory": 5e8, "peak_device_memory": 7e8, "patch_num_failed_tiles": 3}
    source.put(key, log=log_of(), metadata=metadata_of(5.0, **values), coadd=None, metrics={})
    details = read_details(source.get, source.outputs[key], "restoreCoadd")
    assert (details.state, details.reason) == (PatchState.PARTIAL, "3 tile(s) failed")
    assert (details.host_memory, details.device_memory) == (5e8, 7e8)


def test_reasons_are_gathered() -> None:
    """If it fails, a cause that hit many patches fills the screen, or one that
    hit few is not seen.
    """
    failures = [f"OSError: disk {number} is full\nat once" for number in range(5)] + ["ValueError: no"]
    patches = [
        (PatchState.FAILED, PatchDetails(PatchState.FAILED, reason=reason)) for reason in reversed(failures)
    ]
    status = status_of(*patches)
    (often, once) = status.reasons(PatchState.FAILED)
    assert (often.text, len(often.patches)) == ("OSError: disk 4 is full\nat once", 5)
    assert once.text == "ValueError: no"
    lines = list(status_lines(status))
    assert lines[:3] == [
        "Failed:",
        "  band i, tract 0, patch 1 and 4 more: OSError: disk 4 is full at once",
        "  band i, tract 0, patch 0: ValueError: no",
    ]
    # The same warning about two exposures of a patch is one.
    warnings = ("Dropped visit 1 (no_psf: none)", "Dropped visit 22 (no_psf: no model)")
    status = status_of((PatchState.DONE, details_of(warnings=warnings)), (PatchState.DONE, details_of()))
    (warning,) = status.warnings()
    assert warning.patches == (PatchKey("i", 0, 0),)
    assert status.total.num_warned == 1
    kinds = [PatchDetails(PatchState.FAILED, reason=f"{'y' * 200}{letter}") for letter in "abcdefg"]
    lines = list(status_lines(status_of(*((PatchState.FAILED, kind) for kind in kinds))))
    assert lines[6] == "  ... and 2 other kinds."
    assert lines[1].endswith("yyy...")


def show(*renderables: object) -> str:
    """Return what is shown on a wide page."""
    console = Console(file=io.StringIO(), width=170)
    console.print(*renderables)
    return cast(io.StringIO, console.file).getvalue()


def test_tables() -> None:
    """If it fails, numbers stand under the wrong title."""
    source = Source(3)
    source.finish(source.keys[0], log=log_of("Beware."), seconds=1800.0)
    source.put(source.keys[4], log=log_of("x failed. Exception OSError: full", level=logging.ERROR))
    counts, figures = status_tables(watch(source).look())

    def rows(table: Any) -> list[dict[str, str]]:
        titles = [" ".join(str(column.header).split()) for column in table.columns]
        cells = zip(*(column.cells for column in table.columns), strict=True)
        return [dict(zip(titles, row, strict=True)) for row in cells]

    first, second, total = rows(counts)
    assert first == {
        "band": "g",
        "expected": "3",
        "done": "1",
        "in part": "0",
        "no work": "0",
        "failed": "0",
        "not finished": "2",
        "with warnings": "1",
    }
    assert (second["failed"], second["not finished"], second["with warnings"]) == ("1", "2", "0")
    assert (total["expected"], total["failed"], total["not finished"]) == ("6", "1", "4")
    first, second, total = rows(figures)
    assert first == {
        "band": "g",
        "exposures": "1",
        "seeing (\N{DOUBLE PRIME})": "0.70",
        "target (\N{DOUBLE PRIME})": "0.60",
        "time (s)": "1800.0",
        "host memory (GiB)": "1.00",
        "max": "1.00",
        "device memory max (GiB)": "-",
        "GPU-hours spent": "0.5",
        "GPU-hours left": "1",
    }
    # From the median of all bands, as this one has none yet.
    assert (second["time (s)"], second["GPU-hours left"]) == ("-", "1.5")
    assert total["GPU-hours left"] == "2.5"
    assert "Restored patches" in show(counts, figures)
    # Without a restored patch there is nothing to say about them.
    assert len(status_tables(watch(Source(1)).look())) == 1


@pytest.mark.parametrize("is_terminal", [False, True])
def test_follow(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """If it fails, a campaign is not seen to progress, or watched for ever."""
    source = Source(2)
    campaign = watch(source)
    waits: list[float] = []

    def pass_time(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 1:
            source.finish(source.keys[len(waits) - 2])

    monkeypatch.setattr("time.sleep", pass_time)
    file = io.StringIO()
    console = Console(file=file, width=170, force_terminal=is_terminal)
    status = follow_campaign(campaign.look, console, interval=7, first=campaign.look())
    assert waits == [7] * 5
    assert status.total.counts == {PatchState.DONE: 4}
    shown = file.getvalue()
    if is_terminal:
        assert "4/4" in shown
        assert "expected" in shown
    else:
        # Nothing new, nothing shown.
        assert [line.split(",")[0] for line in shown.splitlines()] == [
            "4 patches: 4 not finished",
            "4 patches: 1 done",
            "4 patches: 2 done",
            "4 patches: 3 done",
            "4 patches: 4 done",
        ]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_follow_until_interrupted(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """If it fails, one who stops watching loses the summary."""
    source = Source(1)
    source.finish(source.keys[0])
    first = watch(source).look()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    assert follow_campaign(lambda: first, console, interval=1, first=first) is first


def test_states() -> None:
    """If it fails, a patch is done that is not, or the other way round."""
    old, new = (cast(DatasetRef, SimpleNamespace(run=run)) for run in ("old", "new"))
    done = PatchOutputs(log=new, metadata=new, coadd=new, metrics=(new,))
    for changes, state in (
        ({}, PatchState.DONE),
        ({"log": None}, PatchState.DONE),
        # A later run without success does not undo an earlier one.
        ({"metadata": old, "coadd": old}, PatchState.DONE),
        ({"coadd": None, "metrics": ()}, PatchState.NO_WORK),
        ({"coadd": None, "metadata": old}, PatchState.FAILED),
        ({"coadd": None, "metadata": None}, PatchState.FAILED),
        ({"metadata": None}, PatchState.PARTIAL),
        ({"metadata": None, "metrics": ()}, PatchState.FAILED),
        ({"metadata": None, "coadd": old}, PatchState.FAILED),
        # As a process leaves it that is killed between two outputs.
        ({"metadata": None, "log": None}, PatchState.UNFINISHED),
        (dict.fromkeys(("log", "metadata", "coadd", "metrics")), PatchState.UNFINISHED),
    ):
        assert dataclasses.replace(done, **changes).state is state, changes
