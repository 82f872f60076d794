# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images on the grid of a patch, against analytic stars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    PixelMap,
    UnusableExposureError,
    coregister,
    mask_of_planes,
    stack_exposures,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, Mask, MaskPlane, MaskSchema
from lsst.images.fields import ChebyshevField
from lsst.images.serialization import ArchiveReadError, read_archive

SHAPE = (300, 320)
FWHM = 3.4

PROJECTIONS: dict[str, dict[str, Any]] = {
    "dithered": {"offset": (3.3, -6.8)},
    "rotated": {"rotation": 37.0, "offset": (-2.4, 1.7)},
    "upside down": {"rotation": 180.0, "offset": (0.5, 0.25)},
    "one percent coarser": {"scale": 1.01, "rotation": -12.0},
    "distorted": {"distortion": 0.05, "rotation": 64.0, "offset": (5.1, 2.2)},
}


@pytest.fixture(scope="module")
def field() -> StarField:
    """Isolated stars at random sub-pixel positions of patch 0."""
    geometry = make_patch_geometry().patch(3, 0)
    rng = np.random.default_rng(7)
    columns, rows = np.meshgrid(np.arange(30.0, 140.0, 36.0), np.arange(30.0, 140.0, 36.0))
    x = columns.ravel() + rng.uniform(-0.5, 0.5, columns.size)
    y = rows.ravel() + rng.uniform(-0.5, 0.5, rows.size)
    return StarField(geometry=geometry, x=x, y=y, flux=rng.uniform(500.0, 5000.0, x.size))


def moments(image: np.ndarray, x: float, y: float, radius: int) -> tuple[float, float, float]:
    """Return flux and centroid in a box around a position."""
    rows, columns = np.mgrid[
        round(y) - radius : round(y) + radius + 1, round(x) - radius : round(x) + radius + 1
    ]
    values = image[rows, columns]
    total = values.sum()
    return float(total), float((values * columns).sum() / total), float((values * rows).sum() / total)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_star_flux_and_centroid(field: StarField, name: str) -> None:
    # Flux or position errors of the warp go straight into every catalogue.
    projection = make_projection(SHAPE, **PROJECTIONS[name])
    visit_image = make_visit_image(field.render(projection, SHAPE, FWHM), projection, fwhm=FWHM)
    exposure = coregister(visit_image, field.geometry)
    origin = field.geometry.bbox.start
    for x, y, flux in zip(field.x, field.y, field.flux, strict=True):
        measured = moments(exposure.image, x - origin.x, y - origin.y, 12)
        assert measured[0] == pytest.approx(flux, rel=0.003)
        assert measured[1] + origin.x == pytest.approx(x, abs=0.02)
        assert measured[2] + origin.y == pytest.approx(y, abs=0.02)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_psf_describes_the_stars(field: StarField, name: str) -> None:
    # The stamp must be what a star looks like on the patch, or the forward
    # model is wrong everywhere.
    projection = make_projection(SHAPE, **PROJECTIONS[name])
    x, y = 71.0, 83.0
    geometry = field.geometry
    star = StarField(geometry=geometry, x=np.array([x]), y=np.array([y]), flux=np.array([1.0]))
    visit_image = make_visit_image(star.render(projection, SHAPE, FWHM), projection, fwhm=FWHM)
    exposure = coregister(visit_image, geometry)
    stamp = exposure.psfs[0, 0]
    half = stamp.shape[0] // 2
    row, column = int(y - geometry.bbox.y.start), int(x - geometry.bbox.x.start)
    cut = exposure.image[row - half : row + half + 1, column - half : column + half + 1]
    assert stamp.sum() == pytest.approx(1.0)
    assert np.abs(cut / cut.sum() - stamp).max() < 0.005 * stamp.max()


def test_flagged_pixels_do_not_leak(field: StarField) -> None:
    # Whatever a flagged pixel holds, no usable pixel may change.
    projection = make_projection(SHAPE, **PROJECTIONS["rotated"])
    image = field.render(projection, SHAPE, FWHM)
    flagged = np.zeros(SHAPE, dtype=bool)
    flagged[100:104, 120:123] = True
    flagged[:, 60] = True
    spoilt = np.where(flagged, 1e7, image)
    clean, dirty = (
        coregister(make_visit_image(pixels, projection, planes={"BAD": flagged}), field.geometry)
        for pixels in (image, spoilt)
    )
    np.testing.assert_array_equal(clean.good, dirty.good)
    np.testing.assert_array_equal(clean.image, dirty.image)
    assert not clean.good.all()
    # ... and what remains is still right to 1 % of the local brightness.
    whole = coregister(make_visit_image(image, projection), field.geometry)
    error = np.abs(clean.image - whole.image)[clean.good]
    assert error.max() < 0.02 * whole.image.max()


def test_noise_realizations_follow_the_pixels(field: StarField) -> None:
    # Realisations carry the correlations of the warp, which the variance of
    # single pixels cannot describe.
    projection = make_projection(SHAPE, offset=(0.5, 0.5))
    visit_image = make_visit_image(np.zeros(SHAPE), projection, variance=4.0)
    exposure = coregister(visit_image, field.geometry, num_realizations=2, seed=5)
    again = coregister(visit_image, field.geometry, num_realizations=2, seed=5)
    np.testing.assert_array_equal(exposure.noise, again.noise)
    noise = exposure.noise[:, exposure.good]
    assert (noise**2).mean() == pytest.approx(exposure.variance[exposure.good].mean(), rel=0.03)
    neighbours = (exposure.noise[:, :, 1:] * exposure.noise[:, :, :-1]).mean() / (exposure.noise**2).mean()
    assert neighbours > 0.05
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.03


def test_pixels_that_are_not_finite_are_masked_and_counted(field: StarField) -> None:
    projection = make_projection(SHAPE)
    image = field.render(projection, SHAPE, FWHM)
    image[120, 110] = np.nan
    variance = np.ones(SHAPE)
    variance[130, 100] = 0.0
    variance[90, 100] = np.inf
    exposure = coregister(make_visit_image(image, projection, variance=variance), field.geometry)
    assert exposure.num_not_finite == 3
    assert np.isfinite(exposure.image).all()
    assert np.isfinite(exposure.variance).all()
    assert not exposure.good.all()


def test_mask_planes_by_new_and_legacy_names() -> None:
    box = Box.factory[5:9, 3:8]
    schema = MaskSchema([MaskPlane("SAT", ""), MaskPlane("COSMIC_RAY", "")])
    mask = Mask(0, schema=schema, bbox=box)
    plane = np.zeros((4, 5), dtype=bool)
    plane[1, 2] = True
    mask.set("SAT", plane)
    np.testing.assert_array_equal(mask_of_planes(mask, ["SATURATED", "NOT_THERE"]), plane)
    assert not mask_of_planes(mask, ["COSMIC_RAY"]).any()


def test_saturation_is_carried_over(field: StarField) -> None:
    projection = make_projection(SHAPE, rotation=90.0)
    saturated = np.zeros(SHAPE, dtype=bool)
    middle = field.geometry.projection.pixel_to_sky(x=80.0, y=80.0)
    position = projection.sky_to_pixel(middle)
    row, column = round(float(position.y)), round(float(position.x))
    saturated[row : row + 6, column : column + 4] = True
    visit_image = make_visit_image(np.ones(SHAPE), projection, planes={"SATURATED": saturated})
    exposure = coregister(visit_image, field.geometry)
    assert exposure.saturated.sum() == saturated.sum()
    assert not (exposure.saturated & exposure.good).any()


def test_instrumental_pixels_are_calibrated(field: StarField) -> None:
    # Post-ISR pixels with a known scaling must come out in nJy.
    projection = make_projection(SHAPE)
    image = field.render(projection, SHAPE, FWHM)
    box = projection.pixel_frame.bbox
    scaling = ChebyshevField(box, np.array([[20.0]]), unit=u.nJy / u.electron)
    raw = make_visit_image(
        image / 20.0,
        projection,
        variance=1.0 / 400.0,
        unit=u.electron,
        fwhm=FWHM,
        photometric_scaling=scaling,
    )
    calibrated = make_visit_image(image, projection, fwhm=FWHM)
    from_raw, from_calibrated = (coregister(v, field.geometry) for v in (raw, calibrated))
    np.testing.assert_allclose(from_raw.image, from_calibrated.image, atol=1e-3)
    np.testing.assert_allclose(from_raw.variance, from_calibrated.variance, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"unit": u.electron}, "not_calibrated", "electron"),
        ({"psf": ArchiveReadError("broken model")}, "no_psf", "broken model"),
        ({"planes": {"BAD": np.ones(SHAPE, dtype=bool)}}, "no_usable_pixels", "No usable pixel"),
    ],
)
def test_unusable_exposures_say_why(
    field: StarField, changes: dict[str, Any], reason: str, message: str
) -> None:
    visit_image = make_visit_image(np.ones(SHAPE), make_projection(SHAPE), **changes)
    with pytest.raises(UnusableExposureError, match=message) as caught:
        coregister(visit_image, field.geometry)
    assert caught.value.reason == reason


def test_pixel_map_of_a_rotation() -> None:
    # The Jacobian orders (y, x) as the arrays do; a transposed one would
    # shear PSFs the wrong way.
    patch = make_patch_geometry().patch(3, 1)
    projection = make_projection(SHAPE, rotation=30.0, scale=0.98)
    pixel_map = PixelMap.from_projections(patch.projection, patch.bbox, projection)
    jacobian = pixel_map.jacobian()[10, 20]
    cosine, sine = np.cos(np.radians(30.0)) / 0.98, np.sin(np.radians(30.0)) / 0.98
    expected = np.array([[cosine, -sine], [sine, cosine]])
    assert min(np.abs(jacobian - expected).max(), np.abs(jacobian - expected.T).max()) < 1e-4
    # Against the map itself, which has no convention of its own.
    step = pixel_map.y[11, 20] - pixel_map.y[10, 20], pixel_map.x[11, 20] - pixel_map.x[10, 20]
    assert jacobian[:, 0] == pytest.approx(step, abs=1e-5)
    assert pixel_map.area()[10, 20] == pytest.approx(0.98**-2, rel=1e-4)


def test_stack_pads_psfs_to_a_common_size(field: StarField) -> None:
    first = coregister(make_visit_image(np.ones(SHAPE), make_projection(SHAPE)), field.geometry)
    second = coregister(
        make_visit_image(np.ones(SHAPE), make_projection(SHAPE, scale=0.8, visit=2)), field.geometry
    )
    sizes = {e.psfs.shape[-1] for e in (first, second)}
    assert len(sizes) == 2
    stacked = stack_exposures([first, second])
    assert stacked.psfs.shape[-1] == max(sizes)
    np.testing.assert_allclose(stacked.psfs.sum(axis=(-1, -2)), 1.0)


@pytest.mark.parametrize("name", ["visit_image-dp1.json", "visit_image-dp2.json"])
def test_real_projection_and_psf(shared_data: Path, name: str) -> None:
    # The distorted projection and whole-detector Piff model of real Rubin
    # images: a star drawn with that PSF must come out where it was put.
    real = read_archive(shared_data / "rubin" / name)
    position = real.bbox.x.center, real.bbox.y.center
    sky = real.sky_projection.pixel_to_sky(x=position[0], y=position[1])
    center = (float(sky.ra.deg), float(sky.dec.deg))
    geometry = (
        make_patch_geometry()
        .tract(3)
        .model_copy(
            update={
                "ra_deg": center[0],
                "dec_deg": center[1],
                "pixel_scale_arcsec": 0.2,
                "num_patches": (1, 1),
            }
        )
    )
    sky_map = make_patch_geometry().model_copy(update={"tracts": (geometry,)})
    patch = sky_map.patch(3, 0)
    pixel_map = PixelMap.from_projections(patch.projection, patch.bbox, real.sky_projection)
    middle = np.hypot(pixel_map.y - position[1], pixel_map.x - position[0])
    row, column = np.unravel_index(np.argmin(middle), middle.shape)
    assert middle[row, column] < 1.0
    scale = np.sqrt(pixel_map.area()[row, column])
    assert 0.95 < scale < 1.05
