# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise of the linear image against draws through the estimator."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.noise import LocalNoise
from lsst.astroclearnet.tests import make_exposure_arrays

SHAPE = (72, 96)
FWHMS = (3.2, 3.8, 4.4, 5.0, 3.5, 4.1)
SIGMAS = (1.0, 1.4, 0.8, 1.1, 1.3, 0.9)
TARGET = 3.5
NUM_DRAWS = 60
RADIUS = 15


def make_model() -> ForwardModel:
    """Return the model of six exposures."""
    psfs = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS).psfs)
    return ForwardModel(psfs[:, None, None], SHAPE, TARGET)


def make_weights(case: str) -> torch.Tensor:
    """Return inverse variances that vary as the case says."""
    sigmas = torch.tensor(SIGMAS)[:, None, None]
    weights = (sigmas**-2).expand(6, *SHAPE).clone()
    if case == "missing":
        # A third of the exposures, the sharpest among them.
        weights[[0, 1], :, :48] = 0.0
    if case == "bright":
        weights[:, :, :48] /= 10.0
    return weights


@functools.cache
def draws_of(case: str) -> tuple[LocalNoise, torch.Tensor]:
    """Return the predicted noise, and draws of it, for weights of a case."""
    model, weights = make_model(), make_weights(case)
    estimator = LinearEstimator(model, weights)
    penalty_weight = estimator.penalty_weight_for(4e-3)
    sigmas = torch.where(weights > 0, weights, 1.0).rsqrt() * (weights > 0)
    generator = torch.Generator().manual_seed(8)
    draws = torch.stack(
        [
            model.crop(estimator.solve(estimator.right_side(noise * sigmas), (penalty_weight,))[0])
            for noise in torch.randn(NUM_DRAWS, *weights.shape, generator=generator)
        ]
    )
    return LocalNoise(model, weights, penalty_weight), draws


def check_variance(noise: LocalNoise, draws: torch.Tensor, columns: slice) -> None:
    """Compare the variance of the middle rows of some columns."""
    region = (slice(10, -10), columns)
    predicted = float(noise.variance()[region].mean())
    empirical = float((draws[:, *region] ** 2).mean())
    # 60 draws of some 100 independent pixels: a scatter of 0.02.
    assert predicted == pytest.approx(empirical, rel=0.05)


@pytest.mark.parametrize("case", ["even", "missing", "bright"])
def test_variance_is_that_of_draws(case: str) -> None:
    """If it fails, the variance plane of the linear image is wrong."""
    noise, draws = draws_of(case)
    for columns in (slice(10, 38), slice(58, 86)):
        check_variance(noise, draws, columns)
    # The image is a mixture of both sides in between.
    assert bool((noise.variance() > 0).all())


def test_missing_exposures_cost_their_share() -> None:
    """If it fails, a missing sharp exposure costs what a bad one does."""
    full, missing = (draws_of(case)[0].variance() for case in ("even", "missing"))
    ratio = float(missing[36, 20] / full[36, 20])
    weights = make_weights("even")[:, 0, 0]
    assert ratio > float(weights.sum() / weights[2:].sum())
    assert float(missing[36, 80] / full[36, 80]) == pytest.approx(1.0, rel=0.01)
    bright = draws_of("bright")[0].variance()
    assert float(bright[36, 15] / bright[36, 85]) == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("case", ["even", "missing"])
def test_correlation_is_that_of_draws(case: str) -> None:
    """If it fails, errors of fluxes in apertures are wrong."""
    noise, draws = draws_of(case)
    rows, columns = slice(8, 64), slice(6, 42)
    stamp = noise.correlation(rows, columns)
    cut = draws[:, rows, columns].double()
    variance = float((cut**2).mean())
    for dy, dx in ((0, 1), (1, 0), (0, 2), (2, 2), (1, -2), (4, 0), (0, 6), (5, 5)):
        first = cut[:, : cut.shape[1] - dy, max(0, -dx) : cut.shape[2] - max(0, dx)]
        second = cut[:, dy:, max(0, dx) : cut.shape[2] - max(0, -dx)]
        empirical = float((first * second).mean()) / variance
        assert stamp[RADIUS + dy, RADIUS + dx] == pytest.approx(empirical, abs=0.04)


def test_correlation_is_a_correlation() -> None:
    """If it fails, a stamp is shifted, turned or not normalised."""
    noise, _ = draws_of("missing")
    stamp = noise.correlation(slice(3, 40), slice(50, 96))
    assert stamp.shape == (2 * RADIUS + 1, 2 * RADIUS + 1)
    assert stamp.dtype == np.float32
    assert stamp[RADIUS, RADIUS] == 1.0
    assert np.abs(stamp).max() == 1.0
    np.testing.assert_allclose(stamp, stamp[::-1, ::-1], atol=1e-5)
    # The spectrum of noise is not negative.
    assert np.fft.fft2(np.fft.ifftshift(stamp)).real.min() > -0.02 * stamp.sum()


def test_regions_of_any_shape() -> None:
    """If it fails, cells at the border of a patch have no correlation, or
    that of their neighbours.
    """
    noise, _ = draws_of("missing")
    deep, thin = noise.correlation(slice(0, 72), slice(60, 96)), noise.correlation(slice(0, 72), slice(0, 36))
    assert np.abs(deep - thin).max() > 0.01
    for rows in (slice(0, 5), slice(67, 72), slice(30, 31)):
        np.testing.assert_allclose(noise.correlation(rows, slice(60, 96)), deep, atol=2e-3)


def test_no_data() -> None:
    """If it fails, cells without data stop the writing of a coadd."""
    weights = make_weights("even")
    weights[:, :, :40] = 0.0
    noise = LocalNoise(make_model(), weights, 1e-5)
    assert not noise.correlation(slice(0, 72), slice(0, 20)).any()
    assert noise.correlation(slice(0, 72), slice(70, 96))[RADIUS, RADIUS] == 1.0
    variance = noise.variance()
    assert bool(torch.isfinite(variance).all())
    assert not variance[:, :30].any()
    assert bool((variance[:, 40:] > 0).all())


def test_unit_does_not_matter() -> None:
    """If it fails, the noise depends on the photometric unit."""
    weights = make_weights("missing")
    expected, scaled = (LocalNoise(make_model(), weights / s**2, 1e-5) for s in (1.0, 1e3))
    torch.testing.assert_close(scaled.variance(), 1e6 * expected.variance(), rtol=1e-4, atol=0.0)
    region = (slice(0, 40), slice(0, 50))
    np.testing.assert_allclose(scaled.correlation(*region), expected.correlation(*region), atol=1e-5)


def test_varying_psf() -> None:
    """If it fails, the noise of a patch is that of its mean PSF everywhere."""
    psfs = np.stack(
        [[[gaussian_kernel(fwhm, 25), gaussian_kernel(fwhm + 1.0, 25)]] for fwhm in (3.2, 3.8, 4.4)]
    )
    model = ForwardModel(torch.from_numpy(psfs), SHAPE, TARGET)
    noise = LocalNoise(model, torch.ones(3, *SHAPE), 1e-4)
    left, right = (noise.correlation(slice(0, 72), columns) for columns in (slice(12, 36), slice(60, 84)))
    for stamp, change in ((left, 0.0), (right, 1.0)):
        same = np.stack([gaussian_kernel(fwhm + change, 25) for fwhm in (3.2, 3.8, 4.4)])
        alone = ForwardModel(torch.from_numpy(same)[:, None, None], SHAPE, TARGET)
        expected = LocalNoise(alone, torch.ones(3, *SHAPE), 1e-4)
        np.testing.assert_allclose(stamp, expected.correlation(slice(0, 72), slice(0, 96)), atol=0.02)
    assert np.abs(left - right).max() > 0.05
