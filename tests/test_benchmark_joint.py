# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes in several bands, and what is measured on them."""

from __future__ import annotations

import numpy as np
import pytest

from astroclearnet_benchmarks.joint.command import _mean
from astroclearnet_benchmarks.joint.fields import _narrow, _plain
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
