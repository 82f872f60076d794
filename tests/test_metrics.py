# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Metrics against images whose statistics are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from numpy.typing import NDArray

from lsst.astroclearnet.metrics import (
    correlation_matrix,
    fwhm_of_kernel,
    measure_patch,
    measured_depth,
    noise_correlation,
    point_source_depth,
    point_source_image,
    psf_flux,
    psf_flux_correlated,
    seeing_of_kernel,
    star_statistics,
    stellar_fwhms,
)

SHAPE = (120, 90)
Array = NDArray[np.float64]


def gaussian(fwhm: float, size: int = 33, dx: float = 0.0, dy: float = 0.0) -> Array:
    """Return a circular Gaussian of unit sum sampled on a stamp."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-4.0 * np.log(2.0) * ((x - dx) ** 2 + (y - dy) ** 2) / fwhm**2)
    return np.asarray(stamp / stamp.sum())


def moffat(fwhm: float, beta: float, size: int = 41, dx: float = 0.0, dy: float = 0.0) -> Array:
    """Return a circular Moffat profile of unit sum sampled on a stamp."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = (1.0 + 4.0 * (2 ** (1 / beta) - 1) * ((x - dx) ** 2 + (y - dy) ** 2) / fwhm**2) ** -beta
    return np.asarray(stamp / stamp.sum())


def gaussian_stars(shape: tuple[int, int], fwhm: float, x: Any, y: Any, flux: Any) -> Array:
    """Return stars evaluated from the formula, not by shifting a stamp."""
    sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for xs, ys, fs in zip(x, y, flux, strict=True):
        image += fs * np.exp(-((xx - xs) ** 2 + (yy - ys) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    return image


def grid(shape: tuple[int, int], spacing: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return positions around the nodes of a grid, away from the border."""
    y, x = np.mgrid[spacing // 2 : shape[0] - 9 : spacing, spacing // 2 : shape[1] - 9 : spacing]
    jitter = rng.uniform(-0.5, 0.5, (2, x.size))
    return x.ravel() + jitter[0], y.ravel() + jitter[1]


@pytest.mark.parametrize("fwhm", [2.5, 3.0, 3.7, 5.6, 8.0])
@pytest.mark.parametrize("center", [(0.0, 0.0), (0.5, -0.3), (-0.2, 0.45)])
def test_fwhm_of_kernel(fwhm: float, center: tuple[float, float]) -> None:
    """If it fails, every reported seeing is wrong."""
    dx, dy = center if fwhm >= 3 else (0.0, 0.0)
    assert fwhm_of_kernel(gaussian(fwhm, 35, dx, dy)) == pytest.approx(fwhm, rel=0.01)
    for beta in (2.5, 3.5, 5.0):
        assert fwhm_of_kernel(7.0 * moffat(fwhm, beta, 35, dx, dy)) == pytest.approx(fwhm, rel=0.01)


def test_fwhm_of_kernel_with_the_pixel() -> None:
    """If it fails, the seeing of a sharp PSF depends on its centre."""
    fine = 15
    widths = []
    for shift in ((0, 0), (7, -4), (-3, 6)):
        # 15 samples per pixel, summed over the pixels.
        samples = moffat(2.5 * fine, 2.5, 35 * fine, *shift)
        widths.append(fwhm_of_kernel(samples.reshape(35, fine, 35, fine).sum(axis=(1, 3))))
    assert 2.5 < widths[0] < np.hypot(2.5, 1.2)
    np.testing.assert_allclose(widths, widths[0], rtol=0.02)


def test_fwhm_of_kernel_refuses() -> None:
    """If it fails, a broken stamp gives a number instead of an error."""
    with pytest.raises(ValueError, match=r"at least 6x6 pixels; got shape \(5, 9\)"):
        fwhm_of_kernel(np.ones((5, 9)))
    with pytest.raises(ValueError, match="finite and have a positive peak"):
        fwhm_of_kernel(np.full((9, 9), np.nan))
    assert np.isnan(fwhm_of_kernel(np.ones((9, 9))))


def test_seeing_of_any_stamp() -> None:
    """If it fails, an exposure with a cut PSF has no seeing, or another one
    than the half width of its PSF.
    """
    stamp = moffat(3.7, 2.5)
    assert seeing_of_kernel(stamp) == fwhm_of_kernel(stamp)
    # A Gaussian that is cut inside half of its peak, and one too small.
    for size in (9, 5):
        cut = gaussian(20.0, size)
        assert seeing_of_kernel(cut) == pytest.approx(size * (2.0 * math.log(2.0) / math.pi) ** 0.5, rel=0.02)


def test_point_source_image_positions() -> None:
    """If it fails, x and y are swapped or stars sit off their position."""
    image = point_source_image(SHAPE, gaussian(4.0), [71.3], [20.6], [1000.0])
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    assert image.shape == SHAPE
    assert image.sum() == pytest.approx(1000.0, rel=1e-6)
    assert (image * xx).sum() / image.sum() == pytest.approx(71.3, abs=1e-3)
    assert (image * yy).sum() / image.sum() == pytest.approx(20.6, abs=1e-3)
    np.testing.assert_allclose(image, gaussian_stars(SHAPE, 4.0, [71.3], [20.6], [1000.0]), atol=1e-3)
    with pytest.raises(ValueError, match="square with an odd size"):
        point_source_image(SHAPE, np.ones((8, 8)), [3.0], [3.0], [1.0])


@pytest.mark.parametrize("fwhm", [2.5, 4.5])
def test_psf_flux_is_exact_without_noise(fwhm: float) -> None:
    """If it fails, photometry itself biases the table of biases."""
    x = np.array([20.5, 24.1, 60.25, 5.0, 87.0])
    y = np.array([30.5, 31.9, 80.75, 3.3, 118.0])
    flux = np.array([1000.0, 300.0, 50.0, 700.0, 900.0])
    image = gaussian_stars(SHAPE, fwhm, x, y, flux)
    measured, error = psf_flux(image, np.ones(SHAPE), gaussian(fwhm), x, y)
    np.testing.assert_allclose(measured, flux, rtol=1e-3)
    assert np.all(error > 0)
    galaxy = gaussian_stars(SHAPE, 9.0, [22.0], [33.0], [5000.0])
    modelled, _ = psf_flux(image + galaxy, np.ones(SHAPE), gaussian(fwhm), x, y, model=galaxy)
    np.testing.assert_allclose(modelled, flux, rtol=1e-3)


def test_psf_flux_survives_bad_input() -> None:
    """If it fails, masks, borders or duplicates break or fake a flux."""
    x, y = np.array([20.0, 40.0, 60.0, 60.0, 500.0, np.nan]), np.array([50.0, 50.0, 90.0, 90.0, 50.0, 3.0])
    image = gaussian_stars(SHAPE, 4.0, x[:4], y[:4], [100.0, 200.0, 10.0, 20.0])
    image[:, :21] = np.nan
    variance = np.ones(SHAPE)
    variance[50, 40] = np.inf
    measured, error = psf_flux(image, variance, gaussian(4.0), x, y)
    assert measured[0] == pytest.approx(100.0, rel=1e-3)
    assert measured[1] == pytest.approx(200.0, rel=1e-3)
    assert np.isnan(measured[2:]).all()
    assert np.isnan(error[2:]).all()
    empty, _ = psf_flux(image, variance, gaussian(4.0), [], [])
    assert empty.size == 0
    with pytest.raises(ValueError, match="differ in shape"):
        psf_flux(image, variance[:-1], gaussian(4.0), x, y)


def test_psf_flux_errors_and_statistics() -> None:
    """If it fails, claimed errors or the table of biases are not honest."""
    rng = np.random.default_rng(3)
    shape = (420, 380)
    x, y = grid(shape, 19, rng)
    psf = gaussian(3.5)
    snr = rng.uniform(20.0, 100.0, x.size)
    sky = 4.0
    sigma = np.sqrt(sky / np.sum(psf**2))
    flux = snr * sigma
    clean = point_source_image(shape, psf, x, y, flux)
    variance = sky + 0.05 * clean
    image = clean + rng.normal(size=shape) * np.sqrt(variance)
    measured, error = psf_flux(image, variance, psf, x, y)
    assert np.std((measured - flux) / error) == pytest.approx(1.0, abs=4 / np.sqrt(2 * x.size))
    table = star_statistics(measured * 1.03, error, flux, snr)
    assert list(table["num_stars"]) == [0, x.size, 0]
    row = table[1]
    assert row["bias_percent"] == pytest.approx(3.0, abs=4 * row["bias_percent_error"])
    assert row["bias_percent_error"] < 0.3
    assert row["scatter_percent"] == pytest.approx(100 * np.median(error / flux), rel=0.25)
    assert np.isnan(table[0]["bias_percent"])
    assert np.isnan(table[2]["pull_width"])


def coloured_noise(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return noise of unit variance, its correlation and its spectrum.

    The spectrum is that of white noise of an exposure brought to a sharper
    PSF, elongated: large at high frequencies, until both PSFs cut it off.
    """
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    power = 0.05 + np.exp(80.0 * ky**2 + 50.0 * kx**2 - 500.0 * (ky**4 + kx**4))
    power /= power.mean()
    white = np.fft.fft2(rng.normal(size=shape))
    noise = np.fft.ifft2(white * np.sqrt(power)).real
    stamp = np.roll(np.fft.ifft2(power).real, (15, 15), (0, 1))[:31, :31]
    return noise, stamp, power


def test_correlation_matrix_has_its_stamp_in_each_row() -> None:
    """If it fails, rows and columns of the covariance are mixed up."""
    stamp = np.array([[0.1, 0.2, 0.05], [0.4, 1.0, 0.4], [0.05, 0.2, 0.1]])
    matrix = correlation_matrix(stamp, (4, 5))
    np.testing.assert_allclose(matrix, matrix.T)
    middle = matrix[6].reshape(4, 5)
    np.testing.assert_allclose(middle[:3, :3], stamp)
    assert np.count_nonzero(middle) == 9


def test_correlated_photometry_is_optimal_and_knows_its_error() -> None:
    """If it fails, errors with the persisted covariance are wrong, or the
    flux is not the best one.
    """
    rng = np.random.default_rng(12)
    shape = (540, 460)
    noise, stamp, power = coloured_noise(shape, rng)
    variance = np.broadcast_to(np.linspace(3.0, 5.0, shape[1]), shape)
    x, y = grid(shape, 21, rng)
    psf = gaussian(3.2, 17)
    flux = rng.uniform(50.0, 500.0, x.size)
    image = gaussian_stars(shape, 3.2, x, y, flux) + np.sqrt(variance) * noise
    measured, error = psf_flux_correlated(image, variance, stamp, psf, x, y)
    pulls = (measured - flux) / error
    tolerance = 3.0 / np.sqrt(2 * x.size)
    assert np.mean(pulls) == pytest.approx(0.0, abs=3.0 / np.sqrt(x.size))
    assert np.std(pulls) == pytest.approx(1.0, abs=tolerance)
    # The Fisher information of the whole plane, per unit variance.
    transform = np.fft.fft2(psf, s=shape)
    best = 1.0 / np.sqrt(np.mean(np.abs(transform) ** 2 / power))
    sigma = np.sqrt(variance[0, np.rint(x).astype(int)])
    np.testing.assert_allclose(error, best * sigma, rtol=0.01)
    # Weights for white noise do worse, and claim another error.
    plain, claimed = psf_flux(image, variance, psf, x, y)
    assert np.std((plain - flux) / sigma) > 1.05 * np.std((measured - flux) / sigma)
    assert not np.isclose(np.std((plain - flux) / claimed), 1.0, atol=2.0 * tolerance)


def test_correlated_photometry_of_white_noise_is_the_plain_one() -> None:
    """If it fails, neighbours, masks or borders are treated differently."""
    rng = np.random.default_rng(4)
    x, y = np.array([40.3, 43.9, 20.0, 2.2, 300.0, np.nan]), np.array([50.6, 51.2, 90.1, 118.4, 5.0, 3.0])
    flux = np.array([800.0, 300.0, 100.0, 500.0, 1.0, 1.0])
    galaxy = gaussian_stars(SHAPE, 9.0, [42.0], [53.0], [5000.0])
    image = galaxy + gaussian_stars(SHAPE, 3.2, x[:4], y[:4], flux[:4]) + rng.normal(size=SHAPE)
    image[88, 19] = np.nan
    variance = np.ones(SHAPE)
    variance[50, 42] = np.inf
    white = np.zeros((5, 5))
    white[2, 2] = 1.0
    stamps = np.broadcast_to(white, (6, 5, 5))
    psf = gaussian(3.2, 17)
    expected = psf_flux(image, variance, psf, x, y, model=galaxy)
    for correlation in (white, stamps):
        measured = psf_flux_correlated(image, variance, correlation, psf, x, y, model=galaxy)
        for one, other in zip(measured, expected, strict=True):
            np.testing.assert_allclose(one[:4], other[:4], rtol=1e-3)
            assert np.isnan(one[4:]).all()
    twins = psf_flux_correlated(image, variance, white, psf, [20.0, 20.0], [90.0, 90.0])
    assert np.isnan(twins).all()
    assert psf_flux_correlated(image, variance, white, psf, [], [])[0].size == 0


def test_correlated_photometry_refuses() -> None:
    """If it fails, a wrong covariance gives a wrong flux without a word."""
    image, psf = np.zeros(SHAPE), gaussian(3.2, 17)
    with pytest.raises(ValueError, match="differ in shape"):
        psf_flux_correlated(image, np.ones((3, 4)), np.ones((1, 1)), psf, [9.0], [9.0])
    with pytest.raises(ValueError, match=r"one for each of the 1 stars; got shape \(2, 3, 3\)"):
        psf_flux_correlated(image, np.ones(SHAPE), np.ones((2, 3, 3)), psf, [9.0], [9.0])
    with pytest.raises(ValueError, match="a pixel with itself must be 1; got 4.0"):
        psf_flux_correlated(image, np.ones(SHAPE), np.full((3, 3), 4.0), psf, [9.0], [9.0])
    impossible = -np.ones((31, 31))
    impossible[15, 15] = 1.0
    with pytest.raises(ValueError, match="eigenvalues well below 0"):
        psf_flux_correlated(image, np.ones(SHAPE), impossible, psf, [30.0], [30.0])


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 6.5])
def test_stellar_fwhms(fwhm: float) -> None:
    """If it fails, the seeing of coadd and restored image is wrong."""
    rng = np.random.default_rng(11)
    shape = (230, 170)
    x, y = grid(shape, 30, rng)
    flux = np.full(x.size, 3000.0)
    image = gaussian_stars(shape, fwhm, x, y, flux) + rng.normal(size=shape)
    assert np.nanmedian(stellar_fwhms(image, np.ones(shape), x, y, flux)) == pytest.approx(fwhm, rel=0.02)
    wings = moffat(fwhm, 3.0, 61)
    image = point_source_image(shape, wings, x, y, flux) + rng.normal(size=shape)
    assert np.nanmedian(stellar_fwhms(image, np.ones(shape), x, y, flux)) == pytest.approx(fwhm, rel=0.03)


def test_stellar_fwhms_selects() -> None:
    """If it fails, blends, saturated or faint stars set the seeing."""
    x, y = np.array([20.0, 60.0, 66.0, 25.0, 5.0, 70.0]), np.array([30.0, 30.0, 30.0, 90.0, 60.0, 90.0])
    flux = np.array([5000.0, 5000.0, 3000.0, 5000.0, 5000.0, 20.0])
    image = gaussian_stars(SHAPE, 4.0, x, y, flux)
    image[90, 25] = np.nan
    widths = stellar_fwhms(image, np.ones(SHAPE), x, y, flux)
    np.testing.assert_array_equal(np.isfinite(widths), [True, False, False, False, False, False])
    assert widths[0] == pytest.approx(4.0, rel=1e-2)
    assert np.isnan(stellar_fwhms(image, np.full(SHAPE, np.nan), x, y, flux)).all()
    assert stellar_fwhms(image, np.ones(SHAPE), [], [], []).size == 0


def test_depths_agree_on_white_noise() -> None:
    """If it fails, claimed and measured depth cannot be compared."""
    rng = np.random.default_rng(5)
    psf = moffat(4.0, 3.0, 31)
    shape = (300, 260)
    image = rng.normal(scale=3.0, size=shape)
    sources = np.zeros(shape, dtype=bool)
    for _ in range(60):
        y, x = rng.integers(10, 250, 2)
        sources[y - 4 : y + 5, x - 4 : x + 5] = True
    image[sources] += 1000.0
    image[100:110, 40:60] = np.nan
    claimed = point_source_depth(np.full(shape, 9.0), psf)
    assert claimed == pytest.approx(31.4 - 2.5 * np.log10(15.0 / np.sqrt(np.sum(psf**2))))
    assert measured_depth(image, psf, sources) == pytest.approx(claimed, abs=0.05)
    assert np.isnan(point_source_depth(np.full(shape, np.nan), psf))
    assert np.isnan(measured_depth(image, psf, np.ones(shape, dtype=bool)))
    assert np.isnan(measured_depth(np.zeros(shape), psf, sources))


def test_correlated_noise_is_seen() -> None:
    """If it fails, smoothing an image would look like added depth."""
    rng = np.random.default_rng(8)
    shape = (300, 260)
    white = rng.normal(size=shape)
    mask = np.zeros(shape, dtype=bool)
    mask[:30] = True
    assert noise_correlation(white, mask) == pytest.approx(0.0, abs=0.02)
    # Mean of a pixel and its right neighbour: correlation 1/2 in x, 0 in y.
    smooth = 0.5 * (white + np.roll(white, 1, axis=1))
    assert noise_correlation(smooth, mask) == pytest.approx(0.25, abs=0.02)
    psf = gaussian(4.0)
    deep = measured_depth(smooth, psf, mask)
    naive = point_source_depth(np.full(shape, 0.5), psf)
    assert deep == pytest.approx(measured_depth(white, psf, mask), abs=0.1)
    assert naive > deep + 0.25
    assert np.isnan(noise_correlation(white, np.ones(shape, dtype=bool)))


def test_measure_patch() -> None:
    """If it fails, the row of the demo's table is wrong or not plain."""
    rng = np.random.default_rng(21)
    shape = (330, 270)
    x, y = grid(shape, 21, rng)
    psf = gaussian(3.6)
    sky = 25.0
    sigma = np.sqrt(sky / np.sum(psf**2))
    snr = np.geomspace(6.0, 900.0, x.size)
    rng.shuffle(snr)
    x[0], y[0] = 3.0, 40.0
    galaxies = gaussian_stars(shape, 9.0, [100.0, 30.0], [200.0, 300.0], [3000.0, 9000.0])
    image = point_source_image(shape, psf, x, y, snr * sigma) + galaxies
    image += rng.normal(scale=np.sqrt(sky), size=shape)
    image[round(y[5]), round(x[5]) + 2] = np.nan
    stars = Table({"x": x, "y": y, "flux": snr * sigma})
    row = measure_patch(image, np.full(shape, sky), psf, stars, model=galaxies)
    assert all(type(value) is float for value in row.values())
    assert row["num_border"] == 1
    assert row["num_masked"] == 1
    assert row["num_stars"] == x.size - 2
    assert row["psf_fwhm"] == pytest.approx(3.6, rel=0.01)
    assert row["star_fwhm"] == pytest.approx(3.6, rel=0.02)
    assert row["depth_measured"] == pytest.approx(row["depth_claimed"], abs=0.05)
    assert row["noise_correlation"] == pytest.approx(0.0, abs=0.03)
    for suffix in ("5_20", "20_100", "100_inf"):
        assert abs(row[f"bias_percent_snr_{suffix}"]) < 4 * row[f"bias_percent_error_snr_{suffix}"]
        assert row[f"pull_width_snr_{suffix}"] == pytest.approx(1.0, abs=0.4)
    stars["signal_to_noise"] = np.full(x.size, 50.0)
    assert measure_patch(image, np.full(shape, sky), psf, stars)["num_stars_snr_20_100"] == x.size - 2


def test_measure_patch_never_raises_on_empty_data() -> None:
    """If it fails, one empty patch stops the table of all of them."""
    stars = Table({"x": [30.0], "y": [40.0], "flux": [100.0]})
    row = measure_patch(np.full(SHAPE, np.nan), np.full(SHAPE, np.nan), gaussian(4.0), stars)
    assert row["num_stars"] == 0
    assert np.isnan(row["depth_measured"])
    assert np.isnan(row["star_fwhm"])
    empty = Table({"x": [], "y": [], "flux": []}, dtype=[float, float, float])
    row = measure_patch(np.zeros(SHAPE), np.ones(SHAPE), gaussian(4.0), empty)
    assert row["num_stars"] == 0
