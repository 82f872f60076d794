# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Calibrations from visit summaries."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    DirectWarpSource,
    ExposureId,
    RecalibratedSource,
    VisitCalibration,
)
from lsst.astroclearnet.adapters.read import recalibrate
from lsst.astroclearnet.repository import create_repository, put_visit_image
from lsst.astroclearnet.tasks import (
    RestoreCoaddConfig,
    RestoreCoaddConnections,
    RestoreCoaddTask,
    SelectExposuresTask,
    apply_visit_summaries,
    gather_inputs,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.images import Box, DetectorFrame, SkyProjection, VisitImage
from lsst.images.fields import ChebyshevField
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.pipe.base import InputQuantizedConnection, Struct, UpstreamFailureNoWorkFound

SHAPE = (130, 140)
NJY_PER_ELECTRON = 3.7
SIGMA_PIXELS = 2.0
VISITS = (11, 12, 13)


@pytest.fixture(scope="module")
def field() -> StarField:
    """Stars on patch 0."""
    geometry = make_patch_geometry(cell_shape=(24, 20)).patch(3, 0)
    columns, rows = np.meshgrid(np.arange(16.0, 90.0, 22.0), np.arange(14.0, 90.0, 22.0))
    return StarField(geometry=geometry, x=columns.ravel(), y=rows.ravel(), flux=np.full(columns.size, 6000.0))


def true_projection(visit: int) -> SkyProjection[DetectorFrame]:
    """Return the projection that the visit summary knows."""
    return make_projection(SHAPE, offset=(3.0 * (visit - 12), 25.0), visit=visit, detector=5)


def observe(field: StarField, visit: int) -> VisitImage:
    """Return stars in electron, stored with a wrong PSF, WCS and scaling."""
    projection = true_projection(visit)
    image = field.render(projection, SHAPE, 2.3548 * SIGMA_PIXELS)
    image += np.random.default_rng(visit).normal(0.0, 2.0, SHAPE)
    wrong = make_projection(SHAPE, offset=(3.0 * (visit - 12) + 4.0, 23.0), visit=visit, detector=5)
    return make_visit_image(
        image / NJY_PER_ELECTRON,
        wrong,
        variance=(2.0 / NJY_PER_ELECTRON) ** 2,
        fwhm=6.5,
        unit=u.electron,
        photometric_scaling=scaling(1.0),
    )


def scaling(value: float, unit: u.UnitBase = u.nJy / u.electron) -> ChebyshevField:
    """Return a constant photometric calibration."""
    return ChebyshevField(Box.from_shape(SHAPE), np.array([[value]]), unit=unit)


def calibration(visit: int) -> VisitCalibration:
    """Return the right calibration."""
    return VisitCalibration(
        psf=GaussianPointSpreadFunction(SIGMA_PIXELS, bounds=Box.from_shape(SHAPE), stamp_size=25),
        projection=true_projection(visit),
        scaling=scaling(NJY_PER_ELECTRON),
    )


def make_config(**changes: Any) -> RestoreCoaddConfig:
    """Return a configuration that takes everything from visit summaries."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.9
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 4
    config.restoration.noise.num_draws = 2
    config.use_visit_summary_psf = True
    config.use_visit_summary_wcs = True
    config.use_visit_summary_photo_calib = True
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def star_ratio(field: StarField, outputs: Struct) -> float:
    """Return the light of the brightest pixels over what it should be."""
    coadd = outputs.restored_coadd_linear
    origin, sigma = coadd.bbox.start, 0.9 / 0.168 / 2.3548
    peaks = [
        coadd.image.array[round(y) - origin.y, round(x) - origin.x]
        for x, y in zip(field.x, field.y, strict=True)
    ]
    return float(np.median(peaks) / (6000.0 / (2.0 * np.pi * sigma**2)))


def test_restoration_with_the_calibration_of_visit_summaries(field: StarField) -> None:
    """If it fails, final calibrations are not used: stars are elsewhere, of
    another width or of another flux.
    """
    images = [observe(field, visit) for visit in VISITS]
    summaries = {("TestCam", visit): {5: calibration(visit)} for visit in VISITS}
    outputs = RestoreCoaddTask(config=make_config()).run(
        visit_images=images, geometry=field.geometry, band="i", visit_summaries=summaries
    )
    assert star_ratio(field, outputs) == pytest.approx(1.0, abs=0.03)
    assert outputs.restored_coadd_metrics["dropped"] == {}
    # The input itself is left as it was.
    assert images[0].unit == u.electron
    assert images[0].photometric_scaling is not None
    assert images[0].photometric_scaling(x=np.array([1.0]), y=np.array([1.0])) == pytest.approx(1.0)


def test_without_visit_summaries_the_stored_calibration_counts(field: StarField) -> None:
    """If it fails, the test above shows nothing."""
    config = make_config(
        use_visit_summary_psf=False, use_visit_summary_wcs=False, use_visit_summary_photo_calib=False
    )
    outputs = RestoreCoaddTask(config=config).run(
        visit_images=[observe(field, visit) for visit in VISITS], geometry=field.geometry, band="i"
    )
    assert star_ratio(field, outputs) < 0.5


def test_calibrated_image_is_not_calibrated_again(field: StarField, caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, fluxes of visit_image are multiplied by the calibration a
    second time, which nothing downstream notices.
    """
    images = [observe(field, visit) for visit in VISITS]
    images[1] = images[1].convert_unit(u.nJy)
    summaries = {("TestCam", visit): {5: calibration(visit)} for visit in VISITS}
    outputs = RestoreCoaddTask(config=make_config()).run(
        visit_images=images, geometry=field.geometry, band="i", visit_summaries=summaries
    )
    dropped = outputs.restored_coadd_metrics["dropped"]
    assert list(dropped) == ["TestCam visit 12, detector 5"]
    assert dropped["TestCam visit 12, detector 5"].startswith("already_calibrated: Its pixels are in nJy")
    assert "use_visit_summary_photo_calib=False" in dropped["TestCam visit 12, detector 5"]
    assert "already_calibrated" in caplog.text
    assert outputs.restored_coadd.metadata["dropped_0"].startswith("TestCam visit 12, detector 5")
    assert star_ratio(field, outputs) == pytest.approx(1.0, abs=0.03)


def test_psf_and_wcs_of_a_calibrated_image_may_be_replaced(field: StarField) -> None:
    """If it fails, visit_image cannot get the PSF of a visit summary."""
    image = observe(field, 12).convert_unit(u.nJy)
    changed = recalibrate(image, dataclasses.replace(calibration(12), scaling=None))
    assert changed.psf == calibration(12).psf
    assert changed.sky_projection == true_projection(12)
    assert changed.image.array is image.image.array
    assert changed.unit == u.nJy


def test_unit_of_the_pixels_decides(field: StarField) -> None:
    """If it fails, counts of another unit are not calibrated, or rescaled."""
    image = make_visit_image(np.ones(SHAPE), true_projection(12), unit=u.adu)
    changed = recalibrate(image, VisitCalibration(scaling=scaling(NJY_PER_ELECTRON)))
    np.testing.assert_allclose(changed.convert_unit(u.nJy).image.array, NJY_PER_ELECTRON)
    np.testing.assert_allclose(changed.convert_unit(u.nJy).variance.array, NJY_PER_ELECTRON**2)


def test_every_missing_part_has_its_reason(field: StarField) -> None:
    """If it fails, an exposure whose final calibration failed is used with its
    preliminary one, unnoticed.
    """
    full = calibration(11)
    contents: dict[int, Any] = {
        11: {4: full},
        12: {5: dataclasses.replace(full, psf=None)},
        13: {5: dataclasses.replace(full, projection=None)},
        14: {5: dataclasses.replace(full, scaling=None)},
        16: SimpleNamespace(dataId={}, get=lambda: 1 / 0),
        17: {5: full},
    }
    summaries = {("TestCam", visit): content for visit, content in contents.items()}
    # Of another instrument, whose visits have the same numbers.
    summaries["OtherCam", 15] = {5: full}
    images = [
        make_visit_image(np.ones(SHAPE), make_projection(SHAPE, visit=visit, detector=5))
        for visit in range(11, 18)
    ]
    sources, refused = apply_visit_summaries(images, summaries, psf=True, wcs=True, photo_calib=True)
    assert [source.identity.visit for source in sources if isinstance(source, RecalibratedSource)] == [17]
    assert {name: reason.partition(":")[0] for name, reason in refused.items()} == {
        "TestCam visit 11, detector 5": "not_in_visit_summary",
        "TestCam visit 12, detector 5": "no_psf",
        "TestCam visit 13, detector 5": "no_wcs",
        "TestCam visit 14, detector 5": "no_photo_calib",
        "TestCam visit 15, detector 5": "no_visit_summary",
        "TestCam visit 16, detector 5": "no_visit_summary",
    }
    assert "division by zero" in refused["TestCam visit 16, detector 5"]
    # What is not asked for may be missing.
    sources, refused = apply_visit_summaries(images[1:4], summaries, psf=False, wcs=True, photo_calib=False)
    assert len(sources) == 2
    assert list(refused) == ["TestCam visit 13, detector 5"]


def test_visit_summary_is_read_once(field: StarField) -> None:
    """If it fails, a patch under 50 detectors reads a catalogue 50 times."""
    calls = []

    def get() -> dict[int, VisitCalibration]:
        calls.append(1)
        return {5: calibration(12), 6: calibration(12)}

    images = [
        make_visit_image(np.ones(SHAPE), make_projection(SHAPE, visit=12, detector=detector))
        for detector in (5, 6)
    ]
    handle = SimpleNamespace(dataId={"visit": 12}, get=get)
    sources, refused = apply_visit_summaries(
        images, {("TestCam", 12): handle}, psf=True, wcs=True, photo_calib=True
    )
    assert (len(sources), refused, len(calls)) == (2, {}, 1)


def test_patch_without_any_calibration_ends_without_work(field: StarField) -> None:
    """If it fails, nobody learns why a patch is empty."""
    with pytest.raises(UpstreamFailureNoWorkFound, match="no_visit_summary: There is no visit summary"):
        RestoreCoaddTask(config=make_config()).run(
            visit_images=[observe(field, 11)], geometry=field.geometry, band="i", visit_summaries={}
        )


@pytest.fixture(scope="module")
def butler(field: StarField, tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository of one visit image."""
    butler = create_repository(str(tmp_path_factory.mktemp("recalibration") / "repo"))
    put_visit_image(butler, observe(field, 12), "run")
    return butler


def test_stored_image_is_read_in_parts(field: StarField, butler: Butler) -> None:
    """If it fails, whole detectors are read for the corner of a patch, or the
    part is cut with the old projection.
    """
    handle = butler.getDeferred("visit_image", instrument="TestCam", visit=12, detector=5, collections="run")
    source = RecalibratedSource(handle, ExposureId(12, 5, "TestCam"), calibration(12))
    names = {"components": ["sky_projection", "psf", "bbox"]}
    parts = source.get(component="components", parameters=names)
    assert parts["sky_projection"] == true_projection(12)
    assert parts["psf"] == calibration(12).psf
    assert parts["bbox"] == Box.from_shape(SHAPE)
    box = Box.factory[40:90, 35:70]
    part = source.get(parameters={"bbox": box})
    assert part.bbox == box
    np.testing.assert_array_equal(part.image.array, observe(field, 12)[box].image.array)
    np.testing.assert_allclose(
        part.convert_unit(u.nJy).image.array, NJY_PER_ELECTRON * part.image.array, rtol=1e-6
    )
    with pytest.raises(NotImplementedError, match="needs the whole image"):
        source.get(component="components", parameters={"components": ["variance"]})


def test_depth_of_a_selection_is_that_of_the_new_calibration(field: StarField, butler: Butler) -> None:
    """If it fails, visits are ranked by uncalibrated variances."""
    config = SelectExposuresTask.ConfigClass()
    config.max_visits = 1
    task = SelectExposuresTask(config=config)
    depths = []
    for factor in (1.0, 10.0):
        handle = butler.getDeferred(
            "visit_image", instrument="TestCam", visit=12, detector=5, collections="run"
        )
        new = dataclasses.replace(calibration(12), scaling=scaling(NJY_PER_ELECTRON * factor))
        source = RecalibratedSource(handle, ExposureId(12, 5, "TestCam"), new)
        result = task.run(visit_images=[source], geometry=field.geometry)
        depths.append(result.summaries["TestCam visit 12, detector 5"]["depth"])
    assert depths[0] - depths[1] == pytest.approx(2.5, abs=0.01)


def warp_config() -> RestoreCoaddConfig:
    """Return a configuration for direct warps."""
    names = ("use_visit_summary_psf", "use_visit_summary_wcs", "use_visit_summary_photo_calib")
    return make_config(input_type="direct_warp", **dict.fromkeys(names, False))


@dataclasses.dataclass
class Quantum:
    """A Butler of a quantum that returns what it is asked for."""

    def get(self, refs: Any) -> Any:
        """Return handles as they are."""
        return refs


def connect(**refs: Any) -> InputQuantizedConnection:
    """Return the inputs of a quantum."""
    connection = InputQuantizedConnection()
    for name, value in refs.items():
        setattr(connection, name, value)
    return connection


def test_quantum_gathers_what_is_connected() -> None:
    """If it fails, a quantum reads the wrong dataset type, or no calibration
    although one is connected.
    """
    names = [("HSC", 7), ("HSC", 9), ("DECam", 7)]
    handles = [SimpleNamespace(dataId={"instrument": name, "visit": visit}) for name, visit in names]
    butler: Any = Quantum()
    warps = gather_inputs(butler, connect(direct_warps=handles))["visit_images"]
    found = [warp.identity for warp in warps if isinstance(warp, DirectWarpSource)]
    assert [identity.visit_key for identity in found] == names
    images = connect(visit_images=handles)
    assert gather_inputs(butler, images) == {"visit_images": handles}
    both = connect(visit_images=handles, visit_summaries=handles)
    assert gather_inputs(butler, both)["visit_summaries"] == dict(zip(names, handles, strict=True))


def test_connections_follow_the_configuration() -> None:
    """If it fails, a pipeline asks for datasets that it does not use."""

    def inputs(config: RestoreCoaddConfig) -> set[str]:
        return set(RestoreCoaddConnections(config=config).inputs)

    assert {"visit_images", "visit_summaries"} <= inputs(make_config())
    assert "direct_warps" not in inputs(make_config())
    assert {"direct_warps", "skymap_geometry"} == inputs(warp_config())
    none = {f"use_visit_summary_{name}": False for name in ("psf", "wcs", "photo_calib")}
    assert "visit_summaries" not in inputs(make_config(**none))
    for name in none:
        assert "visit_summaries" in inputs(make_config(**{**none, name: True}))
