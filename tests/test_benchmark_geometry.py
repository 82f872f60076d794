# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measures of the benchmark of the geometry, on what is known."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astroclearnet_benchmarks.geometry import command as geometry
from astroclearnet_benchmarks.geometry.accuracy import measure_accuracy
from astroclearnet_benchmarks.geometry.comparison import measure_comparison, paired_difference
from astroclearnet_benchmarks.geometry.exposures import Sky, TruePsf, expose, local_stamps
from astroclearnet_benchmarks.geometry.noise import moire_frequencies, peak_over_surroundings, run_noise
from astroclearnet_benchmarks.geometry.projections import BORDER, Field, make_field, view
from astroclearnet_benchmarks.geometry.psf import border_steps, measure_psf
from astroclearnet_benchmarks.geometry.reading import measure_reading
from astroclearnet_benchmarks.geometry.runs import Run, observe_sky
from astroclearnet_benchmarks.geometry.stars import (
    Stars,
    draw_truth,
    make_sky,
    measure_image,
    set_fluxes,
    stack_psf_residual,
)
from astroclearnet_benchmarks.geometry.ways import WAYS, prepare
from astroclearnet_benchmarks.processes import Runner
from astroclearnet_benchmarks.record import Section, compare, data_folder, format_value, make_page
from lsst.astroclearnet.adapters import PixelMap

SIZE = 50
FWHM = 3.0


@pytest.fixture(scope="module")
def field() -> Field:
    """Two exposures of a small patch."""
    return make_field("survey", seed=3, size=SIZE, number=2)


@pytest.fixture(scope="module")
def star(field: Field) -> Sky:
    """One star off the middle of the patch."""
    one = np.ones(1)
    return Sky(field.geometry, 21.3 * one, 30.6 * one, 800.0 * one, np.array([-1]))


def exact_stars(field: Field, sky: Sky) -> Stars:
    return set_fluxes(sky, field.exposures, [local_stamps(sky, c) for c in field.exposures])


def test_psf_is_that_of_the_stars(field: Field) -> None:
    """If it fails, the PSF that is called true is not the one of the pixels,
    or light is lost at the edge of stamps.
    """
    conditions = field.exposures[0]
    psf = TruePsf(conditions)
    kernel = psf.compute_kernel_image(x=40.0, y=71.0)
    assert kernel.bbox == psf.kernel_bbox
    assert kernel.array.sum() == pytest.approx(1.0, abs=1e-12)
    assert kernel.array[[0, -1]].max() < 1e-3 * kernel.array.max()
    stellar = psf.compute_stellar_image(x=40.0, y=71.0)
    np.testing.assert_allclose(stellar.array, kernel.array, atol=1e-9)
    shifted = psf.compute_stellar_image(x=40.3, y=71.2)
    grid = shifted.bbox.meshgrid()
    assert (shifted.array * grid.x).sum() == pytest.approx(40.3, abs=2e-3)
    assert (shifted.array * grid.y).sum() == pytest.approx(71.2, abs=2e-3)


def test_view_rotates_and_scales_about_its_centre(field: Field) -> None:
    """If it fails, exposures are not where the benchmark says."""
    base = field.exposures[0].projection
    turned = view(base, (60.0, 80.0), 41, visit=5, rotation=90.0, scale=1.01)
    here, there = turned.pixel_to_sky(x=20.0, y=20.0), base.pixel_to_sky(x=60.0, y=80.0)
    assert here.separation(there).arcsec < 1e-6
    # One pixel along x of the new is one and a bit along y of the old.
    here, there = turned.pixel_to_sky(x=21.0, y=20.0), base.pixel_to_sky(x=60.0, y=81.01)
    assert here.separation(there).arcsec < 1e-6


@pytest.mark.parametrize("name", ["survey", "rubin-dp1", "rubin-dp2", "decam"])
def test_exposures_cover_the_patch(name: str) -> None:
    """If it fails, stars are measured where there are no data."""
    if name != "survey" and not data_folder().is_dir():
        pytest.skip(f"no real exposures in {data_folder()}")
    field = make_field(name, seed=1, size=SIZE, number=3)
    assert len(field.exposures) == 3
    bbox = field.geometry.bbox.padded(BORDER)
    for conditions in field.exposures:
        pixel_map = PixelMap.from_projections(field.geometry.projection, bbox, conditions.projection)
        sky = conditions.bbox.padded(10_000)
        footprint = pixel_map.overlap(sky, padding=6)
        assert footprint is not None
        assert conditions.bbox.contains(footprint)


def test_real_projections_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If it fails, a benchmark without the real exposures stops."""
    monkeypatch.setenv("ASTROCLEARNET_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"visit_image-dp1\.json"):
        make_field("rubin-dp1", seed=1, size=SIZE, number=1)
    with pytest.raises(FileNotFoundError, match="no exposures in .*decam"):
        make_field("decam", seed=1, size=SIZE, number=1)


def test_both_ways_keep_the_flux(field: Field, star: Sky) -> None:
    """If it fails, the two likelihoods are not given the same data."""
    job = Run("native", "survey", 3, SIZE, 2, (800.0, 800.0), noise=False)
    simulation = observe_sky(job, field, star)
    for way in WAYS:
        arguments = prepare(way, simulation.visit_images, field.geometry)
        sums = (arguments["images"] * arguments["good"]).sum(axis=(1, 2))
        np.testing.assert_allclose(sums, simulation.stars.flux[0], rtol=2e-3)
    variance = simulation.visit_images[0].variance.array
    conditions = field.exposures[0]
    assert variance.min() == pytest.approx((conditions.sky + 4.5**2) / conditions.per_njy**2, rel=1e-4)


def test_bound_is_that_of_the_sky_for_a_faint_star(field: Field, star: Sky) -> None:
    """If it fails, scatter is compared with a wrong Cramer-Rao bound."""
    faint = dataclasses.replace(star, signal_to_noise=np.array([0.5]))
    assert exact_stars(field, faint).signal_to_noise[0] == pytest.approx(0.5, rel=0.01)
    # Photons of the star itself add noise.
    assert exact_stars(field, star).signal_to_noise[0] < 0.9 * 800.0


def test_errors_of_a_star_are_found(field: Field) -> None:
    """If it fails, the benchmark is blind to shifts, lost flux or a wrong
    PSF, or mixes up the axes.
    """
    sky = make_sky(field.geometry, 4, (2000.0, 3000.0), jitter=0.5)
    stars = exact_stars(field, sky)
    exact = measure_image(draw_truth(stars, FWHM), stars, FWHM)
    assert len(exact["stars"]) == 4
    np.testing.assert_allclose(np.array(exact["stars"])[:, 1:6], 0.0, atol=1e-12)
    moved = dataclasses.replace(sky, x=sky.x - 0.01, y=sky.y + 0.02)
    image = draw_truth(dataclasses.replace(stars, sky=moved, flux=1.004 * stars.flux), FWHM)
    record = measure_image(image, stars, FWHM)
    rows = np.array(record["stars"])
    np.testing.assert_allclose(rows[:, 1], 0.004, atol=2e-4)
    np.testing.assert_allclose(rows[:, 3], 0.02, atol=5e-4)
    np.testing.assert_allclose(rows[:, 4], -0.01, atol=5e-4)
    wide = measure_image(draw_truth(stars, 1.01 * FWHM), stars, FWHM)
    np.testing.assert_allclose(np.array(wide["stars"])[:, 5], 0.01, atol=5e-4)
    whole, quarter = stack_psf_residual(wide["stacks"], FWHM)
    # The peak of a Gaussian falls as the inverse square of its width.
    assert whole == pytest.approx(1.0 - 1.01**-2, rel=0.1)
    assert quarter >= whole * 0.99


def test_pairs_stand_where_they_should(field: Field) -> None:
    """If it fails, separations of pairs are not what the table says."""
    sky = make_sky(field.geometry, 4, (50.0, 60.0), pair_share=0.5)
    assert len(sky.x) == 6
    for number in range(2):
        first, second = np.flatnonzero(sky.pair == number)
        separation = math.hypot(sky.x[first] - sky.x[second], sky.y[first] - sky.y[second])
        assert 0.42 <= separation * field.geometry.pixel_scale <= 0.6
        assert sky.signal_to_noise[first] == sky.signal_to_noise[second] >= 100.0
    stars = exact_stars(field, sky)
    pairs = np.array(measure_image(draw_truth(stars, 1.5), stars, 1.5)["pairs"])
    assert (pairs[pairs[:, 0] > 0, 1] > 0.1).all()
    assert (pairs[pairs[:, 0] == 0, 1] < 0.01).all()


def test_a_step_is_found() -> None:
    """If it fails, steps at the borders of cells go unseen."""
    rng = np.random.default_rng(1)
    position = rng.uniform(0.0, 200.0, size=(300, 2))
    slope = 1e-4 * position[:, 1]
    assert border_steps(position, slope, np.array([100.0])) < 1e-12
    step = np.where(position[:, 1] > 100.0, 0.006, 0.0)
    assert border_steps(position, slope + step, np.array([100.0])) == pytest.approx(0.006, rel=1e-6)
    assert math.isnan(border_steps(position, step, np.array([300.0])))


def test_a_wave_is_found(field: Field) -> None:
    """If it fails, moire goes unseen or is seen in noise."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(120, 140))
    rows, columns = np.mgrid[:120, :140]
    wave = np.cos(2.0 * np.pi * (0.21 * rows - 0.08 * columns))
    frequency = np.array([0.21, -0.08])
    assert peak_over_surroundings(noise, frequency)[0] < 8.0
    excess, amplitude = peak_over_surroundings(noise + 0.5 * wave, frequency)
    assert excess > 50.0
    assert amplitude == pytest.approx(0.5, abs=0.08)
    aligned = [
        dataclasses.replace(
            field.exposures[0],
            projection=view(field.geometry.projection, (24.5, 24.5), 120, visit=1, scale=0.97),
        )
    ]
    images = [expose(c, [], np.zeros(0), None) for c in aligned]
    found = moire_frequencies(dataclasses.replace(field, exposures=tuple(aligned)), images)
    # Pixels 3 % smaller beat every 32 pixels with those of the patch.
    assert np.abs(found - [0.0, 1.0 / 0.97 - 1.0]).max(axis=1).min() < 1e-6


def test_noise_of_a_small_patch() -> None:
    """If it fails, the variance is compared with another estimator's."""
    for way in WAYS:
        figures = run_noise("survey", way, SIZE, 2, 6)
        value, error = figures["all"]
        assert value == pytest.approx(1.0, abs=0.15)
        assert 0.0 < error < 0.1
        assert figures["frequencies"] > 4


class FakeRunner(Runner):
    """Measures the truth in place of what a restoration makes of it."""

    def __init__(self) -> None:
        super().__init__(Path("unused"), "")

    def __call__(self, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        job = args[0]
        field = make_field("survey", seed=job.seed, size=job.size, number=1)
        sky = make_sky(field.geometry, job.seed, job.signal_to_noise, pair_share=job.pair_share)
        stars = Stars(sky, sky.signal_to_noise, np.ones(len(sky.x)))
        return {
            **dataclasses.asdict(job),
            "products": dict.fromkeys(
                ("restored", "linear"), measure_image(1.002 * draw_truth(stars, FWHM), stars, FWHM)
            ),
            "target_fwhm": FWHM,
            "pixel_scale": 0.168,
            **dict.fromkeys(("prepare_cpu", "restore_cpu", "memory"), 1.0),
            **{"rejected": 3, "false": 2, "used": 1000, "rays": 4, "found": 3},
        }


def test_tables_of_restorations() -> None:
    """If it fails, a number lands in the wrong column, or a missed limit is
    called met.
    """
    runner = FakeRunner()
    tables = {t.title: t.rows for t in measure_comparison(runner, count=1, quick=True)}
    assert [row["likelihood"] for row in tables["Stars"]] == ["native", "resampled"] * 2
    assert tables["Rejection"][0]["found %"] == "75"
    assert tables["Rejection"][0]["false per million, no cosmic rays"] == "3e+03"
    (accuracy,) = measure_accuracy(runner, count=1, quick=True)
    assert accuracy.rows[0]["flux rms %"] == "0.2"
    assert accuracy.rows[0]["limits"] == "**missed**: flux"
    (steps,) = measure_psf(runner, count=1, quick=True)
    assert all(row["limit"] == "0.5 %: met" for row in steps.rows)


def test_an_outlier_in_both_makes_no_difference() -> None:
    """If it fails, likelihoods that agree star by star look different, as they
    do where outliers are clipped from one of them alone.
    """
    rng = np.random.default_rng(8)
    native = np.zeros((22, 8))
    native[:, 0] = 300.0
    native[:, 2] = rng.normal(size=22)
    native[3, 2] = -6.0
    native[:, 1] = native[:, 2] / 300.0
    native[:, 6] = np.arange(22)
    resampled = native[::-1].copy()
    resampled[:, 1] += 0.001
    figures = paired_difference(native, resampled)
    assert figures["scatter"][0] == pytest.approx(1.0, abs=1e-9)
    assert figures["bias"] == pytest.approx((0.001, 0.0), abs=1e-12)
    assert math.isnan(paired_difference(native[:2], resampled)["bias"][0])


def test_numbers_and_page() -> None:
    """If it fails, the page cannot be read or says what was not measured."""
    assert format_value((0.01234, 0.0021), 100.0) == "1.23 ± 0.21"
    assert format_value(math.nan) == "-"
    assert compare(-0.6, 0.5, " %") == "0.5 %: **missed**"
    assert compare(math.nan, 0.5, " %") == "0.5 %: not measured"
    section = Section("psf", "command", "version 1", "2026-01-01", "machine", [])
    assert Section.from_dict(json.loads(json.dumps(dataclasses.asdict(section)))) == section
    assert "## Psf" in make_page([section], title="Page", introduction="Words.")


def test_runner_remembers(tmp_path: Path) -> None:
    """If it fails, a benchmark that was stopped starts from scratch, or shows
    what another version of the code measured.
    """
    calls: list[int] = []

    def measure(value: int) -> dict[str, Any]:
        calls.append(value)
        return {"value": value}

    runner = Runner(tmp_path / "runs.jsonl", "one", isolate=False)
    assert runner(measure, 3) == runner(measure, 3) == {"value": 3}
    assert runner(measure, 4) == {"value": 4}
    Runner(tmp_path / "runs.jsonl", "two", isolate=False)(measure, 3)
    assert calls == [3, 4, 3]


@pytest.mark.slow
def test_reading_of_a_small_repository(tmp_path: Path) -> None:
    """If it fails, the times of files are not measured."""
    runner = Runner(tmp_path / "runs.jsonl", "", isolate=False)
    (table,) = measure_reading(runner, count=1, quick=True)
    (row,) = table.rows
    assert row["exposures"] == "4 of 4"
    assert float(row["ratio, Lanczos"]) > 0.0
    # Image, variance, position, area and mask, planes of the patch, and PSFs,
    # which on a small patch are many for its pixels.
    assert 29.0 < float(row["kept, bytes per pixel"]) < 100.0


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    """If it fails, the command does not write its page."""
    output = tmp_path / "geometry.md"
    arguments = ["--quick", "--count", "1", "--output", str(output), "--work", str(tmp_path / "work")]
    assert geometry.main(arguments) == 0
    page = output.read_text()
    for title in ("Accuracy", "Comparison", "Noise", "Psf", "Reading"):
        assert f"## {title}" in page
    assert geometry.main([*arguments, "--only-table"]) == 0
    assert output.read_text() == page
