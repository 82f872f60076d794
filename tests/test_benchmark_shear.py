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
from astroclearnet_benchmarks.shear import command, measure
from astroclearnet_benchmarks.shear.bias import measure_bias
from lsst.astroclearnet.core import fwhm_to_sigma

SIZE = 120
"""Side of fields in pixels, with four galaxies."""


def mean_image(images: np.ndarray, *_: Any, **__: Any) -> SimpleNamespace:
    """Stand in for the restoration with the mean of the exposures."""
    mean = images.mean(axis=0)
    return SimpleNamespace(linear_image=mean, image=2.0 * mean)


def test_moments_of_a_sheared_gaussian() -> None:
    """If it fails, moments are not those of their formula."""
    sigma, weight = 2.0, measure._WEIGHT * fwhm_to_sigma(measure.TARGET_FWHM)
    round_one = SceneSource(
        "galaxy", x=30.3, y=31.4, flux=7.0, profile=galsim.Gaussian(sigma=sigma), extent=16.0
    )
    sheared = measure._turn_and_shear(round_one, 0.0, galsim.Shear(g1=0.1))
    image = draw_sources([sheared], (60, 62), measure.TARGET_FWHM)
    ((along, across, size),) = measure._moments(image, [sheared])
    stretch = np.array([1.1 / 0.9, 0.9 / 1.1])
    variances = stretch * sigma**2 + fwhm_to_sigma(measure.TARGET_FWHM) ** 2
    weighted = 1.0 / (1.0 / variances + 1.0 / weight**2)
    assert along / size == pytest.approx((weighted[0] - weighted[1]) / weighted.sum(), rel=1e-4)
    assert across / size == pytest.approx(0.0, abs=1e-6)


def test_noise_and_shapes_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the response of a linear image is measured with noise."""
    monkeypatch.setattr(measure, "restore", mean_image)
    found = measure.measure_field(3, SIZE, 1, measure.FLUXES["bright"])
    monkeypatch.setattr(measure, "_expose", lambda blank, _: np.zeros_like(blank.images))
    noise = measure.measure_field(3, SIZE, 1, measure.FLUXES["bright"])["linear_image"].recovered
    assert np.abs(noise).max() < 1e-5 * found["linear_image"].recovered[..., 2].min()
    # Twice the image has the same ellipticities.
    one, two = (measure_bias([found[name]]) for name in measure.IMAGES)
    assert one.shear == pytest.approx(two.shear)
    assert two.moment[0] == pytest.approx(2.0 * one.moment[0] + 1.0)
    # The mean of orientations and shears is round, to second order in shear.
    true = found["image"].true
    assert np.abs((true[..., :2] / true[..., 2:]).mean(axis=0)).max() < measure.SHEAR**2 / 4.0
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
    bias = measure_bias([measure.Shapes(found, true, np.ones(400))])
    expected = 0.1 / np.sqrt(400)
    assert bias.shear[0] == pytest.approx(0.03, abs=4 * expected)
    assert bias.shear[1] == pytest.approx(expected, rel=0.3)
    assert bias.moment == pytest.approx(bias.shear)
    assert bias.along[0] == pytest.approx(2e-4)
    assert bias.across[0] == pytest.approx(-3e-4)


def test_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "restore", mean_image)
    page = tmp_path / "shear.md"
    assert command.main(["--seeds", "2", "--size", str(SIZE), "--output", str(page)]) == 0
    text = page.read_text()
    for galaxies in measure.FLUXES:
        assert f"| {galaxies} | linear_image | 8 |" in text


@pytest.mark.slow
def test_linear_image_keeps_the_shear() -> None:
    """If it fails, the linear image is not linear, or not at its PSF."""
    shapes = measure.measure_field(5, SIZE, 0, measure.FLUXES["bright"])["linear_image"]
    bias = measure_bias([shapes])
    assert abs(bias.shear[0]) < 1e-3
    assert abs(bias.along[0]) < 1e-4
