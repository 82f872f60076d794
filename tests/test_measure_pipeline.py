# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline that measures on restored coadds, as far as goes without its
tasks.

CONNECTIONS states what the sources of the tasks say, at the commits in the
table of ``full-stack.rst``.
"""

from __future__ import annotations

from typing import Any

import pytest

from lsst.pipe.base.pipelineIR import PipelineIR

PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/_ingredients/MeasureRestoredCoadd.yaml"
COADD = "restored_coadd_linear"

# Kind and storage class of the connections that remain with useCellCoadds,
# without flags of visits.
CONNECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "lsst.pipe.tasks.multiBand.DetectCoaddSourcesTask": {
        "detectionSchema": ("init output", "SourceCatalog"),
        "exposure_cells": ("input", "MultipleCellCoadd"),
        "outputBackgrounds": ("output", "Background"),
        "outputSources": ("output", "SourceCatalog"),
        "outputExposure": ("output", "ExposureF"),
    },
    "lsst.pipe.tasks.mergeDetections.MergeDetectionsTask": {
        "schema": ("init input", "SourceCatalog"),
        "catalogs": ("input", "SourceCatalog"),
        "skyMap": ("input", "SkyMap"),
        "outputSchema": ("init output", "SourceCatalog"),
        "outputPeakSchema": ("init output", "PeakCatalog"),
        "outputCatalog": ("output", "SourceCatalog"),
    },
    "lsst.meas.extensions.scarlet.deconvolveExposureTask.DeconvolveExposureTask": {
        "coadd_cell": ("input", "MultipleCellCoadd"),
        "background": ("input", "Background"),
        "catalog": ("input", "SourceCatalog"),
        "deconvolved": ("output", "ExposureF"),
    },
    "lsst.pipe.tasks.deblendCoaddSourcesPipeline.DeblendCoaddSourcesMultiTask": {
        "inputSchema": ("init input", "SourceCatalog"),
        "peakSchema": ("init input", "PeakCatalog"),
        "mergedDetections": ("input", "SourceCatalog"),
        "coadds_cell": ("input", "MultipleCellCoadd"),
        "backgrounds": ("input", "Background"),
        "deconvolvedCoadds": ("input", "ExposureF"),
        "outputSchema": ("init output", "SourceCatalog"),
        "deblendedCatalog": ("output", "SourceCatalog"),
        "scarletModelData": ("output", "LsstScarletModelData"),
        "objectParents": ("output", "SourceCatalog"),
    },
    "lsst.pipe.tasks.multiBand.MeasureMergedCoaddSourcesTask": {
        "inputSchema": ("init input", "SourceCatalog"),
        "exposure_cells": ("input", "MultipleCellCoadd"),
        "background": ("input", "Background"),
        "skyMap": ("input", "SkyMap"),
        "scarletCatalog": ("input", "SourceCatalog"),
        "scarletModels": ("input", "LsstScarletModelData"),
        "outputSchema": ("init output", "SourceCatalog"),
        "outputSources": ("output", "SourceCatalog"),
    },
    "lsst.pipe.tasks.mergeMeasurements.MergeMeasurementsTask": {
        "inputSchema": ("init input", "SourceCatalog"),
        "catalogs": ("input", "SourceCatalog"),
        "outputSchema": ("init output", "SourceCatalog"),
        "mergedCatalog": ("output", "SourceCatalog"),
    },
    "lsst.drp.tasks.forcedPhotCoadd.ForcedPhotCoaddTask": {
        "inputSchema": ("init input", "SourceCatalog"),
        "exposure_cell": ("input", "MultipleCellCoadd"),
        "background": ("input", "Background"),
        "refCat": ("input", "SourceCatalog"),
        "refCatInBand": ("input", "SourceCatalog"),
        "scarletModels": ("input", "LsstScarletModelData"),
        "refWcs": ("input", "Wcs"),
        "outputSchema": ("init output", "SourceCatalog"),
        "measCat": ("output", "SourceCatalog"),
    },
}


def read_tasks() -> dict[str, tuple[str, dict[str, Any], str]]:
    """Return class, settings and Python code of each task."""
    tasks = {}
    for label, task in PipelineIR.from_uri(PIPELINE).tasks.items():
        settings: dict[str, Any] = {}
        code = ""
        for config in task.config or ():
            settings |= config.rest
            code += config.python or ""
        tasks[label] = (task.klass, settings, code)
    return tasks


def connections_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return the dataset types of connections that are set."""
    prefix = "connections."
    return {key.removeprefix(prefix): name for key, name in settings.items() if key.startswith(prefix)}


@pytest.mark.parametrize("label", list(read_tasks()))
def test_every_connection_is_named(label: str) -> None:
    """If it fails, a task reads or overwrites catalogues of the deep coadd."""
    task_class, settings, _ = read_tasks()[label]
    assert connections_of(settings).keys() == CONNECTIONS[task_class].keys() - {"skyMap"}
    if any(storage_class == "MultipleCellCoadd" for _, storage_class in CONNECTIONS[task_class].values()):
        assert settings["useCellCoadds"] is True


def test_every_input_is_made_by_an_earlier_task() -> None:
    """If it fails, the graph is empty: a dataset type is misspelt."""
    made = {COADD: "MultipleCellCoadd"}
    used: set[str] = set()
    for task_class, settings, _ in read_tasks().values():
        names, kinds = connections_of(settings), CONNECTIONS[task_class]
        for connection, name in names.items():
            kind, storage_class = kinds[connection]
            if kind.endswith("input"):
                parent, _, component = name.partition(".")
                assert made[parent] == ("ExposureF" if component == "wcs" else storage_class), connection
                used.add(parent)
        for connection, name in names.items():
            kind, storage_class = kinds[connection]
            if kind.endswith("output"):
                assert name.startswith("restored_")
                assert name not in made
                made[name] = storage_class
    assert COADD in used
    # What nobody reads is what a user wants, or of later pipelines.
    assert made.keys() - used == {
        "restored_object_parent",
        "restored_object_forced_measurement_schema",
        "restored_object_forced_measurement",
    }


def test_settings_that_the_coadd_needs() -> None:
    """If it fails, variances are rescaled, aperture corrections of no visit
    are applied, a mask plane that no coadd has stops the task, or stars beside
    pixels without data have no flux.
    """
    tasks = read_tasks()
    assert tasks["detectRestoredPeaks"][1]["doScaleVariance"] is False
    assert (
        tasks["mergeRestoredDetections"][1]["priorityList"]
        == tasks["mergeRestoredMeasurements"][1]["priorityList"]
        == ["i", "r", "z", "y", "g", "N921", "u"]
    )
    assert tasks["measureRestoredUnforced"][1]["doPropagateFlags"] is False
    assert 'names.discard("subaru_FilterFraction")' in tasks["measureRestoredUnforced"][2]
    for label in ("measureRestoredUnforced", "measureRestoredForced"):
        _, settings, code = tasks[label]
        assert settings["doApCorr"] is False
        assert 'planes = ["CLIPPED", "REJECTED", "INEXACT_PSF", "FEW_EXPOSURES"]' in code
        assert "masksFpAnywhere = planes" in code
        assert "masksFpCenter = planes" in code
        assert 'plugins["base_PsfFlux"].badMaskPlanes = ["NO_DATA"]' in code


def test_subset_holds_all_tasks() -> None:
    """If it fails, a run of the subset misses a step."""
    pipeline = PipelineIR.from_uri(PIPELINE)
    assert pipeline.labeled_subsets["measureRestored"].subset == set(pipeline.tasks)
