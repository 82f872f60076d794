# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The mixing network: what it can and cannot do to a bank."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core import NetworkOptions
from lsst.astroclearnet.core.estimate import FilterBank, LinearEstimator, MixingNetwork
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import make_exposure_stack

OPTIONS = NetworkOptions(penalty_weights=(1e-5, 1e-3, 1e-1), hidden_channels=8)
DATA = (slice(7, 51), slice(7, 65))


def make_bank(scale: float = 1.0) -> FilterBank:
    """Return the bank of three exposures of a star and blank sky."""
    stack = make_exposure_stack((44, 58), (3.2, 4.0, 4.6), stars=[(20.3, 30.8, 800.0)])
    model = ForwardModel.from_stack(stack, 3.6)
    weights = torch.ones_like(stack.images) / scale**2
    estimator = LinearEstimator(model, weights)
    estimates = estimator.solve(estimator.right_side(stack.images * scale), OPTIONS.penalty_weights)
    return FilterBank.build(estimator, estimates, OPTIONS.penalty_weights)


def make_network(options: NetworkOptions = OPTIONS, seed: int = 1, spread: float = 0.0) -> MixingNetwork:
    """Return an initialised network, its parameters disturbed."""
    network = MixingNetwork(options)
    generator = make_generator(seed)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_weights_are_a_partition(spread: float) -> None:
    """If it fails, the network changes fluxes or makes up structure."""
    with torch.no_grad():
        weights = make_network(spread=spread).mixture(make_bank())
    assert bool((weights > 0).all())
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(weights.shape[1:]))


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_result_follows_the_unit(scale: float) -> None:
    """If it fails, results differ between photometric zero points."""
    network, bank, scaled = make_network(spread=0.2), make_bank(), make_bank(scale)
    with torch.no_grad():
        torch.testing.assert_close(
            network.mixture(scaled)[:, *DATA], network.mixture(bank)[:, *DATA], rtol=0.0, atol=1e-3
        )
        torch.testing.assert_close(
            network(scaled)[DATA] / scale, network(bank)[DATA], rtol=1e-3, atol=1e-3 * float(bank.noise[2])
        )


@pytest.mark.parametrize("level", [-0.7, 0.0, 1.3])
def test_nothing_below_the_sky_level(level: float) -> None:
    """If it fails, stars are surrounded by dark rings."""
    network, bank = make_network(), make_bank()
    with torch.no_grad():
        network.sky_level.fill_(level)
        image = network(bank)
        linear = (network.mixture(bank) * bank.estimates).sum(dim=0)
    assert float(image.min()) == pytest.approx(level * float(bank.noise[2]), abs=1e-6)
    above = linear > level * float(bank.noise[2])
    torch.testing.assert_close(image[above], linear[above])


def test_negative_values_on_request() -> None:
    """If it fails, noise cannot be kept symmetric for photometry."""
    options = NetworkOptions(penalty_weights=OPTIONS.penalty_weights, hidden_channels=8, non_negative=False)
    network, bank = make_network(options), make_bank()
    with torch.no_grad():
        network.sky_level.fill_(5.0)
        weights = network.mixture(bank)
        torch.testing.assert_close(network(bank), (weights * bank.estimates).sum(dim=0))
        assert float(network(bank).min()) < 0.0


def test_size() -> None:
    """If it fails, the fit of one patch has too many free parameters."""
    network = MixingNetwork(NetworkOptions())
    # 21 features, 20 hidden channels, 3 x 3 kernels, 10 weights, sky level.
    assert network.num_parameters == 20 * (21 * 9 + 1) + 20 * (20 * 9 + 1) + 10 * (20 + 1) + 1
    assert network.num_parameters < 10_000


def test_every_parameter_learns() -> None:
    """If it fails, a part of the network is dead weight."""
    network, bank = make_network(), make_bank()
    # Some sky must lie above the level for the level itself to matter.
    (network(bank) - bank.estimates[1]).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0.0, name


def test_start_prefers_smooth_sky_and_sharp_stars() -> None:
    """If it fails, the fit starts far from a usable image."""
    with torch.no_grad():
        weights = make_network().mixture(make_bank())
    sharp, smooth = weights[0], weights[2:].sum(dim=0)
    assert float(sharp[27, 38]) > 0.9
    # Noise, too, makes a neighbourhood significant now and then.
    assert float(smooth[9:47, 9:25].mean()) > 0.7
    assert float(sharp[14:52, 14:30].mean()) < 0.2


def test_initialisation_follows_the_seed() -> None:
    """If it fails, a fit cannot be repeated."""
    first, second, other = (make_network(seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
