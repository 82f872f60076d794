# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The metrics and plots of restored coadds by analysis_tools.

DATASETS states what the sources of its tasks say, at the commit in the table
of ``full-stack.rst``.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import astropy.units as u
import pytest

from lsst.astroclearnet.tasks import (
    PROPERTY_MAPS,
    QUALITY_UNITS,
    MakePropertyMapsConfig,
    MakePropertyMapsConnections,
    configure_quality_metrics,
)
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipelineIR import PipelineIR

PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/_ingredients/AnalyzeRestoredCoadd.yaml"
TASKS = "lsst.analysis.tools.tasks."

# Settings that name datasets, with the kind and the storage class; an output
# is named after outputName where there is no such setting.
DATASETS: dict[str, dict[str, tuple[str, str]]] = {
    "TaskMetadataAnalysisTask": {"inputName": ("input", "TaskMetadata")},
    "PerTractPropertyMapAnalysisTask": {},
    "MakeBinnedCoaddTask": {"coadd": ("input", "ExposureF"), "binnedCoadd": ("output", "ExposureF")},
    "WholeTractImageAnalysisTask": {"data": ("input", "ExposureF")},
    "WholeTractMaskFractionAnalysisTask": {"data": ("input", "ExposureF")},
    "ObjectTableTractAnalysisTask": {"data": ("input", "ArrowAstropy")},
}


def read_tasks() -> dict[str, tuple[str, dict[str, Any], str]]:
    """Return class, settings and Python code of each task."""
    pipeline = PipelineIR.from_uri(PIPELINE)
    tasks = {}
    for label, task in pipeline.tasks.items():
        settings: dict[str, Any] = {}
        code = ""
        for config in task.config or ():
            settings |= config.rest
            code += config.python or ""
        # What the parameters say.
        settings = {
            key: pipeline.parameters.mapping[value.removeprefix("parameters.")]
            if isinstance(value, str) and value.startswith("parameters.")
            else value
            for key, value in settings.items()
        }
        tasks[label] = (task.klass.removeprefix(TASKS), settings, code)
    return tasks


def test_every_input_is_made() -> None:
    """If it fails, a task has no input, and its graph is empty."""
    made = {
        "measureRestoration_metadata": "TaskMetadata",
        # Converted by the Butler where afw is installed.
        "restored_coadd": "ExposureF",
        # By a user, until a pipeline of this package does.
        "restored_object_drp": "ArrowAstropy",
    }
    for label, (name, settings, _) in read_tasks().items():
        for setting, (kind, storage_class) in DATASETS[name].items():
            dataset = settings[f"connections.{setting}"]
            if kind == "input":
                assert made[dataset] == storage_class, label
            else:
                assert dataset.startswith("restored_")
                made[dataset] = storage_class


def test_outputs_are_not_those_of_deep_coadds() -> None:
    """If it fails, metrics of deep coadds are overwritten or mixed."""
    names = [
        settings["connections.outputName"]
        for name, settings, _ in read_tasks().values()
        if name != "MakeBinnedCoaddTask"
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("restored", "measureRestoration")) for name in names)
    assert all("estor" in label for label in read_tasks())


def test_metrics_have_the_dimensions_of_their_metadata() -> None:
    name, settings, code = read_tasks()["analyzeRestorationQuality"]
    assert name == "TaskMetadataAnalysisTask"
    assert settings["connections.storageClass"] == "TaskMetadata"
    assert settings["inputDimensions"] == ["skymap", "tract", "patch", "band"]
    assert "configure_quality_metrics(config)" in code


def test_configuration_of_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, dashboards lack metrics, or show other units."""

    class Tool(SimpleNamespace):
        """Stand-in for TaskMetadataMetricTool: set as class, used as one."""

    class Tools(SimpleNamespace):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value() if isinstance(value, type) else value)

    names = ["lsst.analysis", "lsst.analysis.tools", "lsst.analysis.tools.atools"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[names[-1]], "TaskMetadataMetricTool", Tool, raising=False)
    config = SimpleNamespace(atools=Tools())
    configure_quality_metrics(config)
    tool = config.atools.restorationQuality
    assert tool.taskName == "measureRestoration"
    assert tool.metrics.keys() == {"verdict_level", *QUALITY_UNITS}
    assert (tool.metrics["depth_linear"], tool.metrics["fwhm_in"]) == ("mag", "arcsec")
    for name, unit in tool.metrics.items():
        assert name.isidentifier()
        # As lsst.verify keeps a measurement.
        assert isinstance(1.0 * u.Unit(unit), u.Quantity)
        assert not isinstance(u.Unit(unit), u.LogUnit)


def test_without_analysis_tools_it_says_so() -> None:
    if importlib.util.find_spec("lsst.analysis") is not None:
        pytest.skip("analysis_tools is set up")
    with pytest.raises(ImportError, match=r"lsst\.analysis"):
        configure_quality_metrics(SimpleNamespace())


def test_all_property_maps_are_drawn() -> None:
    """If it fails, a map has no plot, or the task looks for one that is not
    there: it takes names of atools for dataset types.
    """
    _, _, code = read_tasks()["plotRestoredPropertyMapTract"]
    assert 'f"restoredCoadd_{property_map.full_name}"' in code
    assert "for property_map in PROPERTY_MAPS" in code
    connections = MakePropertyMapsConnections(config=MakePropertyMapsConfig())
    names = {getattr(connections, name).name for name in connections.outputs}
    assert names == {f"restoredCoadd_{prop.full_name}" for prop in PROPERTY_MAPS}


def test_subsets_hold_all_tasks() -> None:
    subsets = PipelineIR.from_uri(PIPELINE).labeled_subsets
    assert set.union(*(subset.subset for subset in subsets.values())) == set(read_tasks())


@pytest.mark.afw("lsst.analysis.tools.tasks")
def test_analysis_tools_takes_the_configuration() -> None:
    """If it fails, a setting or a tool has another name by now."""
    graph = Pipeline.from_uri(PIPELINE).to_graph()
    inputs, outputs = (
        {
            label: {edge.parent_dataset_type_name for edge in getattr(task, kind).values()} - {"skyMap"}
            for label, task in graph.tasks.items()
        }
        for kind in ("inputs", "outputs")
    )
    assert inputs == {
        "analyzeRestorationQuality": {"measureRestoration_metadata"},
        "plotRestoredPropertyMapTract": {f"restoredCoadd_{prop.full_name}" for prop in PROPERTY_MAPS},
        "makeBinnedRestoredCoadd": {"restored_coadd"},
        "makeWholeTractRestoredCoadd": {"restored_coadd_bin"},
        "aggregateRestoredMaskFractions": {"restored_coadd_bin"},
        "analyzeRestoredObjectTable": {"restored_object_drp"},
    }
    assert outputs["analyzeRestorationQuality"] == {"measureRestoration_metadata_metrics"}
    assert "restored_coadd_tract_mask_fraction_metrics" in outputs["aggregateRestoredMaskFractions"]
    assert "restoredObjectTable_metrics" in outputs["analyzeRestoredObjectTable"]
    config: Any = graph.tasks["analyzeRestorationQuality"].config
    assert dict(config.atools.restorationQuality.metrics).keys() == {"verdict_level", *QUALITY_UNITS}
