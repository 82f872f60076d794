# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of GPUs: measured where there is one, predicted elsewhere."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from astroclearnet_benchmarks.gpu import agreement, command, cost, prediction, retries
from astroclearnet_benchmarks.gpu.cards import CARDS, LAUNCH_SECONDS, WAIT_SECONDS, Card
from astroclearnet_benchmarks.gpu.kernels import time_kernels
from astroclearnet_benchmarks.gpu.prediction import CaseCounts, predict
from astroclearnet_benchmarks.gpu.run import Measurement, call_within
from lsst.astroclearnet.core import RestoreOptions, Tile, TilingOptions, restore
from lsst.astroclearnet.core.forward import TileData
from lsst.astroclearnet.core.tiles._tile_restorer import TileRestorer
from lsst.astroclearnet.tests import QUICK, DeviceCounts

SIZE = 200


def make_counts(num_exposures: int) -> CaseCounts:
    """Return a tile that launches ``100 + 10 n``, waits ``n`` times, and
    moves ``2 + n`` bytes a pixel of the latent image, as many in transforms.
    """
    pixels = 1000
    counts = DeviceCounts(
        launches=Counter(add=100 + 10 * num_exposures),
        waits=Counter(nonzero=num_exposures),
        moved=Counter({"add": 2 * pixels, "_fft_r2c": num_exposures * pixels}),
    )
    return CaseCounts(num_exposures, pixels, 20, {"tile": counts})


def test_prediction_follows_its_model() -> None:
    """If it fails, the prediction is not that of the counts."""
    card = Card(memory=100e9, bandwidth=1e9, source="")
    found = predict(make_counts(2), make_counts(4), SIZE, 33, card)
    assert found.num_tiles == 1
    assert found.launching == pytest.approx((100 + 330) * LAUNCH_SECONDS)
    assert found.waiting == pytest.approx(33 * WAIT_SECONDS)
    # Transforms go over an image twice.
    pixels = found.moved / (2 + 2 * 33)
    assert (SIZE + 40) ** 2 <= pixels < 1.2 * (SIZE + 40) ** 2
    assert found.moving == pytest.approx(found.moved / 1e9)
    assert found.least < found.most


def test_smaller_cards_need_more_launches() -> None:
    """If it fails, tiles do not follow from the memory of the card."""
    large, small = (
        predict(make_counts(2), make_counts(4), 1000, 33, Card(memory, 1e12, "")) for memory in (100e9, 2e9)
    )
    assert large.num_tiles == 1 < small.num_tiles
    assert small.launches == pytest.approx(small.num_tiles * large.launches)
    # Tiles overlap.
    assert small.moved > 1.2 * large.moved


def test_only_the_prediction_is_made_without_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a prediction passes for a measurement, or nothing is
    said.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(prediction, "_QUICK_CASE", (64, (2, 3)))
    page = tmp_path / "gpu.md"
    words = ["--output", str(page), "--work", str(tmp_path / "work")]
    assert command.main(["--quick", *words]) == 0
    said = capsys.readouterr().err
    assert "There is no CUDA device here" in said
    assert "agreement, cost, sharing, retries, kernels" in said
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Prediction"]
    assert "Nothing here was measured on a card" in text
    for card in CARDS:
        assert f"| {card} |" in text
    assert "nan" not in text
    assert command.main(["--sections", "kernels", *words]) == 1


def test_shares_fit_into_ten_minutes() -> None:
    """If it fails, the command takes longer than it says."""
    assert sum(seconds for _, seconds in command._SECTIONS.values()) <= 600.0


def test_processes_end_in_time() -> None:
    """If it fails, a section that hangs takes the time of the others."""
    assert call_within(100.0, json.dumps, obj=[17]) == "[17]"
    assert call_within(1.0, subprocess.run, args=["sleep", "60"]) is None
    assert not multiprocessing.active_children()


def run_steps(rate: float, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return sides of patches and tiles for seconds a pixel and exposure, on
    a clock of its own.
    """
    clock = [0.0]
    asked: list[tuple[int, int]] = []

    def restore(left: float, function: Any, *, size: int, exposures: int, device: str, part: int) -> Any:
        asked.append((size, part))
        pixels = part**2 if part else size**2
        clock[0] += rate * pixels * exposures
        if clock[0] > seconds:
            return None
        return cost.PatchRun(Measurement(rate * pixels * exposures, 0.0, 0.9, 1e9, 1e9), 1.0, pixels, 1, 2e9)

    monkeypatch.setattr(cost, "call_within", restore)
    monkeypatch.setattr(cost, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    table = cost._measure_patches("cuda", seconds, False)
    assert len(table.rows) in (len(asked), len(asked) - 1)
    assert all("extrapolated" in row["whole patch (s)"] for row in table.rows if row["restored"] == "a tile")
    return asked


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [
        # The last patch fits after the first; a tile of it does, or of the
        # one before, too; nothing more does.
        (0.1, [(300, 0), (4200, 0)]),
        (1.5, [(300, 0), (700, 0), (1400, 0), (4200, 1024)]),
        (2.0, [(300, 0), (700, 0), (1400, 1024), (4200, 1024)]),
        (100.0, [(300, 0)]),
    ],
)
def test_patches_grow_while_time_lasts(
    microseconds: float, expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, the patch that counts is not measured, or never ends."""
    assert run_steps(1e-6 * microseconds, 180.0, monkeypatch) == expected


@pytest.mark.slow
def test_sections_compute_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the one who has a card finds the mistakes."""
    monkeypatch.setattr(agreement, "restore", functools.partial(restore, options=QUICK))
    monkeypatch.setattr(cost, "make_options", lambda device: QUICK)
    rows, noise = agreement.compare_devices(device="cpu", quick=True)
    assert {row["largest (sigma)"] for row in rows} == {"0"}
    assert all("met" in row["goal"] and row["two runs"] == row["masks"] == "equal" for row in rows)
    assert noise[0]["equal (%)"] == "100.000"
    kernels, share = cost.profile_patch(size=80, exposures=2, device="cpu")
    assert len(kernels) == cost._NUM_KERNELS
    assert 0.1 < share < 2.0
    names = [row["kernel"] for row in time_kernels(device="cpu", quick=True)]
    assert "copy" in names
    assert "sample, weight, adjoint" in names


@pytest.mark.slow
def test_lack_of_memory_is_provoked(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the record says that retries work where there was none."""

    def options(device: str, **limits: int) -> RestoreOptions:
        return dataclasses.replace(QUICK, tiling=TilingOptions(**limits))

    monkeypatch.setattr(retries, "make_options", options)
    calls: list[Tile] = []

    def fail_once(self: TileRestorer, tile_data: TileData) -> Any:
        calls.append(tile_data.tile)
        # The warm-up and the whole patch go well.
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(self, tile_data)

    whole = TileRestorer.restore
    monkeypatch.setattr(TileRestorer, "restore", fail_once)
    rows = retries.run_out_of_memory(device="cpu", quick=True)
    assert [row["tiles restored"] for row in rows] == ["1", "4", "4"]
    assert rows[1]["run"] == "too little memory"
    assert rows[1]["tiles failed"] == "0"
    assert 0.0 < float(rows[1]["rms difference (sigma)"]) < 1.0


@pytest.mark.gpu
def test_all_sections_run_on_a_card(tmp_path: Path) -> None:
    """If it fails, the record of GPUs cannot be made."""
    page = tmp_path / "gpu.md"
    assert command.main(["--quick", "--output", str(page), "--work", str(tmp_path / "work")]) == 0
    text = page.read_text()
    for name in command._SECTIONS:
        assert f"## {name.capitalize()}" in text
    assert "Not finished" not in text
    assert "**missed**" not in text
    assert "**differ**" not in text
