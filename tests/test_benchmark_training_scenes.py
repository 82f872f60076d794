# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training scenes: what the network learns from must be true and varied."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import galsim
import numpy as np
import pytest
import torch

from astroclearnet_benchmarks.scenes._sources import SceneSource
from astroclearnet_benchmarks.training import (
    TrainingRecipe,
    TrainingScene,
    draw_recipe,
    render_scene,
    training_scene,
)
from astroclearnet_benchmarks.training._observation import (
    Holes,
    added_variance,
    draw_optics,
    missing_places,
    pixel_places,
)
from astroclearnet_benchmarks.training._sky_grid import Kernel, SkyGrid
from astroclearnet_benchmarks.training._structures import SkyPainter
from lsst.astroclearnet.core import ExposureStack, PixelPositions, restore
from lsst.astroclearnet.core.exposures import kernel_fwhm
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import QUICK

RECIPES = [draw_recipe(seed) for seed in range(600)]
TRUE_PSFS = [r for r in RECIPES if not any(e.width_error for e in r.exposures) and not r.has_long_wings]
FEW = [r for r in TRUE_PSFS if len(r.exposures) == 3 and r.sky["galaxies"]]


def first(*, is_dithered: bool, varies: bool = False) -> TrainingRecipe:
    """Return a recipe of three exposures with true PSFs."""
    return next(r for r in FEW if r.is_dithered == is_dithered and (r.cells > 1) == varies)


@pytest.fixture(scope="module")
def on_patch() -> TrainingScene:
    """Three co-registered exposures."""
    return render_scene(first(is_dithered=False))


@pytest.fixture(scope="module")
def dithered() -> TrainingScene:
    """Three exposures on their own pixels."""
    return render_scene(first(is_dithered=True))


def test_seed_decides_everything(dithered: TrainingScene) -> None:
    """If this fails, a trained network cannot be made again."""
    again = training_scene(dithered.recipe.seed)
    assert again.recipe == dithered.recipe
    for name in ("images", "variances", "good", "psfs", "truth"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dithered, name))
    other = render_scene(dataclasses.replace(dithered.recipe, seed=dithered.recipe.seed + 1))
    assert not np.array_equal(other.truth, dithered.truth)


def test_conditions_are_json(on_patch: TrainingScene) -> None:
    """If this fails, the provenance of a network cannot be written."""
    conditions = json.loads(json.dumps(on_patch.conditions))
    assert conditions["target_fwhm"] == on_patch.target_fwhm
    assert len(conditions["exposures"]) == len(on_patch.images)


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("is_dithered", [False, True])
def test_exposures_are_the_truth_at_the_psfs_given(is_dithered: bool, varies: bool) -> None:
    """If this fails, the network learns from a sky other than the truth, or
    through other PSFs, positions or noise than its inputs tell.
    """
    recipe = first(is_dithered=is_dithered, varies=varies)
    # No light that is not in the truth; and a truth that is sharper than the
    # exposures, which the model need not sharpen.
    exposures = tuple(dataclasses.replace(e, has_trail=False) for e in recipe.exposures)
    target_fwhm = max(2.2, 0.75 * min(e.fwhm for e in exposures))
    scene = render_scene(
        dataclasses.replace(recipe, exposures=exposures, cosmic_rays=0.0, target_fwhm=target_fwhm)
    )
    positions = scene.positions
    stack = ExposureStack.from_arrays(
        scene.images, scene.variances, scene.good, scene.psfs, positions=positions
    )
    model = ForwardModel.from_stack(stack, scene.target_fwhm)
    margin = model.grid.margin
    after = [latent - size - margin for latent, size in zip(model.latent_shape, stack.shape, strict=True)]
    latent = np.pad(scene.truth, [(margin, end) for end in after], mode="edge")
    expected = model.predict(torch.from_numpy(latent)).numpy()
    per_njy, sky = (
        np.array([getattr(e, name) for e in exposures])[:, None, None] for name in ("per_njy", "sky")
    )
    added = np.stack([added_variance(e, *pixel_places(e, recipe)) for e in exposures])
    sigma = np.sqrt((np.clip(expected, 0.0, None) * per_njy + sky) / per_njy**2 + added)
    # Light from beyond the patch is not in the model.
    inside = _is_inside(scene, 40.0) & scene.good
    pulls, brightness = ((scene.images - expected) / sigma)[inside], (expected / sigma)[inside]
    for chosen in (brightness < 1.0, (brightness > 1.0) & (brightness < 30.0)):
        count = int(chosen.sum())
        assert count > 1000
        assert abs(np.mean(pulls[chosen])) < 0.02 + 4.0 / math.sqrt(count)
        assert np.std(pulls[chosen]) == pytest.approx(1.0, abs=0.02 + 4.0 / math.sqrt(2.0 * count))


def _is_inside(scene: TrainingScene, border: float) -> np.ndarray:
    """Return which pixels are at some distance from the edge of the patch."""
    if scene.positions is None:
        y, x = np.mgrid[: scene.truth.shape[0], : scene.truth.shape[1]]
    else:
        y, x = scene.positions.y.numpy(), scene.positions.x.numpy()
    height, width = scene.truth.shape
    inside = (y > border) & (y < height - border) & (x > border) & (x < width - border)
    return np.broadcast_to(inside, scene.images.shape)


def test_own_pixels_see_what_galsim_draws() -> None:
    """If this fails, pixels of exposures have another place, area or
    orientation than their positions say.
    """
    sky = SkyGrid((64, 80))
    galaxy = galsim.Exponential(half_light_radius=3.0).shear(g1=0.3, g2=0.1)
    sky.add_source(SceneSource("galaxy", 41.3, 30.6, flux=70.0, profile=galaxy, extent=25.0))
    sky.add_points(35.2, 37.1, 20.0)
    sky.add_points(48.8, 24.4, 30.0, 1.7)
    kernel = Kernel(2.7, 3.0, 0.05, -0.1, 20.0)
    angle, scale = 0.6, 1.05
    transform = sky.spectrum(sky.freeze()) * sky.kernel_transform(kernel, angle, scale)
    rows, columns = np.mgrid[:50, :50] - 24.5
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    light = sky.observe(transform, 31.0 + s * columns + c * rows, 40.0 + c * columns - s * rows) * scale**2
    sources = galsim.Add(
        (galaxy * 70.0).shift(1.3, -0.4),
        galsim.DeltaFunction(flux=20.0).shift(-4.8, 6.1),
        galsim.Gaussian(flux=30.0, sigma=1.7).shift(8.8, -6.6),
    )
    image = galsim.ImageD(50, 50, wcs=galsim.JacobianWCS(c, -s, s, c))
    moffat = galsim.Moffat(beta=3.0, fwhm=2.7, trunc=20.0).shear(g1=0.05, g2=-0.1)
    profile = galsim.Convolve(sources, moffat, image.wcs.toWorld(galsim.Pixel(1.0)), real_space=False)
    expected = profile.drawImage(image, method="no_pixel").array
    np.testing.assert_allclose(light, expected, atol=1e-3 * expected.max())


def test_truth_is_the_sky_at_the_target() -> None:
    """If this fails, the ceiling of the network is measured with another
    image than it should make.
    """
    sky = SkyGrid((48, 48))
    sky.add_points(20.3, 25.8, 50.0)
    light = np.zeros((sky.y.size, sky.x.size))
    # One cell, at row 17 and column 30.5.
    light[2 * (17 + 32), 2 * (30 + 32) + 1] = 4.0 * 10.0
    sky.add_light(light)
    image = sky.gaussian_image(sky.spectrum(sky.freeze()), 3.1)
    sigma = 3.1 / 2.35482
    rows, columns = np.mgrid[:48, :48]
    expected = sum(
        flux * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2) / (2.0 * math.pi * sigma**2)
        for x, y, flux in ((20.3, 25.8, 50.0), (30.5, 17.0, 10.0))
    )
    np.testing.assert_allclose(image, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("error", [-0.02, 0.01])
def test_psfs_given_are_as_wrong_as_the_recipe_says(error: float) -> None:
    """If this fails, the network does not meet the errors of real PSFs."""
    recipe, sky = first(is_dithered=False), SkyGrid((256, 256))
    exposure = recipe.exposures[0]
    true = draw_optics(sky, exposure, recipe)
    wrong = draw_optics(sky, dataclasses.replace(exposure, width_error=error), recipe)
    assert kernel_fwhm(wrong.psfs) / kernel_fwhm(true.psfs) == pytest.approx(1.0 + error, abs=0.002)
    np.testing.assert_array_equal(wrong.transforms, true.transforms)
    assert wrong.psfs.sum() == pytest.approx(1.0)


def test_long_wings_leave_the_flux_in_stamps() -> None:
    """If this fails, the flux scale of exposures with long wings is off."""
    recipe = dataclasses.replace(first(is_dithered=False), has_long_wings=True)
    sky = SkyGrid((256, 256))
    optics = draw_optics(sky, recipe.exposures[0], recipe)
    total = float(optics.transforms[0][0, 0])
    assert 1.0 < total < 1.1
    np.testing.assert_allclose(sky.stamp(optics.transforms[0], recipe.stamp_size), optics.psfs, atol=1e-12)


@pytest.mark.parametrize("is_dithered", [False, True])
def test_holes_and_edges_are_masked(is_dithered: bool) -> None:
    """If this fails, the network never sees missing data."""
    recipe = first(is_dithered=is_dithered)
    exposure = dataclasses.replace(
        recipe.exposures[0], edges=((0.0, 20.3, 10.0), (math.pi / 2, 100.3, math.inf))
    )
    y, x = pixel_places(exposure, recipe)
    missing = missing_places(exposure, y, x)
    np.testing.assert_array_equal(missing, ((x > 148.3) & (x < 158.3)) | (y > 228.3))
    recipe = dataclasses.replace(recipe, holes=(7, 7, 7, 7), masked_cores=3.0)
    truth = np.zeros((256, 256))
    truth[200, 50] = 1e6
    holes = Holes.draw(recipe, truth, np.array([[99.0, 30.0]]), np.random.default_rng(1))
    assert len(holes.squares) == 4
    masked = holes.cover(y, x)
    assert masked[np.hypot(x - 99.0, y - 30.0) < 2.9].all()
    assert masked.sum() * exposure.scale**2 < 4 * 49 + 9.0 * math.pi + 40
    for row, column, _ in holes.squares:
        assert masked[(np.abs(y - row) < 3.0) & (np.abs(x - column) < 3.0)].all()


def test_part_of_an_exposure_is_noisier() -> None:
    """If this fails, the network is told another noise than it sees."""
    recipe = next(r for r in FEW if not r.is_dithered and r.cells == 1)
    line = (0.3, -20.0)
    recipe = dataclasses.replace(
        recipe,
        sky=dict.fromkeys(recipe.sky, 0.0),
        cosmic_rays=0.0,
        exposures=tuple(
            dataclasses.replace(e, noisy_part=(*line, 8.0), has_trail=False) for e in recipe.exposures
        ),
    )
    scene = render_scene(recipe)
    y, x = pixel_places(recipe.exposures[0], recipe)
    beyond = (x - 128.0) * math.cos(line[0]) + (y - 128.0) * math.sin(line[0]) > line[1]
    for image, variance, good in zip(scene.images, scene.variances, scene.good, strict=True):
        noisy, quiet = good & beyond, good & ~beyond
        # Read noise is in both.
        assert 8.0 < variance[noisy].mean() / variance[quiet].mean() < 9.1
        for part in (noisy, quiet):
            assert np.mean(image[part] ** 2 / variance[part]) == pytest.approx(1.0, abs=0.03)
    common = [len({e.noisy_part for e in r.exposures}) == 1 for r in RECIPES if len(r.exposures) > 1]
    uneven = [any(e.noisy_part[2] for e in r.exposures) for r in RECIPES]
    assert 0.1 < np.mean(uneven) < 0.24
    assert 0 < np.sum(~np.array(common)) < np.sum(uneven)


def test_half_of_the_holes_lie_on_sources() -> None:
    """If this fails, nothing teaches how to fill holes in galaxies."""
    recipe = dataclasses.replace(RECIPES[0], holes=(5,) * 200)
    truth = np.zeros((256, 256))
    truth[100:110, 60:80] = 1e3
    holes = Holes.draw(recipe, truth, np.zeros((0, 2)), np.random.default_rng(2))
    on_source = [100 <= row < 110 and 60 <= column < 80 for row, column, _ in holes.squares]
    assert 0.3 < np.mean(on_source) < 0.6


@pytest.mark.slow
def test_scenes_can_be_restored(dithered: TrainingScene) -> None:
    """If this fails, scenes are not valid input of a restoration."""
    # The middle of the patch, and pixels around it.
    size, corner, window = 32, 112, slice(100, 180)
    positions = dithered.positions
    assert positions is not None
    y, x, area = (a.numpy()[:, window, window] for a in (positions.y, positions.x, positions.area))
    result = restore(
        dithered.images[:, window, window],
        dithered.variances[:, window, window],
        dithered.good[:, window, window],
        dithered.psfs,
        target_fwhm=dithered.target_fwhm,
        positions=PixelPositions.from_arrays((size, size), y - corner, x - corner, area),
        options=QUICK,
        device="cpu",
    )
    assert not result.dropped
    truth = dithered.truth[corner : corner + size, corner : corner + size]
    inner = slice(8, -8)
    pulls = (result.linear_image - truth)[inner, inner] / np.sqrt(result.linear_variance)[inner, inner]
    assert np.median(np.abs(pulls)) < 1.0


class TestRecipes:
    """If one of these fails, a network is not trained for what it meets."""

    def test_numbers_of_exposures(self) -> None:
        numbers = np.array([len(recipe.exposures) for recipe in RECIPES])
        assert set(numbers) >= {1, *range(2, 30)}
        assert 50 < numbers.max() <= 64
        assert np.mean(numbers == 1) < 0.06
        assert 6 <= np.median(numbers) <= 12

    def test_seeing(self) -> None:
        widths = [np.array([e.fwhm for e in recipe.exposures]) for recipe in RECIPES]
        every = np.concatenate(widths)
        assert every.min() == pytest.approx(2.2, abs=0.05)
        assert every.max() == pytest.approx(9.0, abs=0.05)
        medians = np.array([np.median(w) for w in widths])
        assert np.percentile(medians, 10) < 3.2
        assert np.percentile(medians, 90) > 6.0
        spreads = [np.std(w) / np.mean(w) for w in widths if len(w) > 8]
        assert min(spreads) < 0.06
        assert max(spreads) > 0.22

    def test_depth(self) -> None:
        variances = [np.array([e.sky / e.per_njy**2 for e in r.exposures]) for r in RECIPES]
        ratios = np.array([v.max() / v.min() for v in variances])
        assert 2.0 < ratios.max() <= 3.01
        medians = [np.median(v) for v in variances]
        assert max(medians) > 15.0 * min(medians)

    def test_targets(self) -> None:
        for recipe in RECIPES:
            widths = np.array([e.fwhm for e in recipe.exposures])
            assert recipe.target_fwhm >= 2.5
            assert 0.749 * widths.min() <= recipe.target_fwhm <= 2.5 * widths.min()
            assert 0.549 * np.median(widths) <= recipe.target_fwhm
            assert recipe.target_fwhm <= 5.0 or recipe.target_fwhm == pytest.approx(
                max(0.75 * widths.min(), 0.55 * np.median(widths))
            )
        targets = np.array([recipe.target_fwhm for recipe in RECIPES])
        assert np.mean(targets < 3.0) > 0.1
        assert np.mean(targets > 4.5) > 0.1

    @pytest.mark.parametrize(
        ("has", "low", "high"),
        [
            (lambda r: r.is_dithered, 0.4, 0.6),
            (lambda r: r.cells > 1, 0.25, 0.45),
            (lambda r: any(e.width_error for e in r.exposures), 0.25, 0.45),
            (lambda r: r.has_long_wings, 0.15, 0.35),
            (lambda r: bool(r.holes), 0.5, 0.7),
            (lambda r: r.masked_cores > 0.0, 0.15, 0.35),
            (lambda r: any(e.has_trail for e in r.exposures), 0.2, 0.7),
            (lambda r: any(e.edges for e in r.exposures), 0.3, 0.9),
            (lambda r: r.sky["galaxies"] == 0.0, 0.01, 0.1),
            (lambda r: r.sky["stars"] > 150.0, 0.05, 0.2),
        ],
    )
    def test_shares(self, has: Callable[[TrainingRecipe], bool], low: float, high: float) -> None:
        assert low < np.mean([has(recipe) for recipe in RECIPES]) < high

    def test_every_kind_of_light_is_there(self) -> None:
        for name in RECIPES[0].sky:
            share = np.mean([recipe.sky[name] > 0.0 for recipe in RECIPES])
            assert share > 0.03, name

    def test_dithers_are_of_fractions_of_pixels_and_all_angles(self) -> None:
        exposures = [e for r in RECIPES if r.is_dithered for e in r.exposures]
        shifts = np.array([e.shift for e in exposures])
        assert np.histogram(shifts % 1.0, bins=4, range=(0.0, 1.0))[0].min() > 0.2 * shifts.size
        angles = np.array([e.angle for e in exposures]) % (2.0 * math.pi)
        assert np.histogram(angles, bins=8, range=(0.0, 2.0 * math.pi))[0].min() > 0.05 * len(angles)
        scales = np.array([e.scale for e in exposures])
        assert 0.98 < scales.min() < 0.99
        assert 1.01 < scales.max() < 1.02


@pytest.mark.parametrize(
    "add",
    [
        SkyPainter.add_spiral,
        SkyPainter.add_edge_on,
        SkyPainter.add_clumpy,
        SkyPainter.add_merger,
        SkyPainter.add_arcs,
    ],
)
def test_galaxies_are_visible_light(add: Callable[..., None]) -> None:
    """If this fails, galaxies are too faint to teach anything, or negative."""
    for seed in range(8):
        sky = SkyGrid((96, 96))
        add(SkyPainter(sky, 2.0, np.random.default_rng(seed)), 6.0)
        image = sky.gaussian_image(sky.spectrum(sky.freeze()), 3.0)
        assert image.min() > -1e-4 * image.max()
        light = sky.freeze()
        assert 1.0 < light.max() < 1e5


@pytest.mark.parametrize("level", [1.0, 40.0])
def test_nebulae_have_the_brightness_asked_for(level: float) -> None:
    """If this fails, nebulae are lost in the noise, or hide everything."""
    for seed in range(4):
        sky = SkyGrid((96, 128))
        SkyPainter(sky, 2.0, np.random.default_rng(seed)).add_nebula(level)
        light = sky.freeze()
        assert light.min() > -1e-6 * light.max()
        assert np.quantile(light, 0.95) == pytest.approx(2.0 * level, rel=0.3)


def test_faint_stars_have_the_signal_to_noise_asked_for() -> None:
    """If this fails, the network is blind to faint stars."""
    flux = []
    for seed in range(60):
        sky = SkyGrid((64, 64))
        SkyPainter(sky, 0.5, np.random.default_rng(seed)).add_stars(1, 4.0)
        flux.append(sky.freeze().sum() / 4.0)
    # Of a Gaussian the optimal flux has a noise of 2 sqrt(pi) s.
    ratios = np.array(flux) / (0.5 * 2.0 * math.sqrt(math.pi) * 4.0 / 2.35482)
    assert 2.9 < ratios.min() < 6.0
    assert 150.0 < ratios.max() < 305.0
