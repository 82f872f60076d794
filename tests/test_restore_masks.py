# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Restoration of exposures with masks, holes, artefacts and gaps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lsst.astroclearnet.core import (
    MaskBit,
    ModelOptions,
    NoiseOptions,
    RejectionOptions,
    RestorationResult,
    gaussian_kernel,
    restore,
)
from lsst.astroclearnet.tests import (
    QUICK,
    SHAPE,
    SIGMAS,
    STARS,
    TARGET,
    ExposureArrays,
    gaussian_stars,
    make_scene,
    psf_flux,
    restore_on_cpu,
)

# Sky noise of the inverse-variance coadd.
COADD_SIGMA = 1.0 / math.sqrt(sum(s**-2 for s in SIGMAS))


@pytest.fixture(scope="module")
def quick() -> RestorationResult:
    """Return a restoration with the settings of the quick tests."""
    return restore_on_cpu(make_scene(), QUICK)


def test_unusable_pixels_are_masked(quick: RestorationResult) -> None:
    """If it fails, NaN pixels spread, or are believed."""
    arrays = make_scene()
    arrays.images[0, 20:24, 26:30] = np.nan
    arrays.variances[1, 50:55, 10:15] = np.inf
    arrays.images[1, 50:55, 10:15] = 1e6
    arrays.variances[2, 5, 5] = 0.0
    arrays.good[3, 40, 40] = False
    arrays.images[3, 40, 40] = -1e6
    result = restore_on_cpu(arrays, QUICK)
    assert np.isfinite(result.image).all()
    assert not result.mask.any()
    unusable = np.zeros((4, *SHAPE), dtype=bool)
    unusable[0, 20:24, 26:30] = unusable[1, 50:55, 10:15] = True
    unusable[2, 5, 5] = unusable[3, 40, 40] = True
    np.testing.assert_array_equal(result.weights == 0, unusable)
    away = np.ones(SHAPE, dtype=bool)
    away[10:36, 14:44] = False
    np.testing.assert_allclose(result.image[away], quick.image[away], atol=2.0 * COADD_SIGMA)


def test_star_behind_a_mask() -> None:
    """If it fails, a mask in one exposure leaves a mark in the coadd."""
    star = (31.3, 38.7, 8000.0)
    whole, holed = make_scene(stars=[star], seed=6), make_scene(stars=[star], seed=6)
    # The edge of the mask crosses the core.
    holed.good[1, 27:32, 36:40] = False
    first, second = restore_on_cpu(whole, QUICK), restore_on_cpu(holed, QUICK)
    peak = gaussian_stars(SHAPE, [star], TARGET).max()
    assert np.abs(second.image - first.image).max() < 0.01 * peak


def test_hole_is_inpainted() -> None:
    """If it fails, invented pixels pass for measured ones."""
    arrays = make_scene()
    arrays.good[:, 30:34, 60:63] = False
    arrays.images[:, 30:34, 60:63] = 1e5
    result = restore_on_cpu(arrays, QUICK)
    hole = np.zeros(SHAPE, dtype=bool)
    hole[30:34, 60:63] = True
    np.testing.assert_array_equal(result.mask == MaskBit.INPAINTED, hole)
    assert np.isfinite(result.image).all()
    assert np.abs(result.image[hole]).max() < 5.0 * COADD_SIGMA
    around = np.zeros(SHAPE, dtype=bool)
    around[26:38, 56:67] = True
    assert result.variance[hole].min() > 2.0 * np.median(result.variance[around & ~hole])
    assert result.linear_variance[hole].min() > 1.4 * np.median(result.linear_variance[around & ~hole])
    assert (result.residual[hole] == 0).all()


def test_bright_light_at_edges() -> None:
    """If it fails, errors at borders, bad columns and holes in bright light
    are not the declared ones, and good pixels there are rejected.
    """
    level = 1000.0
    shape, fwhms, target = (64, 80), (3.2, 3.6, 4.0, 4.4), 3.2
    good = np.ones((len(fwhms), *shape), dtype=bool)
    good[:, :, 40:43] = False
    good[:, 20:29, 20:29] = False
    rng = np.random.default_rng(5)
    noise = rng.normal(size=good.shape) * math.sqrt(2.0)
    result = restore(
        np.where(good, level + noise, 0.0),
        np.full(good.shape, 2.0),
        good,
        np.stack([gaussian_kernel(fwhm, 25) for fwhm in fwhms]),
        target_fwhm=target,
        options=dataclasses.replace(QUICK, noise=NoiseOptions(num_draws=4, num_realizations=1)),
        seed=2,
        device="cpu",
    )
    assert not result.rejected.any()
    seen = good[0]
    inside = np.pad(seen, 3)
    near = np.zeros_like(seen)
    for y, x in np.ndindex(7, 7):
        near |= ~inside[y : y + shape[0], x : x + shape[1]]
    for pixels in (seen & near, seen & ~near):
        squares = (result.linear_image - level)[pixels] ** 2
        # More than 200 independent pixels: a scatter of 0.1.
        assert squares.mean() / result.linear_variance[pixels].mean() == pytest.approx(1.0, abs=0.3)
    # Not worse than the linear image.
    error = np.abs(result.image - level)[seen & near]
    assert np.sqrt((error**2).mean()) < 1.2 * np.sqrt(result.linear_variance[seen & near].mean())


def test_no_data_is_nan_and_only_there() -> None:
    """If it fails, sky that nobody saw has a brightness."""
    arrays = make_scene()
    arrays.good[:, :, 62:] = False
    arrays.good[:, 40:, :14] = False
    result = restore_on_cpu(arrays, QUICK)
    empty = np.zeros(SHAPE, dtype=bool)
    empty[:, 62:] = empty[40:, :14] = True
    no_data = (result.mask & MaskBit.NO_DATA) > 0
    inpainted = (result.mask & MaskBit.INPAINTED) > 0
    # Pixels in the inner corner may still be known from two sides.
    np.testing.assert_array_equal(no_data | inpainted, empty)
    assert inpainted.sum() < 0.02 * empty.sum()
    for plane in (
        result.image,
        result.variance,
        result.noise_realizations[0],
        result.linear_image,
        result.linear_variance,
        result.linear_noise_realizations[0],
    ):
        np.testing.assert_array_equal(np.isnan(plane), no_data)
    assert (result.weights[:, empty] == 0).all()


def test_rejected_pixels_are_flagged() -> None:
    """If it fails, users cannot see where the PSF is discontinuous."""
    arrays = make_scene()
    arrays.images[2, 30:34, 60:63] += 80.0
    result = restore_on_cpu(arrays, QUICK)
    assert result.rejected[2, 30:34, 60:63].all()
    np.testing.assert_array_equal((result.mask & MaskBit.CLIPPED) > 0, result.rejected.any(axis=0))
    assert (result.weights[result.rejected] == 0).all()
    assert np.abs(result.image[30:34, 60:63]).max() < 5.0 * COADD_SIGMA
    kept = restore_on_cpu(arrays, dataclasses.replace(QUICK, rejection=RejectionOptions(enabled=False)))
    assert not kept.rejected.any()
    assert kept.image[31, 61] > 3.0 * np.abs(result.image[30:34, 60:63]).max()


def test_one_exposure() -> None:
    """If it fails, patches at the edge of a survey stop the pipeline."""
    arrays = ExposureArrays(*(array[:1] for array in make_scene()))
    result = restore_on_cpu(arrays)
    assert np.isnan(result.held_out_loss)
    assert np.isfinite(result.image).all()
    y, x, flux = STARS[0]
    assert psf_flux(result.image, y, x) == pytest.approx(flux, rel=0.03)
    # 5280 pixels: a scatter of 0.02, and that of the expectation.
    assert result.chi_square[0] == pytest.approx(1.0, abs=0.1)


def test_one_exposure_with_data() -> None:
    """If it fails, an empty exposure pretends to be a second one."""
    arrays = make_scene()
    arrays.good[1:] = False
    result = restore_on_cpu(arrays, dataclasses.replace(QUICK, model=ModelOptions(source="fit")))
    assert "one exposure" in result.history.stop_reason
    np.testing.assert_array_equal(np.isnan(result.chi_square), [False, True, True, True])


def test_exposures_that_do_not_overlap() -> None:
    """If it fails, a mosaic without overlap cannot be restored."""
    arrays = make_scene()
    arrays.good[0, :, 40:] = False
    arrays.good[1, :, :40] = False
    arrays.good[2:] = False
    result = restore_on_cpu(arrays, QUICK)
    assert np.isfinite(result.image).all()
    assert not result.mask.any()
    for y, x, flux in STARS:
        assert psf_flux(result.image, y, x) == pytest.approx(flux, rel=0.06)
