# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of exposures of a sky that changes, and of saturated stars."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lsst.astroclearnet.core import MaskBit, StackResult
from lsst.astroclearnet.tests import (
    QUICK,
    TARGET,
    ExposureArrays,
    gaussian_stars,
    make_exposure_arrays,
    psf_flux,
    restore_on_cpu,
)

SHAPE = (64, 80)
FWHMS = tuple(np.linspace(3.2, 5.2, 12))
STAR = (20.3, 57.2, 2000.0)
PLACE = (40.3, 31.6)
COADD_SIGMA = 1.0 / math.sqrt(12)


def make_exposures() -> ExposureArrays:
    """Return twelve exposures of a star."""
    return make_exposure_arrays(SHAPE, FWHMS, stars=[STAR], seed=4)


def make_trail(peak: float) -> np.ndarray:
    """Return what an asteroid leaves in exposure 6, past the star."""
    steps = [(8.0 + 0.5 * k, 20.0 + 0.9 * k, 1.0) for k in range(60)]
    trail = gaussian_stars(SHAPE, steps, FWHMS[6])
    return peak * trail / trail.max()


@pytest.fixture(scope="module")
def undisturbed() -> StackResult:
    """Return the restoration of a sky that does not change."""
    return restore_on_cpu(make_exposures(), QUICK)


@pytest.mark.parametrize("flux", [60.0, 1000.0, 5000.0])
def test_supernova_is_not_erased_in_silence(flux: float) -> None:
    """If it fails, real changes of the sky are removed without a trace."""
    arrays = make_exposures()
    for t in (2, 5, 9):
        arrays.images[t] += gaussian_stars(SHAPE, [(*PLACE, flux)], FWHMS[t])
    result = restore_on_cpu(arrays, QUICK)
    information = (arrays.psfs**2).sum(axis=(1, 2))
    sigma = 1.0 / math.sqrt(information.sum())
    measured = psf_flux(result.linear_image, *PLACE)
    box = (slice(37, 45), slice(28, 36))
    clipped = bool((result.mask[box] & MaskBit.CLIPPED).any())
    # A PSF that is a mixture of those of three exposures is not the declared
    # one; to a tenth the flux is the mean.
    assert clipped or measured == pytest.approx(flux / 4.0, abs=3.0 * sigma + 0.1 * flux / 4.0)
    assert clipped == bool(result.rejected[:, *box].any())
    # Never do all three go.
    assert measured > 0.4 * flux / 4.0


@pytest.mark.parametrize("peak", [2.0, 20.0])
def test_asteroid_is_rejected(undisturbed: StackResult, peak: float) -> None:
    """If it fails, trails stay in the coadd, or go without a mark."""
    arrays, trail = make_exposures(), make_trail(peak)
    arrays.images[6] += trail
    result = restore_on_cpu(arrays, QUICK)
    on_trail = trail > 0.5 * peak
    assert result.rejected[6][on_trail].mean() > 0.95
    assert not np.delete(result.rejected, 6, axis=0).any()
    np.testing.assert_array_equal((result.mask & MaskBit.CLIPPED) > 0, result.rejected[6])
    plain_mean = trail[on_trail].mean() / 12.0
    for name in ("image", "linear_image"):
        left = (getattr(result, name) - getattr(undisturbed, name))[on_trail].mean()
        assert abs(left) < 0.05 * plain_mean + 0.1 * COADD_SIGMA


def test_trail_over_bright_smooth_light() -> None:
    """If it fails, nebulae and haloes keep their trails, unflagged."""
    arrays, level = make_exposures(), 1000.0
    arrays.images[:] += level
    clean = restore_on_cpu(arrays, QUICK)
    arrays.images[6] += make_trail(20.0)
    arrays.images[4, 50, 30:32] += 40.0
    result = restore_on_cpu(arrays, QUICK)
    assert result.rejected[6][make_trail(20.0) > 10.0].mean() > 0.95
    assert result.rejected[4, 50, 30:32].all()
    unflagged = (result.mask & MaskBit.CLIPPED) == 0
    change = (result.linear_image - clean.linear_image) / np.sqrt(result.linear_variance)
    assert np.abs(change[unflagged]).max() < 2.0
    assert np.abs(change[make_trail(20.0) > 10.0].mean()) < 1.0


def test_no_corners_where_rejection_begins(undisturbed: StackResult) -> None:
    """If it fails, single pixels and lines appear where exposures come and
    go.
    """
    arrays = make_exposures()
    arrays.images[6] += make_trail(20.0)
    # A cosmic ray in the wing of the star.
    arrays.images[3, 19:21, 60:63] += 60.0
    result = restore_on_cpu(arrays, QUICK)
    assert result.rejected[3, 19:21, 60:63].any()
    for name in ("image", "linear_image"):
        change = getattr(result, name) - getattr(undisturbed, name)
        windows = np.lib.stride_tricks.sliding_window_view(change, (3, 3))
        rough = change[1:-1, 1:-1] - np.median(windows, axis=(2, 3))
        assert np.abs(rough).max() < COADD_SIGMA


def test_no_ring_around_a_saturated_star() -> None:
    """If it fails, saturated stars are surrounded by rings."""
    star = (30.3, 40.6, 5e4)
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=[star], seed=5, gain=4.0)
    arrays.good[:] = arrays.images < 400.0
    result = restore_on_cpu(arrays, QUICK)
    truth = gaussian_stars(SHAPE, [star], TARGET)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(rows - star[0], columns - star[1])
    assert (result.mask[radius < 2.0] & MaskBit.INPAINTED).all()
    for name in ("image", "linear_image"):
        error = (getattr(result, name) - truth) / truth.max()
        # The mask is narrower than 4.5 pixels, a PSF beyond it is 8.
        assert np.abs(error[radius > 5.0]).max() < 0.02
        assert np.abs(error[radius > 8.0]).max() < 0.003
        assert getattr(result, name).min() > -0.02 * truth.max()


@pytest.mark.parametrize("number", [1, 2])
def test_few_exposures(number: int) -> None:
    """If it fails, the edge of a survey has no coadd, or a wrong one."""
    arrays = ExposureArrays(*(array[:number] for array in make_exposures()))
    result = restore_on_cpu(arrays, QUICK)
    assert np.isfinite(result.image).all()
    assert np.isfinite(result.linear_image).all()
    assert not result.rejected.any()
    assert np.isnan(result.held_out_loss) == (number == 1)
    sigma = 1.0 / math.sqrt((arrays.psfs**2).sum())
    assert psf_flux(result.linear_image, *STAR[:2]) == pytest.approx(STAR[2], abs=4.0 * sigma)
    assert psf_flux(result.image, *STAR[:2]) == pytest.approx(STAR[2], abs=4.0 * sigma + 0.01 * STAR[2])
