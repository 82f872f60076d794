# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pipelines that restore all bands together: their graphs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from instrument_pipelines import (
    BANDS,
    JOINT,
    RESOURCES,
    STORAGE_CLASSES,
    TOP,
    make_graph,
    make_quanta,
    name_instruments,
)

from lsst.astroclearnet.tasks import RestoreCoaddBandsConfig
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipeline_graph import PipelineGraph


@pytest.fixture(autouse=True)
def instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes with the names of the instruments."""
    name_instruments(monkeypatch)


@pytest.mark.parametrize(("name", "target_fwhm"), JOINT.items())
@pytest.mark.parametrize("where", ["", " AND band IN ('g', 'N921')"], ids=["all", "two"])
def test_bands_together(name: str, target_fwhm: float, where: str) -> None:
    """If it fails, a quantum lacks a band, has one that was not asked for, or
    is not the patch.
    """
    bands = {"g", "N921"} if where else set(BANDS)
    repository, quanta = make_quanta(name, f"skymap='hsc_rings_v1' AND tract=9813{where}", "#restoreBands")
    assert sorted(quantum.dataId["patch"] for quantum in quanta) == [40, 41]
    products = {name.replace("coadd", "coadd_joint") for name in STORAGE_CLASSES if "restored_coadd" in name}
    for quantum in quanta:
        inputs = {key.name.removeprefix("_mock_"): refs for key, refs in quantum.inputs.items()}
        numbers = {name: len(refs) for name, refs in inputs.items()}
        visits = 3 * len(bands)
        assert numbers == {"visit_image": visits, "deep_coadd_visit_selection": len(bands), "skyMap": 1}
        assert Counter(ref.dataId["band"] for ref in inputs["visit_image"]) == dict.fromkeys(bands, 3)
        outputs = {key.name.removeprefix("_mock_"): refs for key, refs in quantum.outputs.items()}
        of_patch = {"restoreCoaddBands_metadata", "restoreCoaddBands_log", "restored_coadd_joint_detection"}
        assert outputs.keys() == products | of_patch
        for product in products:
            assert {ref.dataId["band"] for ref in outputs[product]} == bands
        assert len(outputs["restored_coadd_joint_detection"]) == 1
    executor, _ = repository.make_single_quantum_executor()
    executor.execute(repository.pipeline_graph.tasks["_mock_restoreCoaddBands"], quanta[0])
    config = make_graph(name, "#restoreBands").tasks["restoreCoaddBands"].config
    assert isinstance(config, RestoreCoaddBandsConfig)
    assert config.target_fwhm == target_fwhm


def test_bands_are_chosen_by_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a band that is not in the list is read, or its coadds are
    expected.
    """

    def choose(name: str, subset: str) -> PipelineGraph:
        pipeline = Pipeline.from_uri(f"{RESOURCES}/{name}.yaml{subset}")
        pipeline.addConfigOverride("restoreCoaddBands", "bands", ["i", "z"])
        return pipeline.to_graph()

    monkeypatch.setattr("instrument_pipelines.make_graph", choose)
    _, (quantum,) = make_quanta("RestoreCoaddBands", "instrument='HSC' AND patch=40", "#restoreBands")
    for datasets in (quantum.inputs, quantum.outputs):
        for key, refs in datasets.items():
            found = {ref.dataId["band"] for ref in refs if "band" in ref.dataId.dimensions}
            assert found <= {"i", "z"}, key.name


def test_both_ways_in_one_pipeline(tmp_path: Path) -> None:
    """If it fails, coadds restored together and alone cannot be compared in
    one collection.
    """
    path = tmp_path / "both.yaml"
    path.write_text(
        "description: Both.\nimports:\n"
        "  - location: $ASTROCLEARNET_DIR/pipelines/RestoreCoadd.yaml\n"
        "  - location: $ASTROCLEARNET_DIR/pipelines/RestoreCoaddBands.yaml\n"
    )
    assert {"restoreCoadd", "restoreCoaddBands"} <= set(Pipeline.from_uri(path).to_graph().tasks)


def test_bands_are_restored_alone_by_default() -> None:
    """If it fails, the joint restoration is on where nobody asked for it."""
    for path in (TOP / "pipelines").rglob("*.yaml"):
        assert ("RestoreCoaddBands" in path.read_text()) is path.name.startswith("RestoreCoaddBands")
