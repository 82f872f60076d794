# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which visit images a patch gets, and what is said of the others."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchGeometry
from lsst.astroclearnet.repository import create_repository, put_visit_image
from lsst.astroclearnet.tasks import PrepareExposuresConfig, PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image, place_cutout
from lsst.images import BackgroundMap, Box, Image, VisitImage
from lsst.images.fields import ChebyshevField
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import InMemoryDatasetHandle, Struct

SHAPE = (300, 320)


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 160x160 pixels."""
    return make_patch_geometry().patch(3, 0)


def make(visit: int, detector: int = 0, value: float = 1.0, **options: Any) -> VisitImage:
    """Return a flat visit image."""
    changes = {key: options.pop(key) for key in ("unit", "planes", "backgrounds") if key in options}
    projection = make_projection(SHAPE, visit=visit, detector=detector, **options)
    return make_visit_image(np.full(SHAPE, value), projection, **changes)


def run(visit_images: list[Any], geometry: PatchGeometry, **options: Any) -> Struct:
    """Run the task with a few options set."""
    config = PrepareExposuresConfig()
    corrections = options.pop("sky_corrections", None)
    config.update(**options)
    config.validate()
    task = PrepareExposuresTask(config=config)
    return task.run(visit_images=visit_images, geometry=geometry, sky_corrections=corrections)


def exposures_of(result: Struct) -> list[Any]:
    """Return the exposures of a result on the whole patch."""
    return [place_cutout(cutout, result.source.bbox) for cutout in result.source.cutouts]


def assert_same(one: Any, other: Any) -> None:
    """Compare all arrays of two exposures."""
    for name in ("image", "variance", "good", "y", "x", "area", "psfs", "covered", "usable"):
        first, second = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-9, err_msg=name)


def test_good_ones_are_sorted_and_bad_ones_named(geometry: PatchGeometry) -> None:
    """If it fails, one bad exposure ends the patch, or leaves unnoticed."""
    half = np.zeros(SHAPE, dtype=bool)
    half[:, 158:] = True
    result = run(
        [
            make(5, 2),
            make(4, unit=u.adu),
            make(5, 1, rotation=20.0),
            make(3, center=(151.0, 2.2)),
            make(5, 2),
            make(2, planes={"BAD": half}),
        ],
        geometry,
        min_good_fraction=0.9,
        border=7,
    )
    assert [(e.identity.visit, e.identity.detector) for e in exposures_of(result)] == [(5, 1), (5, 2)]
    assert result.source.bbox == geometry.bbox.padded(7)
    assert exposures_of(result)[0].covered.shape == result.source.shape
    reasons = {name: text.split(":")[0] for name, text in result.dropped.items()}
    assert reasons == {
        "TestCam visit 4, detector 0": "not_calibrated",
        "TestCam visit 3, detector 0": "no_overlap",
        "TestCam visit 5, detector 2": "duplicate",
        "TestCam visit 2, detector 0": "too_few_pixels",
    }
    assert "adu" in result.dropped["TestCam visit 4, detector 0"]
    assert "min_good_fraction=90.00%" in result.dropped["TestCam visit 2, detector 0"]


def test_reading_a_part_is_the_same_as_having_it_all(
    geometry: PatchGeometry, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """If it fails, a repository gives other coadds than memory."""
    rng = np.random.default_rng(6)
    projection = make_projection(SHAPE, rotation=25.0, offset=(60.0, -80.0), visit=31, detector=4)
    visit_image = make_visit_image(rng.normal(size=SHAPE), projection)
    butler = create_repository(str(tmp_path_factory.mktemp("prepare") / "repo"))
    put_visit_image(butler, visit_image, "run")
    (ref,) = butler.query_datasets("visit_image", collections="run")
    (read,) = exposures_of(run([butler.getDeferred(ref)], geometry))
    (direct,) = exposures_of(run([visit_image], geometry))
    assert read.bbox == direct.bbox
    assert read.bbox.area < visit_image.bbox.area
    assert (read.identity.visit, read.identity.detector, read.identity.instrument) == (31, 4, "TestCam")
    assert_same(read, direct)


def test_mask_planes_are_configured(geometry: PatchGeometry) -> None:
    """If it fails, the table in the configuration has no effect."""
    spike = np.zeros(SHAPE, dtype=bool)
    spike[140:160, 100:200] = True
    suspect = np.zeros(SHAPE, dtype=bool)
    suspect[120:125, 150:170] = True
    visit_image = make(1, planes={"SPIKE": spike, "SUSPECT": suspect})
    (default,) = exposures_of(run([visit_image], geometry))
    (kept,) = exposures_of(run([visit_image], geometry, mask_planes={"COSMIC_RAY": "propagate 0.5"}))
    assert kept.good.sum() - default.good.sum() == spike.sum() + suspect.sum()
    assert set(kept.flags) == {"COSMIC_RAY"}
    (other,) = exposures_of(run([visit_image], geometry, mask_planes={"SUSPECT": "exclude"}))
    assert kept.good.sum() - other.good.sum() == suspect.sum()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"SATURATEDD": "exclude"}, "Unknown visit-image mask plane 'SATURATEDD'"),
        ({"SATURATED": "drop"}, "'drop' is no treatment"),
        ({"BAD": "propagate 0.1"}, "Coadds have no mask plane BAD"),
    ],
)
def test_senseless_table_is_refused_at_once(table: dict[str, str], message: str) -> None:
    """If it fails, a typing error makes saturated pixels into data."""
    config = PrepareExposuresConfig()
    config.mask_planes = table
    with pytest.raises(FieldValidationError, match=message):
        config.validate()


def test_background_and_sky_correction(geometry: PatchGeometry) -> None:
    """If it fails, an option about the sky is ignored, or an exposure without
    what it needs is mixed with the others.
    """
    box = Box.from_shape(SHAPE)
    backgrounds = BackgroundMap()
    backgrounds.add("sky", ChebyshevField(box, np.array([[8.0]]), unit=u.nJy), is_subtracted=True)
    visit_images = [make(1, backgrounds=backgrounds), make(2)]
    first, second = ("TestCam", 1, 0), ("TestCam", 2, 0)
    corrections = {
        first: Image(np.full(SHAPE, 3.0, dtype=np.float32)),
        second: ChebyshevField(box, np.array([[4.0]]), unit=u.nJy),
        ("OtherCam", 1, 0): Image(np.full(SHAPE, 7.0, dtype=np.float32)),
    }

    def values(**options: Any) -> tuple[dict[int, float], dict[str, str]]:
        result = run(visit_images, geometry, **options)
        return {
            e.identity.visit: float(np.median(e.image[e.good])) for e in exposures_of(result)
        }, result.dropped

    assert values(sky_corrections=corrections)[0] == {1: 1.0, 2: 1.0}
    assert values(sky_corrections=corrections, do_apply_sky_correction=True)[0] == {1: -2.0, 2: -3.0}
    kept, dropped = values(background="none")
    assert kept == {1: 9.0}
    assert dropped["TestCam visit 2, detector 0"].startswith("no_background: ")
    kept, dropped = values(do_apply_sky_correction=True, sky_corrections={second: corrections[second]})
    assert kept == {2: -3.0}
    assert dropped["TestCam visit 1, detector 0"].startswith("no_sky_correction: ")
    handle = InMemoryDatasetHandle(corrections[first], storageClass="ImageF")
    kept, _ = values(do_apply_sky_correction=True, sky_corrections={first: handle})
    assert kept == {1: -2.0}


def test_pixels_without_a_value_are_reported(
    geometry: PatchGeometry, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, nobody learns that a calibration left NaN behind."""
    visit_image = make(1)
    visit_image.image.array[140:143, 150:155] = np.nan
    run([visit_image], geometry)
    assert "15 pixels without a usable value" in caplog.text
