# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Errors of the restored image against integrals and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import (
    FilterBank,
    ForwardModel,
    NetworkOptions,
    draw_noise,
    make_generator,
    noise_ratio,
    non_negative_error,
    propagate_noise,
)
from lsst.astroclearnet.tests import make_exposure_stack

# A closure of infinite strength gives nothing back: the mixture is left.
OPTIONS = NetworkOptions(strengths=(1e-4, 1e-2), closure_strength=1e9)


def integrated_error(excess: float, sigma: float) -> float:
    """Return the error of max(u, 0) by integrating over the truth."""
    top = max(excess, 0.0) + 12.0 * sigma
    step = top / 400_000
    truth = (np.arange(400_000) + 0.5) * step
    exponent = -0.5 * ((truth - excess) / sigma) ** 2
    density = np.exp(exponent - exponent.max())
    return float((density * (truth - max(excess, 0.0)) ** 2).sum() / density.sum())


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(-15.0, 15.0), sigma=st.floats(0.1, 10.0))
def test_error_of_a_clipped_estimate(ratio: float, sigma: float) -> None:
    """If it fails, the variance plane is wrong on blank sky."""
    excess = torch.tensor([ratio * sigma], dtype=torch.float64)
    error = non_negative_error(excess, torch.tensor([sigma**2], dtype=torch.float64))
    assert float(error[0]) == pytest.approx(integrated_error(ratio * sigma, sigma), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits(dtype: torch.dtype) -> None:
    """If it fails, stars or deep shadows have wrong or NaN errors."""
    sigma = 3.0
    excess = torch.tensor([1e4, 30.0, 6.0, 0.0, -3.0, -15.0, -60.0, -1e4], dtype=dtype) * sigma
    error = non_negative_error(excess, torch.full_like(excess, sigma**2)) / sigma**2
    assert bool(torch.isfinite(error).all())
    assert bool((error >= 0).all())
    # Far above the level: the variance itself.  At it: a half-normal truth.
    torch.testing.assert_close(error[:2], torch.ones(2, dtype=dtype))
    assert float(error[3]) == pytest.approx(1.0, rel=1e-5)
    assert bool((error[3:].diff() <= 1e-6).all())
    # Far below, the truth decays as exp(-r x): its mean square is 2 / r^2.
    assert float(error[5]) == pytest.approx(2.0 / 15.0**2, rel=0.06)


def test_drawn_noise_has_the_variance() -> None:
    """If it fails, realisations are quieter or louder than the data."""
    variances = torch.tensor([1.0, 4.0, 0.25])[:, None, None] * torch.linspace(1.0, 2.0, 60)[:, None]
    noise = draw_noise(variances.expand(3, 60, 80), 30, make_generator(1))
    assert noise.shape == (30, 3, 60, 80)
    pull = noise.square().mean(dim=(0, 3)) / variances[:, :, 0]
    # 2400 draws each: a scatter of sqrt(2 / 2400) = 0.029.
    assert float((pull - 1.0).abs().max()) < 5 * 0.029
    assert abs(float(noise.mean())) < 5 * math.sqrt(2.6 / noise.numel())
    assert torch.equal(noise, draw_noise(variances.expand(3, 60, 80), 30, make_generator(1)))


def test_propagated_noise_has_the_variance_of_the_mixture() -> None:
    """If it fails, the variance plane is not that of the estimator."""
    stack = make_exposure_stack((60, 76), (3.4, 4.2, 5.0), sigmas=(1.0, 2.0, 1.5))
    model = ForwardModel.from_stack(stack, 3.8)
    weights = stack.variances.reciprocal()
    bank = FilterBank.build(model, stack.images, weights, OPTIONS.strengths)
    share = torch.linspace(0.1, 0.9, model.latent_shape[1]).expand(model.latent_shape)
    mixture = torch.stack([share, 1.0 - share])
    noise = draw_noise(stack.variances, 25, make_generator(2))
    propagated = model.sample(propagate_noise(noise, mixture, model, weights, OPTIONS))
    variance = model.sample(bank.mixture_variance(mixture))
    inner = torch.zeros(60, 76, dtype=torch.bool)
    inner[12:-12, 12:-12] = True
    assert noise_ratio(propagated, variance, inner) == pytest.approx(1.0, abs=0.05)
    for columns in (slice(12, 30), slice(46, 64)):
        ratio = propagated[:, 12:-12, columns].square().mean() / variance[12:-12, columns].mean()
        assert float(ratio) == pytest.approx(1.0, abs=0.1)


def test_without_realisations() -> None:
    """If it fails, a run without noise realisations fails at its end."""
    stack = make_exposure_stack((40, 44), (3.4, 4.2))
    model = ForwardModel.from_stack(stack, 3.8)
    mixture = torch.full((2, *model.latent_shape), 0.5)
    none = propagate_noise(torch.zeros(0, 2, 40, 44), mixture, model, torch.ones(2, 40, 44), OPTIONS)
    assert none.shape == (0, *model.latent_shape)
    assert noise_ratio(none, torch.ones(model.latent_shape), torch.ones(model.latent_shape).bool()) == 1.0


def test_noise_ratio() -> None:
    """If it fails, correlated noise is not accounted for."""
    draws = torch.tensor([[[1.0, 2.0, 50.0]], [[3.0, 2.0, 50.0]]])
    used = torch.tensor([[True, True, False]])
    assert noise_ratio(draws, torch.tensor([[1.0, 2.0, 1.0]]), used) == pytest.approx((1 + 9 + 2 + 2) / 4)
    assert noise_ratio(draws, torch.ones(1, 3), torch.zeros(1, 3).bool()) == 1.0
