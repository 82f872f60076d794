# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The optimiser loop: progress, stop and repeatability."""

from __future__ import annotations

import copy
import dataclasses
import logging

import pytest
import torch

from lsst.astroclearnet.core import FitOptions, NetworkOptions
from lsst.astroclearnet.core.estimate import (
    FitHistory,
    MixingNetwork,
    TrainingSample,
    fit_network,
    make_samples,
)
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import make_exposure_stack

NETWORK = NetworkOptions(penalty_weights=(1e-5, 1e-3, 1e-1), hidden_channels=6)


@pytest.fixture(scope="module")
def samples() -> list[TrainingSample]:
    """Return what a network of three penalty weights is fitted to."""
    stack = make_exposure_stack((66, 80), (3.2, 4.0, 4.6))
    model = ForwardModel.from_stack(stack, 3.6)
    weights = stack.good / stack.variances
    return make_samples(stack, weights, model, NETWORK.penalty_weights, FitOptions(), make_generator(0))


def fit(
    samples: list[TrainingSample], options: FitOptions, seed: int = 1
) -> tuple[MixingNetwork, FitHistory, list[tuple[int, float, float]]]:
    """Return a fitted network, its history and what the callback got."""
    network, generator = MixingNetwork(NETWORK), make_generator(seed)
    network.initialize(generator)
    calls: list[tuple[int, float, float]] = []
    history = fit_network(
        network, samples, options, generator=generator, callback=lambda *args: calls.append(args)
    )
    return network, history, calls


def mean_loss(network: MixingNetwork, samples: list[TrainingSample], *, validation: bool) -> float:
    """Return the mean loss of a network on one side of the blocks."""
    total, number = 0.0, 0
    with torch.no_grad():
        for sample in samples:
            predicted = sample.model.predict(network(sample.bank), sample.held_out)
            size = ((sample.images - predicted) * sample.inverse_sigma).abs()
            # Gaussian up to 3 sigma; the pull of an outlier is bounded.
            loss = torch.where(size <= 3.0, 0.5 * size**2, 3.0 * (size - 1.5))
            used = (sample.inverse_sigma > 0) & (sample.validation == validation)
            total, number = total + float(loss[used].sum()), number + int(used.sum())
    return total / number


@pytest.fixture(scope="module")
def fitted(
    samples: list[TrainingSample],
) -> tuple[MixingNetwork, FitHistory, list[tuple[int, float, float]]]:
    """Return a fit with the default settings."""
    return fit(samples, FitOptions())


def test_fit_improves_and_converges(
    samples: list[TrainingSample], fitted: tuple[MixingNetwork, FitHistory, object]
) -> None:
    """If it fails, the network does not learn, or never stops."""
    network, history, _ = fitted
    start = MixingNetwork(NETWORK)
    start.initialize(make_generator(1))
    assert history.converged
    assert history.stop_reason == "converged"
    assert len(history.loss) < FitOptions().max_epochs
    assert min(history.loss) < history.loss[0]
    for validation in (False, True):
        assert mean_loss(network, samples, validation=validation) < mean_loss(
            start, samples, validation=validation
        )
    # Unit Gaussian noise on top of a perfect prediction costs 1/2 a pixel.
    assert 0.45 < history.validation_loss[history.best_epoch] < 0.6


def test_history_starts_with_the_initial_parameters(
    samples: list[TrainingSample], fitted: tuple[MixingNetwork, FitHistory, object]
) -> None:
    """If it fails, losses are not those of the parameters they stand for."""
    network, history, _ = fitted
    start = MixingNetwork(NETWORK)
    start.initialize(make_generator(1))
    for validation, losses in ((False, history.loss), (True, history.validation_loss)):
        expected = (mean_loss(start, samples, validation=validation), losses[0])
        assert expected[1] == pytest.approx(expected[0], rel=1e-5)
        kept = mean_loss(network, samples, validation=validation)
        assert losses[history.best_epoch] == pytest.approx(kept, rel=1e-5)


def test_patience_decides_the_stop(samples: list[TrainingSample]) -> None:
    """If it fails, the fit gives up at the first stand-still."""
    # Steps too small to gain anything: the size is cut four times.
    history = fit(samples, FitOptions(learning_rate=1e-12, patience=2))[1]
    assert history.stop_reason == "converged"
    assert len(history.loss) == 1 + 5 * 2


def test_large_gradients_are_cut(samples: list[TrainingSample]) -> None:
    """If it fails, one bright star undoes the steps before."""
    states = []
    for scale in (100.0, 1e4):
        bright = dataclasses.replace(samples[0], inverse_sigma=scale * samples[0].inverse_sigma)
        network, generator = MixingNetwork(NETWORK), make_generator(1)
        network.initialize(generator)
        fit_network(
            network,
            [bright, samples[1]],
            # Quadratic throughout: gradients differ in size alone.
            FitOptions(huber_delta=1e9, max_epochs=1),
            generator=generator,
            callback=lambda *_, network=network: states.append(copy.deepcopy(network.state_dict())),
        )
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-4, atol=1e-5)


def test_callback_gets_every_epoch(
    fitted: tuple[MixingNetwork, FitHistory, list[tuple[int, float, float]]],
) -> None:
    """If it fails, progress cannot be watched."""
    _, history, calls = fitted
    assert calls == [
        (epoch, history.loss[epoch], history.validation_loss[epoch]) for epoch in range(1, len(history.loss))
    ]


def test_best_state_is_restored(samples: list[TrainingSample]) -> None:
    """If it fails, the last parameters are kept instead of the best."""
    # Steps far too large: the fit gets worse after some epoch.
    options = FitOptions(learning_rate=3.0, max_epochs=6, patience=20)
    network, generator = MixingNetwork(NETWORK), make_generator(1)
    network.initialize(generator)
    states = [copy.deepcopy(network.state_dict())]
    history = fit_network(
        network,
        samples,
        options,
        generator=generator,
        callback=lambda *_: states.append(copy.deepcopy(network.state_dict())),
    )
    best = min(range(7), key=lambda k: history.validation_loss[k])
    assert history.best_epoch == best
    assert best < 6
    kept = network.state_dict()
    assert all(torch.equal(kept[key], states[best][key]) for key in kept)


def test_bound_on_epochs_is_reported(samples: list[TrainingSample], caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, an unfinished fit passes for a converged one."""
    with caplog.at_level(logging.WARNING, logger="lsst.astroclearnet"):
        history = fit(samples, FitOptions(max_epochs=2))[1]
    assert not history.converged
    assert history.stop_reason == "reached max_epochs=2"
    assert len(history.loss) == 3
    assert history.num_epochs == 2
    assert "reached max_epochs=2 before it converged" in caplog.text


def test_same_seed_same_parameters(samples: list[TrainingSample]) -> None:
    """If it fails, a coadd cannot be reproduced."""
    options = FitOptions(max_epochs=3)
    first, second, other = (fit(samples, options, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_history_without_fit() -> None:
    """If it fails, an image that was never fitted passes for converged."""
    history = FitHistory()
    assert not history.converged
    assert history.best_epoch == -1
    assert history.stop_reason == "not fitted"


def test_sample_without_validation_pixels(samples: list[TrainingSample]) -> None:
    """If it fails, tiny patches stop at once or never."""
    bare = TrainingSample(**{**vars(samples[0]), "validation": torch.zeros_like(samples[0].validation)})
    history = fit([bare], FitOptions(max_epochs=4))[1]
    assert history.validation_loss == [0.0] * 5
    assert history.best_epoch == min(range(5), key=lambda k: history.loss[k])
