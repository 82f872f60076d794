# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The light of a training scene."""

from __future__ import annotations

__all__ = ()

import math

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, BANDS, EXPOSURE_TIME

from ..scenes._sources import SceneSource, draw_field
from ._recipe import TrainingRecipe, log_uniform
from ._sky_grid import SkyGrid
from ._structures import SkyPainter

type Array = npt.NDArray[np.float64]
type Random = np.random.Generator

_SERSIC_SHARES = {0.5: 0.1, 1.0: 0.35, 1.5: 0.2, 2.5: 0.15, 4.0: 0.2}
_BRIGHT_STAR = 21.5
_MOST_BRIGHT_STARS = 8
"""Magnitude and number to which stars count as bright."""

_GALAXIES = {
    "spirals": (SkyPainter.add_spiral, 2.5, 14.0),
    "large_spirals": (SkyPainter.add_spiral, 15.0, 45.0),
    "edge_on": (SkyPainter.add_edge_on, 4.0, 18.0),
    "large_edge_on": (SkyPainter.add_edge_on, 20.0, 45.0),
    "clumpy": (SkyPainter.add_clumpy, 1.5, 10.0),
    "mergers": (SkyPainter.add_merger, 2.5, 14.0),
    "arcs": (SkyPainter.add_arcs, 5.0, 22.0),
}
"""What adds galaxies, and the limits of their scale in pixels."""


def sky_sigma(recipe: TrainingRecipe) -> float:
    """Return the noise of a pixel of blank sky in all exposures, in nJy.

    Parameters
    ----------
    recipe
        Recipe of a scene.

    Returns
    -------
    sigma : `float`
        Photon noise of the sky in the inverse-variance mean.
    """
    return float(sum(e.per_njy**2 / e.sky for e in recipe.exposures) ** -0.5)


def fill_sky(sky: SkyGrid, recipe: TrainingRecipe, rng: Random) -> Array:
    """Put light into the sky.

    Parameters
    ----------
    sky
        The sky, changed in place.
    recipe
        What to put there.
    rng
        Random numbers.

    Returns
    -------
    stars : `numpy.ndarray`
        Column and row of the brightest stars, shape (k, 2).
    """
    content, painter = recipe.sky, SkyPainter(sky, sky_sigma(recipe), rng)
    bright = []
    if content["galaxies"]:
        limit = _faintest_magnitude(recipe)
        field = draw_field(
            sky.shape,
            rng,
            galaxies=content["galaxies"],
            stars=content["stars"],
            faintest_galaxy=limit,
            faintest_star=limit,
            indices=_SERSIC_SHARES,
        )
        for source in field:
            sky.add_source(source)
            if source.profile is None and source.flux > _flux(_BRIGHT_STAR):
                bright.append((source.flux, source.x, source.y))
            elif source.profile is not None and rng.random() < content["knotted_share"]:
                _add_knots(sky, source, rng)
    for _ in range(int(content["bright_stars"])):
        x, y = rng.uniform(-8.0, np.array(sky.shape[::-1]) + 8.0)
        flux = _flux(rng.uniform(14.0, 18.5))
        sky.add_points(x, y, flux)
        bright.append((flux, x, y))
    for name, (add, low, high) in _GALAXIES.items():
        for _ in range(int(content[name])):
            add(painter, log_uniform(rng, low, high))
    painter.add_stars(int(content["faint_stars"]), recipe.target_fwhm)
    painter.add_pairs(int(content["pairs"]), recipe.target_fwhm)
    if content["cluster_stars"]:
        painter.add_cluster(int(content["cluster_stars"]))
    if content["intracluster"]:
        painter.add_intracluster_light()
    if content["nebula_sigma"]:
        painter.add_nebula(content["nebula_sigma"])
    if content["gradient_sigma"]:
        painter.add_gradient(content["gradient_sigma"])
    bright.sort(reverse=True)
    return np.array(bright[:_MOST_BRIGHT_STARS]).reshape(-1, 3)[:, 1:]


def _flux(magnitude: float) -> float:
    return float(10.0 ** (-0.4 * (magnitude - AB_ZERO_POINT_NJY)))


def _faintest_magnitude(recipe: TrainingRecipe) -> float:
    """Return the magnitude that sources reach: 27.2 in 40 minutes."""
    per_njy = EXPOSURE_TIME * 10.0 ** (0.4 * (BANDS["i"].zero_point - AB_ZERO_POINT_NJY))
    time = sum(e.per_njy for e in recipe.exposures) / (12.0 * per_njy)
    # The depth in flux goes with the square root of the time.
    return float(np.clip(27.2 + 1.25 * math.log10(time), 25.5, 28.0))


def _add_knots(sky: SkyGrid, source: SceneSource, rng: Random) -> None:
    """Add points to a galaxy."""
    number = int(rng.integers(1, 7))
    # Sources end at five half-light radii.
    spots = rng.normal(0.0, 0.2 * source.extent, (2, number))
    flux = source.flux * rng.uniform(0.005, 0.1, number)
    sky.add_points(source.x + spots[0], source.y + spots[1], flux)
