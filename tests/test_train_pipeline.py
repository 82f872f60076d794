# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training in a real repository, through the commands of a user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsst.astroclearnet.adapters import joint_model_from_dict, model_from_dict
from lsst.astroclearnet.repository import (
    chain_collections,
    create_repository,
    put_visit_image,
    register_sky_map,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, Quantum
from lsst.pipe.base import Pipeline
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder

SHAPE = (96, 150)
PIPELINES = "resource://lsst.astroclearnet/resources/pipelines"
OUTPUT = "u/test/trained"
SETTINGS = {
    "target_fwhm": "[0.55]",
    "training.num_steps": "2",
    "training.tile_size": "64",
    "training.crop_size": "64",
    "training.num_splits": "1",
    "training.tiles_per_patch": "1",
    "restoration.network.penalty_weights": "[1e-3,1e-2,1e-1]",
    "restoration.rejection.enabled": "False",
}


RESTORATION = {
    "target_fwhm": "0.55",
    "restoration.model.source": "dataset",
    "restoration.noise.num_draws": "2",
    "do_plot": "False",
}


def pipetask(repo: Path, pipeline: str, overrides: dict[str, str], *arguments: str | Path) -> str:
    """Run the task of a pipeline and return what was printed."""
    executable = Path(sys.executable).with_name("pipetask")
    (label,) = Pipeline.from_uri(f"{PIPELINES}/{pipeline}").task_labels
    command = [
        *(executable, "run", "-b", repo, "-p", f"{PIPELINES}/{pipeline}", "--register-dataset-types"),
        *(word for name, value in overrides.items() for word in ("-c", f"{label}:{name}={value}")),
        *arguments,
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=280)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def build_quanta(
    repo: Path, where: str, patches: list[str], name: str = "TrainRestoration", **settings: object
) -> list[Quantum]:
    """Return the quanta of a training, as ``pipetask`` makes them."""
    pipeline = Pipeline.from_uri(f"{PIPELINES}/{name}WithoutStack.yaml")
    (label,) = pipeline.task_labels
    for field, value in {"patches": patches, **settings}.items():
        pipeline.addConfigOverride(label, field, value)
    builder = AllDimensionsQuantumGraphBuilder(
        pipeline.to_graph(),
        Butler.from_config(str(repo)),
        where=f"skymap='test_map' AND {where}",
        input_collections=["TestCam/all" if "Bands" in name else "TestCam/defaults"],
        output_run="u/test/graph",
    )
    graph = builder.finish(output="u/test", attach_datastore_records=False).assemble()
    return list(graph.build_execution_quanta().values())


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two patches under three visits, and a fourth visit
    that overlaps only one of them; and, in a collection apart, three more in
    another band.
    """
    root = tmp_path_factory.mktemp("training") / "repo"
    butler = create_repository(str(root))
    sky_map = make_patch_geometry(cell_shape=(16, 14))
    register_sky_map(butler, sky_map, "skymaps")
    rng = np.random.default_rng(9)
    field = StarField(
        geometry=sky_map.patch(3, 0),
        x=rng.uniform(5.0, 105.0, 8),
        y=rng.uniform(5.0, 60.0, 8),
        flux=rng.uniform(500.0, 4000.0, 8),
    )
    for visit, offset in enumerate([(0.7, -1.3), (1.4, -2.6), (2.1, -3.9), (0.0, 110.0)], start=1):
        projection = make_projection(SHAPE, offset=offset, visit=visit)
        image = field.render(projection, SHAPE, 3.3 + 0.4 * visit) + rng.normal(0.0, 1.0, SHAPE)
        put_visit_image(butler, make_visit_image(image, projection, fwhm=3.3 + 0.4 * visit), "TestCam/visits")
    for visit in (11, 12, 13):
        projection = make_projection(SHAPE, offset=(0.5 * (visit - 10), -2.0), visit=visit)
        image = field.render(projection, SHAPE, 4.0) + rng.normal(0.0, 1.0, SHAPE)
        put_visit_image(butler, make_visit_image(image, projection, fwhm=4.0, band="g"), "TestCam/green")
    chain_collections(butler, "TestCam/defaults", ["TestCam/visits", "skymaps"])
    chain_collections(butler, "TestCam/all", ["TestCam/visits", "TestCam/green", "skymaps"])
    return root


@pytest.fixture(scope="module")
def trained(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after a training on both patches."""
    states = tmp_path_factory.mktemp("states")
    settings = SETTINGS | {"checkpoint_folder": str(states)}
    where = ("-d", "skymap='test_map' AND tract=3")
    pipeline = "TrainRestorationWithoutStack.yaml"
    output = pipetask(repo, pipeline, settings, "-i", "TestCam/defaults", "-o", OUTPUT, *where)
    assert "Executed 1 quanta successfully, 0 failed" in output
    # What is safe in the repository need not be kept twice.
    assert list(states.iterdir()) == []
    return repo


@pytest.mark.parametrize("stack", ["", "WithoutStack"])
@pytest.mark.parametrize(
    ("label", "parameter"),
    [("trainRestoration", "restoration_model_name"), ("trainRestorationBands", "joint_model_name")],
)
def test_pipelines_expand(label: str, parameter: str, stack: str) -> None:
    name = f"{label[0].upper()}{label[1:]}{stack}"
    graph = Pipeline.from_uri(f"{PIPELINES}/{name}.yaml").to_graph()
    assert graph.tasks[label].outputs.keys() == {
        "restoration_model",
        "restoration_model_metrics",
        "restoration_model_patch",
        "restoration_model_plot",
    }
    changed = Pipeline.from_uri(f"{PIPELINES}/{name}.yaml")
    changed.addConfigOverride("parameters", parameter, "other")
    outputs = changed.to_graph().tasks[label].outputs.values()
    assert all(edge.dataset_type_name.startswith("other") for edge in outputs)


def test_network_is_read_from_the_repository(trained: Path) -> None:
    butler = Butler.from_config(str(trained), collections=[OUTPUT])
    dataset = butler.get("restoration_model", skymap="test_map", band="i")
    model = model_from_dict(dataset, "restoration model")
    assert model.network.penalty_weights == (1e-3, 1e-2, 1e-1)
    assert model.provenance["exposures"] == {"TestCam": {str(visit): [0] for visit in (1, 2, 3, 4)}}
    metrics = butler.get("restoration_model_metrics", skymap="test_map", band="i")
    assert metrics["identity"] == model.identity
    assert metrics["curve"]["step"] == [1, 2]
    assert butler.getURI("restoration_model_plot", skymap="test_map", band="i").exists()
    records = [
        butler.get("restoration_model_patch", skymap="test_map", tract=3, patch=patch, band="i")
        for patch in (0, 1)
    ]
    assert [(record["tract"], record["patch"]) for record in records] == [(3, 0), (3, 1)]
    assert sorted(len(record["exposures"]) for record in records) == [3, 4]
    # A visit that is elsewhere is not even looked at.
    assert [record["left_out"] for record in records] == [{}, {}]


def test_network_restores_coadds(trained: Path) -> None:
    """If this fails, what the training writes is not what the restoration
    reads.
    """
    output = "u/test/restored"
    inputs = ("-i", f"{OUTPUT},TestCam/defaults", "-o", output)
    where = ("-d", "skymap='test_map' AND tract=3 AND patch=0")
    pipetask(trained, "RestoreCoaddWithoutStack.yaml#restore", RESTORATION, *inputs, *where)
    butler = Butler.from_config(str(trained), collections=[output])
    model = butler.get("restoration_model", skymap="test_map", band="i")
    metrics = butler.get("restored_coadd_metrics", skymap="test_map", tract=3, patch=0, band="i")
    assert metrics["network"]["identity"] == model["identity"]


@pytest.mark.parametrize(
    ("where", "patches", "expected"),
    [
        ("tract=3", [], {0, 1}),
        ("tract=3 AND patch=1", [], {1}),
        ("tract=3", ["3/0", "7/1"], {0}),
    ],
)
def test_patches_of_query_and_list_are_used(
    repo: Path, where: str, patches: list[str], expected: set[int]
) -> None:
    """If this fails, a network is trained on other sky than meant."""
    (quantum,) = build_quanta(repo, where, patches)
    assert quantum.dataId is not None
    assert dict(quantum.dataId.required) == {"skymap": "test_map", "band": "i"}
    outputs = {key.name: refs for key, refs in quantum.outputs.items()}
    assert {ref.dataId["patch"] for ref in outputs["restoration_model_patch"]} == expected
    inputs = {key.name: refs for key, refs in quantum.inputs.items()}
    assert {ref.dataId["visit"] for ref in inputs["visit_image"]} >= {1, 2, 3}


def test_list_without_a_patch_of_the_query_is_told(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build_quanta(repo, "tract=3 AND patch=1", ["3/0"]) == []
    assert "No patch of trainRestoration:patches is among those of the data query in i" in caplog.text


@pytest.mark.parametrize(
    ("where", "settings", "bands"),
    [
        ("tract=3", {}, {"g", "i"}),
        ("tract=3", {"bands": ["i", "z", "g"]}, {"g", "i"}),
    ],
)
def test_bands_of_query_and_list_are_used(
    repo: Path, where: str, settings: dict[str, object], bands: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, a joint network is trained on other bands than meant."""
    (quantum,) = build_quanta(repo, where, [], "TrainRestorationBands", **settings)
    assert quantum.dataId is not None
    assert dict(quantum.dataId.required) == {"skymap": "test_map"}
    inputs = {key.name: refs for key, refs in quantum.inputs.items()}
    assert {ref.dataId["band"] for ref in inputs["visit_image"]} == bands
    outputs = {key.name: refs for key, refs in quantum.outputs.items()}
    assert {ref.dataId["patch"] for ref in outputs["restoration_model_joint_patch"]} == {0, 1}
    assert ("z of trainRestorationBands:bands is not among" in caplog.text) == ("bands" in settings)


@pytest.mark.parametrize(
    ("where", "settings"),
    [("tract=3 AND band IN ('i', 'r')", {}), ("tract=3", {"bands": ["i", "z"]})],
)
def test_single_band_has_no_joint_network(
    repo: Path, where: str, settings: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, all exposures are read only to find no work."""
    assert build_quanta(repo, where, [], "TrainRestorationBands", **settings) == []
    assert "trainRestorationBands needs exposures of two bands, and those of the data query" in caplog.text


@pytest.mark.slow
def test_joint_network_restores_coadds(repo: Path) -> None:
    """If this fails, what the training writes is not what the restoration
    reads.
    """
    settings = SETTINGS | {"target_fwhm": "[0.65]"}
    del settings["restoration.network.penalty_weights"]
    training, output = "u/test/trained_joint", "u/test/restored_joint"
    where = ("-d", "skymap='test_map' AND tract=3")
    pipeline = "TrainRestorationBandsWithoutStack.yaml"
    pipetask(repo, pipeline, settings, "-i", "TestCam/all", "-o", training, *where)
    changes = {"joint_model_source": "dataset", "target_fwhm": "0.65", "do_plot": "False"}
    changes["restoration.noise.num_draws"] = "2"
    inputs = ("-i", f"{training},TestCam/all", "-o", output, "-d", f"{where[1]} AND patch=0")
    pipetask(repo, "RestoreCoaddBandsWithoutStack.yaml#restoreBands", changes, *inputs)
    butler = Butler.from_config(str(repo), collections=[output])
    dataset = butler.get("restoration_model_joint", skymap="test_map")
    model = joint_model_from_dict(dataset, "joint model")
    assert model.num_bands == (2, 2)
    place = {"skymap": "test_map", "tract": 3, "patch": 0}
    for band in ("g", "i"):
        network = butler.get("restored_coadd_joint_metrics", place, band=band)["network"]
        assert (network["joint_network"], network["joint_doubt"]) == (model.identity, "")
