# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of images for deblenders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.stats import gaussian_fwhm_to_sigma

from astroclearnet_benchmarks.deblending import command, measure, statistics
from astroclearnet_benchmarks.deblending.children import child_fluxes
from astroclearnet_benchmarks.deblending.measure import METHODS, SMOOTHED, STOCK
from astroclearnet_benchmarks.deblending.peaks import find_peaks
from astroclearnet_benchmarks.deblending.stock import (
    STOCK_FWHM,
    deconvolve,
    difference_kernel,
    find_footprints,
    pixel_gaussian,
)
from astroclearnet_benchmarks.scenes import BLEND_KINDS, BlendField, _blends, simulate_blends
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.metrics import point_source_image
from lsst.astroclearnet.simulation import PIXEL_SCALE

SHAPE = (64, 72)
SEEING = 4.5
PSF = gaussian_kernel(SEEING, 41)


def stars(fwhm: float, *places: tuple[float, float, float]) -> np.ndarray:
    """Return an image of stars at rows, columns and of fluxes."""
    y, x, flux = np.array(places, dtype=float).T
    return np.asarray(point_source_image(SHAPE, gaussian_kernel(fwhm, 41), x, y, flux), dtype=float)


@pytest.fixture(scope="module")
def field() -> BlendField:
    return simulate_blends(3, num_exposures=2)


def test_blends_are_what_the_catalogue_says(field: BlendField) -> None:
    """If it fails, separations or ratios of the record are others."""
    assert field.images.shape == field.variances.shape == (2, 200, 200)
    assert (field.variances > 0.0).all()
    np.testing.assert_allclose(field.psfs.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    groups = field.catalogue.group_by("blend").groups
    assert len(groups) == 25
    assert set(field.catalogue["kind"]) == set(BLEND_KINDS)
    for rows in groups:
        assert len(rows) == (1 if rows["kind"][0] == "alone" else 2)
        if len(rows) == 2:
            distance = math.hypot(*(float(np.ptp(rows[axis])) for axis in "xy")) * PIXEL_SCALE
            assert distance == pytest.approx(float(rows["separation"][0]))
            assert 0.3 <= distance <= 2.0
            assert 1.0 <= rows["flux"][0] / rows["flux"][1] <= 10.0
    total = float(field.images[0].sum())
    noise = math.sqrt(float(field.variances[0].sum()))
    # Some light is beyond the border or the end of stamps.
    assert total == pytest.approx(float(field.catalogue["flux"].sum()), rel=0.03, abs=5.0 * noise)


def test_blends_follow_the_seed(field: BlendField) -> None:
    np.testing.assert_array_equal(simulate_blends(3, num_exposures=2).images, field.images)
    assert not np.array_equal(simulate_blends(4, num_exposures=2).images, field.images)


def test_difference_kernel_broadens_to_the_psf() -> None:
    """If it fails, no deconvolution goes to the PSF that it declares."""
    sharp = stars(3.0, (31.3, 40.6, 5.0))
    broad = np.fft.irfft2(np.fft.rfft2(sharp) * difference_kernel(PSF, 3.0, SHAPE), s=SHAPE)
    np.testing.assert_allclose(broad, stars(SEEING, (31.3, 40.6, 5.0)), atol=2e-5)
    model = pixel_gaussian(STOCK_FWHM * gaussian_fwhm_to_sigma, SHAPE)
    kernel = difference_kernel(PSF, STOCK_FWHM, SHAPE, integrated=True)
    found = np.roll(np.fft.irfft2(np.fft.rfft2(model) * kernel, s=SHAPE), (32, 36), axis=(0, 1))
    np.testing.assert_allclose(found, stars(SEEING, (32.0, 36.0, 1.0)), atol=2e-5)


@pytest.mark.parametrize("accelerated", [False, True])
def test_stock_deconvolution_sharpens(accelerated: bool) -> None:
    """If it fails, the comparison is with something weaker than it names."""
    places = (30.0, 28.0, 9000.0), (30.0, 34.0, 9000.0)
    coadd, variance = stars(SEEING, *places), np.ones(SHAPE)
    footprints = find_footprints(coadd, variance, PSF)
    assert footprints[30, 28]
    assert not footprints[:8].any()
    image, iterations = deconvolve(coadd, variance, PSF, footprints, accelerated=accelerated)
    assert 10 < iterations <= 100
    assert (image >= 0.0).all()
    assert not image[~footprints].any()
    # Light that is cut off below zero is not yet taken back.
    assert image.sum() == pytest.approx(coadd.sum(), rel=0.05)
    assert image.max() > 1.5 * coadd.max()
    saddles = [plane[30, 31] / plane[30, 28] for plane in (coadd, image)]
    assert saddles[1] < 0.7 * saddles[0]


def test_blank_sky_has_no_footprint() -> None:
    assert not find_footprints(np.zeros(SHAPE), np.ones(SHAPE), PSF).any()


def test_peaks_have_the_depth_of_their_saddle() -> None:
    """If it fails, thresholds do not mean what the record says."""
    image = stars(4.0, (30.0, 28.0, 100.0), (30.0, 35.0, 60.0))
    peaks = find_peaks(image, np.ones(SHAPE, dtype=bool))
    high, low = sorted(peaks, key=lambda peak: -peak.height)[:2]
    assert (high.y, high.x) == pytest.approx((30.0, 28.0), abs=0.1)
    assert (low.y, low.x) == pytest.approx((30.0, 35.0), abs=0.1)
    assert high.depth == 1.0
    assert low.depth == pytest.approx(1.0 - image[30, 29:35].min() / image[30, 35])
    # The saddle is on the line between both.
    assert 0.2 < low.depth < 0.9
    assert find_peaks(np.ones(SHAPE), np.ones(SHAPE, dtype=bool))[0].depth == 1.0
    assert len(find_peaks(np.ones(SHAPE), np.ones(SHAPE, dtype=bool))) == 1
    assert find_peaks(image, np.zeros(SHAPE, dtype=bool)) == []


def test_children_share_the_light() -> None:
    """If it fails, biases are those of the deblender's mistakes."""
    places = np.array([[30.0, 28.0], [33.5, 36.0]])
    flux = np.array([900.0, 300.0])
    rows = [(*place, f) for place, f in zip(places, flux, strict=True)]
    coadd, sharp = stars(SEEING, *rows), stars(2.5, *rows)
    kernel = difference_kernel(PSF, 2.5, SHAPE)
    np.testing.assert_allclose(child_fluxes(coadd, sharp, kernel, places, 16.0), flux, rtol=0.02)
    # A child without light in the sharp image has none.
    alone = child_fluxes(stars(SEEING, rows[0]), stars(2.5, rows[0]) * (sharp > 1.0), kernel, places, 16.0)
    assert alone[0] == pytest.approx(900.0, rel=0.02)
    assert abs(alone[1]) < 20.0


def test_field_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the record is of other sources or images."""
    monkeypatch.setattr(_blends, "_PER_SIDE", 2)
    monkeypatch.setattr(measure, "FWHMS", (measure._COMMON_FWHM,))
    record = measure.measure_field(1)
    names = {name for name in METHODS if "restored" not in name} | {measure.restored(measure._COMMON_FWHM)}
    assert set(record["seconds"]) == set(record["iterations"]) == names
    assert len(record["blends"]) == 4
    for blend in record["blends"]:
        for name in names:
            assert len(blend["children"][name]) == len(blend["flux"])
            # The bright source is the highest peak, or its companion is.
            assert max(blend["peaks"][name], key=lambda peak: peak[1])[0] >= 0
        # Together they have the light of the coadd.
        total = np.dot(blend["children"][STOCK], blend["flux"]) / np.sum(blend["flux"])
        assert total == pytest.approx(1.0, abs=0.1)


def make_record(peaks: list[list[float]], *, scale: float = 1.0) -> dict[str, Any]:
    """Return the record of a field: one pair and one source alone."""
    pair = {"kind": "two stars", "separation": 0.7, "flux": [9.0, 5.0]}
    alone = {"kind": "alone", "separation": math.nan, "flux": [8.0]}
    pair |= {"peaks": dict.fromkeys(METHODS, peaks), "children": dict.fromkeys(METHODS, [scale, 1.1])}
    alone |= {"peaks": dict.fromkeys(METHODS, [[0, 70.0, 1.0]]), "children": dict.fromkeys(METHODS, [1.0])}
    costs = {key: dict.fromkeys(METHODS, value) for key, value in (("seconds", 0.5), ("iterations", 40))}
    return {**costs, "blends": [pair, alone]}


PEAKS = [[0, 60.0, 1.0], [1, 20.0, 0.3], [1, 8.0, 0.1], [-1, 6.0, 0.5]]


def test_pairs_are_counted_at_equal_false_children() -> None:
    """If it fails, pairs count as recovered, or children as false, that are
    not.
    """
    noisy = [[0, 60.0, 1.0], [1, 20.0, 0.3], [-1, 22.0, 0.5], [-1, 30.0, 0.01]]
    blends = statistics.gather([make_record(PEAKS), make_record(noisy)], [STOCK])
    assert blends.is_pair.tolist() == [True, False] * 2
    height, prominence = (blends.scores[finder, STOCK] for finder in statistics.FINDERS)
    assert height.pair.tolist() == [20.0, -math.inf, 20.0, -math.inf]
    assert prominence.pair.tolist() == [6.0, -math.inf, 6.0, -math.inf]
    assert sorted(height.false.tolist()) == [6.0, 8.0, 22.0, 30.0]
    assert height.blend.tolist() == [0, 0, 2, 2]
    # Four bright sources: no false child, two (those of the second pair), all.
    for rate, expected in ((0.0, 0), (0.25, 0), (0.5, 2), (1.0, 2)):
        assert statistics.recovered_at(height, rate).sum() == expected
    # A knee on the slope of a source is high, and not prominent.
    assert statistics.recovered_at(prominence, 0.0).sum() == 0
    assert statistics.recovered_at(prominence, 0.25).sum() == 2
    # Without the field that has them there are fewer false children.
    assert statistics.recovered_at(height, 0.0, np.array([0, 1, 0, 1])).tolist() == [True, False] * 2


def test_pair_without_a_peak_is_never_recovered() -> None:
    blends = statistics.gather([make_record([[0, 60.0, 1.0]])], [STOCK])
    assert not statistics.recovered_at(blends.scores["height", STOCK], 10.0).any()


def test_bootstrap_is_over_fields() -> None:
    field = np.repeat(np.arange(50), 3)
    values = np.random.default_rng(1).normal(size=50)[field]
    value, error = statistics.bootstrap(field, lambda chosen: float(values[chosen].mean()))
    assert value == pytest.approx(values.mean())
    assert error == pytest.approx(values.std() / math.sqrt(50.0), rel=0.15)


def test_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a run of half an hour ends without a record."""
    measured = []

    def measure(seed: int) -> dict[str, Any]:
        measured.append(seed)
        return make_record(PEAKS, scale=1.0 + 0.01 * seed)

    monkeypatch.setattr(command, "measure_field", measure)
    words = ["--fields", "3", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "page.md")]
    for _ in range(2):
        assert command.main(words) == 0
    # Fields that were measured are kept.
    assert measured == [100, 101, 102]
    assert len(json.loads((tmp_path / "work" / "0100.json").read_text())["blends"]) == 2
    page = (tmp_path / "page.md").read_text()
    assert f"| {STOCK} | 3 |" in page
    assert "| 0.50, 40 steps |" in page
    assert f"| {SMOOTHED} |" in page
