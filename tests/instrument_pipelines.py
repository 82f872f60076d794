# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Graphs of pipelines of instruments, with datasets that are mocked."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lsst.astroclearnet.tasks import RestoreCoaddConfig
from lsst.pipe.base import Instrument, Pipeline
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.pipeline_graph import PipelineGraph
from lsst.pipe.base.tests.mocks import InMemoryRepo, mock_pipeline_graph
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

TOP = Path(__file__).parents[1]
RESOURCES = "resource://lsst.astroclearnet/resources/pipelines"
BANDS = {"g": "HSC-G", "r": "HSC-R2", "i": "HSC-I2", "z": "HSC-Z", "y": "HSC-Y", "N921": "NB0921"}

JOINT = {"HSC/RestoreCoaddBands-visit_image": 0.7, "LSSTCam/RestoreCoaddBands-visit_image": 0.8}
"""Pipelines of all bands together, with the target PSF in arcsec."""

STORAGE_CLASSES = {
    "skyMap": "SkyMap",
    "skyCorr": "Background",
    "finalVisitSummary": "ExposureCatalog",
    "visit_summary": "ExposureCatalog",
    "deepCoaddVisits": "StructuredDataDict",
    "deep_coadd_visit_selection": "StructuredDataDict",
    "calexp": "VisitImage",
    "preliminary_visit_image": "VisitImage",
    "visit_image": "VisitImage",
    "direct_warp": "ExposureF",
    "restored_coadd": "CellCoadd",
    "restored_coadd_demand": "MaskedImageV2",
    "restored_coadd_linear": "CellCoadd",
    "restored_coadd_linear_noise": "ArrowAstropy",
    "restored_coadd_metrics": "StructuredDataDict",
    "restored_coadd_plot": "Plot",
}


def make_graph(name: str, subset: str = "#restore") -> PipelineGraph:
    """Return the graph of a pipeline, as ``pipetask`` makes it."""
    return Pipeline.from_uri(f"{RESOURCES}/{name}.yaml{subset}").to_graph()


def config_of(name: str) -> RestoreCoaddConfig:
    """Return the configuration that a pipeline chooses."""
    config = make_graph(name).tasks["restoreCoadd"].config
    assert isinstance(config, RestoreCoaddConfig)
    return config


def square(ra: float, width: float) -> ConvexPolygon:
    """Return a region around a declination of 2.2 degrees."""
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return ConvexPolygon(
        [UnitVector3d(LonLat.fromDegrees(ra + x * width, 2.2 + y * width)) for x, y in corners]
    )


INSTRUMENTS = {
    "lsst.obs.subaru": {"HyperSuprimeCam": "HSC"},
    "lsst.obs.lsst": {"LsstCam": "LSSTCam", "LsstComCam": "LSSTComCam"},
    "lsst.obs.decam": {"DarkEnergyCamera": "DECam"},
}


def name_instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make classes with the names of the instruments, whose packages are not
    on PyPI.
    """

    def make_class(class_name: str, name: str) -> type:
        members = {"getName": classmethod(lambda cls: name), "register": None, "getRawFormatter": None}
        return type(class_name, (Instrument,), members)

    if importlib.util.find_spec("lsst.obs") is not None:
        return
    monkeypatch.setitem(sys.modules, "lsst.obs", types.ModuleType("lsst.obs"))
    for package, names in INSTRUMENTS.items():
        module = types.ModuleType(package)
        for class_name, name in names.items():
            setattr(module, class_name, make_class(class_name, name))
        monkeypatch.setitem(sys.modules, package, module)


def make_repository(camera: str = "HSC") -> InMemoryRepo:
    """Return a registry of two patches in the bands of HSC.

    Patch 40 is under detector 49 of three visits in each band and under one
    of another camera, patch 41 under detector 50 of the three.
    """
    repository = InMemoryRepo()
    insert = repository.butler.registry.insertDimensionData
    for name, detectors in ((camera, (49, 50)), ("OtherCam", (49,))):
        insert("instrument", {"name": name, "visit_max": 10**9, "exposure_max": 10**9, "detector_max": 200})
        insert("day_obs", {"instrument": name, "id": 20150320})
        for detector in detectors:
            insert("detector", {"instrument": name, "id": detector, "full_name": str(detector)})
    sky_map: dict[str, Any] = {"name": "hsc_rings_v1", "hash": b"v1".ljust(20, b"\0")}
    insert("skymap", {**sky_map, "tract_max": 16973, "patch_nx_max": 9, "patch_ny_max": 9})
    insert("tract", {"skymap": "hsc_rings_v1", "id": 9813, "region": square(150.1, 0.4)})
    for patch, ra in ((40, 150.0), (41, 150.2)):
        cell = {"cell_x": 4 + patch - 40, "cell_y": 4, "region": square(ra, 0.09)}
        insert("patch", {"skymap": "hsc_rings_v1", "tract": 9813, "id": patch, **cell})

    def observe(name: str, visit: int, physical_filter: str, detectors: tuple[int, ...]) -> None:
        names = {"instrument": name, "name": str(visit), "day_obs": 20150320}
        insert(
            "visit", {**names, "id": visit, "physical_filter": physical_filter, "region": square(150.1, 0.3)}
        )
        for detector in detectors:
            region = square(150.0 + 0.2 * (detector - 49), 0.08)
            place = {"instrument": name, "visit": visit, "detector": detector}
            insert("visit_detector_region", {**place, "region": region})

    for number, (band, physical_filter) in enumerate(BANDS.items(), start=1):
        insert("physical_filter", {"instrument": camera, "name": physical_filter, "band": band})
        for visit in range(3):
            observe(camera, 1000 * number + 2 * visit, physical_filter, (49, 50))
    insert("physical_filter", {"instrument": "OtherCam", "name": "r_other", "band": "r"})
    observe("OtherCam", 7, "r_other", (49,))
    return repository


def make_quanta(name: str, where: str, subset: str = "#restore") -> tuple[InMemoryRepo, list[Any]]:
    """Return the quanta of a pipeline whose tasks and datasets are mocked."""
    repository = make_repository(name.split("/")[0] if "/" in name else "HSC")
    graph = make_graph(name, subset)
    graph.resolve(repository.butler.registry)
    for node in graph.dataset_types.values():
        if node.name in STORAGE_CLASSES:
            assert node.storage_class_name == STORAGE_CLASSES[node.name]
    # Mocks lose the instrument of the pipeline, by which queries are narrowed.
    for name, value in graph.data_id.mapping.items():
        where = f"{name}='{value}' AND {where}"
    repository.pipeline_graph = mock_pipeline_graph(graph)
    # Puts what the pipeline needs wherever the dimensions allow it.
    repository.make_quantum_graph_builder()
    builder = AllDimensionsQuantumGraphBuilder(
        repository.pipeline_graph,
        repository.butler,
        input_collections=[repository.input_chain],
        output_run="u/test/restored",
        where=where,
    )
    quantum_graph = builder.finish(output="u/test", attach_datastore_records=False).assemble()
    return repository, list(quantum_graph.build_execution_quanta().values())
