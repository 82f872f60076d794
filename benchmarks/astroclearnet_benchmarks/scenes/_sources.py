# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sources of the scenes on a common grid."""

from __future__ import annotations

__all__ = ("SCENE_KINDS", "SceneSource")

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import galsim
import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.simulation import PIXEL_SCALE

from ._galaxies import SERSIC_FRACTIONS, draw_galaxy, flux_of
from ._structure import nebula, structured_galaxy

_STAR_SLOPE, _GALAXY_SLOPE = 0.14, 0.32
"""Of log10 of the counts per magnitude, as in simulated surveys."""

_REFERENCE = 25.0
"""Magnitude to which densities count."""

_SPACING = 34.0
"""Distance of isolated sources, in pixels, before they are jittered."""

_JITTER = 1.0
_BORDER = 12.0
_OUTSIDE = 12.0
_STAR_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, 1000.0), (1000.0, 4000.0))
"""Signal-to-noise ratios; brighter stars saturate in the best seeing."""

_GALAXY_BINS = ((5.0, 20.0), (20.0, 50.0), (50.0, 500.0))
_PAIR_SIGNAL_TO_NOISE = 100.0
_PAIR_SEPARATION_ARCSEC = (0.2, 0.7)
_HOST_MAGNITUDES = (19.5, 22.5)
_HOST_DISTANCES = (1.0, 2.0)
"""Of companions of bright galaxies, in arcsec."""

_COMPANION_MAGNITUDES = (24.0, 25.5)
_PAIR_MAGNITUDES, _BLENDS = (23.5, 25.0), (0.7, 1.0)
"""Magnitudes of the brighter of two faint galaxies, and their distances."""

_CENTRAL, _INTRACLUSTER = ("galaxy", 18.5, 4.0, 12.0, 180.0), ("diffuse", 18.9, 1.0, 60.0, 300.0)
"""Kind, magnitude, Sersic index, half-light radius and end in pixels; the mean
surface brightness of the intracluster light is 26 mag per square arcsec."""

_NEBULA_MAGNITUDE = 26.5
"""Mean surface brightness in magnitudes per square arcsec."""

_FAINTEST_GALAXY, _FAINTEST_STAR = 27.2, 26.0


@dataclasses.dataclass(frozen=True)
class SceneSource:
    """A source of a scene.

    Attributes
    ----------
    kind
        star, galaxy, diffuse, supernova or asteroid.
    x, y
        Position of the centre in pixels.
    flux
        Flux in nJy; NaN where ``signal_to_noise`` decides.
    signal_to_noise
        Ratio wanted without masks and neighbours; NaN where ``flux`` decides.
    profile
        Profile of unit flux in pixels, before any PSF; `None` for a point.
    extent
        Radius in pixels that holds the profile.
    half_light_radius
        Radius in pixels of a circle of the area of the isophote that holds
        half of the light; NaN for a point.
    pair
        Number of the close pair, -1 for a source that is in none.
    separation
        Separation of the pair in pixels; NaN without one.
    exposures
        Exposures in which it shines; `None` for all of them.
    """

    kind: str
    x: float
    y: float
    flux: float = math.nan
    signal_to_noise: float = math.nan
    profile: galsim.GSObject | None = None
    extent: float = 0.0
    half_light_radius: float = math.nan
    pair: int = -1
    separation: float = math.nan
    exposures: tuple[int, ...] | None = None


def scene_sources(
    kind: str, shape: tuple[int, int], num_exposures: int, rng: np.random.Generator
) -> list[SceneSource]:
    """Draw the sources of a scene.

    Parameters
    ----------
    kind
        One of `SCENE_KINDS`.
    shape
        Height and width in pixels.
    num_exposures
        Number of exposures, for sources that shine in some of them.
    rng
        Random numbers.

    Returns
    -------
    sources : `list` [`SceneSource`]
        The sources, those just outside the image included.
    """
    if kind == "transients":
        return [*_field(shape, rng), *_transients(shape, num_exposures, rng)]
    return SCENE_KINDS[kind](shape, rng)


def _field(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw a high-latitude field: 35 galaxies per square arcmin to i = 25."""
    return draw_field(shape, rng, galaxies=35.0, stars=4.0)


def _crowded(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw the outskirts of a star cluster."""
    return draw_field(shape, rng, galaxies=35.0, stars=350.0)


def draw_field(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    galaxies: float,
    stars: float,
    faintest_galaxy: float = _FAINTEST_GALAXY,
    faintest_star: float = _FAINTEST_STAR,
    indices: Mapping[float, float] = SERSIC_FRACTIONS,
) -> list[SceneSource]:
    """Draw galaxies and stars with realistic counts.

    Parameters
    ----------
    shape
        Height and width in pixels.
    rng
        Random numbers.
    galaxies, stars
        Numbers per square arcmin to i = 25.
    faintest_galaxy, faintest_star
        Magnitudes that they reach.
    indices
        Sersic indices and their shares.

    Returns
    -------
    sources : `list` [`SceneSource`]
        The sources, those just outside the image included.
    """
    area = math.prod((size + 2.0 * _OUTSIDE) * PIXEL_SCALE / 60.0 for size in shape)
    growth = 10.0 ** (_GALAXY_SLOPE * (faintest_galaxy - _REFERENCE))
    sources = []
    for magnitude in _draw_magnitudes(
        rng, rng.poisson(galaxies * growth * area), _GALAXY_SLOPE, (19.0, faintest_galaxy)
    ):
        x, y = _random_position(shape, rng)
        profile, extent, radius = draw_galaxy(rng, magnitude, indices)
        galaxy = SceneSource(
            "galaxy", x, y, flux=flux_of(magnitude), profile=profile, extent=extent, half_light_radius=radius
        )
        sources.append(galaxy)
    growth = 10.0 ** (_STAR_SLOPE * (faintest_star - _REFERENCE))
    for magnitude in _draw_magnitudes(
        rng, rng.poisson(stars * growth * area), _STAR_SLOPE, (17.5, faintest_star)
    ):
        x, y = _random_position(shape, rng)
        sources.append(SceneSource("star", x, y, flux=flux_of(magnitude)))
    return sources


def _stars(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw isolated stars, as many in each bin of signal-to-noise ratio."""
    places = list(_isolated_positions(shape, rng))
    ratios = _draw_ratios(_STAR_BINS, len(places), rng)
    return [SceneSource("star", x, y, signal_to_noise=r) for (x, y), r in zip(places, ratios, strict=True)]


def _galaxies(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw isolated galaxies, as many in each signal-to-noise bin."""
    places = list(_isolated_positions(shape, rng))
    sources = []
    for (x, y), ratio in zip(places, _draw_ratios(_GALAXY_BINS, len(places), rng), strict=True):
        profile, extent, radius = draw_galaxy(rng, rng.uniform(21.0, 25.0))
        galaxy = SceneSource(
            "galaxy",
            x,
            y,
            signal_to_noise=ratio,
            profile=profile,
            extent=min(extent, 14.0),
            half_light_radius=radius,
        )
        sources.append(galaxy)
    return sources


def _pairs(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw close pairs of equal stars, and as many single stars."""
    sources = []
    ratio = _PAIR_SIGNAL_TO_NOISE
    for index, (x, y) in enumerate(_isolated_positions(shape, rng)):
        if index % 2:
            sources.append(SceneSource("star", x, y, signal_to_noise=ratio))
            continue
        separation = rng.uniform(*_PAIR_SEPARATION_ARCSEC) / PIXEL_SCALE
        angle = rng.uniform(0.0, 2.0 * math.pi)
        dx, dy = 0.5 * separation * math.cos(angle), 0.5 * separation * math.sin(angle)
        for sign in (-1.0, 1.0):
            sources.append(
                SceneSource(
                    "star",
                    x + sign * dx,
                    y + sign * dy,
                    signal_to_noise=ratio,
                    pair=index // 2,
                    separation=separation,
                )
            )
    return sources


def _blank(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw nothing."""
    return []


def _hosts(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw isolated bright galaxies with structure."""
    sources = []
    for x, y in _isolated_positions(shape, rng):
        profile, extent, radius = structured_galaxy(rng)
        flux = flux_of(rng.uniform(*_HOST_MAGNITUDES))
        galaxy = SceneSource(
            "galaxy", x, y, flux=flux, profile=profile, extent=extent, half_light_radius=radius
        )
        sources.append(galaxy)
    return sources


def _companions(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw bright galaxies and faint ones, each with a fainter companion."""
    sources = []
    for turn, (x, y) in enumerate(_isolated_positions(shape, rng)):
        limits, distances = (_HOST_MAGNITUDES, _HOST_DISTANCES) if turn % 2 else (_PAIR_MAGNITUDES, _BLENDS)
        magnitude = rng.uniform(*limits)
        distance, angle = rng.uniform(*distances) / PIXEL_SCALE, rng.uniform(0.0, 2.0 * math.pi)
        fainter = rng.uniform(*_COMPANION_MAGNITUDES) if turn % 2 else magnitude + rng.uniform(0.1, 1.0)
        for each, dx, dy in (
            (magnitude, 0.0, 0.0),
            (fainter, distance * math.cos(angle), distance * math.sin(angle)),
        ):
            profile, extent, radius = draw_galaxy(rng, each)
            galaxy = SceneSource(
                "galaxy",
                x + dx,
                y + dy,
                flux=flux_of(each),
                profile=profile,
                extent=min(extent, 14.0),
                half_light_radius=radius,
            )
            sources.append(galaxy)
    return sources


def _cluster(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw a field with a central galaxy in intracluster light."""
    height, width = shape
    x, y = 0.5 * width, 0.5 * height
    angle, shear = rng.uniform(0.0, 180.0) * galsim.degrees, rng.uniform(0.1, 0.4)
    sources = _field(shape, rng)
    stretch = math.sqrt((1.0 + shear) / (1.0 - shear))
    for kind, magnitude, index, radius, end in (_CENTRAL, _INTRACLUSTER):
        unit = galsim.Sersic(index, half_light_radius=radius, trunc=end, flux_untruncated=False)
        source = SceneSource(
            kind,
            x,
            y,
            flux=flux_of(magnitude),
            profile=unit.shear(g=shear, beta=angle),
            extent=end * stretch,
            half_light_radius=radius,
        )
        sources.append(source)
    return sources


def _nebula(shape: tuple[int, int], rng: np.random.Generator) -> list[SceneSource]:
    """Draw a field behind a nebula that fills the image."""
    height, width = shape
    side = max(shape) + 2 * round(_OUTSIDE)
    light = nebula(side, rng)
    flux = flux_of(_NEBULA_MAGNITUDE) * (side * PIXEL_SCALE) ** 2
    source = SceneSource(
        "diffuse", 0.5 * width, 0.5 * height, flux=flux, profile=light, extent=side / math.sqrt(2.0)
    )
    return [*_field(shape, rng), source]


def _transients(
    shape: tuple[int, int], num_exposures: int, rng: np.random.Generator
) -> Iterator[SceneSource]:
    """Draw a supernova in a quarter of the exposures, an asteroid in one."""
    some = rng.permutation(num_exposures)[: max(1, num_exposures // 4)]
    x, y = _random_position(shape, rng, outside=-_BORDER)
    yield SceneSource("supernova", x, y, flux=flux_of(22.0), exposures=tuple(int(t) for t in some))
    x, y = _random_position(shape, rng, outside=-_BORDER)
    length = 8.0
    line = galsim.Box(length, 0.05).rotate(rng.uniform(0.0, 180.0) * galsim.degrees)
    last = int(rng.integers(num_exposures))
    yield SceneSource(
        "asteroid", x, y, flux=flux_of(21.5), profile=line, extent=length / 2.0, exposures=(last,)
    )


SCENE_KINDS: dict[str, Callable[[tuple[int, int], np.random.Generator], list[SceneSource]]] = {
    "field": _field,
    "stars": _stars,
    "galaxies": _galaxies,
    "pairs": _pairs,
    "blank": _blank,
    "crowded": _crowded,
    "transients": _field,
    "hosts": _hosts,
    "cluster": _cluster,
    "nebula": _nebula,
    "companions": _companions,
}
"""What draws the steady sources of each kind of scene."""


def _draw_magnitudes(
    rng: np.random.Generator, number: int, slope: float, limits: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Draw magnitudes whose counts rise exponentially."""
    low, high = (10.0 ** (slope * limit) for limit in limits)
    return np.log10(rng.uniform(low, high, size=number)) / slope


def _random_position(
    shape: tuple[int, int], rng: np.random.Generator, outside: float = _OUTSIDE
) -> tuple[float, float]:
    """Draw x and y on the image and a rim around it."""
    height, width = shape
    x = rng.uniform(-outside, width - 1.0 + outside)
    return float(x), float(rng.uniform(-outside, height - 1.0 + outside))


def _isolated_positions(shape: tuple[int, int], rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield x and y of a jittered grid, at least 32 pixels apart."""
    height, width = shape
    for y in np.arange(_BORDER, height - _BORDER, _SPACING):
        for x in np.arange(_BORDER, width - _BORDER, _SPACING):
            dx, dy = rng.uniform(-_JITTER, _JITTER, size=2)
            yield float(x + dx), float(y + dy)


def _draw_ratios(
    bins: tuple[tuple[float, float], ...], number: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw signal-to-noise ratios, log-uniform in bins of equal numbers."""
    chosen = np.array(bins)[rng.permutation(number) % len(bins)]
    return np.asarray(np.exp(rng.uniform(np.log(chosen[:, 0]), np.log(chosen[:, 1]))))
