# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes in several bands, and what is measured on them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from astroclearnet_benchmarks.joint.command import _mean
from astroclearnet_benchmarks.joint.detection import Sources, count_found, find_peaks, make_images
from astroclearnet_benchmarks.joint.fields import _narrow, _plain, make_field
from astroclearnet_benchmarks.scenes._sources import SceneSource
from astroclearnet_benchmarks.training._bands import BandSkies
from astroclearnet_benchmarks.training._recipe import draw_band_recipes

RECIPES = [draw_band_recipes(seed) for seed in range(60)]


def test_bands_share_sky_and_target() -> None:
    """If it fails, bands of a scene show different fields."""
    assert {len(recipes) for recipes in RECIPES} == {2, 3, 4, 5}
    for recipes in RECIPES:
        assert len({recipe.target_fwhm for recipe in recipes}) == 1
        assert all(recipe.sky == recipes[0].sky for recipe in recipes)
        assert recipes[0].exposures != recipes[1].exposures
        for recipe in recipes:
            assert 3 <= len(recipe.exposures) <= 14
            sharpest = min(e.fwhm for e in recipe.exposures)
            # A target that no band could be restored at would be refused.
            assert recipe.target_fwhm <= 2.5 * sharpest
            assert recipe.target_fwhm >= 2.2


def test_spectra_are_those_of_a_population() -> None:
    """If it fails, the joint network never sees sources of odd colours."""
    skies = BandSkies((32, 32), 4, np.random.default_rng(1))
    spectra = skies.draw_spectra(20000)
    shines = spectra > 0.0
    alone = shines.sum(axis=1) == 1
    dropouts = ~shines[:, 0] & ~alone
    # A dropout of the three bluer bands shines in one alone, too.
    assert np.mean(alone) == pytest.approx(0.06 + 0.04 / 4, abs=0.006)
    assert np.mean(dropouts) == pytest.approx(0.02, abs=0.004)
    red = spectra[shines.all(axis=1)]
    assert np.log(red[:, 3] / red[:, 0]).mean() == pytest.approx(0.6, abs=0.03)


def test_light_goes_to_all_bands() -> None:
    """If it fails, structure is drawn in one band and missing in another."""
    skies = BandSkies((32, 32), 3, np.random.default_rng(2))
    skies.add_source(SceneSource("star", 16.0, 16.0, flux=100.0))
    skies.add_points([8.0, 20.0], 20.0, 50.0)
    skies.add_light(np.ones(skies.bands[0].y.shape) * np.ones(skies.bands[0].x.shape))
    light = np.array([sky.freeze() for sky in skies.bands])
    profiles = light - light.min(axis=(1, 2), keepdims=True)
    correlation = np.corrcoef(profiles.reshape(3, -1))
    assert correlation.min() > 0.3


def test_narrow_band_is_shallow() -> None:
    """If it fails, the narrow band is as deep as the others."""
    plain = _plain(RECIPES[0][0])
    narrow = _narrow(plain)
    depths = [sum(e.per_njy**2 / e.sky for e in recipe.exposures) for recipe in (plain, narrow)]
    assert depths[1] < 0.15 * depths[0]
    assert len(narrow.exposures) == 4


def test_mean_has_a_standard_error() -> None:
    """If it fails, figures look more certain than they are."""
    value, error = _mean([1.0, 2.0, 3.0, float("nan")])
    assert value == pytest.approx(2.0)
    assert error == pytest.approx(1.0 / 3.0**0.5)
    assert np.isnan(_mean([1.0])[1])


def draw_truth(seed: int) -> np.ndarray:
    """Return the ratios of stars of 3 to 10, on a jittered grid."""
    rng = np.random.default_rng(seed)
    image = np.zeros((128, 128))
    for y in range(16, 120, 16):
        for x in range(16, 120, 16):
            image[y + rng.integers(-5, 6), x + rng.integers(-5, 6)] = rng.uniform(3.0, 10.0)
    return 4.0 * np.pi * 1.5**2 * gaussian_filter(image, 1.5) / 2.0


def search(images: list[np.ndarray], truths: list[np.ndarray]) -> list[float]:
    """Return the completeness by bin, and the pieces of a field."""
    sources = [Sources.of_image(truth) for truth in truths]
    found = count_found([find_peaks(i, s) for i, s in zip(images, sources, strict=True)], sources)
    return [*(value for value, _ in found.completeness), found.pieces[0]]


def test_all_is_found_on_the_truth() -> None:
    """If it fails, completeness is lost in the counting."""
    truths = [draw_truth(seed) for seed in range(3)]
    assert search(truths, truths) == pytest.approx([1.0, 1.0, 1.0, 0.0])
    # Ranks do not depend on the unit.
    assert search([1e3 * t for t in truths], truths) == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_nothing_is_found_in_the_image_of_another_field() -> None:
    """If it fails, matches by chance count."""
    truths = [draw_truth(seed) for seed in range(6)]
    rng = np.random.default_rng(3)
    flat = [t + 20.0 * gaussian_filter(rng.normal(size=t.shape), 1.5) for t in truths[::-1]]
    assert np.abs(search(flat, truths)[:3]).max() < 0.1


def test_false_peaks_cost_faint_sources() -> None:
    """If it fails, noise is free."""
    truths = [draw_truth(seed) for seed in range(3)]
    rng = np.random.default_rng(4)
    noise = [gaussian_filter(rng.normal(size=t.shape), 1.5) for t in truths]
    noisy = [t + 1.3 * n / n.std() for t, n in zip(truths, noise, strict=True)]
    faint, middle, bright, _ = search(noisy, truths)
    assert faint < middle < bright
    assert faint < 0.7
    assert bright > 0.9


def test_pieces_of_sources_are_counted_apart() -> None:
    """If it fails, a mottled galaxy hides faint sources."""
    y, x = np.mgrid[:128, :128]
    truth = 50.0 * np.exp(-((y - 60.0) ** 2 + (x - 70.0) ** 2) / 200.0)
    mottled = truth.copy()
    mottled[60, 58] += 20.0
    mottled[52, 70] += 20.0
    star = draw_truth(1)
    *found, pieces = search([mottled, star], [truth, star])
    assert found == pytest.approx([1.0, 1.0, 1.0])
    assert pieces == 1.0


@pytest.mark.slow
def test_linear_images_are_in_units_of_their_noise() -> None:
    """If it fails, a threshold is another in each field."""
    field = make_field(0)
    bands = []
    for band in field.bands:
        noise = band.stack.images - band.observe(band.truth)
        bands.append(dataclasses.replace(band, stack=dataclasses.replace(band.stack, images=noise)))
    images = make_images(dataclasses.replace(field, bands=bands))
    for name in ("mean of linear images", "matched filter, equal flux in all bands"):
        inner = images[name][20:-20, 20:-20]
        # Bright light leaves photon noise, and edges of the simulation.
        assert np.subtract(*np.percentile(inner, [84.0, 16.0])) / 2.0 == pytest.approx(1.0, abs=0.15), name
