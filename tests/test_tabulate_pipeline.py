# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline that makes object tables of restored coadds, as far as goes
without its tasks.

CONNECTIONS and COLUMNS_OF_TOOLS state what the sources of the tasks say, at
the commits in the table of ``full-stack.rst``.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsst.pipe.base.pipelineIR import PipelineIR

TOP = Path(__file__).parents[1]
PIPELINES = "resource://lsst.astroclearnet/resources/pipelines"
INGREDIENTS = f"{PIPELINES}/_ingredients"
FUNCTORS = files("lsst.astroclearnet") / "resources" / "schemas" / "restored_object_drp.yaml"
FITS = "lsst.meas.extensions.multiprofit.pipetasks_fit."
TABLES = "lsst.pipe.tasks.postprocess."

# What MeasureRestoredCoadd.yaml and the survey property maps give: storage
# class, and the smallest piece that one dataset is of.
GIVEN = {
    "restored_coadd_linear": ("MultipleCellCoadd", "band"),
    "restored_coadd_background": ("Background", "band"),
    "restored_object_unforced_measurement": ("SourceCatalog", "band"),
    "restored_object_forced_measurement": ("SourceCatalog", "band"),
    "restored_object_ref_measurement": ("SourceCatalog", "patch"),
    "restored_object_scarlet_models": ("LsstScarletModelData", "patch"),
    "deepCoadd_epoch_map_mean": ("HealSparseMap", "tract and band"),
}

_OBJECT_FIT = {
    "cat_ref": ("input", "SourceCatalog", "patch"),
    "cats_meas": ("input", "SourceCatalog", "band"),
    "coadds_cell": ("input", "MultipleCellCoadd", "band"),
    "backgrounds": ("input", "Background", "band"),
    "models_psf": ("input", "ArrowAstropy", "band"),
    "models_scarlet": ("input", "LsstScarletModelData", "patch"),
    "cat_output": ("output", "ArrowTable", "patch"),
}

# Connections that remain with use_cell_coadds.
CONNECTIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    f"{FITS}MultiProFitCoaddPsfFitTask": {
        "coadd_cell": ("input", "MultipleCellCoadd", "band"),
        "background": ("input", "Background", "band"),
        "cat_meas": ("input", "SourceCatalog", "band"),
        "cat_output": ("output", "ArrowTable", "band"),
    },
    f"{FITS}MultiProFitCoaddExpFitTask": _OBJECT_FIT,
    f"{FITS}MultiProFitCoaddSersicFitTask": _OBJECT_FIT,
    f"{TABLES}WriteObjectTableTask": {
        "inputCatalogMeas": ("input", "SourceCatalog", "band"),
        "inputCatalogForcedSrc": ("input", "SourceCatalog", "band"),
        "inputCatalogPsfsMultiprofit": ("input", "ArrowAstropy", "band"),
        "outputCatalog": ("output", "DataFrame", "patch"),
    },
    "lsst.drp.tasks.compute_object_epochs.ComputeObjectEpochsTask": {
        "objectCat": ("input", "ArrowAstropy", "patch"),
        "epochMap": ("input", "HealSparseMap", "tract and band"),
        "objectEpochs": ("output", "ArrowAstropy", "patch"),
    },
    f"{TABLES}TransformObjectCatalogTask": {
        "inputCatalog": ("input", "DataFrame", "patch"),
        "inputCatalogRef": ("input", "SourceCatalog", "patch"),
        "inputCatalogExpMultiprofit": ("input", "ArrowAstropy", "patch"),
        "inputCatalogSersicMultiprofit": ("input", "ArrowAstropy", "patch"),
        "inputCatalogEpoch": ("input", "ArrowAstropy", "patch"),
        "outputCatalog": ("output", "ArrowAstropy", "patch"),
    },
    f"{TABLES}ConsolidateObjectTableTask": {
        "inputCatalogs": ("input", "ArrowAstropy", "patch"),
        "outputCatalog": ("output", "ArrowAstropy", "tract"),
    },
}

# The Butler converts these into each other.
TABULAR = {"ArrowTable", "ArrowAstropy", "DataFrame"}

# Functors of lsst.pipe.tasks.functors, with the number of their arguments.
NUM_ARGUMENTS = {
    "Index": 0,
    "Column": 1,
    "SinglePrecisionFloatColumn": 1,
    "MultibandColumn": 2,
    "MultibandSinglePrecisionFloatColumn": 2,
    "CoordColumn": 1,
    **dict.fromkeys(("RAColumn", "DecColumn", "RAErrColumn", "DecErrColumn", "RADecCovColumn"), 0),
    **dict.fromkeys(("ReferenceBand", "Ebv"), 0),
    **dict.fromkeys(("MomentsG1Sky", "MomentsG2Sky", "MomentsTraceSky"), 7),
    **dict.fromkeys(("SemimajorAxisFromMoments", "SemimajorAxisFromCorrelation"), 7),
    **dict.fromkeys(("SemiminorAxisFromMoments", "SemiminorAxisFromCorrelation"), 7),
    **dict.fromkeys(("PositionAngleFromMoments", "PositionAngleFromCorrelation"), 7),
}

# Datasets that WriteObjectTableTask joins, and those that
# TransformObjectCatalogTask takes beside them.
BAND_DATASETS = {"meas", "forced_src", "psfs_multiprofit"}
PATCH_DATASETS = {"ref", "epoch", "Exp_multiprofit", "Sersic_multiprofit"}

# What the tools of AnalyzeRestoredCoadd.yaml and the extendedness of
# ConsolidateObjectTableTask read, without the band.
COLUMNS_OF_TOOLS = {
    *("coord_ra", "coord_dec", "coord_flag", "sky_object", "ebv"),
    *("detect_isPatchInner", "detect_isDeblendedSource"),
    *("psfFlux", "psfFluxErr", "psfFlux_flag", "ap09Flux", "inputCount"),
    *("ixx", "iyy", "ixy", "ixxPSF", "iyyPSF", "ixyPSF"),
    *("extendedness", "extendedness_flag"),
    *("pixelFlags_saturatedCenter", "pixelFlags_edge", "pixelFlags_nodata"),
    *("exponential_reff_x", "exponential_reff_y"),
    *(f"{band}_sersicFlux{error}" for band in "ugrizy" for error in ("", "Err")),
}


def read_tasks(name: str) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Return class, settings and Python code of each task of a pipeline."""
    pipeline = PipelineIR.from_uri(f"{INGREDIENTS}/{name}.yaml")
    tasks = {}
    for label, task in pipeline.tasks.items():
        settings: dict[str, Any] = {}
        code = ""
        for config in task.config or ():
            settings |= config.rest
            code += config.python or ""
        for key, value in settings.items():
            if isinstance(value, str) and value.startswith("parameters."):
                settings[key] = pipeline.parameters.mapping[value.removeprefix("parameters.")]
        tasks[label] = (task.klass, settings, code)
    return tasks


def connections_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return the dataset types of connections that are set."""
    prefix = "connections."
    return {key.removeprefix(prefix): name for key, name in settings.items() if key.startswith(prefix)}


def read_functors() -> dict[str, dict[str, Any]]:
    """Return the functors of all columns, with their arguments in a list."""
    document = yaml.safe_load(FUNCTORS.read_text())
    assert document.keys() == {"funcs"}
    functors: dict[str, dict[str, Any]] = document["funcs"]
    for functor in functors.values():
        args = functor.get("args", [])
        functor["args"] = [args] if isinstance(args, str) else args
        # The default of all functors that are used without one.
        functor.setdefault("dataset", "ref")
    return functors


@pytest.mark.parametrize("label", list(read_tasks("TabulateRestoredObjects")))
def test_every_connection_is_named(label: str) -> None:
    """If it fails, a task reads or overwrites tables of the deep coadd."""
    task_class, settings, _ = read_tasks("TabulateRestoredObjects")[label]
    assert connections_of(settings).keys() == CONNECTIONS[task_class].keys()
    if task_class.startswith(FITS):
        assert settings["use_cell_coadds"] is True


def test_given_datasets_are_those_of_the_catalogues() -> None:
    """If it fails, the graph is empty: MeasureRestoredCoadd.yaml has other
    names.
    """
    written = {
        name
        for _, settings, _ in read_tasks("MeasureRestoredCoadd").values()
        for name in connections_of(settings).values()
    }
    assert {name for name in GIVEN if name.startswith("restored_")} <= written


def test_every_input_is_made_by_an_earlier_task() -> None:
    """If it fails, the graph is empty: a dataset type is misspelt, or of
    another storage class or other dimensions.
    """
    made = dict(GIVEN)
    used: set[str] = set()
    for label, (task_class, settings, _) in read_tasks("TabulateRestoredObjects").items():
        for connection, name in connections_of(settings).items():
            kind, storage_class, piece = CONNECTIONS[task_class][connection]
            if kind == "input":
                made_class, made_piece = made[name]
                assert made_piece == piece, (label, connection)
                assert made_class == storage_class or {made_class, storage_class} <= TABULAR
                used.add(name)
            else:
                assert name.startswith("restored_object_")
                assert name not in made
                made[name] = (storage_class, piece)
    assert used >= GIVEN.keys()
    assert made.keys() - used == {"restored_object_drp"}


def test_datasets_are_not_those_of_the_catalogue_without_the_stack() -> None:
    """If it fails, the two catalogues of restored coadds are mixed."""
    (objects,) = PipelineIR.from_uri(f"{INGREDIENTS}/MeasureObjects.yaml").tasks.values()
    assert objects.klass == "lsst.astroclearnet.tasks.MeasureObjectsTask"
    written = {
        name
        for _, settings, _ in read_tasks("TabulateRestoredObjects").values()
        for name in connections_of(settings).values()
    }
    assert "restored_object_patch" not in written
    assert "restored_object_patch_drp" in written


def test_sersic_fits_start_from_the_exponential_ones() -> None:
    """If it fails, they read those of the deep coadd: the key of inputs_init
    names the dataset.
    """
    tasks = read_tasks("TabulateRestoredObjects")
    name = tasks["fitRestoredObjectsExp"][1]["connections.cat_output"]
    code = tasks["fitRestoredObjectsSersic"][2]
    compile(code, "fitRestoredObjectsSersic", "exec")
    assert f'"{name}": InputConfig(' in code


def test_object_table_is_analyzed() -> None:
    """If it fails, the tools look for another table."""
    settings = read_tasks("AnalyzeRestoredCoadd")["analyzeRestoredObjectTable"][1]
    table = read_tasks("TabulateRestoredObjects")["consolidateRestoredObject"][1]["connections.outputCatalog"]
    assert settings["connections.data"] == settings["connections.inputName"] == table


def test_functor_file_is_found() -> None:
    """If it fails, the task stops when it starts."""
    setting = read_tasks("TabulateRestoredObjects")["standardizeRestoredObject"][1]["functorFile"]
    path = Path(setting.replace("$ASTROCLEARNET_DIR", str(TOP)))
    assert path.samefile(str(FUNCTORS))


def test_functors_are_called_as_defined() -> None:
    for name, functor in read_functors().items():
        assert functor.keys() <= {"functor", "dataset", "args", "noDup"}, name
        assert len(functor["args"]) == NUM_ARGUMENTS[functor["functor"]], name
        assert functor["dataset"] in BAND_DATASETS | PATCH_DATASETS, name
        if functor["functor"].startswith("Multiband"):
            # The band that is checked is the one of both columns.
            column, band = functor["args"]
            assert name.startswith(f"{band}_")
            assert column.startswith(f"{band}_")


def test_every_dataset_has_a_column() -> None:
    """If it fails, the task stops: it cannot join a table without columns."""
    assert {functor["dataset"] for functor in read_functors().values()} == BAND_DATASETS | PATCH_DATASETS


def test_columns_that_the_tools_read() -> None:
    assert COLUMNS_OF_TOOLS - read_functors().keys() == set()


def test_columns_that_restored_coadds_have() -> None:
    """If it fails, a column is empty, or a plane of coadds has no flag."""
    read = {column for functor in read_functors().values() for column in functor["args"]}
    assert not [column for column in read if re.search("sensor_edge|apCorr|^calib_", column)]
    code = read_tasks("MeasureRestoredCoadd")["measureRestoredUnforced"][2]
    for plane in ("CLIPPED", "REJECTED", "INEXACT_PSF", "FEW_EXPOSURES"):
        assert f'"{plane}"' in code
        flag = f"base_PixelFlags_flag_{plane.lower()}"
        assert {flag, f"{flag}Center"} <= read


def test_bands_of_hsc() -> None:
    """If it fails, the table of a tract asks for a band that HSC has not."""
    pipeline = PipelineIR.from_uri(f"{PIPELINES}/HSC/TabulateRestoredObjects.yaml")
    settings: dict[str, Any] = {}
    for config in pipeline.tasks["consolidateRestoredObject"].config or ():
        settings |= config.rest
    assert settings["actions.extendedness.bands"] == ["g", "r", "i", "z", "y"]
    assert settings["connections.outputCatalog"] == "restored_object_drp"


def test_subset_holds_all_tasks() -> None:
    """If it fails, a run of the subset misses a step."""
    pipeline = PipelineIR.from_uri(f"{INGREDIENTS}/TabulateRestoredObjects.yaml")
    assert pipeline.labeled_subsets["tabulateRestored"].subset == set(pipeline.tasks)
