# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The object table of restored coadds, made by the tasks of the full stack."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.repository import create_repository
from lsst.daf.butler import DatasetType
from lsst.pipe.base import InMemoryDatasetHandle, Pipeline
from lsst.pipe.base.pipeline_graph import PipelineGraph

FUNCTORS = files("lsst.astroclearnet") / "resources" / "schemas" / "restored_object_drp.yaml"
NUM_OBJECTS = 7


CAMERAS = pytest.mark.parametrize(
    "camera",
    [
        pytest.param("HSC", marks=pytest.mark.afw("lsst.obs.subaru")),
        pytest.param("LSSTCam", marks=pytest.mark.afw("lsst.obs.lsst")),
    ],
)


def make_graph(camera: str, name: str, folder: Path) -> PipelineGraph:
    """Return the resolved graph of a pipeline."""
    graph = Pipeline.from_uri(f"$ASTROCLEARNET_DIR/pipelines/{camera}/{name}.yaml").to_graph()
    graph.resolve(create_repository(str(folder / "repo")).registry)
    return graph


@pytest.mark.afw("lsst.pipe.tasks", "lsst.drp.tasks", "lsst.meas.extensions.multiprofit")
@CAMERAS
def test_graph_of_the_object_table(camera: str, tmp_path: Path) -> None:
    """If it fails, the tasks have other connections than the pipeline says."""
    graph = make_graph(camera, "TabulateRestoredObjects", tmp_path)
    inputs = {name for name, _ in graph.iter_overall_inputs()}
    assert inputs == {
        "deepCoadd_epoch_map_mean",
        "restored_coadd_linear",
        "restored_coadd_background",
        "restored_object_unforced_measurement",
        "restored_object_forced_measurement",
        "restored_object_ref_measurement",
        "restored_object_scarlet_models",
    }
    outputs = {
        edge.parent_dataset_type_name for task in graph.tasks.values() for edge in task.iter_all_outputs()
    }
    made = {output for output in outputs if not output.endswith(("_config", "_log", "_metadata"))}
    assert all(output.startswith("restored_object_") for output in made)
    consumers = {edge.task_label for edge in graph.consuming_edges_of("restored_object_exp_multiprofit")}
    assert consumers == {"fitRestoredObjectsSersic", "standardizeRestoredObject"}


def columns_read(bands: list[str]) -> dict[str, set[str]]:
    """Return the columns that the functors read of each dataset."""
    from lsst.pipe.tasks.functors import CompositeFunctor

    read: dict[str, set[str]] = {}
    for name, functor in CompositeFunctor.from_file(str(FUNCTORS)).funcDict.items():
        if name == "refBand":
            functor.bands = tuple(bands)
        read.setdefault(functor.dataset, set()).update(functor.columns)
    # What the functors of fits take of it.
    read["ref"] |= {f"base_LocalWcs_CDMatrix_{i}_{j}" for i in (1, 2) for j in (1, 2)}
    return read


@pytest.mark.afw("lsst.pipe.tasks", "lsst.drp.tasks", "lsst.meas.extensions.scarlet")
@CAMERAS
def test_catalogues_have_the_columns(camera: str, tmp_path: Path) -> None:
    """If it fails, a column of the object table is empty, as the camera's
    package does not turn its measurement on.
    """
    made: list[tuple[Any, DatasetType]] = []
    make_graph(camera, "MeasureRestoredCoadd", tmp_path).instantiate_tasks(init_outputs=made)
    columns = {dataset_type.name: set(catalog.schema.extract("*")) for catalog, dataset_type in made}
    read = columns_read(["g", "r", "i", "z", "y"])
    for dataset, name in (
        ("meas", "restored_object_unforced_measurement_schema"),
        ("forced_src", "restored_object_forced_measurement_schema"),
        ("ref", "restored_object_ref_measurement_schema"),
    ):
        assert read[dataset] - columns[name] == set(), dataset


def make_table(columns: set[str], rng: np.random.Generator) -> Table:
    """Return a catalogue with numbers, or flags, in the columns."""
    table = Table({"id": np.arange(100, 100 + NUM_OBJECTS)})
    for column in sorted(columns):
        logical = "flag" in column or column.startswith(("detect_", "merge_"))
        table[column] = rng.random(NUM_OBJECTS) < 0.5 if logical else rng.uniform(0.5, 1.5, NUM_OBJECTS)
    for column in table.colnames:
        # Moments of an ellipse.
        if column.endswith("_xy") or column == "rho":
            table[column] *= 0.1
    return table


def transform(bands: list[str]) -> Any:
    """Return the tasks' table of a patch from catalogues with all columns that
    the functors read.
    """
    from lsst.pipe.tasks.postprocess import TransformObjectCatalogTask, WriteObjectTableTask

    read = columns_read(bands)
    rng = np.random.default_rng(4)
    tables = {name: make_table(columns, rng) for name, columns in read.items()}
    joined = WriteObjectTableTask(config=WriteObjectTableTask.ConfigClass()).run(
        catalogs={
            band: {name: tables[name].copy() for name in ("meas", "forced_src", "psfs_multiprofit")}
            for band in bands
        },
        tract=1,
        patch=2,
    )
    config = TransformObjectCatalogTask.ConfigClass()
    config.functorFile = str(FUNCTORS)
    config.outputBands = bands
    task = TransformObjectCatalogTask(config=config)
    handles = {
        f"handle_{name}": InMemoryDatasetHandle(tables[name], storageClass="ArrowAstropy")
        for name in ("ref", "epoch", "Exp_multiprofit", "Sersic_multiprofit")
    }
    return task.run(
        InMemoryDatasetHandle(joined, storageClass="DataFrame"),
        funcs=task.funcs,
        dataId={"tract": 1, "patch": 2},
        **handles,
    ).outputCatalog


@pytest.mark.afw("lsst.pipe.tasks")
def test_functors_make_all_columns(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, a functor has another name by now, or reads a column of
    another catalogue.
    """
    bands = ["g", "r"]
    table = transform(bands)
    assert len(table) == NUM_OBJECTS
    assert {"patch", "coord_ra", "refBand", "r_psfFlux", "g_pixelFlags_few_exposures"} <= set(table.colnames)
    # Those of a band that is not there are left out.
    assert {"g_sersicFlux", "r_sersicFlux"} <= set(table.colnames)
    assert "i_sersicFlux" not in table.colnames
    # A column that is missing is logged, and masked.
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not [name for name in table.colnames if np.ma.getmaskarray(table[name]).any()]


@pytest.mark.afw("lsst.pipe.tasks")
def test_extendedness_of_the_tract() -> None:
    """If it fails, the last task finds no fluxes of the fits."""
    from lsst.pipe.tasks.postprocess import ConsolidateObjectTableTask

    config = ConsolidateObjectTableTask.ConfigClass()
    config.actions.extendedness.bands = bands = ["g", "r", "i", "z", "y"]
    columns = config.actions.extendedness(transform(bands))
    assert columns.keys() == {f"{band}_model_extendedness" for band in [*bands, "griz"]}
