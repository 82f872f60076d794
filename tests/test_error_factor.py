# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The factor from errors in white noise to true errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import convolve

from lsst.astroclearnet.metrics import flux_error_factor
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image

RADIUS = 15


def gaussian(sigma: float, radius: int = RADIUS, aspect: float = 1.0) -> np.ndarray:
    """Return a Gaussian of some width along x, and that times aspect along y,
    with 1 in its middle.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    profile: np.ndarray = np.exp(-0.5 * ((y / (aspect * sigma)) ** 2 + (x / sigma) ** 2))
    return profile


@pytest.mark.parametrize("weights", [gaussian(1.7), np.ones((4, 7))])
def test_white_noise_needs_no_factor(weights: np.ndarray) -> None:
    """If it fails, errors that are right are changed."""
    stamp = np.zeros((9, 9))
    stamp[4, 4] = 1.0
    assert flux_error_factor(stamp, weights) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("noise", [1.5, 2.5])
@pytest.mark.parametrize("star", [1.5, 2.0])
def test_gaussians(noise: float, star: float) -> None:
    """If it fails, errors of PSF fluxes on filtered images are wrong.

    With rho = exp(-d^2 / 2 noise^2) and A = exp(-d^2 / 4 star^2) the sum over
    d is an integral of a Gaussian, 2 pi / (1 / noise^2 + 1 / (2 star^2)).
    """
    expected = math.sqrt(2.0 * math.pi / (1.0 / noise**2 + 0.5 / star**2))
    assert flux_error_factor(gaussian(noise), gaussian(star)) == pytest.approx(expected, rel=1e-4)


def test_direction_counts() -> None:
    """If it fails, x and y are interchanged."""
    along_y = flux_error_factor(gaussian(1.0, aspect=3.0), gaussian(1.0, aspect=2.0))
    across = flux_error_factor(gaussian(1.0, aspect=3.0), gaussian(1.0, aspect=2.0).T)
    a, b = 1.0 / 9.0 + 1.0 / 8.0, 1.0 + 0.5
    assert along_y == pytest.approx(math.sqrt(2.0 * math.pi / math.sqrt(a * b)), rel=1e-3)
    c, d = 1.0 / 9.0 + 0.5, 1.0 + 1.0 / 8.0
    assert across == pytest.approx(math.sqrt(2.0 * math.pi / math.sqrt(c * d)), rel=1e-3)


def test_filtered_noise() -> None:
    """If it fails, the factor is not what a filter does to the scatter.

    Noise filtered by k has rho = k * k and gives a flux with weights w the
    variance sum (w * k)^2: exact, for a filter without any symmetry.
    """
    rng = np.random.default_rng(4)
    kernel, weights = rng.normal(0.3, 1.0, (3, 5)), rng.normal(0.5, 1.0, (7, 6))
    stamp = np.zeros((9, 9))
    for dy in range(-2, 3):
        for dx in range(-4, 5):
            shifted = np.zeros((3 + 8, 5 + 8))
            shifted[4 + dy : 7 + dy, 4 + dx : 9 + dx] = kernel
            stamp[4 + dy, 4 + dx] = np.sum(shifted[4:7, 4:9] * kernel) / np.sum(kernel**2)
    flux_kernel = convolve(np.pad(weights, 8), kernel[::-1, ::-1], mode="constant")
    expected = math.sqrt(np.sum(flux_kernel**2) / np.sum(weights**2) / np.sum(kernel**2))
    assert flux_error_factor(stamp, weights) == pytest.approx(expected, rel=1e-9)


def test_aperture_and_cells() -> None:
    """If it fails, a table of cells cannot be used at once."""
    stamps = np.stack([gaussian(1.0), gaussian(2.0)])
    y, x = np.mgrid[-6:7, -6:7]
    # A cell whose noise is not known keeps that of the others.
    unknown = np.concatenate([stamps, np.zeros_like(stamps[:1])])
    assert np.isnan(flux_error_factor(unknown, gaussian(2.0))[-1])
    assert np.isfinite(flux_error_factor(unknown, gaussian(2.0))[:-1]).all()
    factors = flux_error_factor(stamps, (y**2 + x**2 <= 36).astype(float))
    assert factors.shape == (2,)
    # In an aperture much wider than the correlation: sqrt(sum rho).
    assert factors[0] == pytest.approx(math.sqrt(2.0 * math.pi), rel=0.08)
    assert factors[1] > factors[0]
    assert flux_error_factor(stamps, 7.0 * gaussian(2.0))[0] == pytest.approx(
        float(flux_error_factor(stamps[0], gaussian(2.0)))
    )


@pytest.mark.parametrize(
    ("correlation", "weights", "message"),
    [
        (np.ones((4, 4)), np.ones((3, 3)), r"odd size; got shape \(4, 4\)"),
        (np.ones(5), np.ones((3, 3)), "square stamps"),
        (np.zeros((3, 3)), np.ones((3, 3)), "must be 1; got 0.0"),
        (gaussian(1.0, 2), np.zeros((3, 3)), "not all 0"),
        (gaussian(1.0, 2), np.full((3, 3), np.nan), "finite"),
        (2.0 * np.eye(3)[::-1] - np.ones((3, 3)), np.ones((9, 9)), "variance of -"),
    ],
)
def test_senseless_input_is_refused(correlation: np.ndarray, weights: np.ndarray, message: str) -> None:
    """If it fails, a wrong error looks like a right one."""
    with pytest.raises(ValueError, match=message):
        flux_error_factor(correlation, weights)


@pytest.mark.parametrize(
    ("target_fwhm", "sharpens"), [(0.7, True), pytest.param(1.1, False, marks=pytest.mark.slow)]
)
def test_noise_of_a_coadd(target_fwhm: float, sharpens: bool) -> None:
    """If it fails, the recipe in the documentation gives wrong errors.

    PSF fluxes without weights in the noise realisations of a linear coadd, at
    every pixel.
    """
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = target_fwhm
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 3
    config.restoration.noise.num_draws = 4
    config.restoration.noise.num_realizations = 4
    images = []
    for visit in range(1, 5):
        projection = make_projection(
            (210, 230), offset=(2.3 * visit, 40.0), rotation=17.0 * visit, visit=visit
        )
        noise = np.random.default_rng(visit).normal(0.0, 2.0, (210, 230))
        images.append(make_visit_image(noise, projection, variance=4.0, fwhm=4.7))
    geometry = make_patch_geometry().patch(3, 0)
    outputs = RestoreCoaddTask(config=config).run(visit_images=images, geometry=geometry, band="i")
    coadd = outputs.restored_coadd_linear
    kernel = coadd.psf.compute_kernel_image(x=70.0, y=60.0).array
    margin = kernel.shape[0]
    ratios = []
    for draw in coadd.noise_realizations:
        flux = convolve(draw.array.astype(float), kernel, mode="nearest") / np.sum(kernel**2)
        variance = convolve(coadd.variance.array.astype(float), kernel**2, mode="nearest")
        ratios.append((flux / (np.sqrt(variance) / np.sum(kernel**2)))[margin:-margin, margin:-margin])
    measured = float(np.std(ratios))
    factors = flux_error_factor(np.asarray(outputs.restored_coadd_linear_noise["correlation"]), kernel)
    assert float(np.median(factors)) == pytest.approx(measured, rel=0.1)
    # Noise of neighbours is opposed where the target is sharper than the
    # exposures, and alike where it is blurred.
    assert (measured < 0.95) is sharpens
    assert (measured > 1.3) is not sharpens
    # The edges of the detectors cross the patch.
    assert np.nanmax(np.abs(outputs.restored_coadd.image.array)) < 5.0 * 2.0
