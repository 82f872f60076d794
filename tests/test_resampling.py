# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Resampling of analytic stars, constant light, noise and masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import InputError, gaussian_kernel, resample
from lsst.astroclearnet.core.exposures import ResampledPlanes, resample_kernel
from lsst.astroclearnet.tests import gaussian_stars, measure_star

OLD = (90, 110)
NEW = (80, 72)
CENTER = (44.3, 53.8)


def gaussian(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the surface brightness of a Gaussian of unit flux."""
    sigma = 4.0 / math.sqrt(8.0 * math.log(2.0))
    return np.asarray(np.exp(-0.5 * (y**2 + x**2) / sigma**2) / (2.0 * math.pi * sigma**2))


def moffat(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the surface brightness of a Moffat profile of unit flux."""
    beta, alpha = 4.0, 4.0 / (2.0 * math.sqrt(2 ** (1 / 4.0) - 1.0))
    return np.asarray((beta - 1.0) / (math.pi * alpha**2) * (1.0 + (y**2 + x**2) / alpha**2) ** -beta)


def rotation(angle: float, scale: float) -> np.ndarray:
    """Return derivatives of old (y, x) with respect to new (y, x)."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return scale * np.array([[c, s], [-s, c]])


def pixel_map(jacobian: np.ndarray, position: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return old positions that put ``CENTER`` at a new position."""
    v, u = np.mgrid[: NEW[0], : NEW[1]].astype(float)
    v, u = v - position[0], u - position[1]
    return (
        CENTER[0] + jacobian[0, 0] * v + jacobian[0, 1] * u,
        CENTER[1] + jacobian[1, 0] * v + jacobian[1, 1] * u,
    )


def old_star(profile: Callable[[np.ndarray, np.ndarray], np.ndarray] = gaussian) -> np.ndarray:
    """Return a star of flux 1000 on the old pixels."""
    y, x = np.mgrid[: OLD[0], : OLD[1]]
    return 1000.0 * profile(y - CENTER[0], x - CENTER[1])


def resample_simply(image: np.ndarray, y: np.ndarray, x: np.ndarray, area: float = 1.0) -> ResampledPlanes:
    """Resample an image of unit variance without a mask."""
    return resample(image, np.ones(image.shape), np.ones(image.shape, dtype=bool), y=y, x=x, area=area)


@pytest.mark.parametrize("profile", [gaussian, moffat])
@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (27.0, 1.0), (90.0, 0.8), (-140.0, 1.19)])
def test_star(profile: Callable[[np.ndarray, np.ndarray], np.ndarray], angle: float, scale: float) -> None:
    """If it fails, stars lose flux or move when exposures are aligned."""
    position, area = (37.7, 33.1), scale**2
    y, x = pixel_map(rotation(angle, scale), position)
    result = resample_simply(old_star(profile), y, x, area)
    v, u = np.mgrid[: NEW[0], : NEW[1]]
    expected = 1000.0 * area * profile(scale * (v - position[0]), scale * (u - position[1]))
    expected[~result.good] = 0.0
    np.testing.assert_allclose(result.image, expected, atol=3e-3 * expected.max())
    stamp = (slice(18, 58), slice(13, 53))
    assert result.good[stamp].all()
    found, truth = measure_star(result.image[stamp].astype(float)), measure_star(expected[stamp])
    assert found[:2] == pytest.approx(truth[:2], abs=0.02)
    assert found[2] == pytest.approx(truth[2], rel=3e-3)


def test_whole_pixel_shift_is_exact() -> None:
    """If it fails, resampling blurs what needs no interpolation."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=OLD)
    rows, columns = np.mgrid[: NEW[0], : NEW[1]]
    result = resample_simply(image, rows + 3.0, columns + 17.0)
    assert result.good.all()
    np.testing.assert_allclose(result.image, image[3:83, 17:89], atol=1e-6)
    np.testing.assert_allclose(result.variance, 1.0, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(
    dy=st.floats(-2.0, 2.0),
    dx=st.floats(-2.0, 2.0),
    angle=st.floats(-180.0, 180.0),
    scale=st.floats(0.7, 1.2),
)
def test_constant_surface_brightness_is_exact(dy: float, dx: float, angle: float, scale: float) -> None:
    """If it fails, the sky gets a pattern from the pixel phases."""
    y, x = pixel_map(rotation(angle, scale), (39.0 + dy, 35.0 + dx))
    result = resample_simply(np.full(OLD, 6.5), y, x, scale**2)
    # At the edge up to 5 % of a kernel, in absolute value, may lie beyond.
    np.testing.assert_allclose(result.image[result.good], 6.5 * scale**2, rtol=0.05)
    assert result.good[20:60, 18:54].all()
    np.testing.assert_allclose(result.image[20:60, 18:54], 6.5 * scale**2, rtol=1e-5)
    assert not result.image[~result.good].any()
    assert (result.variance[~result.good] == 1.0).all()


def test_variance_is_that_of_the_noise() -> None:
    """If it fails, aligned exposures get wrong weights."""
    rng = np.random.default_rng(2)
    variance = np.linspace(1.0, 4.0, OLD[0])[:, None] * np.linspace(1.0, 2.0, OLD[1])
    noise = rng.normal(size=(400, *OLD)) * np.sqrt(variance)
    y, x = pixel_map(rotation(31.0, 0.9), (40.0, 36.0))
    result = resample(
        noise[0], variance, np.ones(OLD, dtype=bool), y=y, x=x, area=0.81 * np.ones(NEW), noise=noise[1:]
    )
    assert result.noise.shape == (399, *NEW)
    ratio = (result.noise**2).mean(axis=0)[result.good] / result.variance[result.good]
    # Each is a chi-square of 399 degrees, of scatter sqrt(2 / 399) = 0.07.
    assert abs(ratio.mean() - 1.0) < 0.01
    assert np.abs(ratio - 1.0).max() < 6 * 0.071


def test_noise_follows_the_image() -> None:
    """If it fails, noise realisations have other correlations."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=OLD)
    y, x = pixel_map(rotation(12.0, 1.1), (40.0, 36.0))
    planes = (image, np.ones(OLD), np.ones(OLD, dtype=bool))
    result = resample(*planes, y=y, x=x, area=1.21, noise=np.stack([image, -2.0 * image]))
    inner = (slice(14, 66), slice(12, 60))
    assert result.good[inner].all()
    np.testing.assert_allclose(result.noise[0][inner], result.image[inner], atol=1e-6)
    np.testing.assert_allclose(result.noise[1][inner], -2.0 * result.image[inner], atol=1e-5)


@pytest.mark.parametrize("garbage", [1e6, np.nan, np.inf])
def test_flagged_pixels_do_not_leak(garbage: float) -> None:
    """If it fails, saturated pixels ring through the coadd."""
    good = np.ones(OLD, dtype=bool)
    good[40:43, 60] = False
    good[20, 20:90] = False
    good[60:75, 30:50] = False
    spoiled = old_star().copy()
    spoiled[~good] = garbage
    y, x = pixel_map(rotation(27.0, 1.0), (37.7, 33.1))
    first, second = (
        resample(image, np.ones(OLD), good, y=y, x=x, area=1.0) for image in (old_star(), spoiled)
    )
    assert np.array_equal(first.good, second.good)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.variance, second.variance)
    assert 0.5 < first.good.mean() < 0.95


@pytest.mark.parametrize("garbage", [1e6, np.nan])
def test_noise_under_the_mask_does_not_leak(garbage: float) -> None:
    """If it fails, loud saturated pixels enter the noise around them."""
    good = np.ones(OLD, dtype=bool)
    good[40:43, 60] = False
    noise = np.random.default_rng(8).normal(size=(2, *OLD))
    y, x = pixel_map(rotation(27.0, 1.0), (37.7, 33.1))
    noise[:, ~good] = garbage
    result = resample(old_star(), np.ones(OLD), good, y=y, x=x, area=1.0, noise=noise)
    assert np.abs(result.noise).max() < 6.0


@pytest.mark.parametrize("plane", ["image", "variance"])
def test_unusable_values_are_masked(plane: str) -> None:
    """If it fails, a NaN or a zero variance reaches the coadd."""
    planes = {"image": old_star(), "variance": np.ones(OLD)}
    planes[plane][45, 50] = np.nan
    planes["variance"][30, 40] = 0.0
    rows, columns = np.mgrid[: OLD[0], : OLD[1]].astype(float)
    result = resample(
        planes["image"], planes["variance"], np.ones(OLD, dtype=bool), y=rows, x=columns, area=1.0
    )
    expected = np.ones(OLD, dtype=bool)
    expected[45, 50] = expected[30, 40] = False
    assert np.array_equal(result.good, expected)


def test_neighbours_of_a_flagged_pixel_are_nearly_right() -> None:
    """If it fails, filling distorts stars beside a mask."""
    good = np.ones(OLD, dtype=bool)
    good[46, 53] = False
    y, x = pixel_map(rotation(0.0, 1.0), (37.7, 33.1))
    whole = resample_simply(old_star(), y, x)
    holed = resample(old_star(), np.ones(OLD), good, y=y, x=x, area=1.0)
    assert not holed.good[39, 32]
    kept = holed.good
    assert kept[38:41, 28:38].sum() > 10
    np.testing.assert_allclose(holed.image[kept], whole.image[kept], atol=0.01 * whole.image.max())


def test_edges() -> None:
    """If it fails, exposures gain or lose pixels at their edges."""
    rows, columns = np.mgrid[-6 : OLD[0] + 6, -6 : OLD[1] + 6].astype(float)
    whole = resample_simply(np.full(OLD, 3.0), rows, columns)
    inside = np.zeros(rows.shape, dtype=bool)
    inside[6:-6, 6:-6] = True
    assert np.array_equal(whole.good, inside)
    # Half a pixel off the grid, a kernel reaches over the edge.
    half = resample_simply(np.full(OLD, 3.0), rows + 0.5, columns)
    assert half.good[12:-12, 6:-6].all()
    assert not half.good[:6].any()
    assert not half.good[-7:].any()
    np.testing.assert_allclose(half.image[half.good], 3.0, rtol=1e-5)


def test_positions_that_are_not_finite() -> None:
    """If it fails, pixels off the sky get values."""
    rows, columns = np.mgrid[: OLD[0], : OLD[1]].astype(float)
    rows[3, 5] = np.nan
    columns[7, 9] = np.inf
    result = resample_simply(np.ones(OLD), rows, columns)
    assert not result.good[3, 5]
    assert not result.good[7, 9]
    assert result.good.sum() == result.good.size - 2


@pytest.mark.parametrize("offset", [(0.0, 200.0), (-300.0, 0.0)])
def test_no_overlap(offset: tuple[float, float]) -> None:
    """If it fails, an exposure beside the patch stops it."""
    rows, columns = np.mgrid[: NEW[0], : NEW[1]].astype(float)
    planes = (np.ones(OLD), np.ones(OLD), np.ones(OLD, dtype=bool))
    noise = np.ones((2, *OLD))
    result = resample(*planes, y=rows + offset[0], x=columns + offset[1], area=1.0, noise=noise)
    assert result.image.shape == NEW
    assert result.noise.shape == (2, *NEW)
    assert not result.good.any()
    assert not result.image.any()
    assert not result.noise.any()
    assert (result.variance == 1.0).all()


def test_partial_overlap() -> None:
    """If it fails, parts of an exposure land in the wrong place."""
    rng = np.random.default_rng(6)
    image = rng.normal(size=OLD)
    rows, columns = np.mgrid[: NEW[0], : NEW[1]].astype(float)
    area = np.full(NEW, 2.0)
    # The last 20 rows and 30 columns of the old image meet the first.
    result = resample(
        image,
        np.ones(OLD),
        np.ones(OLD, dtype=bool),
        y=rows + 70.0,
        x=columns + 80.0,
        area=area,
        noise=image[None],
    )
    expected = np.zeros(NEW, dtype=bool)
    expected[:20, :30] = True
    np.testing.assert_array_equal(result.good, expected)
    np.testing.assert_allclose(result.image[:20, :30], 2.0 * image[70:, 80:], atol=1e-5)
    np.testing.assert_allclose(result.noise[0], result.image, atol=1e-5)
    np.testing.assert_allclose(result.variance[:20, :30], 4.0, rtol=1e-5)


def test_nothing_usable() -> None:
    """If it fails, an exposure that is all masked stops the patch."""
    rows, columns = np.mgrid[: OLD[0], : OLD[1]].astype(float)
    result = resample(np.ones(OLD), np.ones(OLD), np.zeros(OLD, dtype=bool), y=rows, x=columns, area=1.0)
    assert not result.good.any()
    assert not result.image.any()


def test_inputs_are_left_alone() -> None:
    """If it fails, resampling changes the visit image."""
    image, variance, good = old_star(), np.ones(OLD), np.ones(OLD, dtype=bool)
    good[40, 50] = False
    copies = [image.copy(), variance.copy(), good.copy()]
    y, x = pixel_map(rotation(5.0, 1.0), (37.7, 33.1))
    resample(image, variance, good, y=y, x=x, area=1.0)
    for array, copy in zip((image, variance, good), copies, strict=True):
        assert np.array_equal(array, copy)


def moments(kernel: np.ndarray) -> np.ndarray:
    """Return the matrix of second moments in (y, x)."""
    r = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    v, u = np.meshgrid(r, r, indexing="ij")
    cross = (kernel * v * u).sum()
    return np.array([[(kernel * v**2).sum(), cross], [cross, (kernel * u**2).sum()]])


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (33.0, 0.8), (-120.0, 1.15)])
def test_kernel_rotates_and_widens(angle: float, scale: float) -> None:
    """If it fails, PSFs do not fit the resampled stars."""
    rows, columns = np.mgrid[-15:16, -15:16]
    kernel = np.exp(-0.5 * ((rows / 2.4) ** 2 + (columns / 1.6) ** 2 + rows * columns / 12.0))
    kernel /= kernel.sum()
    jacobian = rotation(angle, scale)
    result = resample_kernel(kernel, jacobian, 37)
    assert result.shape == (37, 37)
    assert result.sum() == pytest.approx(1.0)
    inverse = np.linalg.inv(jacobian)
    np.testing.assert_allclose(moments(result), inverse @ moments(kernel) @ inverse.T, rtol=0.01, atol=0.01)


def test_kernel_is_that_of_the_resampled_star() -> None:
    """If it fails, PSF photometry on aligned exposures is biased."""
    jacobian = np.array([[0.93, 0.21], [-0.15, 1.04]])
    stars = [(20.0, 20.0, 1.0), (22.6, 18.7, 0.3)]
    kernel = gaussian_stars((41, 41), stars, 3.6)
    image = np.zeros(OLD)
    image[24:65, 34:75] = kernel
    v, u = np.mgrid[: NEW[0], : NEW[1]] - np.array([40, 36])[:, None, None]
    y = 44 + jacobian[0, 0] * v + jacobian[0, 1] * u
    x = 54 + jacobian[1, 0] * v + jacobian[1, 1] * u
    star = resample_simply(image, y, x, abs(float(np.linalg.det(jacobian))))
    expected = star.image[25:56, 21:52] / star.image.sum()
    np.testing.assert_allclose(resample_kernel(kernel, jacobian, 31), expected, atol=2e-3 * expected.max())


def test_kernel_that_is_cut() -> None:
    """If it fails, a small stamp loses flux."""
    kernel = gaussian_kernel(4.0, 15)
    assert resample_kernel(kernel, np.eye(2), 9).sum() == pytest.approx(1.0)
    # Beyond the old stamp there is nothing.
    wide = resample_kernel(kernel, np.eye(2), 31)
    np.testing.assert_allclose(wide[8:23, 8:23], kernel, atol=1e-12)
    np.testing.assert_allclose(wide[:8], 0.0, atol=1e-12)


def test_refusals() -> None:
    """If it fails, planes of different detectors are mixed."""
    rows, columns = np.mgrid[:9, :9].astype(float)
    image, good = np.ones((30, 31)), np.ones((30, 31), dtype=bool)
    with pytest.raises(InputError, match=r"Image \(30, 31\), variance \(31, 30\) and good \(30, 31\) differ"):
        resample(image, image.T, good, y=rows, x=columns, area=1.0)
    with pytest.raises(InputError, match="Lanczos kernel of order 1 is too short"):
        resample(image, image, good, y=rows, x=columns, area=1.0, order=1)
    for value, name in ((0.0, r"0\.0"), (-1.0, "-225.0"), (np.nan, "nan")):
        with pytest.raises(InputError, match=f"PSF with sum {name} cannot be used"):
            resample_kernel(np.full((15, 15), value), np.eye(2), 15)
