# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The filter bank: what the network sees, and in which units."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import make_exposure_stack

PENALTY_WEIGHTS = (1e-5, 1e-3, 1e-1)
SHAPE = (44, 58)
MARGIN = 7
"""Margin that the PSFs of these tests need."""


def make_bank(scale: float = 1.0, stars: list[tuple[float, float, float]] | None = None) -> FilterBank:
    """Return the bank of three exposures, one third of them half deep."""
    stack = make_exposure_stack(SHAPE, (3.2, 4.0, 4.6), stars=stars or [])
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
    assert len(bank.estimates) == 3
    assert bank.features.shape == (6, *full)
    assert bank.significance.shape == (2, *full)
    assert bank.covariances.shape == (3, 3)
    assert bool(torch.isfinite(bank.features).all())
    assert bool(torch.isfinite(bank.significance).all())


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_features_have_no_unit(scale: float) -> None:
    """If it fails, the network behaves differently in other units."""
    expected, scaled = (make_bank(s, [(20.0, 30.0, 500.0)]) for s in (1.0, scale))
    data = (slice(None), slice(MARGIN, MARGIN + SHAPE[0]), slice(MARGIN, MARGIN + SHAPE[1]))
    torch.testing.assert_close(scaled.features[data], expected.features[data], rtol=0.0, atol=2e-3)
    torch.testing.assert_close(
        scaled.estimates[data] / scale, expected.estimates[data], rtol=0.0, atol=5e-3 * expected.unit
    )
    assert scaled.unit == pytest.approx(scale * expected.unit, rel=1e-4)


def test_features_of_noise_have_unit_width() -> None:
    """If it fails, a 3 sigma fluctuation is not one to the network."""
    bank = make_bank()
    inner = (slice(None), slice(20, 48), slice(42, 60))
    width = torch.sinh(bank.features[:5])[inner].std(dim=(1, 2))
    # Few independent pixels in the smoothest estimates.
    torch.testing.assert_close(width, torch.ones(5), rtol=0.0, atol=0.35)


def test_depth() -> None:
    """If it fails, the network cannot tell thin from deep parts."""
    bank = make_bank()
    depth = bank.features[-1].square()
    data = depth[MARGIN : MARGIN + SHAPE[0], MARGIN : MARGIN + SHAPE[1]]
    torch.testing.assert_close(data[:, :20], torch.full((SHAPE[0], 20), 0.5))
    torch.testing.assert_close(data[:, 20:], torch.ones(SHAPE[0], 38))
    assert not depth[:MARGIN].any()


def test_covariances() -> None:
    """If it fails, mixing sharp and smooth estimates has a wrong error."""
    bank = make_bank()
    torch.testing.assert_close(bank.covariances, bank.covariances.T)
    assert bool((torch.linalg.eigvalsh(bank.covariances.double()) > 0).all())
    assert bool((bank.covariances.diagonal().diff() < 0).all())
    assert bank.unit == pytest.approx(float(bank.covariances[2, 2]) ** 0.5)


def test_star_is_significant() -> None:
    """If it fails, stars are smoothed like noise."""
    bank = make_bank(stars=[(20.0, 40.0, 500.0)])
    assert float(bank.significance[:, MARGIN + 20, MARGIN + 40].min()) > 3.0
    assert float(bank.significance[:, 27:45, 15:31].median()) < 2.0
