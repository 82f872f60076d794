# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training of the packaged network, and of its ceiling on the truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from astroclearnet_benchmarks.training import _joint, draw_recipe, render_scene
from astroclearnet_benchmarks.training._ceiling import TrueSample, TrueTrainer
from astroclearnet_benchmarks.training.command import main
from lsst.astroclearnet.core import (
    ExposureStack,
    RejectionOptions,
    RestorationModel,
    RestoreOptions,
    TrainingOptions,
)
from lsst.astroclearnet.core.estimate import mix_by_prior
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.training import collect_samples

OPTIONS = TrainingOptions(num_steps=24, tile_size=128, crop_size=96, num_splits=1)
RESTORATION = RestoreOptions(rejection=RejectionOptions(enabled=False))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples() -> list[TrueSample]:
    """Samples of a dithered scene with stars."""
    recipes = (draw_recipe(seed) for seed in range(600))
    recipe = next(r for r in recipes if r.is_dithered and len(r.exposures) == 3 and r.sky["faint_stars"] > 20)
    scene = render_scene(recipe)
    stack = ExposureStack.from_arrays(
        scene.images, scene.variances, scene.good, scene.psfs, positions=scene.positions, in_noise_units=True
    )
    found = collect_samples(
        StackSource(stack),
        target_fwhm=scene.target_fwhm,
        options=OPTIONS,
        restoration=RESTORATION,
        seed=1,
        device=CPU,
    )
    return [TrueSample.from_sample(sample, scene.truth / stack.unit) for sample in found]


def test_truth_lies_where_exposures_are_held_out(samples: list[TrueSample]) -> None:
    """If this fails, the ceiling is one of a shifted sky."""
    errors = np.zeros((3, 3))
    for sample in samples:
        bank, model = sample.bank, sample.model
        used = model.crop(bank.coverage) > 0.999
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                shifted = torch.roll(sample.truth, (row, column), (0, 1))
                error = (model.crop(bank.estimates[1]) - shifted) / model.crop(bank.relative_noise)
                errors[row + 1, column + 1] += float((error[used] ** 2).sum())
    assert len(samples) > 3
    assert errors[1, 1] == errors.min()
    assert np.sort(errors.ravel())[1] > 1.02 * errors.min()


def test_ceiling_comes_closer_to_the_truth(samples: list[TrueSample]) -> None:
    """If this fails, the ceiling is learned from something else."""
    trainer = TrueTrainer(RESTORATION.network.penalty_weights, OPTIONS, seed=5, device=CPU)
    before = trainer.evaluate(samples)
    trainer.train(samples, OPTIONS.num_steps)
    assert trainer.evaluate(samples) < before
    # Nothing but the truth counts.
    dark = dataclasses.replace(samples[0], truth=torch.zeros_like(samples[0].truth))
    deviation, used = trainer._deviation(lambda bank: torch.zeros_like(mix_by_prior(bank)), dark)
    assert bool(used.any())
    assert not bool(deviation.any())


def test_samples_on_the_truth_are_not_those_of_exposures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a network is trained on samples of the other kind."""
    monkeypatch.setattr(_joint, "_collect_true", lambda seed: [f"truth {seed}"])
    monkeypatch.setattr(_joint, "_collect", lambda seed: [f"exposures {seed}", "more"])
    for kind in ("exposures", "truth", "exposures"):
        found = _joint.StoredSamples(_joint.simulate_bands(7, tmp_path, kind == "truth"))
        assert found[0] == f"{kind} 7"
        assert len(found) == (1 if kind == "truth" else 2)


@pytest.mark.slow
def test_command_writes_a_network(tmp_path: Path) -> None:
    """If this fails, the packaged network cannot be made again."""
    words = ["--scenes", "3", "--steps", "2", "--jobs", "1", "--work", str(tmp_path / "work"), "--output"]
    identities = []
    for name, more in (("first", []), ("again", []), ("truth", ["--on-truth"])):
        path = tmp_path / name
        assert main([*words, str(path), *more]) == 0
        model = RestorationModel.from_bytes(path.read_bytes())
        assert ("truth" in model.provenance["trained_on"]) is bool(more)
        identities.append(model.identity)
    assert identities[0] == identities[1] != identities[2]
