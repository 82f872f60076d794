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
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet import simulation
from lsst.astroclearnet.tests import measure_star

OLD = (90, 110)
NEW = (80, 72)
CENTER = (44.3, 53.8)


class Planes(NamedTuple):
    """Planes of a resampled image."""

    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray


def resample(image: np.ndarray, variance: np.ndarray, good: np.ndarray, **positions: Any) -> Planes:
    """Resample an image and name its planes."""
    return Planes(*simulation.resample(image, variance, good, **positions))


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


def resample_simply(image: np.ndarray, y: np.ndarray, x: np.ndarray, area: float = 1.0) -> Planes:
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
    y, x = pixel_map(rotation(31.0, 0.9), (40.0, 36.0))
    total = np.zeros(NEW)
    for _ in range(50):
        noise = rng.normal(size=OLD) * np.sqrt(variance)
        result = resample(noise, variance, np.ones(OLD, dtype=bool), y=y, x=x, area=0.81 * np.ones(NEW))
        total += result.image**2
    ratio = total[result.good] / 50 / result.variance[result.good]
    # Each is a chi-square of 50 degrees, of scatter sqrt(2 / 50) = 0.2.
    assert abs(ratio.mean() - 1.0) < 0.01
    assert np.abs(ratio - 1.0).max() < 6 * 0.2


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
    result = resample(*planes, y=rows + offset[0], x=columns + offset[1], area=1.0)
    assert result.image.shape == NEW
    assert not result.good.any()
    assert not result.image.any()
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
    )
    expected = np.zeros(NEW, dtype=bool)
    expected[:20, :30] = True
    np.testing.assert_array_equal(result.good, expected)
    np.testing.assert_allclose(result.image[:20, :30], 2.0 * image[70:, 80:], atol=1e-5)
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
