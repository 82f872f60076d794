# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training task: what it learns from, what it writes, how it goes on."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.adapters import model_from_dict
from lsst.astroclearnet.core.training import Trainer, collect_samples
from lsst.astroclearnet.tasks import (
    BandInputs,
    RestorationAlgorithmError,
    TrainingPatch,
    TrainRestorationConfig,
    TrainRestorationTask,
    choose_validation,
    train_restoration,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import VisitImage
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import NoWorkFound, Struct
from lsst.pipe.base.testUtils import assertValidOutput

SHAPE = (96, 150)
MAP = make_patch_geometry(cell_shape=(16, 14))
PENALTY_WEIGHTS = [1e-3, 1e-2, 1e-1]
SAMPLES: dict[tuple[float, ...], Any] = {}


def make_config(**changes: Any) -> TrainRestorationConfig:
    """Return a configuration of a training of seconds."""
    config = TrainRestorationConfig()
    config.geometry_source = "dict"
    config.device = "cpu"
    config.target_fwhm = [0.55]
    config.do_plot = False
    config.restoration.network.penalty_weights = PENALTY_WEIGHTS
    config.restoration.rejection.enabled = False
    config.training.num_steps = 3
    config.training.tile_size = 64
    config.training.crop_size = 64
    config.training.num_splits = 1
    config.training.tiles_per_patch = 1
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def observe(visit: int, offset: tuple[float, float] = (0.0, 0.0), brightness: float = 1.0) -> VisitImage:
    """Return a noisy visit image of stars on both patches."""
    rng = np.random.default_rng(3)
    field = StarField(
        geometry=MAP.patch(3, 0),
        x=rng.uniform(5.0, 105.0, 10),
        y=rng.uniform(5.0, 60.0, 10),
        flux=brightness * rng.uniform(300.0, 6000.0, 10),
    )
    projection = make_projection(SHAPE, offset=offset, visit=visit)
    fwhm = 3.2 + 0.3 * (visit % 5)
    noise = np.random.default_rng(visit).normal(0.0, 1.0, SHAPE)
    return make_visit_image(field.render(projection, SHAPE, fwhm) + noise, projection, fwhm=fwhm)


@pytest.fixture(scope="module")
def visits() -> list[VisitImage]:
    """Three visit images that cover both patches."""
    return [observe(visit, (0.7 * visit, -1.3 * visit)) for visit in range(1, 4)]


@pytest.fixture(autouse=True)
def remember_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the samples of the same exposures and target PSF only once."""

    def remember(source: Any, *, target_fwhm: float, **settings: Any) -> Any:
        key = (target_fwhm, *(float(np.nansum(c.within(source.bbox).image)) for c in source.cutouts))
        if key not in SAMPLES:
            SAMPLES[key] = collect_samples(source, target_fwhm=target_fwhm, **settings)
        return SAMPLES[key]

    monkeypatch.setattr(train_restoration, "collect_samples", remember)


def make_patch(number: int, visits: Sequence[VisitImage]) -> TrainingPatch:
    """Return a patch with its visit images."""
    return TrainingPatch(MAP.patch(3, number), {"i": BandInputs(visits)})


def make_patches(visits: Sequence[VisitImage], other: Sequence[VisitImage] = ()) -> list[TrainingPatch]:
    """Return both patches, the second one with visit images of its own."""
    return [make_patch(0, visits), make_patch(1, other or visits)]


def train(patches: Sequence[TrainingPatch], **changes: Any) -> Struct:
    """Run the task."""
    return TrainRestorationTask(config=make_config(**changes)).run(patches=patches, band="i")


def weights_of(outputs: Struct) -> dict[str, torch.Tensor]:
    """Return the weights of a model."""
    model = model_from_dict(outputs.restoration_model, "model")
    return dict(model.network.state_dict())


def are_equal(first: Struct, second: Struct) -> bool:
    """Tell whether two models have the same weights, bit by bit."""
    a, b = weights_of(first), weights_of(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(visits: list[VisitImage]) -> Struct:
    """What an uninterrupted training makes."""
    return train(make_patches(visits), do_plot=True)


def test_outputs_are_those_of_the_connections(whole: Struct) -> None:
    assertValidOutput(TrainRestorationTask(config=make_config(do_plot=True)), whole)


def test_model_says_where_it_comes_from(whole: Struct) -> None:
    """If this fails, nobody can tell what a network was trained on."""
    model = model_from_dict(json.loads(json.dumps(whole.restoration_model)), "model")
    about = model.provenance
    assert about == whole.restoration_model["provenance"]
    assert sorted(about["patches"]["trained"] + about["patches"]["validation"]) == ["3/0", "3/1"]
    assert about["exposures"] == {"TestCam": {str(visit): [0] for visit in (1, 2, 3)}}
    assert about["options"]["training"]["num_steps"] == about["num_steps"] == 3
    assert about["options"]["penalty_weights"] == PENALTY_WEIGHTS
    assert about["version"]
    assert about["torch_version"] == torch.__version__
    # Nothing of the machine.
    words = json.dumps(about)
    assert os.uname().nodename not in words
    assert not re.search(r"\"/", words)
    low, high = model.trained_range.target_fwhm
    assert low == high == pytest.approx(0.55 / 0.168)


def test_metrics_have_the_curve(whole: Struct) -> None:
    metrics = whole.restoration_model_metrics
    assert metrics["curve"]["step"] == [1, 2, 3]
    assert len(metrics["curve"]["loss"]) == 3
    assert metrics["num_patches"] == {"trained": 1, "validation": 1, "left_out": 0}
    assert metrics["validation_loss"] == pytest.approx(metrics["curve"]["validation_loss"][-1])
    roles = {record["patch"]: record["role"] for record in whole.restoration_model_patch}
    assert sorted(roles.values()) == ["trained", "validation"]
    assert {record["num_samples"] for record in whole.restoration_model_patch} == {1}


def test_nothing_is_learned_from_patches_set_aside(visits: list[VisitImage], whole: Struct) -> None:
    """If this fails, the validation loss is no better than the loss."""
    roles = {record["patch"]: record["role"] for record in whole.restoration_model_patch}
    dimmer = [observe(visit, (0.7 * visit, -1.3 * visit), brightness=0.3) for visit in range(1, 4)]
    for patch, role in roles.items():
        patches = make_patches(visits)
        patches[patch] = make_patch(patch, dimmer)
        changed = train(patches)
        assert are_equal(changed, whole) == (role == "validation")
        same = changed.restoration_model_metrics["validation_loss"] == pytest.approx(
            whole.restoration_model_metrics["validation_loss"], rel=1e-6
        )
        assert not same


def test_another_seed_trains_another_network(visits: list[VisitImage], whole: Struct) -> None:
    assert not are_equal(train(make_patches(visits), seed_offset=1), whole)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Function that ends a training after some steps, and lists them."""
    steps: list[int] = []
    original = Trainer.train

    def limit(number: int) -> list[int]:
        def run(self: Trainer, samples: Any, num_steps: int) -> float:
            if self.step >= number:
                raise KeyboardInterrupt("stopped")
            steps.append(self.step)
            return original(self, samples, num_steps)

        steps.clear()
        monkeypatch.setattr(Trainer, "train", run)
        return steps

    return limit


def test_training_goes_on_where_it_was_killed(
    visits: list[VisitImage], whole: Struct, stop_after: Callable[[int], list[int]], tmp_path: Path
) -> None:
    """If this fails, hours are lost, or the network depends on the luck of
    the machine.
    """
    settings = {"checkpoint_folder": str(tmp_path / "states"), "checkpoint_interval": 0.0}
    stop_after(2)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        train(make_patches(visits), **settings)
    (path,) = (tmp_path / "states").iterdir()
    # Nothing in it is code.
    torch.load(path, weights_only=True)
    # The disk was full once, or the process killed while it wrote.
    path.with_name(f"{path.name}.abc").write_bytes(b"part")
    steps = stop_after(99)
    outputs = train(make_patches(visits), **settings)
    assert steps == [2]
    assert outputs.restoration_model == whole.restoration_model
    assert outputs.restoration_model_metrics == whole.restoration_model_metrics
    # Until the datasets are written it stays.
    assert path.exists()
    outputs.checkpoint.remove()
    assert list((tmp_path / "states").iterdir()) == []


def test_state_of_another_training_is_not_taken(
    visits: list[VisitImage], stop_after: Callable[[int], list[int]], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"checkpoint_folder": str(tmp_path), "checkpoint_interval": 0.0}
    train(make_patches(visits), **settings)
    steps = stop_after(99)
    train(make_patches(visits), seed_offset=1, **settings)
    assert steps == [0, 1, 2]
    steps = stop_after(99)
    train(make_patches(visits, visits[:2]), **settings)
    assert steps == [0, 1, 2]
    # The device and the figure do not matter.
    steps = stop_after(99)
    train(make_patches(visits), do_plot=True, device="auto", **settings)
    assert steps == []


def test_damaged_state_is_left_aside(
    visits: list[VisitImage], whole: Struct, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"checkpoint_folder": str(tmp_path), "checkpoint_interval": 0.0}
    train(make_patches(visits), **settings)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert are_equal(train(make_patches(visits), **settings), whole)
    assert "Left a checkpoint aside" in caplog.text


def test_patch_without_two_exposures_is_left_out(visits: list[VisitImage]) -> None:
    """If this fails, one bad patch costs the training."""
    outputs = train(make_patches(visits, visits[:1]))
    first, second = outputs.restoration_model_patch
    assert (first["role"], second["role"]) == ("trained", "left_out")
    assert second["reason"].startswith("too_few_exposures")
    about = outputs.restoration_model["provenance"]
    assert about["patches"]["left_out"] == {"3/1": second["reason"]}
    # A single patch is trained on, and there is nothing to validate with.
    assert outputs.restoration_model_metrics["validation_loss"] is None
    assert outputs.restoration_model_metrics["curve"]["validation_loss"] == [None] * 3


def test_without_two_exposures_anywhere_there_is_no_work(visits: list[VisitImage]) -> None:
    with pytest.raises(NoWorkFound, match="two usable exposures that overlap"):
        train(make_patches(visits[:1]))
    with pytest.raises(NoWorkFound, match="no patch to train on"):
        train([])


def test_failure_of_all_patches_is_told(visits: list[VisitImage]) -> None:
    with pytest.raises(RestorationAlgorithmError, match=r"3/0: failed: .*FWHM") as raised:
        train(make_patches(visits), target_fwhm=[5.0])
    assert raised.value.metadata == {"num_failed_patches": 2}


def test_patches_draw_their_target_psf(
    visits: list[VisitImage], whole: Struct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a network is trained for other coadds than meant."""
    drawn: list[float] = []

    def record(source: Any, *, target_fwhm: float, **settings: Any) -> Any:
        drawn.append(target_fwhm * source.geometry.pixel_scale)
        return next(iter(SAMPLES.values()))

    monkeypatch.setattr(train_restoration, "collect_samples", record)
    for seed in range(3):
        train(make_patches(visits[:2]), target_fwhm=[0.5, 0.6], seed_offset=seed)
    assert {round(fwhm, 6) for fwhm in drawn} == {0.5, 0.6}
    drawn.clear()
    outputs = train(make_patches(visits[:2]), target_fwhm=[])
    assert drawn == [record["target_fwhm"] for record in outputs.restoration_model_patch]
    assert 0.3 < drawn[0] < 0.8


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 1), (3, 1), (20, 2)])
def test_number_of_patches_set_aside(number: int, expected: int) -> None:
    keys = [f"1/{k}" for k in range(number)]
    chosen = choose_validation(keys, 0.1, 5)
    assert len(chosen) == expected
    assert chosen <= set(keys)
    assert len(choose_validation(keys, 0.999, 5)) == number - 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patches", ["3"]),
        ("patches", ["3/0", "3/0"]),
        ("checkpoint_interval", 41.0),
        ("target_fwhm", [0.0]),
        ("validation_fraction", 1.0),
    ],
)
def test_wrong_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises((FieldValidationError, ValueError), match=name):
        make_config(**{name: value})
