# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training scenes in several bands: one sky, exposures of each band."""

from __future__ import annotations

__all__ = ("render_bands",)

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..scenes._sources import SceneSource
from ._content import fill_sky
from ._recipe import SHAPE, TrainingRecipe, draw_band_recipes
from ._scene import TrainingScene, observe_sky
from ._sky_grid import SkyGrid

type Array = npt.NDArray[np.float64]

_SLOPE = 0.3, 0.45
"""Mean and standard deviation of the logarithm of the flux of a source per
half of the range of bands: in magnitudes from the bluest to the reddest band
0.65 and 1.0."""

_BEND = 0.15
"""Standard deviation of a quadratic term of the same."""

_SCATTER = 0.05
"""Standard deviation of the logarithm of the flux in a single band."""

_ONE_BAND, _DROPOUT = 0.06, 0.04
"""Shares of the sources that shine in one band alone, as those of emission
lines and transients do, and that are missing in the bluer bands."""


class BandSkies(SkyGrid):
    """Skies of several bands, filled as one.

    Each source, each component of a galaxy and each star of a group has a
    spectrum of its own.

    Parameters
    ----------
    shape
        Height and width of the patch in pixels.
    number
        Number of bands.
    rng
        Random numbers, for spectra.

    Attributes
    ----------
    bands
        The sky of each band.
    """

    def __init__(self, shape: tuple[int, int], number: int, rng: np.random.Generator) -> None:
        super().__init__(shape)
        self.bands = [SkyGrid(shape) for _ in range(number)]
        self._rng = rng

    def add_light(self, light: Array, window: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Add light on the grids of all bands, as `SkyGrid.add_light`."""
        for sky, factor in zip(self.bands, self.draw_spectra(1)[0], strict=True):
            sky.add_light(light * factor, window)

    def add_points(
        self, x: npt.ArrayLike, y: npt.ArrayLike, flux: npt.ArrayLike, sigma: npt.ArrayLike = 0.0
    ) -> None:
        """Add Gaussians to all bands, as `SkyGrid.add_points`."""
        columns, rows, fluxes, sigmas = (a.ravel() for a in np.broadcast_arrays(x, y, flux, sigma))
        band_fluxes = fluxes[:, np.newaxis] * self.draw_spectra(fluxes.size)
        self.record(rows, columns, band_fluxes)
        for sky, each in zip(self.bands, band_fluxes.T, strict=True):
            sky.add_points(columns, rows, each, sigmas)

    def add_source(self, source: SceneSource) -> None:
        """Add a source to all bands, as `SkyGrid.add_source`."""
        spectra = self.draw_spectra(1)
        self.record(np.array([source.y]), np.array([source.x]), source.flux * spectra)
        for sky, factor in zip(self.bands, spectra[0], strict=True):
            if factor > 0.0:
                sky.add_source(dataclasses.replace(source, flux=source.flux * factor))

    def record(self, y: Array, x: Array, fluxes: Array) -> None:
        """Take note of sources that are added.

        Parameters
        ----------
        y, x
            Rows and columns, shape (k,).
        fluxes
            Their fluxes in each band, shape (k, bands).
        """

    def draw_spectra(self, number: int) -> Array:
        """Draw fluxes in each band over those that are given.

        Parameters
        ----------
        number
            Number of spectra.

        Returns
        -------
        spectra : `numpy.ndarray`
            Shape (number, bands).
        """
        rng, bands = self._rng, len(self.bands)
        place = np.linspace(-1.0, 1.0, bands) if bands > 1 else np.zeros(1)
        slope = rng.normal(*_SLOPE, (number, 1))
        bend = rng.normal(0.0, _BEND, (number, 1))
        logs = slope * place + bend * (2.0 * place**2 - 1.0) + rng.normal(0.0, _SCATTER, (number, bands))
        spectra = np.exp(logs)
        kind, chosen = rng.random(number), rng.integers(bands, size=number)
        index = np.arange(bands)
        alone = (kind < _ONE_BAND)[:, np.newaxis] & (index != chosen[:, np.newaxis])
        is_dropout = (kind >= _ONE_BAND) & (kind < _ONE_BAND + _DROPOUT)
        missing = is_dropout[:, np.newaxis] & (index < chosen[:, np.newaxis])
        return np.where(alone | missing, 0.0, spectra)


def render_bands(seed: int, number: int | None = None, *, all_flagged: bool = False) -> list[TrainingScene]:
    """Simulate a training scene in several bands.

    Parameters
    ----------
    seed
        Seed; the same one gives the same scene.
    number
        Number of bands, bluest first; by default two to five.
    all_flagged
        Whether all artefacts are flagged, and there are no trails.

    Returns
    -------
    scenes : `list` [`TrainingScene`]
        The exposures and the truth of each band, at one target PSF.
    """
    recipes = draw_band_recipes(seed, number)
    if all_flagged:
        recipes = [_without_artefacts(recipe) for recipe in recipes]
    rng = np.random.default_rng([seed, 5])
    skies = BandSkies(SHAPE, len(recipes), rng)
    stars = fill_sky(skies, _typical(recipes), np.random.default_rng([seed, 1]))
    return [
        observe_sky(sky, stars, recipe, np.random.default_rng([seed, 6, band]))
        for band, (sky, recipe) in enumerate(zip(skies.bands, recipes, strict=True))
    ]


def _typical(recipes: list[TrainingRecipe]) -> TrainingRecipe:
    """Return the recipe of the band of median depth, which decides how bright
    sources are.
    """
    depths = [math.fsum(e.per_njy**2 / e.sky for e in recipe.exposures) for recipe in recipes]
    return recipes[int(np.argsort(depths)[len(depths) // 2])]


def _without_artefacts(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return a recipe whose artefacts are all flagged."""
    exposures = tuple(dataclasses.replace(e, has_trail=False) for e in recipe.exposures)
    return dataclasses.replace(recipe, flagged_fraction=1.0, exposures=exposures)
