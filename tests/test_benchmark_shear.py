# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The benchmark of shear."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import galsim
import numpy as np
import pytest

from astroclearnet_benchmarks.scenes import SceneSource, draw_sources
from astroclearnet_benchmarks.shear import command, fields, measure, records, responses
from astroclearnet_benchmarks.shear.bias import measure_bias, measure_response_bias
from lsst.astroclearnet.core import fwhm_to_sigma

SIZE = 120
"""Side of fields in pixels, with four galaxies."""


def mean_image(images: np.ndarray, *_: Any, **__: Any) -> SimpleNamespace:
    """Stand in for the restoration with the mean of the exposures."""
    mean = images.mean(axis=0)
    noise = np.ones((1, *mean.shape))
    return SimpleNamespace(
        linear_image=mean, image=2.0 * mean, linear_noise_realizations=noise, noise_realizations=2.0 * noise
    )


def test_moments_of_a_sheared_gaussian() -> None:
    """If it fails, moments are not those of their formula."""
    sigma, weight = 2.0, measure._WEIGHT * fwhm_to_sigma(fields.TARGET_FWHM)
    round_one = SceneSource(
        "galaxy", x=30.3, y=31.4, flux=7.0, profile=galsim.Gaussian(sigma=sigma), extent=16.0
    )
    sheared = fields._turn_and_shear(round_one, 0.0, galsim.Shear(g1=0.1))
    image = draw_sources([sheared], (60, 62), fields.TARGET_FWHM)
    ((along, across, size),) = measure._moments(image, [sheared])
    stretch = np.array([1.1 / 0.9, 0.9 / 1.1])
    variances = stretch * sigma**2 + fwhm_to_sigma(fields.TARGET_FWHM) ** 2
    weighted = 1.0 / (1.0 / variances + 1.0 / weight**2)
    assert along / size == pytest.approx((weighted[0] - weighted[1]) / weighted.sum(), rel=1e-4)
    assert across / size == pytest.approx(0.0, abs=1e-6)


def test_noise_and_shapes_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the response of a linear image is measured with noise."""
    monkeypatch.setattr(fields, "restore", mean_image)
    field = fields.restore_field(3, SIZE, 1, fields.FLUXES["bright"])
    assert (field.noise["image"][:, 0] == 2.0).all()
    assert (field.noise["image"][:, 1] == -2.0).all()
    found = measure.measure_moments(field)
    monkeypatch.setattr(fields, "_expose", lambda blank, _: np.zeros_like(blank.images))
    empty = fields.restore_field(3, SIZE, 1, fields.FLUXES["bright"])
    noise = measure.measure_moments(empty)["linear_image"].recovered
    assert np.abs(noise).max() < 1e-5 * found["linear_image"].recovered[..., 2].min()
    # Twice the image has the same ellipticities.
    one, two = (measure_bias([found[name]]) for name in fields.IMAGES)
    assert one.shear == pytest.approx(two.shear)
    assert two.moment[0] == pytest.approx(2.0 * one.moment[0] + 1.0)
    # The mean of orientations and shears is round, to second order in shear.
    true = found["image"].true
    assert np.abs((true[..., :2] / true[..., 2:]).mean(axis=0)).max() < fields.SHEAR**2 / 4.0
    assert (true[0, :, 0] > 0.0).all()
    assert (true[1, :, 0] < 0.0).all()


def test_bias_is_the_one_put_in() -> None:
    """If it fails, the record shows other figures than were measured."""
    rng = np.random.default_rng(4)
    size = rng.uniform(1.0, 3.0, 400)
    shapes = rng.normal(0.0, 1e-3, 400) * size
    true = np.array([[sign * 0.01 * size, 0.0 * size, size] for sign in (1, -1)]).swapaxes(1, 2)
    found = true.copy()
    found[..., 0] = 1.03 * true[..., 0] + 2e-4 * size + shapes * np.array([[1.0], [-1.0]])
    found[..., 1] = -3e-4 * size
    bias = measure_bias([measure.Shapes(found, true)])
    expected = 0.1 / np.sqrt(400)
    assert bias.shear[0] == pytest.approx(0.03, abs=4 * expected)
    assert bias.shear[1] == pytest.approx(expected, rel=0.3)
    assert bias.moment == pytest.approx(bias.shear)
    assert bias.along[0] == pytest.approx(2e-4)
    assert bias.across[0] == pytest.approx(-3e-4)


def test_bias_of_responses_is_the_one_put_in() -> None:
    """If it fails, the record shows other figures than were measured."""
    rng = np.random.default_rng(5)
    response = rng.uniform(0.5, 1.5, 400)
    signs = np.array([[1.0], [-1.0]])
    along = fields.SHEAR * signs * response
    across = 0.0 * signs * response
    true = np.stack([along, across, *[np.broadcast_to(response, along.shape)] * 2], axis=-1)
    found = true.copy()
    found[..., 0] += 0.03 * along + 2e-4 * response
    found[..., 1] -= 3e-4 * response
    noise = 4e-3 * response * rng.normal(size=400)
    found[..., 0] += noise * signs
    bias = measure_response_bias([found[:, :150], found[:, 150:]], [true[:, :150], true[:, 150:]])
    expected = 4e-3 / fields.SHEAR / np.sqrt(400)
    assert bias.shear[0] == pytest.approx(0.03, abs=4 * expected)
    assert bias.shear[1] == pytest.approx(expected, rel=0.3)
    assert bias.over_truth == pytest.approx(bias.shear)
    assert bias.along[0] == pytest.approx(2e-4)
    assert bias.across[0] == pytest.approx(-3e-4)


def noise_free_field(component: int) -> fields.RestoredField:
    """Return a field whose linear image is the truth, with little noise."""
    rng, size = np.random.default_rng(6), 200
    galaxies = list(fields._draw_galaxies(size, fields.FLUXES["bright"], rng))
    image = np.zeros((2, 2, size, size))
    for k, sign in enumerate((1.0, -1.0)):
        shear = galsim.Shear(**{f"g{component + 1}": sign * fields.SHEAR})
        for j, angle in enumerate((0.0, 90.0)):
            sources = [fields._turn_and_shear(galaxy, angle, shear) for galaxy in galaxies]
            image[k, j] = draw_sources(sources, (size, size), fields.TARGET_FWHM)
    noise = 0.1 * rng.normal(size=(size, size)) * np.array([1.0, -1.0])[:, None, None]
    images = {"linear_image": image, fields.TRUTH: image}
    noises = {"linear_image": np.stack([noise, noise])}
    return fields.RestoredField(component, galaxies, images, noises, np.ones(len(galaxies)))


@pytest.mark.parametrize("component", [0, 1])
def test_anacal_measures_the_shear(component: int) -> None:
    """If it fails, its positions, components or PSF are not those meant."""
    pytest.importorskip("anacal", reason="the package anacal is not installed")
    found = responses.measure_responses(noise_free_field(component))
    bias = measure_response_bias([found["known", fields.TRUTH]], [found["known", fields.TRUTH]])
    assert abs(bias.shear[0]) < 1e-3
    assert abs(bias.along[0]) < 1e-5
    assert abs(bias.across[0]) < 1e-5
    # Each galaxy is detected, with the noise of its place in a pixel.
    detected = found["detected", fields.TRUTH]
    assert abs(measure_response_bias([detected], [detected]).shear[0]) < 0.3
    assert (detected[..., 2:] != 0.0).all()
    # Added noise is small, and differs from none at all.
    noisy = measure_response_bias([found["known", "linear_image"]], [found["known", fields.TRUTH]])
    assert 0.0 < abs(noisy.over_truth[0]) < 0.01


def test_noise_is_measured_behind_the_kernel() -> None:
    """If it fails, the threshold of detection is another than is said."""
    noise = np.random.default_rng(7).normal(0.0, 3.0, (256, 256))
    assert responses._white_variance(noise) == pytest.approx(9.0, rel=0.1)
    # What the kernel removes does not count.
    checkered = noise + 50.0 * (-1.0) ** np.add.outer(np.arange(256), np.arange(256))
    assert responses._white_variance(checkered) == pytest.approx(responses._white_variance(noise))


def test_fields_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a run that was stopped starts anew, or mixes fields."""
    monkeypatch.setattr(fields, "restore", mean_image)
    monkeypatch.setattr(records, "has_anacal", lambda: False)
    first = records.measure_or_read(tmp_path, "bright", 3, SIZE)
    assert first.responses == {}
    monkeypatch.setattr(fields, "restore", None)
    again = records.measure_or_read(tmp_path, "bright", 3, SIZE)
    np.testing.assert_array_equal(again.signal_to_noise, first.signal_to_noise)
    for name in fields.IMAGES:
        np.testing.assert_array_equal(again.shapes[name], first.shapes[name])
    # Without the responses it is measured again, once there is what measures.
    monkeypatch.setattr(fields, "restore", mean_image)
    monkeypatch.setattr(records, "has_anacal", lambda: True)
    given = {("known", "image"): np.ones((2, 4, 4))}
    monkeypatch.setattr(records, "measure_responses", lambda _: given)
    records.measure_or_read(tmp_path, "bright", 3, SIZE)
    monkeypatch.setattr(fields, "restore", None)
    kept = records.measure_or_read(tmp_path, "bright", 3, SIZE).responses
    assert list(kept) == list(given)
    np.testing.assert_array_equal(kept["known", "image"], given["known", "image"])
    assert [file.name for file in tmp_path.iterdir()] == [f"bright-3-{SIZE}.npz"]


def test_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the record cannot be made, or lacks a table."""
    monkeypatch.setattr(fields, "restore", mean_image)
    for module in (records, command):
        monkeypatch.setattr(module, "has_anacal", lambda: True)
    rng = np.random.default_rng(8)
    measured = {
        (place, image): rng.normal(1.0, 0.1, (2, 4, 4))
        for place in responses.PLACES
        for image in (fields.TRUTH, *fields.IMAGES)
    }
    monkeypatch.setattr(records, "measure_responses", lambda _: measured)
    page = tmp_path / "shear.md"
    words = ["--seeds", "2", "--size", str(SIZE), "--output", str(page), "--work", str(tmp_path / "work")]
    assert command.main(words) == 0
    text = page.read_text()
    for galaxies in fields.FLUXES:
        assert f"| {galaxies} | linear_image | 8 |" in text
        for place in responses.PLACES:
            assert f"| {galaxies} | {place} | image | 8 |" in text


@pytest.mark.slow
def test_linear_image_keeps_the_shear() -> None:
    """If it fails, the linear image is not linear, or not at its PSF."""
    field = fields.restore_field(5, SIZE, 0, fields.FLUXES["bright"])
    bias = measure_bias([measure.measure_moments(field)["linear_image"]])
    assert abs(bias.shear[0]) < 1e-3
    assert abs(bias.along[0]) < 1e-4
