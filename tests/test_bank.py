# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The filter bank: what the network sees, and in which units."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lsst.astroclearnet.core import ExposureStack
from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator, bank_noise
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import make_exposure_stack

PENALTY_WEIGHTS = (1e-5, 1e-3, 1e-1)
SHAPE = (44, 58)
MARGIN = 7
"""Margin that the PSFs of these tests need."""


def make_stack(stars: list[tuple[float, float, float]] | None = None) -> ExposureStack:
    """Return three exposures."""
    return make_exposure_stack(SHAPE, (3.2, 4.0, 4.6), stars=stars or [])


def make_bank(scale: float = 1.0, stars: list[tuple[float, float, float]] | None = None) -> FilterBank:
    """Return the bank of three exposures, one third of them half deep."""
    stack = make_stack(stars)
    weights = torch.ones(3, *SHAPE)
    weights[:, :, :20] = 0.5
    model = ForwardModel.from_stack(stack, 3.6)
    estimator = LinearEstimator(model, weights / scale**2)
    estimates = estimator.solve(estimator.right_side(stack.images * scale), PENALTY_WEIGHTS)
    return FilterBank.build(estimator, estimates, PENALTY_WEIGHTS)


def test_shapes() -> None:
    """If it fails, the network is fed planes in the wrong place."""
    bank = make_bank()
    full = bank.estimates.shape[1:]
    assert (len(bank.estimates), bank.num_solved) == (7, 3)
    assert bank.features.shape == (15, *full)
    assert bank.log_ratios.shape == (12,)
    assert bank.log_prior.shape == bank.estimates.shape
    assert bool(torch.isfinite(bank.features).all())
    assert bool(torch.isfinite(bank.log_ratios).all())


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_features_have_no_unit(scale: float) -> None:
    """If it fails, the network behaves differently in other units."""
    expected, scaled = (make_bank(s, [(20.0, 30.0, 500.0)]) for s in (1.0, scale))
    data = (slice(None), slice(MARGIN, MARGIN + SHAPE[0]), slice(MARGIN, MARGIN + SHAPE[1]))
    torch.testing.assert_close(scaled.features[data], expected.features[data], rtol=0.0, atol=2e-3)
    torch.testing.assert_close(
        scaled.estimates[data] / scale,
        expected.estimates[data],
        rtol=0.0,
        atol=5e-3 * float(expected.noise[2]),
    )
    torch.testing.assert_close(scaled.noise, scale * expected.noise, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(scaled.log_ratios, expected.log_ratios, rtol=0.0, atol=1e-4)


def test_features_of_noise_have_unit_width() -> None:
    """If it fails, a 3 sigma fluctuation is not one to the network."""
    bank = make_bank()
    inner = (slice(None), slice(20, 48), slice(42, 60))
    # The smoothest have too few independent pixels.
    planes = bank.features[[0, 1, 2, 3, 7, 8, 9]]
    width = torch.sinh(planes)[inner].std(dim=(1, 2))
    torch.testing.assert_close(width, torch.ones(7), rtol=0.0, atol=0.35)


def test_depth() -> None:
    """If it fails, the network cannot tell thin from deep parts."""
    bank = make_bank()
    depth = bank.features[-2].square()
    data = depth[MARGIN : MARGIN + SHAPE[0], MARGIN : MARGIN + SHAPE[1]]
    torch.testing.assert_close(data[:, :20], torch.full((SHAPE[0], 20), 0.5))
    torch.testing.assert_close(data[:, 20:], torch.ones(SHAPE[0], 38))
    assert not depth[:MARGIN].any()


def test_noise() -> None:
    """If it fails, mixing sharp and smooth estimates has a wrong error."""
    bank = make_bank()
    assert bool((bank.noise.diff() < 0).all())
    assert bool((bank.step_noise < bank.noise[:-1]).all())
    estimator = LinearEstimator(ForwardModel.from_stack(make_stack(), 3.6), torch.ones(3, *SHAPE))
    noise = bank_noise(estimator, PENALTY_WEIGHTS)
    # Two thirds of the pixels are at full weight here and there.
    torch.testing.assert_close(noise[0], bank.noise, rtol=1e-3, atol=0.0)


def test_star_is_preferred_sharp() -> None:
    """If it fails, stars are smoothed like noise, and noise is not."""
    bank = make_bank(stars=[(20.0, 40.0, 500.0)])
    shares = torch.softmax(bank.log_prior, dim=0)
    assert float(shares[0, MARGIN + 20, MARGIN + 40]) > 0.9
    assert float(shares[:2, 27:45, 15:31].sum(dim=0).median()) < 0.1


@pytest.mark.parametrize("function", [lambda x: x.flip(-1), lambda x: torch.rot90(x, 1, dims=(-2, -1))])
def test_bank_turns_as_a_whole(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """If it fails, a network learns from planes that do not match."""
    bank = make_bank(stars=[(20.0, 40.0, 500.0)])
    turned = bank.map(function)
    torch.testing.assert_close(turned.features, function(bank.features))
    torch.testing.assert_close(turned.log_prior, function(bank.log_prior))
    assert turned.log_ratios.equal(bank.log_ratios)
