# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of scaling measures what it says."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
import pytest

from astroclearnet_benchmarks.scaling import detectors, whole_judgement
from astroclearnet_benchmarks.scaling.command import main
from astroclearnet_benchmarks.scaling.consistency import distance_to_borders, render
from astroclearnet_benchmarks.scaling.run import TARGET
from astroclearnet_benchmarks.scaling.source import SyntheticSource
from astroclearnet_benchmarks.speed import command as speed
from astroclearnet_benchmarks.speed import peers, whole
from lsst.astroclearnet.adapters import PatchSource, PixelMap
from lsst.astroclearnet.core import FitOptions, NoiseOptions, RestoreOptions, restore, restore_exposures
from lsst.astroclearnet.tests import QUICK


def test_part_of_a_synthetic_exposure_is_that_of_the_whole() -> None:
    """If it fails, tiles see different skies, and seams are their fault."""
    source = SyntheticSource((300, 280), 3, seed=2)
    whole = source.read(slice(0, 300), slice(0, 280))
    part = source.read(slice(90, 190), slice(100, 230))
    for t in range(3):
        start = [a - b for a, b in zip(part.origins[t], whole.origins[t], strict=True)]
        height, width = (
            min(n, full - s)
            for n, full, s in zip(part.stack.images[t].shape, whole.stack.images[t].shape, start, strict=True)
        )
        there = whole.stack.images[t][start[0] : start[0] + height, start[1] : start[1] + width]
        good = part.stack.good[t][:height, :width].numpy()
        assert good.sum() > 10000
        np.testing.assert_allclose(
            part.stack.images[t][:height, :width].numpy()[good], there.numpy()[good], atol=1e-3
        )


def test_synthetic_exposures_show_the_rendered_sky() -> None:
    """If it fails, errors in the record are those of the simulation."""
    source = SyntheticSource((130, 140), 4, seed=2)
    options = RestoreOptions(fit=FitOptions(max_epochs=1), noise=NoiseOptions(num_draws=2))
    result = restore_exposures(source, target_fwhm=TARGET, options=options, device="cpu")
    truth = render(source, slice(0, 130), slice(0, 140))
    inside = np.s_[20:-20, 20:-20]
    error = (result.linear_image - truth)[inside] / np.sqrt(result.linear_variance[inside])
    faint = truth[inside] < 20.0
    assert np.std(error[faint]) == pytest.approx(1.0, abs=0.3)
    assert result.linear_image[inside].sum() == pytest.approx(truth[inside].sum(), rel=0.01)


def test_time_belongs_to_the_innermost_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the record blames the wrong stage, or counts time twice."""
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    def read(self: PatchSource) -> None:
        spend(1.0)
        PixelMap.positions(None)  # type: ignore[arg-type]
        spend(4.0)

    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(PixelMap, "positions", lambda self: spend(3.0))
    monkeypatch.setattr(PatchSource, "read", read)
    originals = [vars(owner)[name] for owner, name, _ in detectors._WATCHED]
    clock = detectors._Stopwatch()
    with clock.watch():
        clock.switch("calibration")
        spend(10.0)
        PatchSource.read(None)  # type: ignore[call-arg, arg-type]
        clock.switch("tiles")
        spend(20.0)
        clock.switch("other")
    assert originals == [vars(owner)[name] for owner, name, _ in detectors._WATCHED]
    assert {stage: seconds for stage, seconds in clock.seconds.items() if seconds} == {
        "calibration": 10.0,
        "reading": 5.0,
        "positions": 3.0,
        "tiles": 20.0,
    }


def test_distance_to_borders_of_tiles() -> None:
    """If it fails, errors at seams are taken for those inside."""
    distance = distance_to_borders((8, 10), {4}, {3, 6})
    assert distance[3, 9] == distance[4, 9] == 0.5
    assert distance[0, 2] == distance[0, 3] == 0.5
    assert distance[0, 9] == 3.5
    assert np.isinf(distance_to_borders((3, 3), set(), set())).all()


def test_flux_errors_of_stars() -> None:
    """If it fails, the record of the whole patch has wrong biases."""
    width, noise = 1.5, np.random.default_rng(1).normal(size=(300, 300))
    middles = np.arange(60.0, 250.0, 40.0)
    y, x = (values.ravel() + 0.3 for values in np.meshgrid(middles, middles))
    rows, columns = np.arange(300)[:, None, None], np.arange(300)[:, None]
    psfs = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / width**2) / (2.0 * np.pi * width**2)
    stars = {"y": y, "x": x, "flux": np.full(len(y), 5000.0)}
    error = np.sum(-0.1 * 5000.0 * psfs, axis=-1)
    error[0, 0] = error[60, 60] = np.nan
    (line,) = whole_judgement._stars(error, noise, stars, width, 1.0)
    assert line["signal-to-noise ratio"] == "above 100"
    assert line["stars"] == str(len(y) - 1)
    assert line["bias (%)"].startswith("-10.00 ")


def test_errors_at_seams() -> None:
    """If it fails, errors at seams hide among those inside."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(400, 400))
    truth = np.zeros((400, 400))
    truth[::20] = 10.0
    distance = distance_to_borders((400, 400), {200}, set())
    error = 2.0 * noise
    error[194:206] = 6.0 * noise[194:206]
    lines = list(whole_judgement._seams(truth, error, noise, np.full_like(noise, 4.0), distance, 2.0))
    assert [line["distance (pixels)"] for line in lines] == ["0 to 6", "6 to 24", "24 to 48", "beyond 48"]
    rms = [float(line["rms error on blank sky"]) for line in lines]
    declared = [float(line["error / declared"]) for line in lines]
    np.testing.assert_allclose(rms, [3.0, 1.0, 1.0, 1.0], rtol=0.05)
    np.testing.assert_allclose(declared, rms, rtol=1e-3)


@pytest.mark.slow
def test_all_sections_run(tmp_path: Path) -> None:
    """If it fails, the record cannot be made again."""
    page = tmp_path / "scaling.md"
    assert main(["--quick", "--output", str(page), "--work", str(tmp_path / "work")]) == 0
    text = page.read_text()
    for heading in (
        "### Memory",
        "### Time",
        "### Seams between tiles",
        "### Overlap of two patches",
        "### Detector images",
        "### A whole patch",
        "### Its seams",
    ):
        assert heading in text
    assert "nan" not in text
    assert (tmp_path / "scaling.png").stat().st_size > 5000


@pytest.mark.slow
def test_speed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the record of speed cannot be made again."""
    for module in (peers, whole):
        monkeypatch.setattr(module, "restore", functools.partial(restore, options=QUICK))
    page = tmp_path / "speed.md"
    assert speed.main(["--quick", "--output", str(page)]) == 0
    text = page.read_text()
    for name in (
        "normal operator, own pixels",
        "restoration network",
        "this version",
        "ImageMM",
        "Richardson-Lucy",
    ):
        assert name in text
    assert "nan" not in text
