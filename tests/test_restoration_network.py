# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network that is trained once: what it can and cannot do to a bank."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator, RestorationNetwork, mix_by_prior
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import make_exposure_stack

PENALTY_WEIGHTS = (1e-5, 1e-3, 1e-1)
SHAPE = (44, 58)
MARGIN = 7
"""Margin that the PSFs of these tests need."""


def make_bank(scale: float = 1.0, order: tuple[int, ...] = (0, 1, 2)) -> FilterBank:
    """Return the bank of three exposures of a star and blank sky."""
    stack = make_exposure_stack(SHAPE, (3.2, 4.0, 4.6), stars=[(20.3, 30.8, 800.0)]).select(
        torch.tensor(order)
    )
    weights = torch.ones_like(stack.images) / scale**2
    estimator = LinearEstimator(ForwardModel.from_stack(stack, 3.6), weights)
    solved = estimator.solve(estimator.right_side(stack.images * scale), PENALTY_WEIGHTS)
    return FilterBank.build(estimator, solved, PENALTY_WEIGHTS)


@functools.cache
def known_bank() -> FilterBank:
    """Return the bank that most tests need."""
    return make_bank()


def make_network(spread: float = 0.0, seed: int = 1) -> RestorationNetwork:
    """Return an initialised network, its parameters disturbed."""
    network = RestorationNetwork(PENALTY_WEIGHTS)
    generator = make_generator(seed)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@torch.no_grad()
def apply(network: RestorationNetwork, bank: FilterBank, origin: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Return the image without gradients."""
    return network(bank, origin)


def test_start_is_near_the_prior() -> None:
    """If it fails, a training starts far from a usable image."""
    bank = known_bank()
    expected = torch.maximum(mix_by_prior(bank), -0.1 * bank.sky_noise)
    distance = (apply(make_network(), bank) - expected) / bank.sky_noise
    inner = distance[MARGIN : MARGIN + SHAPE[0], MARGIN : MARGIN + SHAPE[1]]
    assert float(inner.abs().median()) < 0.5
    # The peak of a star of 800 sigma a pixel.
    assert float(distance[27, 38].abs()) < 0.3 * float(expected[27, 38] / bank.sky_noise[27, 38])


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_result_follows_the_unit(scale: float) -> None:
    """If it fails, results differ between photometric zero points."""
    network = make_network(spread=0.05)
    expected, bank = apply(network, known_bank()), make_bank(scale)
    inner = (slice(MARGIN, MARGIN + SHAPE[0]), slice(MARGIN, MARGIN + SHAPE[1]))
    error = (apply(network, bank) / scale - expected) / known_bank().sky_noise
    assert float(error[inner].abs().max()) < 0.02


def test_order_of_exposures_does_not_matter() -> None:
    """If it fails, the same exposures give other images."""
    network = make_network(spread=0.05)
    first, second = apply(network, known_bank()), apply(network, make_bank(order=(2, 0, 1)))
    inner = (slice(MARGIN, MARGIN + SHAPE[0]), slice(MARGIN, MARGIN + SHAPE[1]))
    assert float(((first - second) / known_bank().sky_noise)[inner].abs().max()) < 0.02


@pytest.mark.parametrize("shift", [(8, 0), (0, 16), (3, 5)])
def test_image_follows_its_place(shift: tuple[int, int]) -> None:
    """If it fails, the image depends on how a patch is cut into tiles."""
    network, bank = make_network(spread=0.05), known_bank()
    rows, columns = slice(shift[0], None), slice(shift[1], None)
    part = bank.map(lambda maps: maps[..., rows, columns].contiguous())
    moved, whole = apply(network, part, shift), apply(network, bank)[rows, columns]
    # What is cut off is seen within a few pixels of the finest resolution, and
    # by all of the coarsest of so small an image.
    far = (slice(24, None), slice(24, None))
    difference = (moved - whole)[far] / bank.sky_noise[rows, columns][far]
    assert float(difference.abs().max()) < 0.2


def test_pixels_of_coarse_resolutions_are_those_of_the_patch() -> None:
    """If it fails, tiles see other averages than the whole patch."""
    network, bank = make_network(spread=0.05), known_bank()
    assert torch.equal(apply(network, bank, (16, 24)), apply(network, bank))
    assert not torch.equal(apply(network, bank, (3, 0)), apply(network, bank))


def test_nothing_below_the_sky_level() -> None:
    """If it fails, stars are surrounded by dark rings."""
    bank = known_bank()
    image = apply(make_network(spread=0.3), bank)
    assert float((image / bank.sky_noise).min()) == pytest.approx(-0.1, abs=1e-5)


def test_residual_is_bounded() -> None:
    """If it fails, the network can make up structure."""
    network, bank = make_network(spread=0.3), known_bank()
    lowest, highest = bank.estimates.amin(dim=0), bank.estimates.amax(dim=0)
    bound = 3.0 * bank.noise[1] * bank.relative_noise
    image = apply(network, bank)
    assert bool((image <= torch.maximum(highest + bound, -0.1 * bank.sky_noise) + 1e-4).all())
    assert bool((image >= lowest - bound - 1e-4).all())


def test_conditions_matter() -> None:
    """If it fails, the network cannot tell sharp exposures from others."""
    network, bank = make_network(spread=0.05), known_bank()
    other = dataclasses.replace(bank, step_noise=1.5 * bank.step_noise)
    features = {"features": bank.features, "log_prior": bank.log_prior}
    other.__dict__.update(features)
    assert not torch.equal(apply(network, other), apply(network, bank))


def test_size() -> None:
    """If it fails, the packaged file and the time of a patch grow."""
    assert RestorationNetwork((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)).num_parameters < 120_000


def test_every_parameter_learns() -> None:
    """If it fails, a part of the network is dead weight."""
    network, bank = make_network(spread=0.05).train(), known_bank()
    (network(bank) - bank.estimates[1]).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0.0, name
