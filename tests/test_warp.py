# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images resampled to a patch, against analytic stars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    SkyMapGeometry,
    TractGeometry,
    UnusableExposureError,
)
from lsst.astroclearnet.simulation import make_deep_coadd, warp_visit_image
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, Image, Mask, VisitImage
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
    exposure = warp_visit_image(visit_image, field.geometry)
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
    exposure = warp_visit_image(visit_image, geometry)
    stamp = exposure.cutout.psfs_within(geometry.bbox)[0, 0]
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
        warp_visit_image(make_visit_image(pixels, projection, planes={"BAD": flagged}), field.geometry)
        for pixels in (image, spoilt)
    )
    np.testing.assert_array_equal(clean.good, dirty.good)
    np.testing.assert_array_equal(clean.image, dirty.image)
    assert not clean.good.all()
    # ... and what remains is still right to 2 % of the brightest pixel: the
    # kernel next to a flagged pixel is cut off and renormalised.
    whole = warp_visit_image(make_visit_image(image, projection), field.geometry)
    error = np.abs(clean.image - whole.image)[clean.good]
    assert error.max() < 0.02 * whole.image.max()


def test_pixels_that_are_not_finite_are_masked(field: StarField) -> None:
    projection = make_projection(SHAPE)
    image = field.render(projection, SHAPE, FWHM)
    image[120, 110] = np.nan
    variance = np.ones(SHAPE)
    variance[130, 100] = 0.0
    variance[90, 100] = np.inf
    exposure = warp_visit_image(make_visit_image(image, projection, variance=variance), field.geometry)
    assert np.isfinite(exposure.image).all()
    assert np.isfinite(exposure.variance).all()
    assert not exposure.good.all()


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
    from_raw, from_calibrated = (warp_visit_image(v, field.geometry) for v in (raw, calibrated))
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
        warp_visit_image(visit_image, field.geometry)
    assert caught.value.reason == reason


def test_plain_coadd_leaves_out_what_is_beside_the_patch(field: StarField) -> None:
    # A detector of a visit may miss the patch altogether.
    image = field.render(make_projection(SHAPE), SHAPE, FWHM)
    here = make_visit_image(image, make_projection(SHAPE), fwhm=FWHM)
    elsewhere = make_visit_image(image, make_projection(SHAPE, center=(151.0, 2.2), visit=2), fwhm=FWHM)
    coadd = make_deep_coadd([here, elsewhere], field.geometry, "i")
    assert coadd is not None
    assert list(coadd.provenance.inputs["visit"]) == [1]
    assert make_deep_coadd([elsewhere], field.geometry, "i") is None


def test_plain_coadd_shows_saturation_and_provenance(field: StarField) -> None:
    # What a user of the simulated repository takes for truth.
    geometry = field.geometry
    middle = geometry.projection.pixel_to_sky(x=80.0, y=80.0)
    visit_images = []
    for visit, fwhm in ((1, 3.5), (2, 7.0)):
        projection = make_projection(SHAPE, rotation=90.0 * visit, visit=visit)
        position = projection.sky_to_pixel(middle)
        row, column = round(float(position.y)), round(float(position.x))
        saturated = np.zeros(SHAPE, dtype=bool)
        if visit == 1:
            saturated[row : row + 6, column : column + 4] = True
        planes = {"SATURATED": saturated}
        visit_images.append(make_visit_image(np.ones(SHAPE), projection, fwhm=fwhm, planes=planes))
    coadd = make_deep_coadd(visit_images, geometry, "i")
    assert coadd is not None
    flagged = coadd.mask.get("SATURATED")
    assert flagged.sum() == 24
    assert coadd.mask.get("INEXACT_PSF")[flagged].all()
    assert not coadd.mask.get("NO_DATA").any()
    table = coadd.provenance.contributions
    sharp = [row["weight"] for row in table if row["visit"] == 1 and row["unmasked_fraction"] == 1.0]
    # The stamps of 25 pixels cut off a part of the wider PSF.
    np.testing.assert_allclose(sharp, 0.8, atol=0.01)


def draw_star(real: VisitImage, x: int, y: int, flux: float) -> VisitImage:
    """Return 101x101 pixels of a real visit image with only its PSF."""
    kernel = real.psf.compute_kernel_image(x=x, y=y)
    bbox = Box.factory[y - 50 : y + 51, x - 50 : x + 51]
    image = Image(0.0, bbox=bbox, unit=u.nJy, dtype=np.float32)
    rows, columns = kernel.bbox.y.start, kernel.bbox.x.start
    height, width = kernel.array.shape
    image.array[50 + rows : 50 + rows + height, 50 + columns : 50 + columns + width] = flux * kernel.array
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
    # The distorted projection and whole-detector Piff model of real Rubin
    # images: a star drawn with that PSF must come out where it was put.
    real = read_archive(shared_data / "rubin" / name)
    detector_box = real.sky_projection.pixel_frame.bbox
    x, y = round(detector_box.x.center), round(detector_box.y.center)
    visit_image = draw_star(real, x, y, flux=5000.0)
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
    exposure = warp_visit_image(visit_image, patch)
    # The centroid of a real PSF is not its origin.
    kernel = real.psf.compute_kernel_image(x=x, y=y)
    grid = kernel.bbox.meshgrid()
    centroid = real.sky_projection.pixel_to_sky(
        x=x + float((kernel.array * grid.x).sum()), y=y + float((kernel.array * grid.y).sum())
    )
    expected = patch.projection.sky_to_pixel(centroid)
    measured = moments(exposure.image, 40.0, 37.0, 20)
    assert measured[0] == pytest.approx(5000.0, rel=0.003)
    assert measured[1:] == pytest.approx((float(expected.x), float(expected.y)), abs=0.02)
    stamp = exposure.cutout.psfs_within(patch.bbox)[0, 0]
    half = stamp.shape[0] // 2
    cut = exposure.image[37 - half : 38 + half, 40 - half : 41 + half]
    assert np.abs(cut / 5000.0 - stamp).max() < 0.01 * stamp.max()
