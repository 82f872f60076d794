# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detection of sources and stars, their fluxes and their growth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lsst.astroclearnet.metrics import (
    blank_sky,
    curve_of_growth,
    depth_of_error,
    detect_sources,
    find_stars,
    flux_ratio,
    point_source_depth,
    point_source_image,
    psf_flux_correlated,
    psf_flux_error,
)

SHAPE = (210, 260)
SIGMA = 1.0


def gaussian(fwhm: float, size: int = 25) -> NDArray[np.float64]:
    """Return a circular Gaussian of unit sum."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-4.0 * np.log(2.0) * (x**2 + y**2) / fwhm**2)
    return np.asarray(stamp / stamp.sum())


PSF = gaussian(3.5)
X = np.array([40.3, 100.7, 180.2, 220.9, 60.1, 130.4])
Y = np.array([50.6, 40.2, 60.9, 150.3, 160.8, 120.2])
FLUX = np.array([4000.0, 3000.0, 2500.0, 2000.0, 1500.0, 1000.0])


def observe(*, galaxies: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a noisy image of six stars and its variance plane."""
    image = point_source_image(SHAPE, PSF, X, Y, FLUX)
    if galaxies:
        image += point_source_image(SHAPE, gaussian(6.0), [90.0, 200.0], [190.0, 20.0], [5000.0, 3000.0])
    image += np.random.default_rng(5).normal(0.0, SIGMA, SHAPE)
    return image, np.full(SHAPE, SIGMA**2)


def test_faint_sources_beside_a_bright_star_are_found() -> None:
    """If it fails, the faint half of a field passes for wings of stars."""
    angle = np.deg2rad(np.arange(0.0, 360.0, 45.0))
    x, y = 130.0 + 25.0 * np.cos(angle), 105.0 + 25.0 * np.sin(angle)
    image = point_source_image(SHAPE, PSF, [130.0, *x], [105.0, *y], [3e6] + 8 * [60.0])
    image += np.random.default_rng(7).normal(0.0, SIGMA, SHAPE)
    sources, _ = detect_sources(image, np.full(SHAPE, SIGMA**2), PSF)
    distance = np.hypot(sources["x"][:, None] - x, sources["y"][:, None] - y).min(axis=0)
    assert (distance < 2.0).sum() >= 7


def test_sources_are_found_where_they_are() -> None:
    """If it fails, fluxes are measured beside the stars."""
    image, variance = observe()
    sources, _ = detect_sources(image, variance, PSF)
    # The brightest come first.
    np.testing.assert_allclose(sources["x"][:6], X, atol=0.1)
    np.testing.assert_allclose(sources["y"][:6], Y, atol=0.1)
    # Within two FWHM a Gaussian has all but 2^-16 of its light.
    np.testing.assert_allclose(sources["flux"][:6], FLUX, rtol=0.05)
    # Half the light of a Gaussian is within half its FWHM.
    np.testing.assert_allclose(sources["radius"][:6], 1.75, rtol=0.08)
    white = SIGMA / np.sqrt(np.sum(PSF**2))
    np.testing.assert_allclose(sources["signal_to_noise"][:6], FLUX / white, rtol=0.05)
    assert (sources["flux"][6:] < 100.0).all()


def test_nothing_is_found_without_data() -> None:
    """If it fails, a patch without sources or pixels ends in an error."""
    empty = np.full(SHAPE, np.nan)
    for image in (empty, np.zeros(SHAPE)):
        sources, footprint = detect_sources(image, np.ones(SHAPE), PSF)
        assert not footprint.any()
        np.testing.assert_array_equal(blank_sky(image, footprint, 5.0), np.isfinite(image))
        assert len(sources) == 0
        assert len(find_stars(sources, np.isfinite(image), PSF, min_signal_to_noise=10.0)) == 0


def test_stars_are_told_from_galaxies() -> None:
    """If it fails, galaxies pass for stars whose flux differs."""
    image, variance = observe(galaxies=True)
    sources, _ = detect_sources(image, variance, PSF)
    assert len(sources) >= 8
    stars = find_stars(sources, np.isfinite(image), PSF, min_signal_to_noise=50.0)
    assert sorted(np.rint(stars["x"]).astype(int)) == sorted(np.rint(X).astype(int))


def test_stars_are_isolated_and_complete() -> None:
    """If it fails, the light of a neighbour or a hole passes for a flux."""
    image, variance = observe()
    # A neighbour of a fifth of the first star, and a bad pixel beside the
    # second; the last two are too faint.
    image += point_source_image(SHAPE, PSF, [X[0] + 13.0], [Y[0]], [0.2 * FLUX[0]])
    image[round(Y[1]) + 6, round(X[1])] = np.nan
    sources, _ = detect_sources(image, variance, PSF)
    stars = find_stars(sources, np.isfinite(image), PSF, min_signal_to_noise=300.0)
    found = {round(float(x)) for x in stars["x"]}
    assert found == {round(float(x)) for x in X[2:4]}


def test_sources_without_a_usable_pixel_have_no_flux() -> None:
    """If it fails, the masked core of a bright star ends the measurement, or
    its halo passes for blank sky.
    """
    y, x = np.indices(SHAPE)
    distance = np.hypot(x - 130, y - 100)
    image = 1e5 * np.exp(-0.5 * (distance / 8.0) ** 2)
    image += np.random.default_rng(4).normal(0.0, SIGMA, SHAPE)
    image[distance < 12.0] = np.nan
    sources, footprint = detect_sources(image, np.ones(SHAPE), PSF)
    assert np.isfinite(sources["flux"]).all()
    assert footprint[(distance > 14.0) & (distance < 25.0)].all()
    blank = blank_sky(image, footprint, 6.0)
    # Beyond five sigma of the profile its light is below the noise.
    assert not blank[distance < 40.0].any()
    assert blank[distance > 65.0].mean() > 0.95


def test_extended_light_over_most_of_the_image() -> None:
    """If it fails, large galaxies end the measurement of a patch."""
    rng = np.random.default_rng(4)
    image = np.full((900, 900), 50.0) + rng.normal(0.0, SIGMA, (900, 900))
    sources, footprint = detect_sources(image, np.ones(image.shape), PSF)
    assert footprint.mean() > 0.99
    assert not blank_sky(image, footprint, 3.0).any()


def test_flux_ratio() -> None:
    """If it fails, the verdict on fluxes is that of other numbers."""
    reference = np.array([10.0, 20.0, 40.0, 80.0, np.nan, -1.0])
    ratio = flux_ratio(1.02 * reference, reference)
    assert ratio.num_stars == 4
    assert ratio.offset == pytest.approx(0.02)
    assert ratio.scatter == pytest.approx(0.0, abs=1e-12)
    noisy = flux_ratio(np.array([0.99, 1.0, 1.01, 1.02, 1.03]), np.ones(5))
    # The median of the deviations is 0.01.
    assert noisy.scatter == pytest.approx(0.01 * 1.4826, rel=1e-3)
    assert noisy.error == pytest.approx(noisy.scatter * np.sqrt(np.pi / 2.0 / 5.0))
    assert noisy.significance == pytest.approx(0.01 / noisy.error)
    assert flux_ratio(np.full(4, 1.05), np.ones(4)).significance == np.inf
    few = flux_ratio([1.0, 2.0], [1.0, 2.0])
    assert few.num_stars == 2
    assert np.isnan([few.offset, few.error, few.scatter, few.significance]).all()


def test_curve_of_growth_is_that_of_the_psf() -> None:
    """If it fails, figures show a wrong growth of the light."""
    fwhm = 7.0
    image = point_source_image(SHAPE, gaussian(fwhm, 61), X, Y, FLUX)
    radii = np.linspace(3.0, 20.0, 9)
    growth, error = curve_of_growth(image, X, Y, radii)
    # A Gaussian has 1 - 2^(-(2 r / FWHM)^2) of its light within r; apertures
    # take pixels for squares.
    np.testing.assert_allclose(growth, 1.0 - 0.5 ** ((2.0 * radii / fwhm) ** 2), atol=8e-3)
    assert (error < 8e-3).all()
    none, _ = curve_of_growth(image, [], [], radii)
    assert np.isnan(none).all()


def test_error_of_a_flux_follows_from_the_covariance() -> None:
    """If it fails, depths of the linear coadd are those of white noise."""
    delta = np.zeros((31, 31))
    delta[15, 15] = 1.0
    white = 2.0 / np.sqrt(np.sum(PSF**2))
    assert psf_flux_error(4.0, delta, PSF) == pytest.approx(white, rel=1e-9)
    depth = point_source_depth(np.full(SHAPE, 4.0), PSF)
    assert depth_of_error(psf_flux_error(4.0, delta, PSF)) == pytest.approx(depth, abs=1e-6)
    # Noise that was smoothed with a kernel of sigma s has the correlation
    # exp(-r^2 / 4 s^2).
    y, x = np.mgrid[:31, :31] - 15
    correlation = np.exp(-(x**2 + y**2) / (4.0 * 1.1**2))
    error = psf_flux_error(4.0, correlation, PSF)
    image = point_source_image((61, 61), PSF, [30.0], [30.0], [100.0])
    _, expected = psf_flux_correlated(image, np.full((61, 61), 4.0), correlation, PSF, [30.0], [30.0])
    assert error == pytest.approx(float(expected[0]), rel=1e-6)
    assert error > 2.0 * white
