# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline of HiPS with the tasks of pipe_tasks, as far as goes without
them.

CONNECTIONS and FIELDS state what the sources of the tasks say, at the commit
in the table of ``full-stack.rst``.
"""

from __future__ import annotations

from typing import Any

import pytest

from lsst.pipe.base.pipelineIR import PipelineIR

PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/_ingredients/MakeRestoredHips.yaml"
TASKS = "lsst.pipe.tasks.hips."

CONNECTIONS: dict[str, dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "HighResolutionHipsTask": {
        # Into which the Butler converts a CellCoadd on read.
        "coadd_exposure_handles": ("input", "ExposureF", ("tract", "patch", "skymap", "band")),
        "hips_exposures": ("output", "ExposureF", ("healpix11", "band")),
    },
    "GenerateHipsTask": {"hips_exposure_handles": ("input", "ExposureF", ("healpix11", "band"))},
    "GenerateColorHipsTask": {"hips_exposure_handles": ("input", "ExposureF", ("healpix11", "band"))},
}

_PROPERTIES = {f"properties.{name}_template" for name in ("creator_did", "obs_title", "obs_description")}
_BANDS = {"red_channel_band", "green_channel_band", "blue_channel_band"}

# Fields without a default, which must be set, and others that are.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "HighResolutionHipsTask": (set(), set()),
    "GenerateHipsTask": ({"hips_base_uri", *_PROPERTIES}, set()),
    "GenerateColorHipsTask": ({"hips_base_uri", *_PROPERTIES}, _BANDS),
}


def read_tasks() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return class and settings of each task."""
    pipeline = PipelineIR.from_uri(PIPELINE)
    tasks = {}
    for label, task in pipeline.tasks.items():
        settings: dict[str, Any] = {}
        for config in task.config or ():
            settings |= config.rest
        for key, value in settings.items():
            if value.startswith("parameters."):
                settings[key] = pipeline.parameters.mapping[value.removeprefix("parameters.")]
        tasks[label] = (task.klass.removeprefix(TASKS), settings)
    return tasks


@pytest.mark.parametrize("label", list(read_tasks()))
def test_settings_are_those_of_the_task(label: str) -> None:
    """If it fails, a task stops when it is configured, or reads the tiles of
    deep coadds.
    """
    name, settings = read_tasks()[label]
    connections = {f"connections.{connection}" for connection in CONNECTIONS[name]}
    needed, others = FIELDS[name]
    assert connections | needed <= settings.keys() <= connections | needed | others


def test_tiles_are_made_of_the_warped_coadds() -> None:
    """If it fails, the graphs are empty."""
    made: dict[str, tuple[str, tuple[str, ...]]] = {
        "restored_coadd": ("ExposureF", ("tract", "patch", "skymap", "band"))
    }
    for name, settings in read_tasks().values():
        for connection, (kind, storage_class, dimensions) in CONNECTIONS[name].items():
            dataset_type = settings[f"connections.{connection}"]
            if kind == "output":
                made[dataset_type] = (storage_class, dimensions)
            else:
                assert made[dataset_type] == (storage_class, dimensions)


def test_one_task_is_left_for_its_graph_builder() -> None:
    """If it fails, build-high-resolution-hips-qg refuses the file; it takes a
    pipeline of one task.
    """
    subset = PipelineIR.from_uri(PIPELINE).subset_from_labels({"warpRestoredHips"})
    assert list(subset.tasks) == ["warpRestoredHips"]
    chosen = PipelineIR.from_uri(PIPELINE).labeled_subsets["makeRestoredHips"].subset
    assert chosen == {"generateRestoredHips", "generateRestoredColorHips"}
