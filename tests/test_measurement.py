# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogues from arrays: positions, fluxes and shapes against the truth."""

from __future__ import annotations

import dataclasses
from importlib.resources import files

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import fwhm_to_sigma, gaussian_kernel
from lsst.astroclearnet.measurement import (
    BandImages,
    Column,
    aperture_weights,
    felis_schema,
    find_peaks,
    fit_moments,
    fit_point_sources,
    measure_objects,
    object_columns,
)
from lsst.astroclearnet.metrics import correlation_matrix, point_source_image, psf_flux_error

SHAPE = (96, 96)
PSF = gaussian_kernel(3.0, 17)
SMOOTHING = 0.7
"""Sigma in pixels of the Gaussian that correlates the noise."""

Array = NDArray[np.float64]


def make_correlation() -> Array:
    """Return the correlation of smoothed white noise, shape (31, 31)."""
    impulse = np.zeros((64, 64))
    impulse[32, 32] = 1.0
    kernel = gaussian_filter(impulse, SMOOTHING)
    found = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(kernel)) ** 2).real)
    return np.asarray(found / found.max())[17:48, 17:48]


CORRELATION = make_correlation()
BOUND = psf_flux_error(1.0, CORRELATION, PSF)
"""Error of the flux of an isolated star in noise of variance 1."""


def make_noise(rng: np.random.Generator, shape: tuple[int, int] = SHAPE) -> Array:
    """Return correlated noise of variance 1."""
    impulse = np.zeros((64, 64))
    impulse[32, 32] = 1.0
    norm = np.sqrt(np.sum(gaussian_filter(impulse, SMOOTHING) ** 2))
    return np.asarray(gaussian_filter(rng.normal(size=shape), SMOOTHING, mode="wrap") / norm)


def make_band(light: Array, noise: Array, psf: Array = PSF) -> BandImages:
    """Return a band whose denoised image has a fifth of the noise."""
    return BandImages(
        detection=light + 0.2 * noise,
        detection_variance=np.full(light.shape, 0.04),
        image=light + noise,
        variance=np.ones(light.shape),
        psf=psf,
        correlation=CORRELATION[np.newaxis, np.newaxis],
        cell_shape=light.shape,
    )


def make_grid(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return positions far from each other, anywhere in their pixels."""
    y, x = (axis.ravel() for axis in np.mgrid[14.0:90.0:22.0, 14.0:90.0:22.0])
    return x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, x.size)


def test_isolated_stars_reach_the_bound() -> None:
    """If this fails, fluxes or positions are biased, scatter more than they
    must, or have wrong errors.
    """
    pulls, shifts = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, y = make_grid(rng)
        flux = np.array([[40.0], [25.0]]) * BOUND * np.ones(x.size)
        bands = [make_band(point_source_image(SHAPE, PSF, x, y, f), make_noise(rng)) for f in flux]
        start = rng.normal(0.0, 0.15, (2, x.size))
        found = fit_point_sources(bands, x + start[0], y + start[1])
        assert found.is_moved.all()
        np.testing.assert_allclose(found.error, BOUND, rtol=0.01)
        pulls.append((found.flux - flux) / BOUND)
        shifts.append((found.x - x) / np.sqrt(found.covariance[:, 0, 0]))
        shifts.append((found.y - y) / np.sqrt(found.covariance[:, 1, 1]))
    pull, shift = np.ravel(pulls), np.ravel(shifts)
    # 192 fluxes: errors of 0.07 of the mean and 0.05 of the scatter.
    assert abs(pull.mean()) < 0.2
    assert 0.85 < pull.std() < 1.10
    assert abs(shift.mean()) < 0.2
    assert 0.85 < shift.std() < 1.15


@pytest.mark.parametrize("separation", [2.5, 6.0])
def test_blended_stars_are_told_apart(separation: float) -> None:
    """If this fails, neighbours take light from each other, or errors leave
    out that they might.  One arcsec is 6 pixels of 0.168.
    """
    pulls, errors = [], []
    for seed in range(3):
        rng = np.random.default_rng([seed, 1])
        x, y = make_grid(rng)
        angle = rng.uniform(0.0, 2.0 * np.pi, x.size)
        x = np.append(x, x + separation * np.cos(angle))
        y = np.append(y, y + separation * np.sin(angle))
        flux = np.repeat([60.0, 20.0], angle.size) * BOUND
        bands = [make_band(point_source_image(SHAPE, PSF, x, y, flux), make_noise(rng)) for _ in range(2)]
        start = rng.normal(0.0, 0.2, (2, x.size))
        found = fit_point_sources(bands, x + start[0], y + start[1])
        pulls.append((found.flux - flux) / found.error)
        errors.append(found.error / BOUND)
    pull = np.ravel(pulls)
    assert abs(pull.mean()) < 0.25
    assert 0.85 < pull.std() < 1.15
    # Close ones have larger errors, others that of isolated ones.
    expected = (1.08, 1.3) if separation < 3.0 else (1.0, 1.05)
    assert expected[0] <= np.mean(errors) < expected[1]


def test_positions_of_faint_sources_stay_where_they_are_given() -> None:
    """If this fails, noise carries faint sources away."""
    rng = np.random.default_rng(5)
    x, y = make_grid(rng)
    found = fit_point_sources([make_band(np.zeros(SHAPE), make_noise(rng))], x, y)
    assert np.hypot(found.x - x, found.y - y).max() < 1.0
    assert abs(np.mean(found.flux) / BOUND) < 1.0
    np.testing.assert_allclose(np.sqrt(found.covariance[:, 0, 0]), 0.5, atol=0.2)


def test_missing_pixels_leave_fluxes_right() -> None:
    """If this fails, a hole or a border counts as light of value 0."""
    rng = np.random.default_rng(2)
    x, y = np.array([40.3, 3.2, 70.4]), np.array([40.2, 50.4, 70.1])
    light = point_source_image(SHAPE, PSF, x, y, np.full(3, 900.0))
    band = make_band(light, 1e-3 * make_noise(rng))
    band.image[40:42, 41:43] = np.nan
    band.image[62:, 62:] = np.nan
    found = fit_point_sources([band], x + 0.1, y)
    np.testing.assert_allclose(found.flux[0, :2], 900.0, rtol=1e-3)
    assert found.error[0, 0] > 1.02 * BOUND
    assert np.isnan(found.flux[0, 2])


def test_inseparable_sources_have_no_flux() -> None:
    """If this fails, two peaks of one source share its light at random."""
    band = make_band(point_source_image(SHAPE, PSF, [40.0], [40.0], [900.0]), np.zeros(SHAPE))
    found = fit_point_sources([band], [40.0, 40.0], [40.0, 40.0], refine=False)
    assert np.isnan(found.flux).all()


def test_moments_and_their_errors() -> None:
    """If this fails, shapes are biased or have wrong errors."""
    size, moments, center = 27, (6.0, 3.0, 1.0), (13.2, 12.9)
    y, x = np.indices((size, size))
    offset = np.stack([x - center[0], y - center[1]])
    matrix = np.array([[6.0, 1.0], [1.0, 3.0]])
    square = np.einsum("i...,ij,j...->...", offset, np.linalg.inv(matrix), offset)
    light = 900.0 * np.exp(-0.5 * square) / (2.0 * np.pi * np.sqrt(np.linalg.det(matrix)))
    exact = fit_moments(light, (13.0, 13.0), (2.0, 2.0, 0.0))
    assert exact is not None
    assert (exact.flux, *exact.center, exact.xx, exact.yy, exact.xy) == pytest.approx(
        (900.0, *center, *moments), rel=2e-3
    )
    rng = np.random.default_rng(3)
    rho = correlation_matrix(CORRELATION, (size, size))
    pulls = []
    for _ in range(150):
        noise = 0.8 * make_noise(rng)[:size, :size]
        found = fit_moments(light + noise, (13.0, 13.0), (2.0, 2.0, 0.0))
        assert found is not None
        error = 0.8 * np.sqrt(np.diag(found.weights @ rho @ found.weights.T))
        values = np.array([found.flux, *found.center, found.xx, found.yy, found.xy])
        pulls.append((values - [900.0, *center, *moments]) / error)
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.35
    np.testing.assert_allclose(np.std(pulls, axis=0), 1.0, atol=0.25)
    assert fit_moments(np.full((size, size), np.nan), center, (2.0, 2.0, 0.0)) is None
    assert fit_moments(-light, center, (2.0, 2.0, 0.0)) is None


def test_apertures_have_exact_areas() -> None:
    """If this fails, pixels at the edge of a circle count as a whole."""
    for radius in (1.0, 3.0, 6.5):
        area = aperture_weights(17, (8.3, 7.8), radius).sum()
        assert area == pytest.approx(np.pi * radius**2, rel=1e-9)
    with pytest.raises(ValueError, match=r"circle of 9.0 pixels around \(8.0, 8.0\) is not in a box of 17"):
        aperture_weights(17, (8.0, 8.0), 9.0)


def test_peaks_are_divided() -> None:
    """If this fails, neighbours are one source, or noise is one."""
    rng = np.random.default_rng(7)
    x, y = np.array([30.0, 34.4, 70.3]), np.array([30.2, 31.0, 60.7])
    light = point_source_image(SHAPE, PSF, x, y, np.array([3000.0, 600.0, 90.0]))
    peaks = find_peaks(light + 0.05 * make_noise(rng), np.full(SHAPE, 0.2))
    assert len(peaks) == 3
    np.testing.assert_allclose(np.sort(peaks["x"]), np.sort(x), atol=0.5)
    assert (peaks["significance"] > 3.0).all()
    with pytest.raises(ValueError, match="threshold must be positive; got 0"):
        find_peaks(light, np.ones(SHAPE), threshold=0.0)


@pytest.fixture(scope="module")
def scene() -> dict[str, BandImages]:
    """Two bands with stars, a galaxy and a star that is in g alone."""
    rng = np.random.default_rng(11)
    x, y = np.array([20.3, 70.1, 60.2]), np.array([20.4, 25.8, 30.0])
    bands = {}
    for name, fluxes, galaxy in (("g", (700.0, 500.0, 900.0), 2000.0), ("r", (900.0, 0.0, 900.0), 3000.0)):
        light = point_source_image(SHAPE, PSF, x, y, np.array(fluxes))
        dot = point_source_image(SHAPE, PSF, [50.2], [70.4], [galaxy])
        bands[name] = make_band(light + gaussian_filter(dot, 1.5), make_noise(rng))
    bands["g"].image[0:8] = np.nan
    saturated = np.zeros(SHAPE, dtype=bool)
    saturated[20, 21] = True
    bands["g"] = dataclasses.replace(bands["g"], planes={"SATURATED": saturated})
    return bands


def test_objects_of_two_bands(scene: dict[str, BandImages]) -> None:
    """If this fails, the catalogue lacks sources, or columns are of others."""
    objects = measure_objects(scene, bands=("g", "r", "z"), pixel_scale=0.2)
    assert objects.colnames == [column.name for column in object_columns(("g", "r", "z"))]
    assert len(objects) == 4
    order = [
        int(np.hypot(objects["acn_x"] - a, objects["acn_y"] - b).argmin())
        for a, b in ((20.3, 20.4), (70.1, 25.8), (60.2, 30.0), (50.2, 70.4))
    ]
    star, blue, other, galaxy = (objects[i] for i in order)
    assert sorted(order) == [0, 1, 2, 3]
    for row, name, flux in ((star, "g", 700.0), (star, "r", 900.0), (blue, "g", 500.0), (blue, "r", 0.0)):
        assert abs(row[f"{name}_acn_psfFlux"] - flux) < 4.0 * row[f"{name}_acn_psfFluxErr"]
        assert abs(row[f"{name}_acn_ap06Flux"] - flux) < 4.0 * row[f"{name}_acn_ap06FluxErr"]
        assert row[f"{name}_acn_psfFluxErr"] == pytest.approx(BOUND, rel=0.02)
    assert star["acn_signalToNoise"] == pytest.approx(np.hypot(700.0, 900.0) / BOUND, rel=0.1)
    assert other["acn_neighborDistance"] == pytest.approx(0.2 * np.hypot(9.9, 4.2), abs=0.05)
    # The shape of a faint source is not measured, and said so.
    assert blue["r_acn_shape_flag"]
    assert np.isnan(blue["r_acn_ixx"])
    sigma = fwhm_to_sigma(3.0)
    assert abs(star["r_acn_ixx"] - sigma**2) < 4.0 * star["r_acn_ixxErr"]
    assert abs(galaxy["r_acn_iyy"] - sigma**2 - 2.25) < 4.0 * galaxy["r_acn_iyyErr"]
    assert abs(star["acn_extendedness"]) < 4.0 * star["acn_extendednessErr"]
    assert galaxy["acn_extendedness"] > 5.0 * galaxy["acn_extendednessErr"]
    assert star["g_acn_psfFwhm"] == pytest.approx(0.6, rel=0.01)
    assert list(objects["g_acn_pixelFlags_saturated"][order]) == [True, False, False, False]
    # Without images, all is empty and flagged.
    for column in object_columns(("z",)):
        values = objects[column.name]
        assert values.description == column.description
        if column.name.startswith("z_"):
            flagged = column.name.endswith("_flag") or column.name.endswith("noData")
            assert (values == flagged).all() if column.datatype == "boolean" else np.isnan(values).all()


def test_nothing_is_found_on_an_empty_sky() -> None:
    """If this fails, an empty patch is an error, or full of noise."""
    objects = measure_objects({"r": make_band(np.zeros(SHAPE), make_noise(np.random.default_rng(3)))})
    assert len(objects) == 0
    assert objects["r_acn_psfFlux"].unit == "nJy"


def test_bad_images_are_refused(scene: dict[str, BandImages]) -> None:
    """If this fails, a mistake ends far from where it was made."""
    with pytest.raises(ValueError, match=r"images in g, which is not in bands: \['r'\]"):
        measure_objects(scene, bands=["r"])
    with pytest.raises(ValueError, match="no band to detect"):
        measure_objects({})
    small = make_band(np.zeros((40, 40)), np.zeros((40, 40)))
    with pytest.raises(ValueError, match="must be on one grid"):
        measure_objects({"g": scene["g"], "r": small})
    with pytest.raises(ValueError, match="must have one shape"):
        BandImages(small.image, small.image, small.image[1:], small.image, PSF, small.correlation, (4, 4))
    with pytest.raises(
        ValueError, match=r"psf must consist of square stamps of odd size; got shape \(16, 16\)"
    ):
        make_band(np.zeros(SHAPE), np.zeros(SHAPE), PSF[1:, 1:])
    with pytest.raises(ValueError, match="must be finite"):
        fit_point_sources([small], [np.nan], [1.0])


def test_schema_is_that_of_the_file() -> None:
    """If this fails, write the file anew: ``yaml.safe_dump(felis_schema(),
    sort_keys=False, default_flow_style=None, width=10000)``.
    """
    path = files("lsst.astroclearnet").joinpath("resources/schemas/restored_object.yaml")
    assert yaml.safe_load(path.read_text()) == felis_schema()


def test_schema_is_one_of_felis() -> None:
    """If this fails, a database cannot be made of the catalogue."""
    felis = pytest.importorskip("felis")
    schema = felis.Schema.model_validate(felis_schema())
    assert [column.name for column in schema.tables[0].columns] == [c.name for c in object_columns()]


def test_columns_that_rubin_does_not_define_have_a_prefix() -> None:
    """If this fails, a value is taken for what Rubin means by its name."""
    rubin = {"tract", "patch", "coord_ra", "coord_dec"}
    columns: list[Column] = object_columns()
    assert {column.name for column in columns if "acn_" not in column.name} == rubin
    assert len({column.name for column in columns}) == len(columns)
