# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Backgrounds that are added back to visit images, or subtracted."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    PatchGeometry,
    UnusableExposureError,
    VisitCutout,
)
from lsst.astroclearnet.adapters.read import adjust_background
from lsst.astroclearnet.tests import (
    make_patch_geometry,
    make_projection,
    make_visit_image,
    place_cutout,
)
from lsst.images import BackgroundMap, Box, Image, VisitImage
from lsst.images.fields import ChebyshevField

SHAPE = (300, 320)


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 160x160 pixels that does not begin at zero."""
    return make_patch_geometry(cell_shape=(40, 35)).patch(3, 1)


def prepare(visit_image: VisitImage, geometry: PatchGeometry, **options: Any) -> Any:
    """Prepare an exposure for a patch with its border."""
    bbox = geometry.bbox.padded(6)
    return place_cutout(VisitCutout.take(visit_image, geometry, bbox=bbox, **options), bbox)


def with_background(
    background_unit: u.UnitBase | None, subtracted: str | None = "sky", **options: Any
) -> VisitImage:
    """Return a flat visit image whose record has a tilted background."""
    box = Box.from_shape(SHAPE)
    backgrounds = BackgroundMap()
    field = ChebyshevField(box, np.array([[5.0, 3.0], [1.0, 0.0]]), unit=background_unit)
    backgrounds.add("sky", field, is_subtracted=subtracted == "sky")
    return make_visit_image(np.ones(SHAPE), make_projection(SHAPE), backgrounds=backgrounds, **options)


@pytest.mark.parametrize(("unit", "factor"), [(u.nJy, 1.0), (None, 1.0), (u.uJy, 1000.0)])
def test_background_is_added_back(geometry: PatchGeometry, unit: u.UnitBase | None, factor: float) -> None:
    """If it fails, the light that a background swallowed stays lost."""
    visit_image = with_background(unit)
    exposure = prepare(visit_image, geometry, background="none")
    rows, columns = exposure.bbox.y.arange, exposure.bbox.x.arange
    # Chebyshev polynomials of first order over the box, from -1 to 1.
    v, w = ((2.0 * (a + 0.5) / size - 1.0) for a, size in zip((rows, columns), SHAPE, strict=True))
    expected = 1.0 + factor * (5.0 + 1.0 * v[:, None] + 3.0 * w)
    good = exposure.good
    np.testing.assert_allclose(exposure.image[good], expected[good], rtol=1e-3)
    assert (visit_image.image.array == 1.0).all()


def test_background_of_instrumental_pixels_is_calibrated_with_them(geometry: PatchGeometry) -> None:
    """If it fails, the background is added in the wrong unit."""
    scaling = ChebyshevField(Box.from_shape(SHAPE), np.array([[20.0]]), unit=u.nJy / u.electron)
    options = {"unit": u.electron, "photometric_scaling": scaling}
    plain = prepare(with_background(u.electron, **options), geometry)
    restored = prepare(with_background(u.electron, **options), geometry, background="none")
    in_njy = prepare(with_background(u.nJy), geometry, background="none")
    np.testing.assert_allclose(
        (restored.image - plain.image)[plain.good], 20.0 * (in_njy.image[plain.good] - 1.0), rtol=1e-4
    )


def test_sky_correction_is_subtracted(geometry: PatchGeometry) -> None:
    """If it fails, the sky is added twice, or elsewhere."""
    rng = np.random.default_rng(3)
    visit_image = make_visit_image(np.ones(SHAPE), make_projection(SHAPE))
    values = rng.normal(size=SHAPE).astype(np.float32)
    exposure = prepare(visit_image, geometry, sky_correction=Image(values))
    cut = exposure.bbox.slice_within(visit_image.bbox)
    np.testing.assert_allclose(exposure.image[exposure.good], 1.0 - values[cut][exposure.good], rtol=1e-6)
    field = ChebyshevField(visit_image.bbox, np.array([[0.25]]), unit=u.nJy)
    exposure = prepare(visit_image, geometry, sky_correction=field)
    np.testing.assert_allclose(exposure.image[exposure.good], 0.75)
    # What was added and what is subtracted may cancel.
    same = with_background(u.nJy)
    subtracted = same.backgrounds.subtracted
    assert subtracted is not None
    exposure = prepare(same, geometry, background="none", sky_correction=subtracted.field)
    np.testing.assert_allclose(exposure.image[exposure.good], 1.0, rtol=1e-5)


def test_another_background_takes_its_place(geometry: PatchGeometry) -> None:
    """If it fails, halos stay lost, or have the wrong sky."""
    visit_image = with_background(u.nJy)
    visit_image.backgrounds.add("pretty", ChebyshevField(visit_image.bbox, np.array([[0.5]]), unit=u.nJy))
    exposure = prepare(visit_image, geometry, background="pretty")
    added_back = prepare(visit_image, geometry, background="none")
    good = exposure.good
    np.testing.assert_allclose(exposure.image[good], added_back.image[good] - 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("visit_image", "options", "reason", "message"),
    [
        (with_background(u.nJy, None), {"background": "none"}, "no_background", r"it has \['sky'\]"),
        (with_background(u.adu), {"background": "none"}, "bad_background", "'sky' is in adu"),
        (with_background(u.nJy), {"background": "object"}, "no_background", r"no background 'object'.*'sky'"),
        (with_background(u.nJy), {"correction": Image(np.ones((5, 9)))}, "bad_background", "covers"),
    ],
)
def test_bad_backgrounds_say_why(
    visit_image: VisitImage, options: dict[str, Any], reason: str, message: str
) -> None:
    """If it fails, a wrong sky goes unnoticed into the coadd."""
    with pytest.raises(UnusableExposureError, match=message) as caught:
        adjust_background(visit_image, **options)
    assert caught.value.reason == reason


def test_nothing_is_copied_where_nothing_changes() -> None:
    """If it fails, every exposure costs its pixels twice."""
    visit_image = with_background(u.nJy)
    assert adjust_background(visit_image) is visit_image
