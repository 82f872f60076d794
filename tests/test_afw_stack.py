# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Calibrations, warps and coadds of this package in the full stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    DirectWarpSource,
    ExposureId,
    UnusableExposureError,
    visit_calibration_from_summary,
)
from lsst.astroclearnet.adapters.read import WARP_DETECTOR, recalibrate, visit_image_from_warp
from lsst.astroclearnet.metrics import flux_error_factor
from lsst.astroclearnet.repository import create_repository, put_visit_image, register_sky_map
from lsst.astroclearnet.tasks import (
    MakeDeblenderCoaddConfig,
    MakeDeblenderCoaddTask,
    MeasureRestorationConfig,
    MeasureRestorationTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler, DatasetType
from lsst.images import Box, VisitImage
from lsst.images.cells import CellCoadd
from lsst.pipe.base import InMemoryDatasetHandle, Pipeline, Struct

pytestmark = pytest.mark.afw(
    "lsst.cell_coadds",
    "lsst.geom",
    "lsst.meas.algorithms",
    "lsst.meas.base",
    "lsst.meas.extensions.piff",
    "lsst.meas.extensions.psfex",
    "lsst.skymap",
)

SHAPE = (210, 230)
SIGMA = 2.0
DATA_ID = {"skymap": "test_map", "tract": 3, "patch": 0, "band": "i"}


def make_wcs(x: float, y: float) -> Any:
    """Return a projection with one pixel at the middle of the test tract."""
    from lsst.afw.geom import makeCdMatrix, makeSkyWcs
    from lsst.geom import Point2D, SpherePoint, arcseconds, degrees

    return makeSkyWcs(
        crpix=Point2D(x, y),
        crval=SpherePoint(150.1, 2.2, degrees),
        cdMatrix=makeCdMatrix(scale=0.168 * arcseconds),
    )


def make_summary(*, psf: bool = True, wcs: bool = True, calibration: float | None = 3.7) -> Any:
    """Return a visit summary of detector 5."""
    from lsst.afw.detection import GaussianPsf
    from lsst.afw.image import PhotoCalib
    from lsst.afw.table import ExposureCatalog, ExposureTable
    from lsst.geom import Box2I, Extent2I, Point2I

    catalog = ExposureCatalog(ExposureTable.makeMinimalSchema())
    record = catalog.addNew()
    record.setId(5)
    record.setBBox(Box2I(Point2I(0, 0), Extent2I(SHAPE[1], SHAPE[0])))
    if psf:
        record.setPsf(GaussianPsf(25, 25, SIGMA))
    if wcs:
        record.setWcs(make_wcs(100.0, 80.0))
    if calibration is not None:
        record.setPhotoCalib(PhotoCalib(calibration))
    return catalog


def test_calibration_of_a_visit_summary() -> None:
    """If it fails, calibrations of the full stack are converted wrongly."""
    calibration = visit_calibration_from_summary(
        make_summary(), ExposureId(12, 5, "TestCam"), psf=True, wcs=True, photo_calib=True
    )
    image = make_visit_image(np.ones(SHAPE), make_projection(SHAPE, visit=12, detector=5), unit=u.electron)
    changed = recalibrate(image, calibration)
    np.testing.assert_allclose(changed.convert_unit(u.nJy).image.array, 3.7, rtol=1e-6)
    sky = changed.sky_projection.pixel_to_sky(x=100.0, y=80.0)
    assert float(sky.ra.deg) == pytest.approx(150.1, abs=1e-9)
    assert float(sky.dec.deg) == pytest.approx(2.2, abs=1e-9)
    assert changed.sky_projection.pixel_frame.detector == 5
    kernel = changed.psf.compute_kernel_image(x=50.0, y=60.0).array
    rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
    profile = np.exp(-0.5 * (rows**2 + columns**2) / SIGMA**2)
    np.testing.assert_allclose(kernel, profile / profile.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("missing", "detector", "reason"),
    [
        ({}, 6, "not_in_visit_summary"),
        ({"psf": False}, 5, "no_psf"),
        ({"wcs": False}, 5, "no_wcs"),
        ({"calibration": None}, 5, "no_photo_calib"),
        ({"calibration": np.nan}, 5, "no_photo_calib"),
        ({"calibration": 1.0}, 5, "already_calibrated"),
    ],
)
def test_what_a_visit_summary_may_lack(missing: dict[str, Any], detector: int, reason: str) -> None:
    """If it fails, a detector whose calibration failed is used."""
    with pytest.raises(UnusableExposureError, match="visit summary") as caught:
        visit_calibration_from_summary(
            make_summary(**missing), ExposureId(12, detector), psf=True, wcs=True, photo_calib=True
        )
    assert caught.value.reason == reason


def make_warp(unit: str = "nJy") -> Any:
    """Return a direct warp whose PSF is known everywhere."""
    from lsst.afw.detection import GaussianPsf
    from lsst.afw.image import ExposureF, FilterLabel, PhotoCalib
    from lsst.geom import Box2I, Extent2I, Point2I

    warp = ExposureF(Box2I(Point2I(-30, 20), Extent2I(70, 50)), make_wcs(0.0, 0.0))
    warp.image.array[:] = np.arange(70 * 50, dtype=np.float32).reshape(50, 70)
    warp.variance.array[:] = 4.0
    warp.mask.array[:10, :] |= warp.mask.getPlaneBitMask("NO_DATA")
    warp.setPsf(GaussianPsf(25, 25, SIGMA))
    warp.setPhotoCalib(PhotoCalib(1.0))
    warp.setFilter(FilterLabel(band="i", physical="HSC-I2"))
    warp.metadata["BUNIT"] = unit
    return warp


def test_direct_warp_is_converted() -> None:
    """If it fails, pixels, mask or place of a warp are changed."""
    handle = InMemoryDatasetHandle(make_warp(), instrument="HSC", visit=44, storageClass="ExposureF")
    image = DirectWarpSource(handle).get()
    assert (image.bbox.x.start, image.bbox.y.start) == (-30, 20)
    np.testing.assert_array_equal(image.image.array, make_warp().image.array)
    assert image.mask.get("NO_DATA")[:10].all()
    assert not image.mask.get("NO_DATA")[10:].any()
    assert (image.unit, image.band, image.physical_filter) == (u.nJy, "i", "HSC-I2")
    assert image.sky_projection.pixel_frame.detector == WARP_DETECTOR
    sky = image.sky_projection.pixel_to_sky(x=0.0, y=0.0)
    assert float(sky.ra.deg) == pytest.approx(150.1, abs=1e-9)
    kernel = image.psf.compute_kernel_image(x=0.0, y=40.0)
    assert kernel.bbox == image.psf.kernel_bbox
    assert kernel.array.sum() == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(UnusableExposureError, match="in adu, not in nJy"):
        visit_image_from_warp(make_warp("adu"), ExposureId(44, WARP_DETECTOR))


def test_psf_of_a_warp_beyond_its_detectors() -> None:
    """If it fails, every patch at the edge of a visit loses that visit."""
    from lsst.afw.detection import GaussianPsf
    from lsst.afw.table import ExposureCatalog, ExposureTable
    from lsst.geom import Box2I, Extent2I, Point2I
    from lsst.meas.algorithms import CoaddPsf

    schema = ExposureTable.makeMinimalSchema()
    schema.addField("weight", type="D", doc="Weight of the detector.")
    catalog = ExposureCatalog(schema)
    record = catalog.addNew()
    record.setId(1)
    record.setBBox(Box2I(Point2I(0, 0), Extent2I(20, 20)))
    record.setPsf(GaussianPsf(25, 25, SIGMA))
    record.setWcs(make_wcs(0.0, 0.0))
    record.set("weight", 1.0)
    warp = make_warp()
    warp.setPsf(CoaddPsf(catalog, make_wcs(0.0, 0.0)))
    psf = visit_image_from_warp(warp, ExposureId(44, WARP_DETECTOR)).psf
    inside, outside = psf.compute_kernel_image(x=10.0, y=10.0), psf.compute_kernel_image(x=-25.0, y=60.0)
    assert inside.bbox == outside.bbox == psf.kernel_bbox
    np.testing.assert_allclose(outside.array, inside.array, atol=2e-3)


@pytest.fixture(scope="module")
def field() -> StarField:
    """Stars on patch 0, far from each other."""
    columns, rows = np.meshgrid(np.arange(25.0, 145.0, 22.0), np.arange(25.0, 145.0, 22.0))
    rng = np.random.default_rng(8)
    return StarField(
        geometry=make_patch_geometry().patch(3, 0),
        x=columns.ravel() + rng.uniform(-0.5, 0.5, columns.size),
        y=rows.ravel() + rng.uniform(-0.5, 0.5, rows.size),
        flux=rng.uniform(1500.0, 4000.0, columns.size),
    )


def observe(field: StarField, visit: int) -> VisitImage:
    """Return one visit image of the stars."""
    projection = make_projection(
        SHAPE, offset=(2.3 * visit, 40.0 + visit), rotation=17.0 * visit, visit=visit
    )
    noise = np.random.default_rng(visit).normal(0.0, 2.0, SHAPE)
    image = field.render(projection, SHAPE, 2.3548 * SIGMA) + noise
    return make_visit_image(image, projection, variance=4.0, fwhm=2.3548 * SIGMA)


@pytest.fixture(scope="module")
def outputs(field: StarField) -> Struct:
    """What the task makes of four visits."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.7
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 8
    config.validate()
    images = [observe(field, visit) for visit in range(1, 5)]
    return RestoreCoaddTask(config=config).run(visit_images=images, geometry=field.geometry, band="i")


@pytest.fixture(scope="module")
def butler(field: StarField, outputs: Struct, tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository with the linear coadd."""
    butler = create_repository(str(tmp_path_factory.mktemp("stack") / "repo"))
    register_sky_map(butler, make_patch_geometry(), "run")
    put_visit_image(butler, observe(field, 1), "run")
    dimensions = butler.dimensions.conform(["skymap", "tract", "patch", "band"])
    butler.registry.registerDatasetType(DatasetType("restored_coadd_linear", dimensions, "CellCoadd"))
    butler.put(outputs.restored_coadd_linear, "restored_coadd_linear", DATA_ID, run="run")
    return butler


def test_coadd_is_read_as_an_exposure(butler: Butler, outputs: Struct) -> None:
    """If it fails, users of the full stack cannot use the products."""
    from lsst.afw.image import ExposureF
    from lsst.geom import Point2D

    coadd: CellCoadd = outputs.restored_coadd_linear
    exposure = butler.get("restored_coadd_linear", DATA_ID, collections="run", storageClass="ExposureF")
    assert isinstance(exposure, ExposureF)
    np.testing.assert_array_equal(exposure.image.array, coadd.image.array)
    np.testing.assert_array_equal(exposure.variance.array, coadd.variance.array)
    assert exposure.getPhotoCalib().getCalibrationMean() == 1.0
    assert exposure.getFilter().bandLabel == "i"
    for legacy, plane in (("NO_DATA", "NO_DATA"), ("CLIPPED", "CLIPPED"), ("SAT", "SATURATED")):
        bits = exposure.mask.array & exposure.mask.getPlaneBitMask(legacy)
        np.testing.assert_array_equal(bits > 0, coadd.mask.get(plane))
    # The plane of this package keeps its name.
    bits = exposure.mask.array & exposure.mask.getPlaneBitMask("FEW_EXPOSURES")
    np.testing.assert_array_equal(bits > 0, coadd.mask.get("FEW_EXPOSURES"))
    x, y = coadd.bbox.x.start + 33.0, coadd.bbox.y.start + 71.0
    sky, expected = exposure.getWcs().pixelToSky(x, y), coadd.sky_projection.pixel_to_sky(x=x, y=y)
    assert sky.getRa().asDegrees() == pytest.approx(float(expected.ra.deg), abs=1e-9)
    assert sky.getDec().asDegrees() == pytest.approx(float(expected.dec.deg), abs=1e-9)
    kernel = exposure.getPsf().computeKernelImage(Point2D(x, y))
    np.testing.assert_allclose(kernel.array, coadd.psf.compute_kernel_image(x=x, y=y).array, atol=1e-12)


def test_direct_coadd_is_compared(butler: Butler, outputs: Struct) -> None:
    """If it fails, star fluxes of restored coadds are not compared with those
    of coadds that the full stack made, or on another scale.
    """
    from lsst.afw.image import PhotoCalib

    exposure = butler.get("restored_coadd_linear", DATA_ID, collections="run", storageClass="ExposureF")
    config = MeasureRestorationConfig()
    config.direct_storage_class = "ExposureF"
    task = MeasureRestorationTask(config=config)
    inputs = {
        "restored": outputs.restored_coadd,
        "metrics": outputs.restored_coadd_metrics,
        "linear": outputs.restored_coadd_linear,
        "linear_noise": outputs.restored_coadd_linear_noise,
    }
    figures = task.run(**inputs, direct=exposure).restored_coadd_quality["metrics"]
    assert figures["flux_num_stars"] >= 3
    assert figures["flux_offset_measured"] == pytest.approx(0.0, abs=1e-3)
    # One whose counts are of 2 nJy has twice the flux.
    exposure.setPhotoCalib(PhotoCalib(2.0))
    figures = task.run(**inputs, direct=exposure).restored_coadd_quality["metrics"]
    assert figures["flux_offset_measured"] == pytest.approx(-0.5, abs=1e-3)


def test_coadd_is_read_as_cells(butler: Butler, outputs: Struct) -> None:
    """If it fails, the tasks with useCellCoadds cannot read the products."""
    coadd: CellCoadd = outputs.restored_coadd_linear
    cells = butler.get("restored_coadd_linear", DATA_ID, collections="run", storageClass="MultipleCellCoadd")
    exposure = cells.stitch().asExposure()
    np.testing.assert_array_equal(exposure.image.array, coadd.image.array)
    assert len(cells.cells) == 20


@pytest.mark.afw("lsst.obs.base")
def test_deblender_gets_an_exposure(butler: Butler, outputs: Struct) -> None:
    """If it fails, the image for the deblender is not on the pixels of the
    coadd, has holes, or another PSF than it declares.
    """
    from lsst.afw.image import ExposureF
    from lsst.geom import Point2D

    exposure = butler.get("restored_coadd_linear", DATA_ID, collections="run", storageClass="ExposureF")
    box = InMemoryDatasetHandle(exposure, storageClass="ExposureF").get(component="bbox")
    task = MakeDeblenderCoaddTask(config=MakeDeblenderCoaddConfig())
    made = task.run(restored=outputs.restored_coadd, bbox=Box.from_legacy(box)).deblender_coadd
    dimensions = butler.dimensions.conform(["skymap", "tract", "patch", "band"])
    name = "restored_coadd_for_deblender"
    butler.registry.registerDatasetType(DatasetType(name, dimensions, "CellCoadd"))
    butler.put(made, name, DATA_ID, run="run")
    image = butler.get(name, DATA_ID, collections="run", storageClass="ExposureF")
    assert isinstance(image, ExposureF)
    assert image.getBBox() == exposure.getBBox()
    assert np.isfinite(image.image.array).all()
    assert np.isfinite(image.variance.array).all()
    x, y = made.bbox.x.start + 33.0, made.bbox.y.start + 71.0
    kernel = image.getPsf().computeKernelImage(Point2D(x, y))
    expected = outputs.restored_coadd.psf.compute_kernel_image(x=x, y=y)
    np.testing.assert_allclose(kernel.array, expected.array, atol=1e-12)


def test_detection_and_measurement(butler: Butler, field: StarField, outputs: Struct) -> None:
    """If it fails, the tasks of the full stack do not run on the products, or
    measure other fluxes and errors than the documentation says.
    """
    from lsst.afw.table import SourceTable
    from lsst.meas.algorithms import SourceDetectionTask
    from lsst.meas.base import SingleFrameMeasurementTask

    exposure = butler.get("restored_coadd_linear", DATA_ID, collections="run", storageClass="ExposureF")
    schema = SourceTable.makeMinimalSchema()
    detection = SourceDetectionTask.ConfigClass()
    detection.reEstimateBackground = False
    detection.thresholdValue = 20.0
    measurement = SingleFrameMeasurementTask.ConfigClass()
    measurement.plugins.names = ["base_SdssCentroid", "base_PsfFlux", "base_PixelFlags"]
    measurement.plugins["base_PsfFlux"].badMaskPlanes = ["NO_DATA"]
    for plane in ("CLIPPED", "INEXACT_PSF", "FEW_EXPOSURES"):
        measurement.plugins["base_PixelFlags"].masksFpCenter.append(plane)
    for slot in ("shape", "psfShape", "apFlux", "modelFlux", "gaussianFlux", "calibFlux"):
        setattr(measurement.slots, slot, None)
    detect = SourceDetectionTask(schema=schema, config=detection)
    measure = SingleFrameMeasurementTask(schema=schema, config=measurement)
    sources = detect.run(SourceTable.make(schema), exposure).sources
    measure.run(sources, exposure)
    x, y = (np.array([source[f"base_SdssCentroid_{axis}"] for source in sources]) for axis in "xy")
    distance = np.hypot(x - field.x[:, np.newaxis], y - field.y[:, np.newaxis])
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 0.5
    assert len(sources) == field.x.size
    flux = np.array([sources[int(n)]["base_PsfFlux_instFlux"] for n in nearest])
    error = np.array([sources[int(n)]["base_PsfFlux_instFluxErr"] for n in nearest])
    assert np.median(flux / field.flux) == pytest.approx(1.0, abs=0.01)
    coadd: CellCoadd = outputs.restored_coadd_linear
    table, grid = outputs.restored_coadd_linear_noise, coadd.patch.cells
    kernel = coadd.psf.compute_kernel_image(x=70.0, y=60.0).array
    factors = {
        (int(row["cell_i"]), int(row["cell_j"])): float(flux_error_factor(row["correlation"], kernel))
        for row in table
    }
    cells = [grid.index_of(y=round(y), x=round(x)) for x, y in zip(field.x, field.y, strict=True)]
    factor = np.array([factors[cell.i, cell.j] for cell in cells])
    # The target is sharper than the exposures: noise of neighbours opposes.
    assert factor.max() < 0.95
    pulls = (flux - field.flux) / (error * factor)
    assert 0.6 < np.std(pulls) < 1.5


@pytest.mark.afw("lsst.pipe.tasks", "lsst.drp.tasks", "lsst.meas.extensions.scarlet", "lsst.obs.subaru")
def test_graph_of_measurement(tmp_path: Path) -> None:
    """If it fails, the tasks that measure have other connections than the
    pipeline says.
    """
    resources = "$ASTROCLEARNET_DIR/pipelines"
    pipeline = tmp_path / "both.yaml"
    pipeline.write_text(
        "description: Restore and measure.\nimports:\n"
        f"  - location: {resources}/HSC/RestoreCoadd-visit_image.yaml\n"
        f"  - location: {resources}/_ingredients/MeasureRestoredCoadd.yaml\n"
    )
    graph = Pipeline.from_uri(pipeline).to_graph()
    graph.resolve(create_repository(str(tmp_path / "repo")).registry)
    inputs = {name for name, _ in graph.iter_overall_inputs()}
    assert inputs == {"visit_image", "deep_coadd_visit_selection", "deep_coadd", "skyMap"}
    consumers = {edge.task_label for edge in graph.consuming_edges_of("restored_coadd_linear")}
    assert consumers == {
        "measureRestoration",
        "detectRestoredPeaks",
        "deconvolveRestoredCoadd",
        "deblendRestoredFootprints",
        "measureRestoredUnforced",
        "measureRestoredForced",
    }
    assert graph.dataset_types["restored_coadd_linear"].storage_class_name == "CellCoadd"
