# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variance planes that are given are believed, and held against blank sky."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, FitOptions, RestoreOptions, Tile, gaussian_kernel, restore
from lsst.astroclearnet.core.calibration._sky_noise import SkyNoise, log_sky_noise, measure_sky_noise
from lsst.astroclearnet.core.exposures import StackSource, decorrelate_variance
from lsst.astroclearnet.core.exposures._filters import local_medians
from lsst.astroclearnet.core.forward import TileReader
from lsst.astroclearnet.tests import gaussian_stars

SHAPE = (96, 128)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
STARS = [(30.3, 40.8, 8000.0), (70.9, 100.2, 30000.0), (60.0, 20.0, 2000.0)]
PATTERNS = {
    "even": np.ones(SHAPE),
    "noisy amplifier": np.where(COLUMNS >= 84, 25.0, 1.0),
    "quiet amplifier": np.where(COLUMNS >= 84, 0.04, 1.0),
    "ramp": np.linspace(1.0, 25.0, SHAPE[1]) * np.ones((SHAPE[0], 1)),
    "patches": np.where((ROWS // 8 + COLUMNS // 8) % 2 == 1, 25.0, 1.0),
    "pixels": np.where((ROWS + COLUMNS) % 2 == 1, 4.0, 1.0),
}
FWHMS = (3.2, 3.6, 4.0, 3.4, 4.2)
PSFS = np.stack([gaussian_kernel(fwhm, 25) for fwhm in FWHMS])
TARGET = 3.2


def free(variance: np.ndarray, image: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Return the plane to weight with, the bias, and whether it is smooth."""
    arrays = (torch.from_numpy(a.astype(np.float32)) for a in (variance, image, prediction))
    plane, pixels, light = arrays
    freed = decorrelate_variance(plane, torch.ones(SHAPE, dtype=torch.bool), pixels, light)
    return freed.variance.numpy(), freed.bias, freed.smoothed


def bias_of(variance: np.ndarray, noise: np.ndarray, true: np.ndarray) -> float:
    """Return the bias of a weighted mean, in sigma of a pixel."""
    return float((noise * true**0.5 / variance).mean() / (true / variance).mean())


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("seed", range(2))
def test_exact_planes_are_believed(name: str, seed: int) -> None:
    """If it fails, a plane that is right is overridden."""
    light = gaussian_stars(SHAPE, STARS, 3.5)
    true = PATTERNS[name] * 100.0 + light
    image = light + np.random.default_rng(seed).normal(size=SHAPE) * true**0.5
    # As wrong as a prediction by a wrong PSF.
    plane, bias, smoothed = free(true, image, gaussian_stars(SHAPE, STARS, 3.57))
    np.testing.assert_array_equal(plane, true.astype(np.float32))
    assert bias == 0.0
    assert not smoothed


@pytest.mark.parametrize("name", ["even", "noisy amplifier", "ramp", "patches"])
@pytest.mark.parametrize("sky", [30.0, 1000.0])
def test_planes_of_noisy_pixels_are_freed(name: str, sky: float) -> None:
    """If it fails, weights follow the noise, or lose the pattern."""
    light = gaussian_stars(SHAPE, STARS, 3.5)
    true = PATTERNS[name] * sky + light
    noise = np.random.default_rng(7).normal(size=SHAPE) * true**0.5
    plane, bias, smoothed = free(true + noise, light + noise, light)
    assert bias > 0.005
    assert not smoothed
    np.testing.assert_allclose(plane, true, rtol=0.02 + 0.5 * sky**-0.5)
    sky_only = light < 0.1 * true**0.5
    plain = bias_of(true[sky_only], noise[sky_only], true[sky_only])
    assert abs(bias_of(plane[sky_only], noise[sky_only], true[sky_only]) - plain) < 0.005


def test_flat_fields_are_freed() -> None:
    """If it fails, an amplifier of another gain is weighted by its noise."""
    pattern = PATTERNS["noisy amplifier"]
    electrons = np.random.default_rng(2).poisson(100.0, SHAPE) - 100.0
    plane, bias, _ = free(pattern * (100.0 + electrons), pattern**0.5 * electrons, np.zeros(SHAPE))
    true = 100.0 * pattern
    assert bias == pytest.approx(0.1, rel=0.15)
    assert abs(bias_of(plane, pattern**0.5 * electrons, true)) < 0.02
    for part in (np.s_[:, :80], np.s_[:, 88:]):
        np.testing.assert_allclose(np.median((plane / true)[part]), 1.0, atol=0.05)


def test_what_follows_noise_otherwise_is_smoothed() -> None:
    """If it fails, weights follow noise that no slope describes."""
    rng = np.random.default_rng(4)
    noise = rng.normal(size=SHAPE) * 10.0
    # Rises with the noise in a pattern that alternates from pixel to pixel.
    variance = PATTERNS["pixels"] * (100.0 + np.where(PATTERNS["pixels"] > 1.0, 12.0, 4.0) * noise).clip(5.0)
    plane, bias, smoothed = free(variance, noise, np.zeros(SHAPE))
    assert smoothed
    assert bias > 0.1
    assert abs(bias_of(plane, noise, np.full(SHAPE, 100.0)) - float(noise.mean()) / 10.0) < 0.02


def test_local_medians_keep_rectangles_and_leave_out_the_pixel() -> None:
    """If it fails, edges of amplifiers are blurred, or noise comes back."""
    image = torch.from_numpy(PATTERNS["patches"])
    medians = local_medians(image)
    # Corners alone belong to no one.
    assert float((medians == image).double().mean()) > 0.9
    single = torch.ones(9, 9)
    single[4, 4] = 1e6
    torch.testing.assert_close(local_medians(single), torch.ones(9, 9))


def draw(seed: int, variances: np.ndarray) -> np.ndarray:
    """Return exposures of three stars with noise."""
    light = np.stack([gaussian_stars(SHAPE, STARS, fwhm) for fwhm in FWHMS])
    return light + np.random.default_rng(seed).normal(size=light.shape) * variances**0.5


def measure(images: np.ndarray, variances: np.ndarray) -> SkyNoise:
    """Return what blank sky tells of variances."""
    stack = ExposureStack.from_arrays(images, variances, np.ones(images.shape, bool), PSFS)
    rows, columns = (slice(0, size) for size in SHAPE)
    tile = Tile(rows, columns, rows, columns)
    reader = TileReader(StackSource(stack), (tile,), TARGET, torch.device("cpu"))
    with torch.no_grad():
        return measure_sky_noise(reader, SHAPE, SkyNoise.unknown(len(images)))


@pytest.mark.parametrize("name", ["even", "noisy amplifier", "ramp"])
def test_right_variances_are_not_rescaled(name: str) -> None:
    """If it fails, good variances are changed."""
    true = np.broadcast_to(PATTERNS[name], (5, *SHAPE)).copy()
    images = draw(11, true)
    # A trail, and a PSF that is not that of the stars.
    images[1][np.abs(ROWS - 0.7 * COLUMNS) < 1.5] += 20.0
    images[2] += 0.03 * (gaussian_stars(SHAPE, STARS, FWHMS[2]) - gaussian_stars(SHAPE, STARS, 5.0))
    noise = measure(images, true)
    assert bool((noise.factor == 1.0).all())
    np.testing.assert_allclose(noise.ratio, 1.0, atol=0.1)


def test_wrong_variances_are_rescaled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, a wrong plane decides weights and errors in silence."""
    given = np.array([1.0, 0.25, 1.0, 8.0, 1.0])[:, None, None] * np.ones((5, *SHAPE))
    true = np.ones_like(given)
    true[0] = PATTERNS["noisy amplifier"]
    noise = measure(draw(12, true), given)
    np.testing.assert_allclose(noise.factor[1], 4.0, rtol=0.15)
    np.testing.assert_allclose(noise.factor[3], 0.125, rtol=0.15)
    assert bool((noise.factor[[2, 4]] == 1.0).all())
    # One is wrong in a part, which begins in the middle of a block.
    assert bool((noise.factor[0, :, :4] == 1.0).all())
    assert float(noise.factor[0, :, 6:].min()) > 8.0
    assert float(noise.factor[0].max()) < 30.0
    with caplog.at_level(logging.WARNING):
        log_sky_noise(noise)
    assert [message.split()[4] for message in caplog.messages] == ["0", "1", "3"]


def test_correlated_noise_is_no_evidence() -> None:
    """If it fails, the variances of resampled exposures are changed."""
    white = np.random.default_rng(5).normal(size=(5, *SHAPE))
    noise = white + 0.15 * sum(np.roll(white, k, axis) for k in (-1, 1) for axis in (1, 2))
    variances = np.full(noise.shape, 1.0 + 4 * 0.15**2)
    light = draw(5, np.zeros(noise.shape))
    assert bool((measure(light + noise, variances).factor == 1.0).all())


def test_real_variances_are_believed(shared_data: Path) -> None:
    """If it fails, exposures that were resampled are called wrong."""
    night = np.load(shared_data / "decam_night" / "night.npz")
    stack = ExposureStack.from_arrays(night["images"], night["variances"], night["good"] > 0, night["psfs"])
    side = slice(0, 256)
    reader = TileReader(StackSource(stack), (Tile(side, side, side, side),), 4.0, torch.device("cpu"))
    with torch.no_grad():
        noise = measure_sky_noise(reader, (256, 256), SkyNoise.unknown(5))
    assert bool((noise.factor == 1.0).all())
    assert not bool(noise.smoothed.any())


@pytest.mark.parametrize(
    ("name", "exposures", "follows"),
    [
        pytest.param("noisy amplifier", slice(0, 1), False, marks=pytest.mark.slow),
        pytest.param("quiet amplifier", slice(None), True, marks=pytest.mark.slow),
        ("patches", slice(None), False),
    ],
)
def test_errors_of_the_linear_image(name: str, exposures: slice, follows: bool) -> None:
    """If it fails, declared errors are wrong where noise differs."""
    ratios = []
    blank = gaussian_stars(SHAPE, STARS, TARGET) < 0.02
    blank[:8] = blank[-8:] = blank[:, :8] = blank[:, -8:] = False
    for seed in range(3):
        true = np.ones((5, *SHAPE))
        true[exposures] = PATTERNS[name]
        images = draw(seed, true)
        variances = np.maximum(true + images / 50.0, 0.1 * true) if follows else true
        result = restore(
            images,
            variances,
            np.ones(true.shape, bool),
            PSFS,
            target_fwhm=TARGET,
            options=RestoreOptions(fit=FitOptions(max_epochs=1)),
            seed=1,
        )
        error = result.linear_image - gaussian_stars(SHAPE, STARS, TARGET)
        parts = [blank & (PATTERNS[name] <= 1.0), blank & (PATTERNS[name] > 1.0)]
        if name == "quiet amplifier":
            parts = [blank & (COLUMNS < 80), blank & (COLUMNS >= 88)]
        ratios.append([(error[part] ** 2 / result.linear_variance[part]).mean() for part in parts])
    # Each mean is of some hundred independent pixels.
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.15)
