# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training of a joint network: what it learns from, and what it writes."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.adapters import joint_model_from_dict, model_to_dict
from lsst.astroclearnet.core import InputError, RestorationModel, TrainedRange, load_packaged_model
from lsst.astroclearnet.core.estimate import RestorationNetwork
from lsst.astroclearnet.core.training import collect_joint_samples
from lsst.astroclearnet.tasks import (
    BandInputs,
    RestorationAlgorithmError,
    TrainingPatch,
    TrainRestorationBandsConfig,
    TrainRestorationBandsConnections,
    TrainRestorationBandsTask,
    train_restoration_bands,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import DataCoordinate, DimensionUniverse
from lsst.images import VisitImage
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import NoWorkFound, Struct
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

SHAPE = (96, 150)
MAP = make_patch_geometry(cell_shape=(16, 14))
COLOR = {"g": 0.6, "i": 1.0}


def make_config(**changes: Any) -> TrainRestorationBandsConfig:
    """Return a configuration of a training of seconds."""
    config = TrainRestorationBandsConfig()
    config.geometry_source = "dict"
    config.device = "cpu"
    config.target_fwhm = [0.65]
    config.do_plot = False
    config.restoration.rejection.enabled = False
    config.training.num_steps = 3
    config.training.tile_size = 64
    config.training.crop_size = 64
    config.training.num_splits = 1
    config.training.tiles_per_patch = 1
    for name, value in changes.items():
        part: Any = config
        *path, last = name.split("__")
        for each in path:
            part = getattr(part, each)
        setattr(part, last, value)
    config.validate()
    return config


def observe(band: str, visit: int) -> VisitImage:
    """Return a noisy visit image of stars on both patches."""
    rng = np.random.default_rng(3)
    field = StarField(
        geometry=MAP.patch(3, 0),
        x=rng.uniform(5.0, 105.0, 10),
        y=rng.uniform(5.0, 60.0, 10),
        flux=COLOR[band] * rng.uniform(300.0, 6000.0, 10),
    )
    projection = make_projection(SHAPE, offset=(0.7 * (visit % 10), -1.3 * (visit % 10)), visit=visit)
    fwhm = 3.2 + 0.3 * (visit % 5)
    noise = np.random.default_rng(visit).normal(0.0, 1.0, SHAPE)
    image = field.render(projection, SHAPE, fwhm) + noise
    return make_visit_image(image, projection, fwhm=fwhm, band=band)


@pytest.fixture(scope="module")
def bands() -> dict[str, BandInputs]:
    """Three visit images in each of two bands, that cover both patches."""
    return {
        band: BandInputs([observe(band, 10 * number + n) for n in range(1, 4)])
        for number, band in enumerate(COLOR)
    }


def make_patches(*bands: Mapping[str, BandInputs]) -> list[TrainingPatch]:
    """Return patches with these exposures."""
    return [TrainingPatch(MAP.patch(3, number), each) for number, each in enumerate(bands)]


def train(
    patches: list[TrainingPatch], models: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> Struct:
    """Run the task."""
    task = TrainRestorationBandsTask(config=make_config(**changes))
    return task.run(patches=patches, band_models=models)


@pytest.fixture(scope="module")
def trained(bands: dict[str, BandInputs]) -> Struct:
    """What a training on two patches makes."""
    return train(make_patches(bands, bands), do_plot=True)


def test_outputs_are_those_of_the_connections(trained: Struct) -> None:
    assertValidOutput(TrainRestorationBandsTask(config=make_config(do_plot=True)), trained)
    lintConnections(TrainRestorationBandsConnections(config=make_config()))


def test_model_says_where_it_comes_from(trained: Struct) -> None:
    """If this fails, nobody can tell what a network was trained on, or for
    which networks of the bands.
    """
    dataset = json.loads(json.dumps(trained.restoration_model))
    model = joint_model_from_dict(dataset, "model")
    base = load_packaged_model().identity
    assert (model.bases, model.num_bands) == ((base,), (2, 2))
    assert model.find_departure([base, base]) == ""
    about = model.provenance
    assert about == dataset["provenance"]
    assert about["bands"] == ["g", "i"]
    assert about["networks"] == {"g": base, "i": base}
    assert about["exposures"] == {"TestCam": {str(visit): [0] for visit in (1, 2, 3, 11, 12, 13)}}
    assert sorted(about["patches"]["trained"] + about["patches"]["validation"]) == ["3/0", "3/1"]
    weights = load_packaged_model().network.penalty_weights
    assert about["options"]["penalty_weights"] == list(weights)
    assert model.network.num_penalty_weights == len(weights)
    metrics = trained.restoration_model_metrics
    assert metrics["identity"] == model.identity
    assert min(metrics["num_samples"].values()) > 0
    assert np.isfinite(metrics["curve"]["loss"]).all()


@pytest.mark.slow
def test_training_changes_the_network(bands: dict[str, BandInputs], trained: Struct) -> None:
    """If this fails, what is written is the network that it began with, or
    depends on the luck of the machine.
    """
    shorter = train(make_patches(bands, bands), training__num_steps=1)
    again = train(make_patches(bands, bands))
    models = [
        joint_model_from_dict(outputs.restoration_model, "model") for outputs in (shorter, again, trained)
    ]
    states = [model.network.state_dict() for model in models]
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[2])
    assert models[1].identity == models[2].identity


def test_network_of_another_kind_is_refused(trained: Struct) -> None:
    """If this fails, a file of the wrong kind ends in a traceback."""
    with pytest.raises(InputError, match="my model is no file of a trained joint network"):
        joint_model_from_dict(model_to_dict(load_packaged_model()), "my model")
    changed = trained.restoration_model | {"identity": "0"}
    with pytest.raises(InputError, match="my model says that it is 0"):
        joint_model_from_dict(changed, "my model")


@pytest.mark.slow
def test_patch_of_one_band_is_left_out(bands: dict[str, BandInputs]) -> None:
    """If this fails, one bad patch costs the training, or is said to be in
    it.
    """
    one = {"i": bands["i"], "z": BandInputs([])}
    outputs = train(make_patches(one, {**bands, "z": BandInputs([])}))
    records = outputs.restoration_model_patch
    assert [record["role"] for record in records] == ["left_out", "trained"]
    assert records[0]["reason"] == "too_few_bands: exposures that are usable: i 3"
    provenance = outputs.restoration_model["provenance"]
    assert provenance["bands"] == ["g", "i"]
    assert list(provenance["networks"]) == ["g", "i"]


def test_training_without_patches_is_told(bands: dict[str, BandInputs]) -> None:
    """If this fails, nobody knows why there is no network."""
    few = {band: BandInputs(inputs.visit_images[:1]) for band, inputs in bands.items()}
    one = {"i": bands["i"], "g": BandInputs([])}
    words = "No patch of test_map, g, i has two usable exposures of a band .*: 2 have not"
    with pytest.raises(NoWorkFound, match=words):
        train(make_patches(one, few))
    with pytest.raises(NoWorkFound, match=r"There is no patch to train on\."):
        train([])


def test_failure_of_all_patches_is_told(bands: dict[str, BandInputs]) -> None:
    with pytest.raises(RestorationAlgorithmError, match=r"3/0: failed: .*FWHM"):
        train(make_patches(bands), target_fwhm=[5.0])


def make_model(number: int) -> RestorationModel:
    """Return a network of a number of penalty weights that was not trained."""
    weights = tuple(10.0 ** (k - number) for k in range(number))
    network = RestorationNetwork(weights)
    network.initialize(torch.Generator().manual_seed(number))
    limits = ((-9.0,) * (number - 1), (9.0,) * (number - 1))
    return RestorationModel(network.eval(), TrainedRange((1, 9), (2.0, 5.0), limits), {})


@pytest.mark.slow
def test_networks_of_the_bands_are_used(
    bands: dict[str, BandInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a joint network is trained with networks that will not
    restore the bands.
    """
    models = {"g": make_model(3), "i": dataclasses.replace(make_model(3), provenance={"band": "i"})}
    used: list[dict[str, int]] = []
    original = collect_joint_samples

    def record(sources: Any, *, networks: Mapping[str, Any], **settings: Any) -> Any:
        used.append({band: len(network.penalty_weights) for band, network in networks.items()})
        return original(sources, networks=networks, **settings)

    monkeypatch.setattr(train_restoration_bands, "collect_joint_samples", record)
    datasets = {band: model_to_dict(model) for band, model in models.items()}
    outputs = train(make_patches(bands), datasets, restoration__model__source="dataset")
    assert used == [{"g": 3, "i": 3}]
    model = joint_model_from_dict(outputs.restoration_model, "model")
    assert set(model.bases) == {each.identity for each in models.values()}
    assert model.provenance["networks"] == {band: each.identity for band, each in models.items()}
    assert model.network.num_penalty_weights == 3
    assert model.find_departure([each.identity for each in models.values()]) == ""


def test_networks_that_do_not_go_together_are_refused(bands: dict[str, BandInputs]) -> None:
    """If this fails, the training ends in a traceback after hours."""
    with pytest.raises(RestorationAlgorithmError, match="network of band g is missing"):
        train(make_patches(bands), {"i": model_to_dict(make_model(3))}, restoration__model__source="dataset")
    datasets = {"g": model_to_dict(make_model(3)), "i": model_to_dict(make_model(4))}
    words = r"same penalty weights, not g \(0\.001, .*; i \(0\.0001, "
    with pytest.raises(RestorationAlgorithmError, match=words):
        train(make_patches(bands), datasets, restoration__model__source="dataset")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("bands", ["g"], "bands"),
        ("bands", ["g", "g"], "bands"),
        ("restoration__model__source", "fit", "set restoration.model.source to 'packaged' or 'dataset'"),
    ],
)
def test_wrong_settings_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(FieldValidationError, match=words):
        make_config(**{name: value})


def test_missing_bands_and_networks_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """If this fails, a misspelt band is silently not trained on, or a graph is
    built that cannot run.
    """
    config = make_config(bands=["g", "i", "R", "Y"], restoration__model__source="dataset")
    connections: Any = TrainRestorationBandsConnections(config=config)

    def make_ref(**data_id: Any) -> Any:
        return SimpleNamespace(dataId=DataCoordinate.standardize(data_id, universe=DimensionUniverse()))

    def make_visit_ref(band: str) -> Any:
        dimensions = DimensionUniverse().conform(["visit"])
        full: dict[str, int | str] = {
            "instrument": "C",
            "visit": 1,
            "band": band,
            "day_obs": 1,
            "physical_filter": band,
        }
        values = tuple(full[name] for name in dimensions.data_coordinate_keys)
        return SimpleNamespace(dataId=DataCoordinate.from_full_values(dimensions, values))

    inputs = {
        "visit_images": (
            connections.visit_images,
            [make_visit_ref(band) for band in "giz"],
        ),
        "band_models": (connections.band_models, [make_ref(skymap="m", band="g")]),
        "skymap_geometry": (connections.skymap_geometry, [make_ref(skymap="m")]),
    }
    patches = [make_ref(skymap="m", tract=3, patch=0)]
    outputs = {"restoration_model_patch": (connections.restoration_model_patch, patches)}
    words = "no restoration_model of sky map 'm' in band i in the input"
    with caplog.at_level(logging.WARNING), pytest.raises(FileNotFoundError, match=words):
        connections.adjustQuantum(inputs, outputs, "trainRestorationBands", make_ref(skymap="m").dataId)
    assert [ref.dataId["band"] for ref in inputs["visit_images"][1]] == ["g", "i"]
    words = "R, Y of trainRestorationBands:bands are not among the bands of the data, which are g, i"
    assert words in caplog.text
