# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images on their own pixels, placed on a patch."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from lsst.astroclearnet.adapters import (
    ExposureId,
    MaskTable,
    PatchGeometry,
    SkyMapGeometry,
    TractGeometry,
    UnusableExposureError,
    VisitCutout,
    stack_exposures,
)
from lsst.astroclearnet.tests import (
    StarField,
    make_patch_geometry,
    make_projection,
    make_visit_image,
    place_cutout,
)
from lsst.images import Box, Image, Mask, VisitImage
from lsst.images.fields import ChebyshevField
from lsst.images.serialization import ArchiveReadError, read_archive

SHAPE = (300, 320)
FWHM = 3.4
BORDER = 6

PROJECTIONS: dict[str, dict[str, Any]] = {
    "dithered": {"offset": (3.3, -6.8)},
    "rotated": {"rotation": 37.0, "offset": (-2.4, 1.7)},
    "one percent coarser": {"scale": 1.01, "rotation": -12.0},
    "distorted": {"distortion": 0.05, "rotation": 64.0, "offset": (5.1, 2.2)},
    "a corner": {"rotation": 8.0, "offset": (-150.0, -200.0)},
}


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 160x160 pixels that does not begin at zero."""
    return make_patch_geometry(cell_shape=(40, 35)).patch(3, 1)


def prepare(visit_image: VisitImage, geometry: PatchGeometry, **options: Any) -> Any:
    """Prepare an exposure for a patch with its border."""
    bbox = geometry.bbox.padded(BORDER)
    return place_cutout(VisitCutout.take(visit_image, geometry, bbox=bbox, **options), bbox)


def patch_position(visit_image: VisitImage, geometry: PatchGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Return where all pixels lie on the bordered patch, one by one."""
    grid = visit_image.bbox.meshgrid()
    position = geometry.projection.sky_to_pixel(visit_image.sky_projection.pixel_to_sky(x=grid.x, y=grid.y))
    start = geometry.bbox.padded(BORDER).start
    return position.y - start.y, position.x - start.x


@pytest.mark.parametrize("name", PROJECTIONS)
def test_pixels_are_kept_as_they_are_and_where_they_are(geometry: PatchGeometry, name: str) -> None:
    """If it fails, data change before the restoration sees them, pixels are
    put elsewhere, or some of those on the patch are lost.
    """
    rng = np.random.default_rng(5)
    projection = make_projection(SHAPE, **PROJECTIONS[name])
    visit_image = make_visit_image(
        rng.normal(size=SHAPE), projection, variance=rng.uniform(1.0, 2.0, size=SHAPE)
    )
    exposure = prepare(visit_image, geometry)
    y, x = patch_position(visit_image, geometry)
    height, width = geometry.bbox.padded(BORDER).shape
    inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
    rows, columns = np.nonzero(inside)
    assert exposure.bbox == Box.factory[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    cut = exposure.bbox.slice_within(visit_image.bbox)
    np.testing.assert_array_equal(exposure.good, inside[cut])
    np.testing.assert_array_equal(np.isfinite(exposure.y), inside[cut])
    good = exposure.good
    np.testing.assert_array_equal(exposure.image[good], visit_image.image.array[cut][good])
    np.testing.assert_array_equal(exposure.variance[good], visit_image.variance.array[cut][good])
    np.testing.assert_allclose(exposure.y[good], y[cut][good], rtol=0, atol=1e-3)
    np.testing.assert_allclose(exposure.x[good], x[cut][good], rtol=0, atol=1e-3)
    # All pixels together have the area of what they cover.
    spread = np.abs(np.linalg.det(np.stack([np.gradient(y), np.gradient(x)]).transpose(2, 3, 0, 1)))
    np.testing.assert_allclose(exposure.area[good], spread[cut][good], rtol=1e-4)
    assert exposure.covered.shape == (height, width)
    assert exposure.covered.sum() == pytest.approx(exposure.area[good].sum(dtype=float), rel=0.02)


def test_centroid_and_flux_of_a_star(geometry: PatchGeometry) -> None:
    """If it fails, the positions are off by a pixel or the axes swapped."""
    x, y = geometry.bbox.x.start + 71.3, geometry.bbox.y.start + 103.8
    star = StarField(geometry=geometry, x=np.array([x]), y=np.array([y]), flux=np.array([1000.0]))
    projection = make_projection(SHAPE, **PROJECTIONS["rotated"])
    exposure = prepare(make_visit_image(star.render(projection, SHAPE, FWHM), projection), geometry)
    light = exposure.image / exposure.image.sum()
    assert exposure.image.sum() == pytest.approx(1000.0, rel=1e-4)
    assert np.nansum(light * exposure.y) == pytest.approx(103.8 + BORDER, abs=1e-3)
    assert np.nansum(light * exposure.x) == pytest.approx(71.3 + BORDER, abs=1e-3)


def test_flagged_pixels_do_not_leak(geometry: PatchGeometry) -> None:
    """If it fails, what a flagged pixel holds changes its neighbours."""
    rng = np.random.default_rng(2)
    projection = make_projection(SHAPE, **PROJECTIONS["rotated"])
    image = rng.normal(size=SHAPE)
    flagged = rng.random(SHAPE) < 0.1
    spoilt = np.where(flagged, np.where(rng.random(SHAPE) < 0.5, 1e7, np.nan), image)
    clean, dirty = (
        prepare(make_visit_image(pixels, projection, planes={"BAD": flagged}), geometry)
        for pixels in (image, spoilt)
    )
    np.testing.assert_array_equal(dirty.image, clean.image)
    whole = prepare(make_visit_image(image, projection), geometry)
    cut = whole.bbox.slice_within(projection.pixel_frame.bbox)
    np.testing.assert_array_equal(clean.good, whole.good & ~flagged[cut])
    np.testing.assert_array_equal(clean.image[clean.good], whole.image[clean.good])
    assert (clean.image[~clean.good] == 0.0).all()
    assert dirty.num_not_finite == 0


def test_pixels_that_are_not_finite_are_masked_and_counted(geometry: PatchGeometry) -> None:
    """If it fails, one pixel turns the whole restoration into NaN."""
    image, variance = np.ones(SHAPE), np.ones(SHAPE)
    projection = make_projection(SHAPE)
    y, x = patch_position(make_visit_image(image, projection), geometry)
    row, column = np.unravel_index(np.argmin(np.hypot(y - 60.0, x - 80.0)), SHAPE)
    image[row, column] = np.nan
    variance[row + 3, column] = 0.0
    variance[row, column + 5] = np.inf
    image[0, 0] = np.nan
    exposure = prepare(make_visit_image(image, projection, variance=variance), geometry)
    assert exposure.num_not_finite == 3
    assert np.isfinite(exposure.image).all()
    assert (exposure.variance > 0).all()
    assert np.isfinite(exposure.y).sum() - exposure.good.sum() == 3


def test_pixels_out_of_bounds_do_not_exist(geometry: PatchGeometry) -> None:
    """If it fails, pixels beyond the valid part of a detector are used."""
    projection = make_projection(SHAPE)
    bounds = Box.factory[0 : SHAPE[0], 0:190]
    exposure = prepare(make_visit_image(np.ones(SHAPE), projection, bounds=bounds), geometry)
    whole = prepare(make_visit_image(np.ones(SHAPE), projection), geometry)
    columns = np.arange(exposure.bbox.x.start, exposure.bbox.x.stop)
    assert columns[-1] > 190
    np.testing.assert_array_equal(exposure.good, whole.good & (columns < 190))
    assert 0.2 < exposure.covered.mean() < whole.covered.mean() - 0.2
    assert exposure.num_not_finite == 0


def test_planes_for_the_coadd_come_from_the_nearest_pixel(geometry: PatchGeometry) -> None:
    """If it fails, the coadd shows saturation in the wrong place."""
    projection = make_projection(SHAPE, rotation=90.0, offset=(0.2, 0.3))
    y, x = patch_position(make_visit_image(np.ones(SHAPE), projection), geometry)
    saturated = (np.abs(y - 60.0) < 3.0) & (np.abs(x - 90.0) < 8.0)
    visit_image = make_visit_image(np.ones(SHAPE), projection, planes={"SATURATED": saturated})
    exposure = prepare(visit_image, geometry)
    assert set(exposure.flags) == {"SATURATED", "COSMIC_RAY"}
    rows, columns = np.nonzero(exposure.flags["SATURATED"])
    assert exposure.flags["SATURATED"].sum() == 6 * 16
    assert int(np.ptp(rows)) + 1 == 6
    assert int(np.ptp(columns)) + 1 == 16
    assert (rows.mean(), columns.mean()) == pytest.approx((60.0, 90.0), abs=0.6)
    assert not exposure.flags["COSMIC_RAY"].any()
    kept = prepare(visit_image, geometry, mask_table=MaskTable.from_treatments({"BAD": "exclude"}))
    assert kept.flags == {}
    assert kept.good.sum() == exposure.good.sum() + saturated.sum()


def test_instrumental_pixels_are_calibrated(geometry: PatchGeometry) -> None:
    """If it fails, exposures of different units are mixed."""
    projection = make_projection(SHAPE)
    image = np.random.default_rng(4).normal(size=SHAPE)
    box = projection.pixel_frame.bbox
    # A scaling that depends on the position: 20 nJy per electron and more.
    scaling = ChebyshevField(box, np.array([[20.0, 2.0]]), unit=u.nJy / u.electron)
    raw = make_visit_image(
        image, projection, variance=0.5, unit=u.electron, fwhm=FWHM, photometric_scaling=scaling
    )
    factor = scaling.render(box).array
    calibrated = make_visit_image(image * factor, projection, variance=0.5 * factor**2, fwhm=FWHM)
    from_raw, from_calibrated = (prepare(v, geometry) for v in (raw, calibrated))
    np.testing.assert_allclose(from_raw.image, from_calibrated.image, rtol=1e-5)
    np.testing.assert_allclose(from_raw.variance, from_calibrated.variance, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"unit": u.electron}, "not_calibrated", "pixels are in electron"),
        ({"psf": ArchiveReadError("broken model")}, "no_psf", "broken model"),
        ({"planes": {"BAD": np.ones(SHAPE, dtype=bool)}}, "no_usable_pixels", "No usable pixel"),
        ({"sky_projection": make_projection(SHAPE, center=(151.0, 2.2))}, "no_overlap", "no pixel"),
        ({"sky_projection": make_projection(SHAPE, center=(330.0, -2.2))}, "no_overlap", "no pixel"),
    ],
)
def test_unusable_exposures_say_why(
    geometry: PatchGeometry, changes: dict[str, Any], reason: str, message: str
) -> None:
    """If it fails, one bad exposure ends the whole patch."""
    visit_image = make_visit_image(np.ones(SHAPE), make_projection(SHAPE), **changes)
    with pytest.raises(UnusableExposureError, match=message) as caught:
        prepare(visit_image, geometry)
    assert caught.value.reason == reason


def test_pixels_on_the_border_alone_are_no_overlap(geometry: PatchGeometry) -> None:
    """If it fails, exposures are kept that no pixel of the product sees."""
    sky = geometry.projection.pixel_to_sky(
        x=geometry.bbox.x.center, y=geometry.bbox.y.stop + SHAPE[0] / 2 + 2.0
    )
    projection = make_projection(SHAPE, center=(float(sky.ra.deg), float(sky.dec.deg)))
    with pytest.raises(UnusableExposureError, match="no pixel on the patch") as caught:
        prepare(make_visit_image(np.ones(SHAPE), projection), geometry)
    assert caught.value.reason == "no_overlap"


def test_identity_and_cut_visit_image(geometry: PatchGeometry) -> None:
    """If it fails, reading the overlap alone gives something else."""
    rng = np.random.default_rng(8)
    visit_image = make_visit_image(
        rng.normal(size=SHAPE), make_projection(SHAPE, rotation=30.0, visit=31, detector=4)
    )
    whole = prepare(visit_image, geometry)
    assert (whole.identity.visit, whole.identity.detector) == (31, 4)
    identity = ExposureId(visit=7, detector=8)
    cut = prepare(
        visit_image[whole.bbox.padded(1).intersection(visit_image.bbox)], geometry, identity=identity
    )
    assert cut.identity == identity
    assert cut.bbox == whole.bbox
    np.testing.assert_array_equal(cut.image, whole.image)
    np.testing.assert_allclose(cut.y, whole.y, atol=1e-6)
    np.testing.assert_array_equal(cut.covered, whole.covered)
    np.testing.assert_allclose(cut.psfs, whole.psfs, atol=1e-6)
    assert cut.polygon.area == pytest.approx(whole.polygon.area, rel=0.01)


def test_usable_fraction_is_that_of_the_patch(geometry: PatchGeometry) -> None:
    """If it fails, the limit on it means something else for each exposure."""
    for scale in (0.9, 1.1):
        projection = make_projection(SHAPE, scale=scale, rotation=45.0)
        visit_image = make_visit_image(np.ones(SHAPE), projection)
        y, x = patch_position(visit_image, geometry)
        height, width = geometry.bbox.shape
        left = x < BORDER - 0.5 + width / 4
        exposure = prepare(make_visit_image(np.ones(SHAPE), projection, planes={"BAD": left}), geometry)
        whole = prepare(visit_image, geometry)
        assert whole.usable_fraction - exposure.usable_fraction == pytest.approx(0.25, abs=0.01)
        assert 0.95 < whole.usable_fraction < 1.01


def test_stack_pads_pixels_and_psfs(geometry: PatchGeometry) -> None:
    """If it fails, padding is taken for data."""
    exposures = [
        prepare(make_visit_image(np.ones(SHAPE), make_projection(SHAPE, **options)), geometry)
        for options in (PROJECTIONS["dithered"], PROJECTIONS["a corner"], {"scale": 0.8})
    ]
    arrays = SimpleNamespace(**stack_exposures(exposures))
    shape = tuple(max(e.bbox.shape[axis] for e in exposures) for axis in (0, 1))
    assert arrays.images.shape == arrays.variances.shape == arrays.good.shape == (3, *shape)
    assert arrays.positions.shape == tuple(geometry.bbox.padded(BORDER).shape)
    for n, exposure in enumerate(exposures):
        height, width = exposure.bbox.shape
        np.testing.assert_array_equal(arrays.images[n, :height, :width], exposure.image)
        np.testing.assert_array_equal(np.asarray(arrays.positions.y)[n, :height, :width], exposure.y)
        np.testing.assert_array_equal(np.asarray(arrays.positions.x)[n, :height, :width], exposure.x)
        for outside in (np.s_[n, height:], np.s_[n, :, width:]):
            assert not arrays.good[outside].any()
            assert (arrays.variances[outside] == 1.0).all()
            assert np.isnan(np.asarray(arrays.positions.y)[outside]).all()
        pad = (arrays.psfs.shape[-1] - exposure.psfs.shape[-1]) // 2
        inner = slice(pad, arrays.psfs.shape[-1] - pad)
        np.testing.assert_array_equal(arrays.psfs[n][..., inner, inner], exposure.psfs)
    np.testing.assert_allclose(arrays.psfs.sum(axis=(-1, -2)), 1.0)
    assert len({e.psfs.shape[-1] for e in exposures}) > 1
    assert arrays.images.dtype == arrays.variances.dtype == np.float32


def test_psf_at_the_middle_is_that_of_a_star_there(geometry: PatchGeometry) -> None:
    """If it fails, the model explains stars with the wrong PSF: sampled at
    the positions of the pixels it must be what they measured.
    """
    projection = make_projection(SHAPE, **PROJECTIONS["one percent coarser"])
    y, x = (float(side.center) for side in (geometry.bbox.y, geometry.bbox.x))
    star = StarField(geometry=geometry, x=np.array([x]), y=np.array([y]), flux=np.array([1.0]))
    exposure = prepare(
        make_visit_image(star.render(projection, SHAPE, FWHM), projection, fwhm=FWHM), geometry
    )
    stamp = exposure.psfs.mean(axis=(0, 1))
    center = y - geometry.bbox.y.start + BORDER, x - geometry.bbox.x.start + BORDER
    # A Gaussian of the stamp's moments, in pixels of the patch.
    r = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    variance = float((stamp * r[:, None] ** 2).sum())
    radius = (exposure.y - center[0]) ** 2 + (exposure.x - center[1]) ** 2
    model = exposure.area * np.exp(-0.5 * radius / variance) / (2.0 * math.pi * variance)
    good = exposure.good
    assert np.abs(exposure.image - model)[good].max() < 2e-3 * exposure.image.max()


def draw_star(real: VisitImage, x: int, y: int, flux: float) -> VisitImage:
    """Return 101x91 pixels of a real visit image with only its PSF."""
    kernel = real.psf.compute_kernel_image(x=x, y=y)
    bbox = Box.factory[y - 50 : y + 51, x - 45 : x + 46]
    image = Image(0.0, bbox=bbox, unit=u.nJy, dtype=np.float32)
    rows, columns = kernel.bbox.y, kernel.bbox.x
    image.array[50 + rows.start : 50 + rows.stop, 45 + columns.start : 45 + columns.stop] = (
        flux * kernel.array
    )
    return VisitImage(
        image,
        mask=Mask(0, schema=real.mask.schema, bbox=bbox),
        variance=Image(1.0, bbox=bbox, unit=u.nJy**2, dtype=np.float32),
        sky_projection=real.sky_projection,
        psf=real.psf,
        obs_info=real.obs_info,
        detector=real.detector,
        band=real.band,
    )


@pytest.mark.parametrize("name", ["visit_image-dp1.json", "visit_image-dp2.json"])
def test_real_projection_and_psf(shared_data: Path, name: str) -> None:
    """If it fails, stars of a real Rubin detector, with its distortion and
    its Piff model, are not where or what the model takes them for.
    """
    real = read_archive(shared_data / "rubin" / name)
    detector = real.sky_projection.pixel_frame.bbox
    x, y = round(detector.x.center) + 900, round(detector.y.center) - 700
    sky = real.sky_projection.pixel_to_sky(x=float(x), y=float(y))
    # The tract, of an odd number of pixels, has its central one at the star.
    tract = TractGeometry(
        tract=3,
        ra_deg=float(sky.ra.deg),
        dec_deg=float(sky.dec.deg),
        pixel_scale_arcsec=0.2,
        cell_shape=(25, 27),
        patch_cells=(3, 3),
        border_cells=0,
        num_patches=(1, 1),
    )
    patch = SkyMapGeometry(skymap="star", tracts=(tract,)).patch(3, 0)
    exposure = place_cutout(VisitCutout.take(draw_star(real, x, y, flux=5000.0), patch), patch.bbox)
    assert exposure.psfs.shape[:2] == (2, 2)
    np.testing.assert_allclose(exposure.y[exposure.image == exposure.image.max()], 37.0, atol=1e-3)
    np.testing.assert_allclose(exposure.x[exposure.image == exposure.image.max()], 40.0, atol=1e-3)
    # What the stamp predicts at the positions of the pixels.
    stamp = exposure.psfs[0, 0]
    good = exposure.good
    offsets = np.stack([exposure.y[good] - 37.0, exposure.x[good] - 40.0]) + stamp.shape[0] // 2
    predicted = 5000.0 * exposure.area[good] * map_coordinates(stamp, offsets, order=5)
    assert predicted.sum() == pytest.approx(5000.0, rel=1e-3)
    residual = np.zeros(good.shape)
    residual[good] = predicted - exposure.image[good]
    # The fitted model has noise from pixel to pixel, which no other grid can
    # hold: 4 % of the peak.  What is wider than that must agree.
    assert np.abs(residual).max() < 0.05 * exposure.image.max()
    smooth = gaussian_filter(np.stack([residual, exposure.image]), (0, 1.5, 1.5))
    assert np.abs(smooth[0]).max() < 1e-3 * smooth[1].max()
