# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the estimator from repeated observations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, restore
from lsst.astroclearnet.core.estimate import Estimator, MixingNetwork
from lsst.astroclearnet.core.exposures import smooth
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.noise import (
    LocalNoise,
    RepeatedErrors,
    linear_variance,
    repeat_observations,
    restored_variance,
)
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import QUICK, make_exposure_stack

SHAPE = (60, 76)
FWHMS = (3.4, 4.2, 5.0)
TARGET = 3.8


def make_estimator(stack: ExposureStack) -> Estimator:
    """Return an estimator whose network was not fitted."""
    network = MixingNetwork(QUICK.network)
    network.initialize(make_generator(3))
    model = ForwardModel.from_stack(stack, TARGET)
    return Estimator(network, model, stack.good / stack.variances, QUICK)


def draw_noise(variances: torch.Tensor, number: int, *, seed: int) -> torch.Tensor:
    """Return draws of the noise of exposures."""
    return torch.randn((number, *variances.shape), generator=make_generator(seed)) * variances.sqrt()


@torch.no_grad()
def test_nothing_but_noise_is_an_error() -> None:
    """If it fails, the repeated observations are of another sky."""
    stack = make_exposure_stack(SHAPE, FWHMS, seed=None)
    estimator = make_estimator(stack)
    estimate = estimator.estimate(stack.images)
    silent = repeat_observations(estimator, estimate, [torch.zeros(3, *SHAPE)])
    peak = float(estimate.restored.max())
    assert float(silent.linear.abs().max()) < 0.01 * peak
    assert float(silent.restored.abs().max()) < 0.05 * peak
    unit = torch.ones(3, *SHAPE)
    noisy = repeat_observations(estimator, estimate, draw_noise(unit, 4, seed=2))
    assert noisy.restored.shape == noisy.linear.shape == (4, *SHAPE)
    # What the image takes up of the noise, most in the sharpest exposure.
    per_pixel = noisy.chi_square / (SHAPE[0] * SHAPE[1])
    assert bool(((per_pixel > 0.8) & (per_pixel < 1.05)).all())


@torch.no_grad()
def test_masked_pixels_do_not_err() -> None:
    """If it fails, noise where an exposure has no data spreads."""
    stack = make_exposure_stack(SHAPE, FWHMS)
    stack.good[1, :, :30] = False
    estimator = make_estimator(stack)
    estimate = estimator.estimate(torch.where(stack.good, stack.images, 0.0))
    noise = draw_noise(stack.variances, 1, seed=4)[0]
    clean = repeat_observations(estimator, estimate, [noise])
    dirty = repeat_observations(estimator, estimate, [torch.where(stack.good, noise, 1e6)])
    assert torch.equal(clean.linear, dirty.linear)
    assert torch.equal(clean.chi_square, dirty.chi_square)
    assert float(clean.chi_square[1]) == pytest.approx(46 * 60, rel=0.15)


def make_errors(errors: torch.Tensor) -> RepeatedErrors:
    """Return errors that both images have."""
    return RepeatedErrors(errors, errors, torch.ones(3), torch.zeros(0), torch.zeros(errors.shape[1:]))


def test_linear_variance_follows_the_errors() -> None:
    """If it fails, correlated noise of resampled exposures is forgotten."""
    stack = make_exposure_stack((96, 150), FWHMS)
    noise = LocalNoise(ForwardModel.from_stack(stack, TARGET), torch.ones(3, 96, 150), 1e-5)
    predicted = noise.variance()
    generator = make_generator(5)
    white = torch.randn((40, 96, 150), generator=generator) * predicted.sqrt()
    white[:, :, 75:] *= 2.0
    seen = torch.ones(96, 150, dtype=torch.bool)
    errors = make_errors(white)
    variance = linear_variance(errors, noise, seen)
    # At the edge there are fewer pixels to compare with.
    for region, rtol in ((np.s_[8:-8, 8:30], 0.05), (np.s_[:, :30], 0.15)):
        torch.testing.assert_close(variance[region], predicted[region], rtol=rtol, atol=0.0)
    torch.testing.assert_close(variance[8:-8, -30:-8], 4.0 * predicted[8:-8, -30:-8], rtol=0.05, atol=0.0)
    # Pixels without data say nothing.
    seen[:, 75:] = False
    variance = linear_variance(errors, noise, seen)
    torch.testing.assert_close(variance[8:-8, 8:67], predicted[8:-8, 8:67], rtol=0.05, atol=0.0)
    # There the spectrum is a lower bound of what is extrapolated.
    extrapolated = linear_variance(errors, noise, torch.zeros_like(seen))
    assert bool((extrapolated >= predicted).all())
    torch.testing.assert_close(
        extrapolated[:, 90:].mean(), 4.0 * predicted[:, 90:].mean(), rtol=0.05, atol=0.0
    )


def test_edges_and_cores_stand_for_themselves() -> None:
    """If it fails, what is worse at an edge or in the core of a star raises
    the declared errors around, and is too small there.
    """
    shape = (96, 120)
    stack = make_exposure_stack(shape, FWHMS)
    noise = LocalNoise(ForwardModel.from_stack(stack, TARGET), torch.ones(3, *shape), 1e-5)
    predicted = noise.variance()
    factor = torch.ones(shape)
    factor[:, 0] = 3.0
    factor[40:46, 80:86] = 400.0
    seen = torch.ones(shape, dtype=torch.bool)
    white = torch.randn((40, *shape), generator=make_generator(7)) * (factor * predicted).sqrt()
    variance = linear_variance(make_errors(white), noise, seen)
    ratio = variance / predicted
    # Some 60 pixels of 40 draws each: a scatter of 0.03 along the edge.
    assert float(ratio[40:56, 0].mean()) == pytest.approx(3.0, rel=0.15)
    assert float(ratio[20:, 2:60].mean()) == pytest.approx(1.0, rel=0.03)
    assert float(ratio[42:44, 82:84].mean()) == pytest.approx(400.0, rel=0.2)
    beside = ratio[34:52, 90:]
    assert float(beside.mean()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("number", [2, 4, 8])
def test_scatter_of_few_draws_is_no_core(number: int) -> None:
    """If it fails, pixels of blank sky are declared many times too noisy."""
    shape = (300, 320)
    stack = make_exposure_stack(shape, FWHMS, stars=[])
    noise = LocalNoise(ForwardModel.from_stack(stack, TARGET), torch.ones(3, *shape), 1e-5)
    white = torch.randn((number, *shape), generator=make_generator(9))
    correlated = smooth(white, 4.0)
    errors = correlated * (noise.variance() / correlated.square().mean()).sqrt()
    variance = linear_variance(make_errors(errors), noise, torch.ones(shape, dtype=torch.bool))
    ratio = (variance / noise.variance())[8:-8, 8:-8]
    assert float((ratio > 2.0).float().mean()) < 3e-4


def test_restored_variance_is_the_mean_square() -> None:
    """If it fails, the variance plane is wrong at borders and in holes."""
    errors = torch.full((3, 40, 52), 2.0)
    errors[1] = -5.0
    linear = torch.full((40, 52), 50.0)
    sky = torch.zeros(40, 52)
    seen = torch.ones(40, 52, dtype=torch.bool)
    seen[10:14, 20:24] = False
    variance = restored_variance(errors, torch.zeros_like(linear), linear, sky, seen)
    # Also in the corner, where half the neighbours are missing.
    torch.testing.assert_close(variance, torch.full_like(variance, 11.0))
    light = torch.full((40, 52), 39.0)
    lit = restored_variance(errors, light, linear, sky, seen)
    assert torch.equal(lit[seen], variance[seen])
    torch.testing.assert_close(lit[~seen], torch.full_like(lit[~seen], 50.0))
    louder = restored_variance(10.0 * errors, torch.zeros_like(linear), linear, sky, seen)
    torch.testing.assert_close(louder, torch.full_like(louder, 1100.0))


def test_restored_variance_of_like_pixels_is_pooled() -> None:
    """If it fails, declared errors scatter as those of a few draws do, or
    those of stars are mixed with those of blank sky.
    """
    shape = (120, 130)
    linear = torch.linspace(1.0, 2.0, 130).expand(shape)
    brightness = torch.full(shape, 0.02)
    brightness[40:60, 30:90] = 20.0
    share = torch.where(brightness > 1.0, 0.9, 0.1)
    # One saturated core is far worse than its brightness tells.
    share[48:53, 50:55] = 400.0
    white = torch.randn((6, *shape), generator=make_generator(4)) * (share * linear).sqrt()
    seen = torch.ones(shape, dtype=torch.bool)
    variance = restored_variance(white, torch.zeros(shape), linear, brightness, seen)
    ratio = variance / (share * linear)
    for region in (np.s_[5:35, 5:-5], np.s_[42:58, 60:88]):
        assert float(ratio[region].mean()) == pytest.approx(1.0, rel=0.05)
        # Of six draws alone the scatter is 0.58, over neighbours 0.35.
        assert float(ratio[region].std()) < 0.25
    assert float(ratio[50, 52]) == pytest.approx(1.0, rel=0.6)


def declare(errors: torch.Tensor, linear: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Return the declared variance of pixels that are all seen."""
    seen = torch.ones(linear.shape, dtype=torch.bool)
    return restored_variance(errors, torch.zeros_like(linear), linear, brightness, seen)


@pytest.mark.parametrize("factor", [4.0, 25.0])
def test_declared_errors_scale_with_the_depth(factor: float) -> None:
    """If it fails, a part of a patch that is deeper has the errors of the
    rest.
    """
    shape = (96, 160)
    generator = make_generator(8)
    # Brightness is in units of the noise, and the same where it is deeper.
    brightness = (0.5 * torch.rand(shape, generator=generator)).exp() * 0.05
    brightness[30:66, 20:60] = brightness[30:66, 100:140] = 20.0
    share = torch.where(brightness > 1.0, 0.9, 0.1)
    errors = torch.randn((6, *shape), generator=generator) * share.sqrt()
    even = declare(errors, torch.ones(shape), brightness)
    deep = torch.where(torch.arange(160) < 80, 1.0, factor).expand(shape)
    uneven = declare(errors / deep.sqrt(), 1.0 / deep, brightness)
    away = (torch.arange(160) - 79.5).abs() > 8
    torch.testing.assert_close((uneven * deep)[:, away], even[:, away], rtol=0.02, atol=0.0)
    # At the step noise is mixed, and no part is far off.
    ratio = (uneven * deep / even)[:, ~away]
    assert 0.5 < float(ratio.min()) <= float(ratio.max()) < factor
    whole = declare(errors / factor**0.5, torch.full(shape, 1.0 / factor), brightness)
    torch.testing.assert_close(factor * whole, even)


def test_errors_leak_across_a_step() -> None:
    """If it fails, deep pixels beside noisy ones are called too good."""
    linear = torch.where(torch.arange(160) < 80, 1.0, 0.04).expand(96, 160)
    # Estimates of sky mix the noise of neighbours, here over FWHM 2.
    mixed = smooth(linear[None], 2.0)[0] / smooth(torch.ones(1, 96, 160), 2.0)[0]
    white = torch.randn((6, 96, 160), generator=make_generator(9))
    variance = declare(white * (0.1 * mixed).sqrt(), linear, torch.full((96, 160), 0.02))
    for columns in (slice(4, 76), slice(80, 82), slice(84, 156)):
        assert float((variance / (0.1 * mixed))[8:-8, columns].mean()) == pytest.approx(1.0, rel=0.15)


def test_few_pixels_that_err_more_do_not_count_for_all() -> None:
    """If it fails, the surroundings of a bright star in a deep exposure raise
    the declared errors of all pixels as bright.
    """
    shape = (120, 120)
    brightness = torch.full(shape, 20.0)
    true = torch.full(shape, 0.5)
    true[50:70, 50:70] = 5.0
    white = torch.randn((6, *shape), generator=make_generator(10))
    variance = declare(white * true.sqrt(), torch.ones(shape), brightness)
    ratio = (variance / true).sqrt()
    assert float(ratio[:40].median()) == pytest.approx(1.0, abs=0.06)
    assert float(ratio[53:67, 53:67].median()) == pytest.approx(1.0, abs=0.06)


def test_one_draw_is_pooled() -> None:
    """If it fails, a single draw has no declared error, or its own."""
    white = torch.randn((1, 100, 100), generator=make_generator(11))
    variance = declare(white, torch.ones(100, 100), torch.full((100, 100), 0.02))
    assert float(variance.mean()) == pytest.approx(1.0, rel=0.05)
    assert float(variance.std()) < 0.3


@torch.no_grad()
def test_bootstrap_knows_the_error_of_the_linear_image() -> None:
    """If it fails, the errors of repeated observations are not those of the
    first one.
    """
    stack = make_exposure_stack(SHAPE, FWHMS, seed=None)
    estimator = make_estimator(stack)
    estimate = estimator.estimate(stack.images)
    debiased = dataclasses.replace(estimate.debiased, image=estimate.linear)
    truth = dataclasses.replace(estimate, debiased=debiased)
    draws = draw_noise(stack.variances, 12, seed=6)
    errors = repeat_observations(estimator, truth, draws)
    real = torch.stack([estimator.estimate(stack.images + draw).linear for draw in draws])
    real = estimator.model.crop(real - truth.linear)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert float(errors.linear[inner].std()) == pytest.approx(float(real[inner].std()), rel=0.03)


def test_noise_in_holes_and_thin_parts_is_declared() -> None:
    """If it fails, pixels that no exposure has pass for measured ones."""
    shape = (112, 120)
    stack = make_exposure_stack(shape, (4.6, 5.4, 6.2), stars=[])
    good = stack.good.numpy().copy()
    for y in (24, 60, 90):
        for x in (24, 52, 76):
            good[:, y - 4 : y + 5, x - 4 : x + 5] = False
    # Only the widest reaches the border.
    good[:2, :, 100:] = False
    thin = np.zeros(shape, dtype=bool)
    thin[8:-8, 101:112] = True
    pulls: dict[str, list[np.ndarray]] = {"hole": [], "thin": []}
    for seed in range(2):
        noise = torch.randn(stack.images.shape, generator=make_generator(seed)).numpy()
        result = restore(
            noise, np.ones_like(noise), good, stack.psfs.numpy(), target_fwhm=3.4, options=QUICK, seed=seed
        )
        pull = result.linear_image / np.sqrt(result.linear_variance)
        pulls["hole"].append(pull[~good.any(axis=0)])
        pulls["thin"].append(pull[thin])
    for values in pulls.values():
        assert 0.6 < float(np.sqrt(np.mean(np.concatenate(values) ** 2))) < 1.5
