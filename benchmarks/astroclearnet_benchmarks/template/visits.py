# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated visits: those of a template, and later ones with transients."""

from __future__ import annotations

__all__ = ("BORDER", "KINDS", "PLACES", "SEEINGS", "Transient", "Visits", "pixels_near", "simulate_visits")

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, ArtefactOptions

from ..scenes import Scene, SceneOptions, SceneSource, add_exposure, inject, simulate_scene

type Array = npt.NDArray[np.float64]

SEEINGS = (0.45, 0.7, 1.0)
"""Of the science visits in arcsec: sharper than every exposure of the
template, as sharp as their direct coadd, and wider."""

KINDS = ("blank sky", "galaxies", "bright stars", "variable stars")
"""What transients are on or beside; a variable star brightens."""

PLACES = ("blank sky", "sources", "bright stars")
"""Parts of an image that false detections are counted in."""

_SHAPE = (256, 256)
_TEMPLATE_SEEINGS = np.linspace(0.5, 0.95, 12)
_FLUXES = (200.0, 1000.0)
"""Of transients in nJy: i = 23.9 to 25.6, 3 to 17 times the noise of a visit
of .7 arcsec."""

_NUMBERS = {"blank sky": 8, "galaxies": 8, "bright stars": 4, "variable stars": 4}
_BRIGHT_STARS, _BRIGHT_MAGNITUDES = 3, (17.5, 19.5)
_VARIABLE_MAGNITUDES = (21.0, 23.0)
_HOST_MAGNITUDE = 24.0
"""Galaxies are hosts down to it."""

_STAR_DISTANCES = (6.0, 15.0)
"""Of transients from bright stars in pixels."""

_BRIGHT_RADIUS, _VARIABLE_RADIUS = 25.0, 15.0
"""Of the surroundings of stars in pixels."""

BORDER = 28
"""Pixels along the borders that nothing is measured in: differences are made
with periodic convolutions."""

_SEPARATION = 20.0
"""Smallest distance of transients from each other in pixels."""

_STREAM = 16
_ATTEMPTS = 1000


class Transient(NamedTuple):
    """A source of the science visits alone, at the centre of a pixel."""

    kind: str
    x: int
    y: int
    flux: float
    """In nJy."""


@dataclasses.dataclass(frozen=True)
class Visits:
    """Exposures of a field before and after sources appear in it.

    Attributes
    ----------
    templates
        The exposures of the template.
    science
        A scene of one exposure for each of `SEEINGS`, with the transients.
    light
        What is expected of each without them, in nJy, shape (H, W).
    transients
        The transients.
    bright_stars
        Bright stars, which are the same in all.
    places
        Pixels of each of `PLACES`.
    """

    templates: Scene
    science: tuple[Scene, ...]
    light: tuple[Array, ...]
    transients: tuple[Transient, ...]
    bright_stars: tuple[SceneSource, ...]
    places: dict[str, npt.NDArray[np.bool_]]


def simulate_visits(seed: int) -> Visits:
    """Simulate the visits of a field.

    Parameters
    ----------
    seed
        Seed of the field.

    Returns
    -------
    visits : `Visits`
        The visits, without gaps and artefacts; exposures of a template have a
        seeing of 0.5 to 0.95 arcsec.
    """
    rng = np.random.default_rng((seed, _STREAM))
    artefacts = ArtefactOptions(saturation=False, cosmic_rays=0.0, bad_columns=0, satellite_trails=False)
    first, *others = _TEMPLATE_SEEINGS
    scene = simulate_scene(
        SceneOptions(
            seed=seed,
            shape=_SHAPE,
            num_exposures=1,
            seeing_arcsec=(first, first),
            hole_size=0,
            artefacts=artefacts,
        )
    )
    for seeing in (*others, *SEEINGS):
        scene = add_exposure(scene, seeing)
    bright = [_star(rng, _BRIGHT_MAGNITUDES) for _ in range(_BRIGHT_STARS)]
    variable = [_at_pixel(_star(rng, _VARIABLE_MAGNITUDES)) for _ in range(_NUMBERS["variable stars"])]
    scene, stars = inject(scene, [*bright, *variable], seed)
    places = _places(scene, stars[: len(bright)], stars[len(bright) :])
    transients = _draw_transients(scene, stars[: len(bright)], stars[len(bright) :], places, rng)
    number = len(_TEMPLATE_SEEINGS)
    before = [_select(scene, slice(number + k, number + k + 1)) for k in range(len(SEEINGS))]
    sources = [SceneSource("supernova", float(t.x), float(t.y), flux=t.flux) for t in transients]
    return Visits(
        templates=_select(scene, slice(number)),
        science=tuple(inject(one, sources, seed + 1000 * (k + 1))[0] for k, one in enumerate(before)),
        light=tuple(_light_of(one) for one in before),
        transients=tuple(transients),
        bright_stars=tuple(stars[: len(bright)]),
        places=places,
    )


def _light_of(scene: Scene) -> Array:
    """Return the expected light in nJy of the first exposure of a scene."""
    conditions = scene.conditions[0]
    return np.asarray((scene.true_variances[0] - conditions.sky_variance) * conditions.per_njy)


def _select(scene: Scene, chosen: slice) -> Scene:
    """Return a scene of some of the exposures."""
    stacks = ("images", "variances", "good", "psfs", "true_variances", "artefacts", "trail", "transients")
    changes = {name: getattr(scene, name)[chosen] for name in (*stacks, "conditions")}
    options = dataclasses.replace(scene.options, num_exposures=len(changes["conditions"]))
    return dataclasses.replace(scene, options=options, **changes)


def _star(rng: np.random.Generator, magnitudes: tuple[float, float]) -> SceneSource:
    """Draw a star that is not at the border."""
    y, x = (rng.uniform(1.5 * BORDER, size - 1.5 * BORDER) for size in _SHAPE)
    flux = 10.0 ** (0.4 * (AB_ZERO_POINT_NJY - rng.uniform(*magnitudes)))
    return SceneSource("star", x, y, flux=flux)


def _at_pixel(source: SceneSource) -> SceneSource:
    """Return a source at the centre of its pixel."""
    return dataclasses.replace(source, x=float(round(source.x)), y=float(round(source.y)))


def _places(
    scene: Scene, bright: list[SceneSource], variable: list[SceneSource]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Divide the pixels that are not at the border."""
    inside = np.zeros(_SHAPE, dtype=bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    near_bright = pixels_near(bright, _BRIGHT_RADIUS)
    blank = scene.blank & ~pixels_near(variable, _VARIABLE_RADIUS)
    return {
        "blank sky": inside & ~near_bright & blank,
        "sources": inside & ~near_bright & ~blank,
        "bright stars": inside & near_bright,
    }


def pixels_near(sources: Sequence[Transient | SceneSource], radius: float) -> npt.NDArray[np.bool_]:
    """Return the pixels around sources.

    Parameters
    ----------
    sources
        The sources.
    radius
        Radius in pixels.

    Returns
    -------
    near : `numpy.ndarray`
        Whether a source is closer, shape (H, W).
    """
    rows, columns = np.indices(_SHAPE)
    near = np.zeros(_SHAPE, dtype=bool)
    for source in sources:
        near |= np.hypot(rows - source.y, columns - source.x) < radius
    return near


def _draw_transients(
    scene: Scene,
    bright: list[SceneSource],
    variable: list[SceneSource],
    places: dict[str, npt.NDArray[np.bool_]],
    rng: np.random.Generator,
) -> list[Transient]:
    """Draw transients apart from each other; fewer where there is no room."""
    limit = 10.0 ** (0.4 * (AB_ZERO_POINT_NJY - _HOST_MAGNITUDE))
    hosts = [
        dataclasses.replace(source, flux=flux)
        for source, flux in zip(scene.sources, scene.catalogue["flux"], strict=True)
        if source.kind == "galaxy" and flux > limit
    ]
    blank = np.argwhere(places["blank sky"])
    inside = np.any(list(places.values()), axis=0)
    fluxes = np.log(_FLUXES)
    drawn = [
        Transient("variable stars", int(s.x), int(s.y), math.exp(rng.uniform(*fluxes))) for s in variable
    ]
    for kind in ("bright stars", "galaxies", "blank sky"):
        found = 0
        for _ in range(_ATTEMPTS):
            if kind == "blank sky":
                y, x = blank[rng.integers(len(blank))]
            elif kind == "galaxies":
                host = hosts[rng.integers(len(hosts))]
                y, x = rng.normal((host.y, host.x), 0.5 * host.half_light_radius)
            else:
                star = bright[rng.integers(len(bright))]
                distance, angle = rng.uniform(*_STAR_DISTANCES), rng.uniform(0.0, 2.0 * math.pi)
                y, x = star.y + distance * math.sin(angle), star.x + distance * math.cos(angle)
            row, column = round(float(y)), round(float(x))
            if not (0 <= row < _SHAPE[0] and 0 <= column < _SHAPE[1] and inside[row, column]):
                continue
            if kind == "galaxies" and places["bright stars"][row, column]:
                continue
            if any(math.hypot(row - t.y, column - t.x) < _SEPARATION for t in drawn):
                continue
            drawn.append(Transient(kind, column, row, math.exp(rng.uniform(*fluxes))))
            found += 1
            if found == _NUMBERS[kind]:
                break
    return drawn
