# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sources that are injected, and how much of their light comes back."""

from __future__ import annotations

__all__ = ("measure_injections", "plan_injections", "plan_knots")

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma
from scipy.ndimage import gaussian_filter

from ..quality.product import Product
from ..scenes import Scene, SceneSource, draw_sources
from .halos import bright_galaxies
from .recipes import STRUCTURE_RADIUS, lensed_arc, real_galaxies

type Array = npt.NDArray[np.float64]

_SPACING = 34.0
_BORDER = 18.5
"""Distances of injections from each other and from the border, in pixels: that
of the largest stamp, the jitter and a rounding."""

_JITTER = 1.0
_STAR_RADIUS = 6
"""Half-size in pixels of the stamp of a star or knot."""

_STRUCTURE_MARGIN = 3
_COARSE_FWHM = 10.0
"""FWHM in pixels of what is not structure."""

_FAINT_RATIOS = (1.0, 2.0, 3.0, 4.0, 5.0)
_STAR_BINS = {"5-20": (5.0, 20.0), "20-100": (20.0, 100.0), "above 100": (100.0, 1000.0)}
_STRUCTURE_RATIOS = (50.0, 300.0)
_KNOT_RATIOS = (10.0, 20.0)
_KNOT_RADII = (0.5, 1.5)
"""Distances of knots from the centre in half-light radii."""


def plan_injections(scene: Scene, real: Path | None, seed: int) -> list[SceneSource]:
    """Choose sources for the free places of a blank scene.

    Parameters
    ----------
    scene
        The scene.
    real
        Image of real galaxies, or `None` to do without.
    seed
        Seed of the choice.

    Returns
    -------
    sources : `list` [`SceneSource`]
        Stars of signal-to-noise ratios 1 to 5 (``response N``) and in three
        bins (``star BIN``), arcs (``arc``) and galaxies (``real``) on a
        jittered grid, at least 32 pixels apart, about as many of each; none
        within 10 pixels of an artefact or of missing exposures.
    """
    rng = np.random.default_rng([seed, 0])
    makers = [
        *("faint",) * 2,
        *(f"star {name}" for name in _STAR_BINS),
        "arc",
        *(() if real is None else ("real",)),
    ]
    places = list(_places(scene, rng))
    order = rng.permutation(len(places))
    sources = []
    for turn, index in enumerate(order):
        maker = makers[turn % len(makers)]
        x, y = places[index]
        if maker == "faint":
            ratio = float(rng.choice(_FAINT_RATIOS))
            sources.append(SceneSource(f"response {ratio:g}", x, y, signal_to_noise=ratio))
            continue
        limits = _STAR_BINS.get(maker.removeprefix("star "), _STRUCTURE_RATIOS)
        ratio = float(np.exp(rng.uniform(*np.log(limits))))
        profile = None
        if maker == "arc":
            profile = lensed_arc(rng)
        elif maker == "real" and real is not None:
            profile = real_galaxies(real, rng)
        extent = 0.0 if profile is None else float(STRUCTURE_RADIUS)
        source = SceneSource(maker, x, y, signal_to_noise=ratio, profile=profile, extent=extent)
        sources.append(source)
    return sources


def plan_knots(scene: Scene, seed: int) -> list[SceneSource]:
    """Choose a knot for each bright galaxy of a scene.

    Parameters
    ----------
    scene
        The scene.
    seed
        Seed of the choice.

    Returns
    -------
    sources : `list` [`SceneSource`]
        Points of a signal-to-noise ratio of 10 or 20 in turn (``knot 10``,
        ``knot 20``), 0.5 to 1.5 half-light radii from the centre.
    """
    rng = np.random.default_rng([seed, 1])
    sources: list[SceneSource] = []
    clean = scene.catalogue["is_clean"]
    for index in bright_galaxies(scene):
        galaxy = scene.catalogue[index]
        distance = rng.uniform(*_KNOT_RADII) * float(galaxy["half_light_radius"])
        angle = rng.uniform(0.0, 2.0 * math.pi)
        if not clean[index]:
            continue
        ratio = _KNOT_RATIOS[len(sources) % len(_KNOT_RATIOS)]
        x = float(galaxy["x"]) + distance * math.cos(angle)
        y = float(galaxy["y"]) + distance * math.sin(angle)
        sources.append(SceneSource(f"knot {ratio:g}", x, y, signal_to_noise=ratio))
    return sources


def _places(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return x and y of the clean places of a jittered grid."""
    height, width = scene.options.shape
    places = []
    for y in np.arange(_BORDER, height - _BORDER, _SPACING):
        for x in np.arange(_BORDER, width - _BORDER, _SPACING):
            dx, dy = rng.uniform(-_JITTER, _JITTER, size=2)
            if scene.clean[round(y + dy), round(x + dx)]:
                places.append((float(x + dx), float(y + dy)))
    return places


def measure_injections(
    without: Product, with_sources: Product, sources: Sequence[SceneSource]
) -> dict[str, list[float]]:
    """Measure the flux of injected sources in a pair of images.

    The flux is that of a least-squares fit of the source as it truly is, at
    the declared PSF, to the difference of the two images.  What is fitted of
    ``real`` galaxies is their structure: they and the difference are taken
    less what a Gaussian with a FWHM of 10 pixels leaves of them.

    Parameters
    ----------
    without, with_sources
        What a method made of the same exposures without and with the sources.
    sources
        The sources with their fluxes.

    Returns
    -------
    record : `dict` [`str`, `list` [`float`]]
        Fitted over true flux of each source that lies on data in both, by
        kind.
    """
    difference = np.asarray(with_sources.image, dtype=float) - np.asarray(without.image, dtype=float)
    record: dict[str, list[float]] = {}
    for source in sources:
        is_extended = source.profile is not None
        half = STRUCTURE_RADIUS + _STRUCTURE_MARGIN if is_extended else _STAR_RADIUS
        window = tuple(slice(round(c) - half, round(c) + half + 1) for c in (source.y, source.x))
        if min(window[0].start, window[1].start) < 0:
            continue
        stamp = difference[window]
        template = draw_sources([source], difference.shape, with_sources.fwhm)[window]
        if stamp.shape != (2 * half + 1,) * 2 or not np.isfinite(stamp).all():
            continue
        if source.kind == "real":
            stamp, template = _structure(stamp), _structure(template)
        ratio = float(np.sum(template * stamp) / np.sum(template**2))
        record.setdefault(source.kind, []).append(ratio)
    return record


def _structure(image: Array) -> Array:
    """Return an image less its smooth part."""
    sigma = _COARSE_FWHM * gaussian_fwhm_to_sigma
    return np.asarray(image - gaussian_filter(image, sigma, mode="constant"))
