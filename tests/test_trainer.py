# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the network: its samples, its steps, and how it goes on."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from lsst.astroclearnet.core import (
    ExposureStack,
    InputError,
    RejectionOptions,
    RestoreOptions,
    TrainingOptions,
)
from lsst.astroclearnet.core.estimate import FilterBank, TrainingSample, mix_by_prior
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.training import Trainer, collect_samples
from lsst.astroclearnet.core.training._trainer import _Changed
from lsst.astroclearnet.tests import make_exposure_stack

OPTIONS = TrainingOptions(num_steps=24, tile_size=64, crop_size=64, num_splits=2, tiles_per_patch=1)
RESTORATION = RestoreOptions(rejection=RejectionOptions(enabled=False))
CPU = torch.device("cpu")


def collect(
    stack: ExposureStack, seed: int = 3, target_fwhm: float = 3.6, options: TrainingOptions = OPTIONS
) -> list[TrainingSample]:
    """Return samples of a stack."""
    return collect_samples(
        StackSource(stack),
        target_fwhm=target_fwhm,
        options=options,
        restoration=RESTORATION,
        seed=seed,
        device=CPU,
    )


def make_stack() -> ExposureStack:
    """Return five exposures of three stars."""
    return make_exposure_stack((66, 80), (3.2, 4.0, 4.8, 3.6, 4.2))


@pytest.fixture(scope="module")
def samples() -> list[TrainingSample]:
    """Samples of a small patch."""
    return collect(make_stack())


def make_trainer(seed: int = 5) -> Trainer:
    """Return a new trainer."""
    return Trainer(RESTORATION.network.penalty_weights, OPTIONS, seed=seed, device=CPU)


def are_equal(first: Trainer, second: Trainer) -> bool:
    """Tell whether both networks of two trainers are the same, bit by bit."""
    for kind in ("current", "average"):
        a, b = first.state()[kind], second.state()[kind]
        if not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return True


def test_exposures_seen_are_not_predicted(samples: list[TrainingSample]) -> None:
    """If this fails, the network learns to copy noise."""
    assert len(samples) == 2
    for sample in samples:
        assert 0 < sample.num_seen < 5
        # One that is too sharp is neither seen nor predicted.
        assert 0 < len(sample.held_out) <= 5 - sample.num_seen
        assert sample.images.shape[0] == len(sample.held_out)
        assert bool((sample.inverse_sigma > 0).any())


def test_samples_follow_from_the_seed(samples: list[TrainingSample]) -> None:
    """If this fails, a training that goes on sees other samples."""
    again, other = collect(make_stack()), collect(make_stack(), seed=4)
    for a, b in zip(samples, again, strict=True):
        assert torch.equal(a.held_out, b.held_out)
        assert torch.equal(a.bank.estimates, b.bank.estimates)
    assert [s.held_out.tolist() for s in other] != [s.held_out.tolist() for s in samples]


def test_single_exposure_has_no_samples() -> None:
    assert collect(make_exposure_stack((66, 80), (3.2,))) == []


def test_target_much_wider_than_exposures_is_refused() -> None:
    with pytest.raises(InputError, match="FWHM"):
        collect(make_stack(), target_fwhm=30.0)


def test_loss_falls(samples: list[TrainingSample]) -> None:
    """If this fails, nothing is learned."""
    trainer = make_trainer()
    before = trainer.evaluate(samples)
    trainer.train(samples, 12)
    between = trainer.evaluate(samples)
    trainer.train(samples, 100)
    assert trainer.is_done
    assert trainer.step == OPTIONS.num_steps
    assert before > between > trainer.evaluate(samples)


def test_training_goes_on_after_any_step(samples: list[TrainingSample]) -> None:
    """If this fails, a network depends on when its training was killed."""
    whole = make_trainer()
    whole.train(samples, 5)
    first = make_trainer()
    first.train(samples, 2)
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = make_trainer()
    second.resume(torch.load(file, weights_only=True))
    assert second.step == 2
    assert are_equal(first, second)
    second.train(samples, 1)
    second.train(samples, 2)
    assert second.step == whole.step
    assert are_equal(second, whole)


def test_evaluation_changes_nothing(samples: list[TrainingSample]) -> None:
    first, second = make_trainer(), make_trainer()
    for _ in range(2):
        first.train(samples, 1)
        second.train(samples, 1)
        assert first.evaluate(samples) == first.evaluate(samples)
    assert are_equal(first, second)


def test_seed_decides_the_network(samples: list[TrainingSample]) -> None:
    first, second = make_trainer(1), make_trainer(2)
    first.train(samples, 1)
    second.train(samples, 1)
    assert not are_equal(first, second)


@pytest.mark.parametrize(("turns", "flips", "light"), [(0, False, 0.0), (1, True, 0.0), (3, False, 30.0)])
def test_changes_of_a_sample_are_undone(
    samples: list[TrainingSample], turns: int, flips: bool, light: float
) -> None:
    """If this fails, the network learns another sky than it sees.

    The mean by prior weights depends on neither direction nor even light.
    """
    bank = samples[0].bank
    torch.testing.assert_close(
        _Changed(mix_by_prior, turns, flips, light)(bank), mix_by_prior(bank), rtol=1e-4, atol=1e-3
    )


def test_network_sees_more_light(samples: list[TrainingSample]) -> None:
    """If this fails, a nebula is beyond what the network has seen."""
    bank, seen = samples[0].bank, []

    def network(changed: FilterBank) -> torch.Tensor:
        seen.append(changed.estimates)
        return mix_by_prior(changed)

    _Changed(network, 0, False, 30.0)(bank)
    _Changed(network, 1, False, 0.0)(bank)
    torch.testing.assert_close(seen[0], bank.estimates + 30.0 * bank.noise[bank.num_solved - 1])
    torch.testing.assert_close(seen[1], torch.rot90(bank.estimates, 1, (-2, -1)))


def test_detail_counts(samples: list[TrainingSample]) -> None:
    """If this fails, detail is learned slowly."""
    losses = []
    for weight in (0.0, 4.0, 8.0):
        options = dataclasses.replace(OPTIONS, detail_weight=weight)
        trainer = Trainer(RESTORATION.network.penalty_weights, options, seed=5, device=CPU)
        losses.append(trainer.evaluate(samples))
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)
    assert losses[1] > 2.0 * losses[0]
