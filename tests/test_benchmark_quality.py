# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measures of the benchmark, on images whose quality is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from astroclearnet_benchmarks.baselines import inverse_variance_coadd
from astroclearnet_benchmarks.quality.ablations import ABLATIONS, PublishedAtTarget
from astroclearnet_benchmarks.quality.artefacts import measure_artefacts
from astroclearnet_benchmarks.quality.detection import completeness, filter_kernel, measure_detection
from astroclearnet_benchmarks.quality.errors import measure_errors
from astroclearnet_benchmarks.quality.galaxies import measure_galaxies
from astroclearnet_benchmarks.quality.measure import measure_product
from astroclearnet_benchmarks.quality.methods import METHODS
from astroclearnet_benchmarks.quality.pairs import measure_pairs, pair_separation_limit
from astroclearnet_benchmarks.quality.product import Product
from astroclearnet_benchmarks.quality.psf_error import dilate, predict_bias
from astroclearnet_benchmarks.quality.stars import (
    gaussian_profile,
    measure_stars,
    pool_stack,
    star_photometry,
)
from astroclearnet_benchmarks.scenes import Scene, SceneOptions, simulate_scene
from lsst.astroclearnet.core import ExposureStack, linear_noise
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.noise import LocalNoise
from lsst.astroclearnet.metrics import correlation_matrix
from lsst.astroclearnet.simulation import ArtefactOptions

FWHM = 3.0
NOISE_ONLY = ArtefactOptions(saturation=False, cosmic_rays=0.0, bad_columns=0, satellite_trails=False)


def make_scene(kind: str, seed: int = 21, shape: tuple[int, int] = (128, 144), **options: object) -> Scene:
    return simulate_scene(SceneOptions(seed=seed, kind=kind, shape=shape, **options))  # type: ignore[arg-type]


def linear_product(scene: Scene, penalty_weight: float) -> Product:
    """Restore linearly and declare the covariance of white noise."""
    variances = scene.true_variances.astype(np.float32)
    stack = ExposureStack.from_arrays(scene.images, variances, scene.good, scene.psfs)
    model = ForwardModel.from_stack(stack, FWHM)
    weights = stack.good / stack.variances
    estimator = LinearEstimator(model, weights)
    image = model.crop(estimator.solve(estimator.right_side(stack.images), (penalty_weight,))[0]).numpy()
    noise = LocalNoise(model, weights, penalty_weight)
    return Product("linear", image, FWHM, noise.variance().numpy(), correlation=noise.correlation)


def test_truth_has_no_error_of_any_kind() -> None:
    """If this fails, a measure invents errors."""
    for kind in ("field", "stars", "galaxies"):
        scene = make_scene(kind, num_exposures=4)
        truth = scene.truth(FWHM)
        product = Product("truth", truth, FWHM, np.full(truth.shape, scene.sky_sigma**2))
        if kind == "stars":
            record = measure_stars(product, scene, truth)
            assert len(record["stars"]) >= 4
            np.testing.assert_allclose(np.array(record["stars"])[:, 1:3], 0.0, atol=1e-12)
            assert sum(stack["number"] for stack in record["stacks"]) == len(record["stars"])
        elif kind == "galaxies":
            galaxies = np.array(measure_galaxies(product, scene, truth)["galaxies"])
            assert len(galaxies) >= 4
            np.testing.assert_allclose(galaxies[:, 1], 0.0, atol=1e-12)
            assert np.nanmax(np.abs(galaxies[:, 2:]), initial=0.0) < 1e-12
        else:
            errors = measure_errors(product, scene, truth, truth)
            assert errors["rms"]["all"] == errors["pull_mad"]["sky"] == errors["sky"]["mean"] == 0.0
            assert measure_artefacts(product, scene, truth)["left"]["cosmic_rays"] == 0.0
            found = completeness([measure_detection(product, scene)], 0.95)
            assert found[0][0] > 0.7


def test_errors_of_known_noise() -> None:
    """If this fails, pulls and errors are in wrong units."""
    scene = make_scene("field", num_exposures=4)
    truth = scene.truth(FWHM)
    noise = np.random.default_rng(5).normal(0.0, 2.0 * scene.sky_sigma, truth.shape)
    product = Product("noisy", truth + noise, FWHM, np.full(truth.shape, scene.sky_sigma**2))
    errors = measure_errors(product, scene, truth, truth)
    assert errors["rms"]["sky"] == pytest.approx(2.0, rel=0.03)
    assert errors["pull_mad"]["sky"] == pytest.approx(2.0, rel=0.04)
    # Beyond 1 sigma of a normal distribution lie 31.7 percent.
    assert errors["beyond_2"]["sky"] == pytest.approx(0.317, abs=0.02)
    assert errors["hole"]["declared"] == pytest.approx(1.0)
    assert errors["hole"]["flagged"] == 0.0


def test_a_flux_bias_is_found() -> None:
    """If this fails, the benchmark is blind to lost flux or a wrong PSF."""
    scene = make_scene("stars", num_exposures=4)
    truth = scene.truth(FWHM)
    record = measure_stars(Product("faint", 0.97 * truth, FWHM), scene, truth)
    np.testing.assert_allclose(np.array(record["stars"])[:, 1], -0.03, atol=2e-4)
    stack = pool_stack([record["stacks"][2]], FWHM)
    assert stack["largest"] == pytest.approx(0.03, abs=0.003)
    wide = measure_stars(Product("wide", scene.truth(1.05 * FWHM), FWHM), scene, truth)
    # The peak of a Gaussian falls as the inverse square of its width.
    assert pool_stack([wide["stacks"][2]], FWHM)["largest"] == pytest.approx(1.0 - 1.05**-2, abs=0.01)


def test_optimal_linear_photometry_reaches_the_cramer_rao_bound() -> None:
    """If this fails, the bound, the covariance fit or the scenes are wrong:
    an unbiased linear map loses nothing.
    """
    rows = []
    for seed in range(3):
        options = {"seed": 60 + seed, "shape": (256, 224), "num_exposures": 6, "hole_size": 0}
        scene = make_scene("stars", artefacts=NOISE_ONLY, **options)  # type: ignore[arg-type]
        rows += measure_stars(linear_product(scene, 1e-6), scene, scene.truth(FWHM))["stars"]
    figures = star_photometry(np.array(rows), 5.0, 100.0)
    width, error = figures["weighted_scatter"]
    assert abs(width - 1.0) < 3.0 * error < 0.4
    assert abs(figures["pull"][0] - 1.0) < 3.0 * error
    assert figures["scatter"][0] > width


def test_the_plain_mean_keeps_all_of_the_artefacts() -> None:
    """If this fails, the share left is relative to something else."""
    scene = make_scene("blank", num_exposures=6, artefacts=ArtefactOptions(cosmic_rays=60.0))
    mean = inverse_variance_coadd(scene.images, scene.variances, scene.good).image
    left = measure_artefacts(Product("mean", mean, FWHM), scene, scene.truth(FWHM))["left"]
    assert left["cosmic_rays"] == pytest.approx(1.0, abs=0.1)
    assert left["trail"] == pytest.approx(1.0, abs=0.2)


def test_pairs_of_gaussians_split_where_theory_says() -> None:
    """If this fails, the resolution is measured in wrong units: two equal
    Gaussians have two maxima from two sigma on.
    """
    rows = []
    for seed in (31, 32):
        scene = make_scene("pairs", seed=seed, shape=(256, 224), num_exposures=2)
        rows += measure_pairs(Product("truth", scene.truth(FWHM), FWHM), scene)["pairs"]
    figures = pair_separation_limit(np.array(rows))
    expected = 2.0 * FWHM / math.sqrt(8.0 * math.log(2.0)) * 0.168
    assert figures["separation"][0] == pytest.approx(expected, abs=0.02)
    assert figures["false"][0] <= 0.01


def test_false_detections_lower_the_completeness() -> None:
    """If this fails, a noisy map looks as deep as a clean one."""
    scene = make_scene("field", shape=(256, 224), num_exposures=4)
    truth = scene.truth(FWHM)
    noise = np.random.default_rng(6).normal(0.0, scene.sky_sigma, truth.shape)
    clean, noisy, dirty = (
        measure_detection(Product("map", image, FWHM), scene)
        for image in (truth, truth + 4.0 * noise, truth + 100.0 * scene.artefacts.max(axis=0))
    )
    at_26 = [completeness([record], 0.95)[1][0] for record in (clean, noisy)]
    assert at_26[0] > 0.6
    assert np.nan_to_num(at_26[1]) < 0.3
    with_artefacts = completeness([dirty], 0.95, with_artefacts=True)[1][0]
    assert np.nan_to_num(with_artefacts) < completeness([dirty], 0.95)[1][0]


def test_matched_filter_of_white_noise_is_the_psf() -> None:
    """If this fails, an image that declares its noise is searched with a
    filter that is worse than its PSF.
    """
    white = np.zeros((31, 31))
    white[15, 15] = 1.0
    image = np.zeros((64, 80))
    plain = filter_kernel(Product("plain", image, FWHM))
    declared = filter_kernel(Product("declared", image, FWHM, correlation=lambda rows, columns: white))
    np.testing.assert_allclose(declared, plain, rtol=1e-6)


def test_matched_filter_is_optimal_for_declared_noise() -> None:
    """If this fails, detection on a linear image is not as deep as its noise
    allows: no other filter of unit response to a star has less noise.
    """
    offset = np.arange(-15, 16)
    stamp = np.exp(-0.5 * (offset[:, None] ** 2 / 2.0 + offset**2 / 4.0))
    image = np.zeros((64, 80))
    plain = filter_kernel(Product("plain", image, FWHM))
    matched = filter_kernel(Product("map", image, FWHM, correlation=lambda rows, columns: stamp))
    matrix = correlation_matrix(stamp, plain.shape)
    noise = [float(kernel.ravel() @ matrix @ kernel.ravel()) for kernel in (plain, matched)]
    assert noise[1] < 0.9 * noise[0]


def test_detection_does_not_depend_on_the_level_of_the_noise() -> None:
    """If this fails, methods are searched to different depths: thresholds
    follow the scatter of each image.
    """
    scene = make_scene("blank", shape=(128, 160), num_exposures=2)
    noise = np.random.default_rng(7).normal(0.0, scene.sky_sigma, scene.depth.shape)
    one, two = (
        measure_detection(Product("noise", factor * noise, FWHM), scene)["detections"]
        for factor in (1.0, 0.3)
    )
    assert one == two


@pytest.mark.parametrize("kind", ["field", "stars", "galaxies", "pairs"])
def test_a_block_is_measured_like_the_same_part_of_the_whole(kind: str) -> None:
    """If this fails, a method that was given a part of a scene, or declares
    no variance, breaks a measure or is blamed for what it was not given.
    """
    scene = make_scene(kind, shape=(160, 176), num_exposures=4, hole_size=0)
    noise = np.random.default_rng(8).normal(0.0, scene.sky_sigma, scene.depth.shape)
    image = scene.truth(FWHM) + noise
    block = np.full_like(image, np.nan)
    block[40:130, 30:150] = image[40:130, 30:150]
    whole, part = (measure_product(Product("map", each, FWHM), scene, FWHM) for each in (image, block))
    if kind == "field":
        assert part["rms"]["sky"] == pytest.approx(1.0, rel=0.05)
        assert math.isnan(part["hole"]["flagged"])
        assert all(0 < few < all_ for few, all_ in zip(part["sources"], whole["sources"], strict=True))
        assert all(math.isfinite(left) for left in part["left"].values())
    else:
        rows = [[tuple(row) for row in record[kind]] for record in (whole, part)]
        assert 0 < len(rows[1]) < len(rows[0])
        finite = np.array([row[:2] for row in rows[1]])
        assert np.isfinite(finite).all()
        assert {row[0] for row in rows[1]} <= {row[0] for row in rows[0]}
    json.dumps(part)


@pytest.mark.slow
def test_published_network_at_the_target_keeps_flux() -> None:
    """If this fails, the latent image of that ablation is not at the target
    PSF.
    """
    scene = make_scene("stars", shape=(96, 112), num_exposures=3, artefacts=NOISE_ONLY)
    method = PublishedAtTarget()
    stops = list(
        method.restore(scene.images, scene.variances, scene.good, scene.psfs, target_fwhm=FWHM, seed=1)
    )
    assert {stop.fwhm for stop in stops} == {FWHM}
    stars = np.array(measure_stars(Product("map", stops[-1].image, FWHM), scene, scene.truth(FWHM))["stars"])
    assert np.abs(np.median(stars[stars[:, 0] > 100.0, 1])) < 0.1


@pytest.mark.slow
def test_ablations_differ_from_the_whole() -> None:
    """If this fails, an ablation removes nothing."""
    scene = make_scene("field", seed=23, shape=(64, 72), num_exposures=4)
    ((whole, _),) = METHODS["restore"].run(scene, FWHM, 1)
    images = {name: run(scene, FWHM, 1).image for name, run in ABLATIONS.items()}
    assert all(np.isfinite(image).mean() > 0.95 for image in images.values())
    changes = {name: np.nanmax(np.abs(image - whole.image)) for name, image in images.items()}
    smallest = {name: change / scene.sky_sigma for name, change in changes.items()}
    assert min(smallest.values()) > 0.5, smallest


def test_bias_of_wrong_psfs_is_that_of_gaussians() -> None:
    """If this fails, fluxes are compared with a wrong prediction: for
    Gaussians both follow from integrals of Gaussians.
    """
    true, width, target = 4.2, 1.03 * 4.2, 3.5
    psf = gaussian_profile(0.0, 0.0, true, 20)
    given = dilate(psf, 1.03)
    np.testing.assert_allclose(given, gaussian_profile(0.0, 0.0, width, 20), atol=1e-5)
    plain, best = predict_bias(
        np.stack([psf, psf]), np.stack([given, given]), np.array([1.0, 3.0]), target, 1e-7
    )
    assert best == pytest.approx(2.0 * width**2 / (width**2 + true**2) - 1.0, abs=1e-4)
    assert plain == pytest.approx(2.0 * target**2 / (2.0 * target**2 + true**2 - width**2) - 1.0, abs=5e-4)


def test_clipped_stars_are_counted() -> None:
    """If this fails, a method hides the stars that it loses."""
    generator = np.random.default_rng(11)
    rows = np.column_stack([np.full(200, 50.0), *generator.normal(size=(4, 200))])
    rows[:6, 2], rows[10:22, 3], rows[40:140, 3:] = 40.0, -40.0, np.nan
    figures = star_photometry(rows, 20.0, 100.0)
    assert figures["clipped"][0] == pytest.approx(0.03)
    assert figures["weighted_clipped"][0] == pytest.approx(0.12)
    assert figures["scatter"][0] == pytest.approx(1.0, abs=0.15)
    assert figures["weighted_scatter"][0] == pytest.approx(1.0, abs=0.25)
    assert math.isnan(star_photometry(rows, 100.0, 200.0)["clipped"][0])


def test_gls_has_the_psf_residual_of_the_linear_image() -> None:
    """If this fails, the linear estimate is compared at another resolution."""
    scene = make_scene("blank", num_exposures=4, hole_size=0, artefacts=NOISE_ONLY)
    method = METHODS["gls"]
    ((product,),) = method.run(scene, FWHM, 1)
    assert (method.group, product.name) == ("baselines", "GLS of equal PSF residual")
    levels = np.median(scene.variances, axis=(1, 2))
    expected = linear_noise(scene.psfs, levels, FWHM) ** 2 / np.sum(1.0 / levels)
    assert product.variance is not None
    full = scene.good.all(axis=0)
    np.testing.assert_allclose(product.variance[full], expected, rtol=0.03)
    # Some 5000 pixels, correlated over 3x3 of them.
    pulls = (product.image - scene.truth(FWHM))[full] / math.sqrt(expected)
    assert pulls.std() == pytest.approx(1.0, abs=0.1)
