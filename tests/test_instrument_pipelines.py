# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pipelines of instruments: their graphs, with datasets that are mocked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from instrument_pipelines import (
    BANDS,
    JOINT,
    RESOURCES,
    STORAGE_CLASSES,
    TOP,
    config_of,
    make_graph,
    make_quanta,
    make_repository,
    name_instruments,
)

from lsst.astroclearnet.adapters.place import choose_cell_shape
from lsst.astroclearnet.core import linear_noise
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.daf.butler import DatasetType
from lsst.images import Box
from lsst.pipe.base import Pipeline


@dataclasses.dataclass(frozen=True)
class Case:
    """What one pipeline must ask for.

    Attributes
    ----------
    name
        Name of the file, without its suffix.
    images
        Dataset type of the exposures.
    summary
        Dataset type of the visit summaries, empty for none.
    selection
        Dataset type of the selected visits.
    sky_correction
        Whether sky corrections are subtracted.
    fwhm
        Target PSF in pixels of the sky map.
    scale
        Size of these in arcsec.
    """

    name: str
    images: str
    summary: str
    selection: str
    sky_correction: bool
    fwhm: float
    scale: float

    @property
    def camera(self) -> str:
        """Name of the instrument."""
        return self.name.split("/")[0]


FULL = ("finalVisitSummary", "deepCoaddVisits")
V2 = ("visit_summary", "deep_coadd_visit_selection")
FINAL = ("", "deep_coadd_visit_selection")
CASES = (
    Case("HSC/RestoreCoadd-RC2", "calexp", *FULL, True, 4.167, 0.168),
    Case("HSC/RestoreCoadd-Prod", "calexp", *FULL, True, 4.167, 0.168),
    Case("HSC/RestoreCoadd-preliminary_visit_image", "preliminary_visit_image", *V2, True, 4.167, 0.168),
    Case("HSC/RestoreCoadd-visit_image", "visit_image", *FINAL, False, 4.167, 0.168),
    Case("LSSTCam/RestoreCoadd-preliminary_visit_image", "preliminary_visit_image", *V2, False, 4.0, 0.2),
    Case("LSSTCam/RestoreCoadd-visit_image", "visit_image", *FINAL, False, 4.0, 0.2),
    Case("LSSTComCam/RestoreCoadd-preliminary_visit_image", "preliminary_visit_image", *V2, False, 5.0, 0.2),
    Case("LSSTComCam/RestoreCoadd-visit_image", "visit_image", *FINAL, False, 5.0, 0.2),
    Case("DECam/RestoreCoadd-calexp", "calexp", *FULL, False, 3.817, 0.262),
)
SHARP = {"HSC/RestoreForDeblender-visit_image": 0.168, "LSSTCam/RestoreForDeblender-visit_image": 0.2}
"""Pipelines of the deblender's image, with the pixels in arcsec."""

CATALOGUES = {
    f"{camera}/{name}": instrument
    for camera, instrument in {
        "HSC": "lsst.obs.subaru.HyperSuprimeCam",
        "LSSTCam": "lsst.obs.lsst.LsstCam",
    }.items()
    for name in ("MeasureRestoredCoadd", "TabulateRestoredObjects", "MakeRestoredHips")
}
"""Pipelines of catalogues and HiPS by the tasks of the full stack."""


@pytest.fixture(autouse=True)
def instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes with the names of the instruments."""
    name_instruments(monkeypatch)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_quantum_graph(case: Case) -> None:
    """If it fails, ``pipetask run`` finds no data with this pipeline, or other
    data than meant.
    """
    where = "skymap='hsc_rings_v1' AND tract=9813"
    repository, quanta = make_quanta(case.name, where)
    data_ids = {(quantum.dataId["patch"], quantum.dataId["band"]) for quantum in quanta}
    assert data_ids == {(patch, band) for patch in (40, 41) for band in BANDS}
    expected = Counter({case.images: 3, case.selection: 1, "skyMap": 1})
    if case.summary:
        expected[case.summary] = 3
    if case.sky_correction:
        expected["skyCorr"] = 3
    for quantum in quanta:
        found = {key.name.removeprefix("_mock_"): len(refs) for key, refs in quantum.inputs.items()}
        assert found == expected
        (images,) = (refs for key, refs in quantum.inputs.items() if key.name == f"_mock_{case.images}")
        assert {ref.dataId["detector"] for ref in images} == {49 if quantum.dataId["patch"] == 40 else 50}
        outputs = {key.name.removeprefix("_mock_") for key in quantum.outputs}
        products = {name for name in STORAGE_CLASSES if name.startswith("restored_coadd")}
        if case.name == "HSC/RestoreCoadd-Prod":
            products -= {"restored_coadd_plot"}
        assert outputs == products | {"restoreCoadd_metadata", "restoreCoadd_log"}
    # A quantum runs through, with all its inputs and outputs mocked.
    executor, butler = repository.make_single_quantum_executor()
    task_node = repository.pipeline_graph.tasks["_mock_restoreCoadd"]
    executor.execute(task_node, quanta[0])
    (ref,) = quanta[0].outputs["_mock_restored_coadd_linear"]
    assert butler.get(ref).quantum.task_label == "_mock_restoreCoadd"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_restored_coadds_are_measured_and_drawn(case: Case) -> None:
    """If it fails, the whole pipeline has no verdicts or pictures."""
    where = "skymap='hsc_rings_v1' AND tract=9813"
    _, quanta = make_quanta(case.name, where, subset="")
    counts = Counter(str(quantum.taskName).rsplit(".", 1)[-1] for quantum in quanta)
    dimensions = Counter(tuple(sorted(quantum.dataId.dimensions.required)) for quantum in quanta)
    assert sum(counts.values()) == 2 * 2 * len(BANDS) + len(BANDS) + 2
    assert dimensions["band", "skymap", "tract"] == len(BANDS)
    assert dimensions["patch", "skymap", "tract"] == 2


@pytest.mark.parametrize("has_afw", [True, False])
@pytest.mark.parametrize("name", [*(case.name for case in CASES), "RestoreCoadd", "RestoreCoaddFromWarps"])
def test_direct_coadds_may_be_those_of_detection(
    name: str, has_afw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, no graph builds where ``deep_coadd`` is what detection
    wrote, an exposure of afw.
    """
    storage_class = "ExposureF" if has_afw or "/" in name else "CellCoadd"
    for module in ("make_color_pictures", "measure_restoration"):
        monkeypatch.setattr(
            f"lsst.astroclearnet.tasks.{module}.direct_storage_class",
            lambda: "ExposureF" if has_afw else "CellCoadd",
        )
    registry = make_repository().butler.registry
    graph = make_graph(name, "")
    reference = graph.tasks["measureRestoration"].inputs["direct_coadd"].parent_dataset_type_name
    assert reference == ("deepCoadd_calexp" if name.endswith(("RC2", "Prod", "calexp")) else "deep_coadd")
    dimensions = registry.dimensions.conform(["skymap", "tract", "patch", "band"])
    registry.registerDatasetType(DatasetType(reference, dimensions, storage_class))
    graph.resolve(registry)
    assert graph.dataset_types[reference].storage_class_name == storage_class


@pytest.mark.parametrize(
    ("name", "expected"),
    [("HSC/RestoreCoadd-visit_image", {"HSC": 3}), ("RestoreCoadd", {"HSC": 3, "OtherCam": 1})],
)
def test_pipelines_of_an_instrument_leave_out_others(name: str, expected: dict[str, int]) -> None:
    """If it fails, visits of every camera that saw the patch are mixed, or
    the advice to name the instrument with the general pipeline is out of date.
    """
    _, quanta = make_quanta(name, "skymap='hsc_rings_v1' AND band='r' AND patch=40")
    (quantum,) = quanta
    (images,) = (refs for key, refs in quantum.inputs.items() if key.name == "_mock_visit_image")
    assert Counter(ref.dataId["instrument"] for ref in images) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_configuration(case: Case) -> None:
    """If it fails, a run with this pipeline is not the one that its comments
    describe.
    """
    config = config_of(case.name)
    config.validate()
    assert config.target_fwhm is not None
    assert config.target_fwhm / case.scale == pytest.approx(case.fwhm, abs=0.01)
    # Narrower than three pixels, the target itself would be undersampled.
    assert config.target_fwhm / case.scale > 3.0
    assert config.geometry_source == "skymap"
    assert config.preparation.do_apply_sky_correction is case.sky_correction
    assert config.do_use_visit_selection
    summary = (
        config.use_visit_summary_psf,
        config.use_visit_summary_wcs,
        config.use_visit_summary_photo_calib,
    )
    # Pixels of the final visit_image are calibrated; those of the others not.
    assert summary == (case.images != "visit_image",) * 3
    for plane in ("SUSPECT", "SATURATED", "BAD", "NO_DATA", "SPIKE"):
        assert "exclude" in config.preparation.mask_planes[plane]
    assert config.min_exposures == 3


@pytest.mark.parametrize(
    ("camera", "sigma", "expected"),
    [
        ("HSC", {"g": 2.04, "y": 1.88, "i": 1.51}, {"g": 1.66, "y": 0.79, "i": 0.30}),
        ("LSSTCam", {"u": 1.72, "y": 1.44}, {"u": 0.59, "y": 0.31}),
    ],
)
def test_noise_that_the_target_costs(
    camera: str, sigma: dict[str, float], expected: dict[str, float]
) -> None:
    """If it fails, the comments of the configuration state other noise than
    the method has in the seeing that they name.
    """
    case = next(case for case in CASES if case.name.startswith(f"{camera}/"))
    config = config_of(case.name)
    assert config.target_fwhm is not None
    y, x = np.mgrid[-15:16, -15:16]
    for band, width in sigma.items():
        psf = np.exp(-0.5 * (x**2 + y**2) / width**2)
        psfs = np.stack([psf / psf.sum()] * 4)
        noise = linear_noise(psfs, np.ones(4), config.target_fwhm / case.scale)
        assert float(noise) == pytest.approx(expected[band], rel=0.02)
        assert noise < config.max_noise


@pytest.mark.parametrize("camera", ["HSC", "DECam"])
@pytest.mark.parametrize("size", [4200, 4100])
def test_cells_of_patches_without_cells(camera: str, size: int) -> None:
    """If it fails, patches at the edge of a tract have other cells than those
    inside, or neighbours do not share theirs.
    """
    (name, *_) = (case.name for case in CASES if case.name.startswith(camera))
    cell_size = config_of(name).cell_size
    shape = choose_cell_shape(Box.from_shape((4200, size)), cell_size)
    assert tuple(shape) == (cell_size, cell_size)
    # Outer boxes begin 100 pixels before a multiple of 4000.
    assert 4000 % cell_size == 100 % cell_size == 0


def test_limits_of_lsstcam_are_those_of_its_warps() -> None:
    """If it fails, restored and deep coadds are made of other exposures."""
    selection = config_of("LSSTCam/RestoreCoadd-visit_image").selection
    assert (selection.max_scaled_size_scatter, selection.max_psf_trace_radius_delta) == (0.07, 4.4)
    assert selection.needs_reading
    assert list(selection.exclude_detectors) == [0, 20, 27, 65, 123, 161, 168, 188]
    comcam = config_of("LSSTComCam/RestoreCoadd-visit_image").selection
    assert (comcam.max_ellipticity_residual, comcam.min_psf_stars) == (0.0055, 6)
    assert not config_of("HSC/RestoreCoadd-RC2").selection.needs_reading


def test_pipeline_from_warps() -> None:
    """If it fails, warps are looked for by other dimensions than they have."""
    _, quanta = make_quanta("RestoreCoaddFromWarps", "instrument='HSC' AND band='N921'")
    assert len(quanta) == 2
    for quantum in quanta:
        found = {key.name: len(refs) for key, refs in quantum.inputs.items()}
        assert found == {"_mock_direct_warp": 3, "_mock_skyMap": 1}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_import_into_another_pipeline(case: Case, tmp_path: Path) -> None:
    """If it fails, the lines to add to those of drp_pipe do not work."""
    base = tmp_path / "base.yaml"
    base.write_text(
        "description: As an ingredient of drp_pipe.\n"
        "tasks:\n"
        "  other:\n"
        "    class: lsst.pipe.base.tests.mocks.DynamicTestPipelineTask\n"
        "subsets:\n"
        "  step3:\n"
        "    subset: [other]\n"
        "    description: Coadds.\n"
    )
    pipeline = tmp_path / "DRP.yaml"
    pipeline.write_text(
        "description: As a pipeline of drp_pipe.\n"
        "imports:\n"
        f"  - location: {base}\n"
        f"  - location: $ASTROCLEARNET_DIR/pipelines/{case.name}.yaml\n"
        "subsets:\n"
        "  step3:\n"
        "    subset:\n"
        # All that was there, as it takes the place of the one imported.
        "      - other\n"
        "      - restoreCoadd\n"
        "    description: Coadds.\n"
    )
    graph = Pipeline.from_uri(pipeline).to_graph()
    assert set(graph.task_subsets["step3"]) == {"other", "restoreCoadd"}
    assert graph.tasks["restoreCoadd"].task_class is RestoreCoaddTask


def test_every_pipeline_of_an_instrument_is_tested() -> None:
    """If it fails, a new pipeline is in no test."""
    files = {
        path.relative_to(TOP / "pipelines").with_suffix("").as_posix()
        for path in (TOP / "pipelines").glob("[A-Z]*/*.yaml")
    }
    others = {*CATALOGUES, *SHARP, *JOINT}
    assert files == {case.name for case in CASES} | others


@pytest.mark.parametrize(("name", "instrument"), CATALOGUES.items())
def test_catalogues(name: str, instrument: str) -> None:
    """If it fails, the command for catalogues or HiPS finds no pipeline.  Its
    graph needs the full stack: tests/test_afw_stack.py and
    tests/test_afw_object_table.py build those of catalogues.
    """
    subset, label = {
        "MeasureRestoredCoadd": ("measureRestored", "measureRestoredForced"),
        "TabulateRestoredObjects": ("tabulateRestored", "consolidateRestoredObject"),
        "MakeRestoredHips": ("makeRestoredHips", "generateRestoredColorHips"),
    }[name.split("/")[1]]
    pipeline = Pipeline.from_uri(f"{RESOURCES}/{name}.yaml#{subset}")
    assert pipeline.getInstrument() == instrument
    assert label in pipeline.task_labels


@pytest.mark.parametrize(("name", "scale"), SHARP.items())
def test_image_for_the_deblender(name: str, scale: float) -> None:
    """If it fails, Rubin's deblender finds no image, or one at another PSF
    than the benchmark recommends.
    """
    _, quanta = make_quanta(name, "skymap='hsc_rings_v1' AND tract=9813", "#restoreForDeblender")
    assert len(quanta) == 2 * 2 * len(BANDS)
    made = {key.name.removeprefix("_mock_") for quantum in quanta for key in quantum.outputs}
    read = {key.name.removeprefix("_mock_") for quantum in quanta for key in quantum.inputs}
    assert "restored_sharp_coadd_for_deblender" in made
    assert {"visit_image", "deep_coadd", "deep_coadd_visit_selection", "restored_sharp_coadd"} <= read
    # A campaign in the same collection keeps its coadds.
    assert not {dataset for dataset in made if dataset.startswith("restored_coadd")}
    config = make_graph(name, "#restoreForDeblender").tasks["restoreSharpCoadd"].config
    assert isinstance(config, RestoreCoaddConfig)
    config.validate()
    assert config.target_fwhm == pytest.approx(3.0 * scale)
    assert config.cell_size == 100
