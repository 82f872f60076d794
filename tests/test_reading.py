# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is read of a visit image, and in which format."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchGeometry, UnusableExposureError
from lsst.astroclearnet.adapters.read import _handles
from lsst.astroclearnet.repository import create_repository, put_visit_image
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import Butler
from lsst.daf.butler.datastores.file_datastore import get
from lsst.daf.butler.datastores.file_datastore.get import _warn_about_converted_component_read
from lsst.images import VisitImage

SHAPE = (400, 420)
PADDING = 6


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 160x160 pixels."""
    return make_patch_geometry().patch(3, 0)


@pytest.fixture(scope="module")
def visit_image() -> VisitImage:
    """A visit image one of whose corners overlaps the patch.

    The pixels are all different, so that a cut elsewhere shows.
    """
    projection = make_projection(SHAPE, rotation=8.0, offset=(-150.0, 200.0), visit=31, detector=4)
    image = np.arange(SHAPE[0] * SHAPE[1], dtype=float).reshape(SHAPE)
    return make_visit_image(image, projection, variance=image + 1.0)


@pytest.fixture(scope="module")
def butler(visit_image: VisitImage, tmp_path_factory: pytest.TempPathFactory) -> Butler:
    """A repository of this one image."""
    butler = create_repository(str(tmp_path_factory.mktemp("reading") / "repo"))
    put_visit_image(butler, visit_image, "run")
    return butler


@dataclasses.dataclass
class Handle:
    """A handle that records what is asked for, and may fail.

    An answer that is an exception is raised.
    """

    inner: Any = None
    native: Any = None
    legacy: Any = None
    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dataId: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"instrument": "TestCam", "visit": 31, "detector": 4}
    )

    def get(self, **arguments: Any) -> Any:
        """Return what the handle has for these arguments."""
        self.calls.append(arguments)
        if self.inner is not None:
            return self.inner.get(**arguments)
        answer = self.legacy if arguments.get("storageClass") == "ExposureF" else self.native
        if isinstance(answer, BaseException):
            raise answer
        return answer


def read(source: Any, geometry: PatchGeometry) -> VisitImage:
    """Return the part of a source that is on a patch."""
    part, pixel_map = _handles.read_overlap(source, geometry, geometry.bbox, padding=PADDING)
    assert pixel_map.bbox == geometry.bbox
    return part


def test_only_the_overlap_is_read(butler: Butler, visit_image: VisitImage, geometry: PatchGeometry) -> None:
    """If it fails, memory and time go with the detector, not the patch."""
    (ref,) = butler.query_datasets("visit_image", collections="run")
    handle = Handle(inner=butler.getDeferred(ref))
    part = read(handle, geometry)
    *components, last = handle.calls
    assert components
    for call in components:
        names = {call["component"], *call.get("parameters", {}).get("components", ())}
        assert names <= {"components", "sky_projection", "bbox"}
    assert set(last) == {"parameters"}
    bbox = last["parameters"]["bbox"]
    assert part.bbox == bbox
    assert bbox.area < 0.3 * SHAPE[0] * SHAPE[1]
    # A corner: both axes end at the edge of the detector, or begin there.
    assert (bbox.y.start == 0) != (bbox.y.stop == SHAPE[0])
    assert (bbox.x.start == 0) != (bbox.x.stop == SHAPE[1])

    expected = read(visit_image, geometry)
    assert expected.bbox == bbox
    for plane in ("image", "variance", "mask"):
        np.testing.assert_array_equal(getattr(part, plane).array, getattr(expected, plane).array)
    np.testing.assert_array_equal(part.image.array, visit_image.image[bbox].array)


def test_overlap_has_every_pixel_that_the_patch_needs(
    visit_image: VisitImage, geometry: PatchGeometry
) -> None:
    """If it fails, coadds have holes where detectors end."""
    part = read(visit_image, geometry)
    corners = geometry.bbox.meshgrid()
    position = visit_image.sky_projection.sky_to_pixel(
        geometry.projection.pixel_to_sky(x=corners.x.ravel().astype(float), y=corners.y.ravel().astype(float))
    )
    inside = (
        (position.x > -0.5)
        & (position.x < SHAPE[1] - 0.5)
        & (position.y > -0.5)
        & (position.y < SHAPE[0] - 0.5)
    )
    for values, interval, size in (
        (position.y[inside], part.bbox.y, SHAPE[0]),
        (position.x[inside], part.bbox.x, SHAPE[1]),
    ):
        assert interval.start <= max(0, values.min() - PADDING + 1)
        assert interval.stop >= min(size, values.max() + PADDING)


def test_exposure_of_the_full_stack(
    visit_image: VisitImage, geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, repositories of the full stack cannot be restored."""
    exposure = object()
    converted: list[object] = []

    def convert(argument: object) -> VisitImage:
        converted.append(argument)
        return visit_image

    monkeypatch.setattr(_handles, "visit_image_from_exposure", convert)
    handle = Handle(native=RuntimeError("no such reader"), legacy=exposure)
    part = read(handle, geometry)
    assert converted == [exposure]
    assert part.bbox == read(visit_image, geometry).bbox
    assert part.bbox != visit_image.bbox


def test_nothing_is_warned_of_what_is_not_read(
    butler: Butler, visit_image: VisitImage, geometry: PatchGeometry, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, the log has a long warning of the Butler for each image
    that is stored as an ExposureF, or lacks other messages of the Butler.
    """
    (ref,) = butler.query_datasets("visit_image", collections="run")
    classes = [butler.storageClasses.getStorageClass(name) for name in ("ExposureF", "VisitImage")]

    class Stored(Handle):
        """A handle of an image that is stored as an ExposureF."""

        def get(self, **arguments: Any) -> Any:
            """Warn and fail as the Butler does where it is asked for parts."""
            if "component" in arguments:
                _warn_about_converted_component_read(ref, arguments["component"], *classes)
                get.log.warning("Something else.")
                raise KeyError("components")
            return super().get(**arguments)

    part = read(Stored(native=visit_image), geometry)
    assert part.bbox == read(visit_image, geometry).bbox
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "Something else."
    ]
    # Who asks for components of their own accord is still warned.
    _warn_about_converted_component_read(ref, "components", *classes)
    assert "which the dataset was written with, does not define it" in caplog.text


def test_unreadable(geometry: PatchGeometry) -> None:
    """If it fails, one broken file stops a patch, or is silently missing."""
    handle = Handle(native=OSError("truncated file"), legacy=TypeError("no converter"))
    with pytest.raises(UnusableExposureError, match=r"truncated file.*no converter") as caught:
        read(handle, geometry)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("which", ["native", "legacy"])
def test_lack_of_memory_is_no_broken_file(geometry: PatchGeometry, which: str) -> None:
    """If it fails, exposures go missing where memory is short."""
    answers = {"native": OSError("truncated file"), "legacy": None, which: MemoryError("no memory")}
    with pytest.raises(MemoryError, match="no memory"):
        read(Handle(**cast(dict[str, Any], answers)), geometry)


def test_no_overlap(geometry: PatchGeometry) -> None:
    """If it fails, images beside a patch are read for nothing."""
    far = make_projection(SHAPE, center=(151.0, 2.2), visit=31, detector=4)
    image = make_visit_image(np.ones(SHAPE), far)
    answers = {"sky_projection": image.sky_projection, "bbox": image.bbox}
    handle = Handle(native=answers)
    with pytest.raises(UnusableExposureError, match="no pixel on the patch") as caught:
        read(handle, geometry)
    assert caught.value.reason == "no_overlap"
    assert all("component" in call for call in handle.calls)
