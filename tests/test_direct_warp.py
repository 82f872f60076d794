# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Direct warps as input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import DirectWarpSource, ExposureId, UnusableExposureError
from lsst.astroclearnet.adapters.read import WARP_DETECTOR
from lsst.astroclearnet.adapters.read._legacy import _make_warp_image
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, DetectorFrame, Image, SkyProjection, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import InMemoryDatasetHandle, Struct

SIGMA_PIXELS = 2.0
VISITS = (11, 12, 13)


@pytest.fixture(scope="module")
def field() -> StarField:
    """Stars on patch 0."""
    geometry = make_patch_geometry().patch(3, 0)
    columns, rows = np.meshgrid(np.arange(30.0, 140.0, 26.0), np.arange(30.0, 140.0, 26.0))
    return StarField(geometry=geometry, x=columns.ravel(), y=rows.ravel(), flux=np.full(columns.size, 6000.0))


def warp_config() -> RestoreCoaddConfig:
    """Return a configuration for direct warps."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.9
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 4
    config.restoration.noise.num_draws = 2
    config.input_type = "direct_warp"
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


def make_warp(field: StarField, visit: int, **changes: Any) -> VisitImage:
    """Return a visit resampled to the patch, with a border of 20 pixels."""
    bbox = field.geometry.bbox.padded(20)
    frame = DetectorFrame(instrument="TestCam", visit=visit, detector=WARP_DETECTOR, bbox=bbox)
    grid = make_projection((bbox.y.size, bbox.x.size), visit=visit)
    image = make_visit_image(np.zeros((bbox.y.size, bbox.x.size)), grid)
    rows, columns = np.mgrid[bbox.y.start : bbox.y.stop, bbox.x.start : bbox.x.stop]
    pixels = np.random.default_rng(visit).normal(0.0, 2.0, rows.shape)
    for x, y, flux in zip(field.x, field.y, field.flux, strict=True):
        radius = (columns - x) ** 2 + (rows - y) ** 2
        pixels += flux * np.exp(-0.5 * radius / SIGMA_PIXELS**2) / (2.0 * np.pi * SIGMA_PIXELS**2)
    mask = type(image.mask)(0, schema=image.mask.schema, bbox=bbox)
    unit = changes.get("unit", u.nJy)
    wcs = field.geometry.projection.as_fits_wcs(bbox)
    assert wcs is not None
    return _make_warp_image(
        Image(pixels.astype(np.float32), bbox=bbox, unit=unit),
        mask=mask,
        variance=Image(np.full(rows.shape, 4.0, dtype=np.float32), bbox=bbox, unit=unit**2),
        projection=SkyProjection.from_fits_wcs(wcs, frame, x0=bbox.x.start, y0=bbox.y.start),
        psf=GaussianPointSpreadFunction(SIGMA_PIXELS, bounds=bbox, stamp_size=25),
        identity=ExposureId(visit, WARP_DETECTOR, "TestCam", "i_test"),
        band="i",
    )


def test_direct_warps_can_be_restored(field: StarField) -> None:
    """If it fails, repositories that kept nothing but warps are of no use."""
    sources = [
        DirectWarpSource(
            InMemoryDatasetHandle(
                make_warp(field, visit), instrument="TestCam", visit=visit, storageClass="VisitImage"
            )
        )
        for visit in VISITS
    ]
    outputs = RestoreCoaddTask(config=warp_config()).run(
        visit_images=sources, geometry=field.geometry, band="i"
    )
    assert star_ratio(field, outputs) == pytest.approx(1.0, abs=0.03)
    inputs = outputs.restored_coadd.provenance.inputs
    assert [(int(row["visit"]), int(row["detector"])) for row in inputs] == [
        (v, WARP_DETECTOR) for v in VISITS
    ]


def test_warp_of_another_unit_is_refused(field: StarField) -> None:
    """If it fails, warps of old repositories, which are on an instrumental
    scale, count as nJy.
    """
    with pytest.raises(UnusableExposureError, match="direct warp is in adu, not in nJy") as caught:
        make_warp(field, 11, unit=u.adu)
    assert caught.value.reason == "not_calibrated"


def test_unreadable_warp_is_named() -> None:
    """If it fails, one bad file costs the patch."""
    handle = SimpleNamespace(dataId={"instrument": "TestCam", "visit": 3}, get=lambda: 1 / 0)
    source = DirectWarpSource(handle)
    with pytest.raises(UnusableExposureError, match="cannot be read: division by zero") as caught:
        source.get()
    assert caught.value.reason == "unreadable"
    with pytest.raises(NotImplementedError, match="read whole"):
        source.get(parameters={"bbox": Box.from_shape((2, 3))})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_visit_summary_psf", True),
        ("use_visit_summary_wcs", True),
        ("use_visit_summary_photo_calib", True),
        ("background", "none"),
        ("do_apply_sky_correction", True),
    ],
)
def test_warps_take_no_other_calibration(name: str, value: Any) -> None:
    """If it fails, a setting that cannot act is accepted."""
    config = warp_config()
    setattr(config if name.startswith("use") else config.preparation, name, value)
    with pytest.raises(FieldValidationError, match=f"{name} is for visit images"):
        config.validate()
