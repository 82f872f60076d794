# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a training scene shows, and how it is observed."""

from __future__ import annotations

__all__ = ("TrainingRecipe", "draw_band_recipes", "draw_recipe")

import dataclasses
import math
from typing import Any

import numpy as np

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, BANDS, EXPOSURE_TIME, PIXEL_SCALE

SHAPE = (256, 256)
"""Height and width of the patch in pixels."""

FRAME_SHAPE = (280, 280)
"""Height and width of exposures on their own pixels."""

_FWHM_LIMITS = (2.2, 9.0)
_MEDIAN_FWHM = (2.5, 4.0, 7.5)
"""Least, most frequent and largest median of the seeing in pixels."""

_BAND_EXPOSURES = (3, 14)
NUM_BANDS = (2, 5)
"""Fewest and most exposures of a band, and bands of a scene."""

_BAND_SEEING = 0.15
"""Standard deviation of the logarithm of the median seeing of a band."""

_TARGET_LIMITS = (2.5, 5.0)
_TARGET_OVER_MEDIAN = (0.55, 1.3)
_TARGET_OVER_SHARPEST = (0.75, 2.5)


@dataclasses.dataclass(frozen=True)
class ExposureRecipe:
    """Conditions of an exposure.

    Attributes
    ----------
    fwhm
        FWHM of the PSF in pixels, pixel included.
    beta
        Exponent of its Moffat profile.
    ellipticity
        Its reduced shear, g1 and g2.
    gradient
        Relative change of the FWHM along x and y, and change of g1 and g2,
        from the middle of the patch to its edges; zeros for a constant PSF.
    width_error
        FWHM of the PSF that is given, relative to the true one, minus 1.
    ellipticity_error
        Its reduced shear minus the true one.
    per_njy, sky
        Electrons per nJy, and of the sky per pixel.
    angle, scale, shift
        Rotation in radians, pixel side in pixels of the patch, and offset
        along x and y from the middle of the patch, for an exposure on its own
        pixels.
    has_trail
        Whether a satellite crosses.
    edges
        Chip edges and gaps: direction in radians, distance from the middle in
        pixels, and width in pixels (infinite for an edge).
    noisy_part
        Direction and distance of the line beyond which the noise is higher,
        and the variance added there, relative to that of the sky; 0 for even
        noise.
    """

    fwhm: float
    beta: float
    ellipticity: tuple[float, float]
    gradient: tuple[float, float, float]
    width_error: float
    ellipticity_error: tuple[float, float]
    per_njy: float
    sky: float
    angle: float
    scale: float
    shift: tuple[float, float]
    has_trail: bool
    edges: tuple[tuple[float, float, float], ...]
    noisy_part: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class TrainingRecipe:
    """Everything that was drawn of a training scene but its pixels.

    Attributes
    ----------
    seed
        Seed of the scene.
    target_fwhm
        FWHM of the target PSF in pixels.
    is_dithered
        Whether exposures are on their own pixels; else they share those of
        the patch.
    stamp_size
        Side of the PSF stamps in pixels.
    cells
        Cells along a side of the patch that PSFs are given for.
    has_long_wings
        Whether the true PSFs reach beyond their stamps.
    cosmic_rays
        Mean number of cosmic rays per 100 000 pixels.
    flagged_fraction
        Share of them that is flagged.
    bad_columns
        Bad columns of each exposure.
    holes
        Sides in pixels of squares masked in all exposures.
    masked_cores
        Radius in pixels within which bright stars are masked in all
        exposures; 0 for none.
    exposures
        Conditions of the exposures.
    sky
        Densities, numbers and brightnesses of what is in the sky.
    """

    seed: int
    target_fwhm: float
    is_dithered: bool
    stamp_size: int
    cells: int
    has_long_wings: bool
    cosmic_rays: float
    flagged_fraction: float
    bad_columns: int
    holes: tuple[int, ...]
    masked_cores: float
    exposures: tuple[ExposureRecipe, ...]
    sky: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe in types of JSON (`dict`)."""
        return dataclasses.asdict(self)


def draw_recipe(seed: int) -> TrainingRecipe:
    """Draw what a training scene shows, and how it is observed.

    Parameters
    ----------
    seed
        Seed; the same one gives the same recipe.

    Returns
    -------
    recipe : `TrainingRecipe`
        The recipe.

    Notes
    -----
    One scene in thirty has a single exposure, one has 41 to 64, the others 2
    to 40, log-uniform.  The seeing has a median of 2.5 to 7.5 pixels, and
    varies by 3 to 25 % within a scene, within 2.2 and 9 pixels.  The noise of
    exposures differs by a factor of three in variance at most, exposure
    times between scenes by 25.  The target FWHM is 0.55 to 1.3 times the
    median and 0.75 to 2.5 times the sharpest seeing, and 2.5 to 5 pixels, or
    more where the seeing is worse than that.  Half of the scenes are
    dithered, a third have PSFs that vary over the patch, a third PSFs that
    are given with errors of 0.3 to 2 % of the width, a quarter PSFs that
    reach beyond their stamps.  In one scene in six each exposure has a side
    with 2 to 30 times the variance of the rest, half of the time the same
    side of all.
    """
    rng = np.random.default_rng([seed, 0])
    number = _draw_number(rng)
    fwhm = _draw_seeing(rng, number)
    is_dithered = bool(rng.random() < 0.5)
    exposures = _add_noisy_parts(_draw_exposures(rng, fwhm, is_dithered=is_dithered), seed)
    varies = any(e.gradient != (0.0, 0.0, 0.0) for e in exposures)
    has_long_wings = bool(rng.random() < 0.25)
    holes = rng.integers(3, 16, int(rng.integers(1, 5))) if rng.random() < 0.6 else ()
    # Stamps hold 3.3 times the FWHM on each side, as in surveys.
    half = math.ceil(3.3 * float(fwhm.max()))
    return TrainingRecipe(
        seed=seed,
        target_fwhm=_draw_target(rng, fwhm),
        is_dithered=is_dithered,
        stamp_size=2 * min(max(half, 16), 30) + 1,
        cells=int(rng.integers(2, 6)) if varies else 1,
        has_long_wings=has_long_wings,
        cosmic_rays=log_uniform(rng, 1.0, 30.0),
        flagged_fraction=float(rng.uniform(0.5, 1.0)),
        bad_columns=int(rng.poisson(1.0)),
        holes=tuple(int(side) for side in holes),
        masked_cores=float(rng.uniform(1.5, 7.0)) if rng.random() < 0.25 else 0.0,
        exposures=exposures,
        sky=_draw_sky(rng),
    )


def draw_band_recipes(seed: int, number: int | None = None) -> list[TrainingRecipe]:
    """Draw what a training scene shows in several bands.

    Parameters
    ----------
    seed
        Seed; the same one gives the same recipes.
    number
        Number of bands; by default two to five.

    Returns
    -------
    recipes : `list` [`TrainingRecipe`]
        A recipe for each band, of the same sky and target PSF.

    Notes
    -----
    Each band has 3 to 14 exposures, exposure times of its own, which differ
    by up to 25, and a median seeing that differs from that of the scene by
    15 %, but so that the target PSF is as of `draw_recipe` for each of them.
    """
    rng = np.random.default_rng([seed, 4])
    scene = draw_recipe(seed)
    number = number if number is not None else int(rng.integers(NUM_BANDS[0], NUM_BANDS[1] + 1))
    median = math.exp(rng.triangular(*np.log(_MEDIAN_FWHM)))
    recipes = []
    for _ in range(number):
        wanted = median * math.exp(_BAND_SEEING * rng.normal())
        fwhm = _draw_seeing(rng, int(log_uniform(rng, _BAND_EXPOSURES[0], _BAND_EXPOSURES[1] + 1)))
        fwhm = np.clip(fwhm * (wanted / np.median(fwhm)), *_FWHM_LIMITS)
        exposures = _draw_exposures(rng, fwhm, is_dithered=scene.is_dithered)
        varies = any(e.gradient != (0.0, 0.0, 0.0) for e in exposures)
        half = min(max(math.ceil(3.3 * float(fwhm.max())), 16), 30)
        recipes.append(
            dataclasses.replace(
                scene,
                stamp_size=2 * half + 1,
                cells=int(rng.integers(2, 6)) if varies else 1,
                exposures=exposures,
            )
        )
    limits = np.array([_target_limits(np.array([e.fwhm for e in r.exposures])) for r in recipes])
    low = float(limits[:, 0].max())
    target = log_uniform(rng, low, max(low, float(limits[:, 1].min())))
    return [dataclasses.replace(recipe, target_fwhm=target) for recipe in recipes]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform.

    Parameters
    ----------
    rng
        Random numbers.
    low, high
        Limits.

    Returns
    -------
    number : `float`
        The number.
    """
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _draw_number(rng: np.random.Generator) -> int:
    """Draw the number of exposures."""
    kind = rng.random()
    if kind < 1.0 / 30.0:
        return 1
    if kind < 2.0 / 30.0:
        return int(rng.integers(41, 65))
    return int(log_uniform(rng, 2.0, 41.0))


def _draw_seeing(rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw the FWHM of the PSFs in pixels, shape (n,)."""
    median = math.exp(rng.triangular(*np.log(_MEDIAN_FWHM)))
    fwhm = median * np.exp(rng.uniform(0.03, 0.25) * rng.normal(size=number))
    if rng.random() < 0.2:
        fwhm[int(rng.integers(number))] *= rng.uniform(1.3, 2.0)
    return np.clip(fwhm, *_FWHM_LIMITS)


def _draw_target(rng: np.random.Generator, fwhm: np.ndarray) -> float:
    """Draw the FWHM of the target in pixels."""
    low, high = _target_limits(fwhm)
    return log_uniform(rng, low, max(low, high))


def _target_limits(fwhm: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest FWHM of the target in pixels."""
    limits = np.array(
        [
            _TARGET_LIMITS,
            np.multiply(_TARGET_OVER_MEDIAN, np.median(fwhm)),
            np.multiply(_TARGET_OVER_SHARPEST, fwhm.min()),
        ]
    )
    return float(limits[:, 0].max()), float(limits[:, 1].min())


def _draw_exposures(
    rng: np.random.Generator, fwhm: np.ndarray, *, is_dithered: bool
) -> tuple[ExposureRecipe, ...]:
    """Draw the conditions of all exposures."""
    # The properties of the scene, then those of each exposure.
    beta, time = rng.uniform(2.5, 4.8), EXPOSURE_TIME * log_uniform(rng, 0.2, 5.0)
    roundness = rng.uniform(0.005, 0.05)
    clouds, moon = rng.uniform(0.0, 0.25), rng.uniform(0.02, 0.3)
    gradient = rng.uniform(0.005, 0.03) if rng.random() < 0.35 else 0.0
    error = log_uniform(rng, 0.003, 0.01) if rng.random() < 0.35 else 0.0
    common_error = rng.normal(0.0, error) if rng.random() < 0.3 else 0.0
    turn, any_turn, dither = rng.uniform(0.0, 0.1), rng.random() < 0.3, rng.uniform(0.5, 12.0)
    stretch = rng.uniform(0.0, 0.015)
    trails, edge, gap = rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.25), rng.uniform(0.0, 0.25)
    exposures = []
    for width in fwhm:
        zero_point = BANDS["i"].zero_point + 2.5 * math.log10(math.exp(-clouds * rng.random()))
        sky = PIXEL_SCALE**2 * 10.0 ** (-0.4 * (BANDS["i"].sky_brightness - BANDS["i"].zero_point))
        angle = rng.uniform(0.0, 2.0 * math.pi) if any_turn else rng.choice(4) * math.pi / 2.0
        edges = [
            (float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(-60.0, 110.0)), extent)
            for extent, share in ((math.inf, edge), (float(rng.uniform(8.0, 25.0)), gap))
            if rng.random() < share
        ]
        exposures.append(
            ExposureRecipe(
                fwhm=float(width),
                beta=float(np.clip(beta + rng.normal(0.0, 0.2), 2.4, 5.0)),
                ellipticity=_pair(rng, roundness),
                gradient=(*_pair(rng, gradient), float(rng.normal(0.0, gradient))),
                width_error=float(np.clip(common_error + rng.normal(0.0, error), -0.02, 0.02)),
                ellipticity_error=_pair(rng, 0.4 * error),
                per_njy=time * 10.0 ** (0.4 * (zero_point - AB_ZERO_POINT_NJY)),
                sky=time * sky * math.exp(rng.uniform(-moon, moon)),
                angle=float(angle + turn * rng.normal()) if is_dithered else 0.0,
                scale=float(1.0 + rng.uniform(-stretch, stretch)) if is_dithered else 1.0,
                shift=_pair(rng, dither) if is_dithered else (0.0, 0.0),
                has_trail=bool(rng.random() < trails),
                edges=tuple(edges) if len(fwhm) > 1 else (),
            )
        )
    return tuple(exposures)


def _add_noisy_parts(exposures: tuple[ExposureRecipe, ...], seed: int) -> tuple[ExposureRecipe, ...]:
    """Draw noise that differs within exposures, such as of amplifiers."""
    rng = np.random.default_rng([seed, 2])
    if rng.random() > 1.0 / 6.0:
        return exposures
    is_common, parts = rng.random() < 0.5, []
    for _ in exposures:
        line = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(-60.0, 60.0))
        parts.append((*line, log_uniform(rng, 2.0, 30.0) - 1.0))
    return tuple(
        dataclasses.replace(exposure, noisy_part=parts[0] if is_common else part)
        for exposure, part in zip(exposures, parts, strict=True)
    )


def _pair(rng: np.random.Generator, scatter: float) -> tuple[float, float]:
    """Draw two normal numbers."""
    first, second = rng.normal(0.0, 1.0, 2) * scatter
    return float(first), float(second)


def _draw_sky(rng: np.random.Generator) -> dict[str, float]:
    """Draw what is in the sky.

    Densities are per square arcmin to i = 25, levels in sigma of the noise in
    a pixel of all exposures together.  One sky in twenty is blank, one in ten
    crowded with stars.
    """

    def some(share: float, low: int, high: int) -> int:
        number = int(rng.integers(low, high + 1))
        return number if rng.random() < share else 0

    def strength(share: float, low: float, high: float) -> float:
        value = log_uniform(rng, low, high)
        return value if rng.random() < share else 0.0

    sky = {
        "galaxies": 35.0 * log_uniform(rng, 0.3, 2.5),
        "stars": 4.0 * log_uniform(rng, 0.3, 10.0),
        "knotted_share": rng.uniform(0.0, 0.6),
        "bright_stars": some(0.5, 1, 3),
        "faint_stars": some(0.6, 10, 100),
        "pairs": some(0.3, 2, 12),
        "cluster_stars": some(0.06, 200, 2500),
        "spirals": some(0.35, 1, 4),
        "large_spirals": some(0.12, 1, 1),
        "edge_on": some(0.25, 1, 3),
        "large_edge_on": some(0.06, 1, 1),
        "clumpy": some(0.35, 1, 6),
        "mergers": some(0.25, 1, 2),
        "arcs": some(0.25, 1, 3),
        "intracluster": some(0.12, 1, 1),
        "nebula_sigma": strength(0.15, 1.0, 100.0),
        "gradient_sigma": strength(0.2, 0.3, 30.0),
    }
    kind = rng.random()
    if kind < 0.05:
        return dict.fromkeys(sky, 0.0)
    if kind < 0.15:
        sky["stars"] = 350.0 * log_uniform(rng, 0.5, 8.0)
    return sky
