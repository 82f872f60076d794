# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stars of a patch: where to put them, and what an image says of them."""

from __future__ import annotations

__all__ = ("Stars", "draw_truth", "make_sky", "measure_image", "set_fluxes", "stack_psf_residual")

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import galsim
import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.ndimage import shift

from lsst.astroclearnet.adapters import PatchGeometry
from lsst.astroclearnet.simulation import READ_NOISE

from ..quality.pairs import measure_pairs
from ..quality.product import Product
from ..quality.stars import gaussian_profile
from ..scenes import Scene
from .exposures import Conditions, Sky

type Array = npt.NDArray[np.float64]

SPACING = 22
"""Pixels between stars."""

_JITTER = 3.0
_RADIUS = 8
"""Half-size in pixels of the stamps in which stars are fitted and stacked."""

_MARGIN = 3
_PAIR_SIGNAL_TO_NOISE = (100.0, 1000.0)
PAIR_SEPARATION = (0.42, 0.6)
"""Limits in arcsec of the separation of the pairs."""


@dataclasses.dataclass(frozen=True)
class Stars:
    """Stars with their fluxes.

    Attributes
    ----------
    sky
        Where they are.
    flux
        Fluxes in nJy.
    bound
        Cramer-Rao bound of the flux of each star, as if it were alone.
    """

    sky: Sky
    flux: Array
    bound: Array

    @property
    def signal_to_noise(self) -> Array:
        """Flux over the Cramer-Rao bound, shape (n,)."""
        return self.flux / self.bound


def make_sky(
    geometry: PatchGeometry,
    seed: int,
    signal_to_noise: tuple[float, float],
    *,
    spacing: int = SPACING,
    jitter: float = _JITTER,
    pair_share: float = 0.0,
) -> Sky:
    """Put stars, and pairs of equal ones, on a jittered grid."""
    rng = np.random.default_rng([seed, 7])
    axes = []
    for size in geometry.bbox.shape:
        number = max(1, size // spacing)
        axes.append((np.arange(number) + 0.5) * size / number - 0.5)
    y, x = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    y, x = (c + rng.uniform(-jitter, jitter, c.size) for c in (y, x))
    ratio = np.exp(rng.uniform(*np.log(signal_to_noise), size=y.size))
    chosen = rng.permutation(y.size)[: round(pair_share * y.size)]
    pair = np.full(y.size, -1)
    pair[chosen] = np.arange(len(chosen))
    ratio[chosen] = np.exp(rng.uniform(*np.log(_PAIR_SIGNAL_TO_NOISE), size=len(chosen)))
    half = 0.5 * rng.uniform(*PAIR_SEPARATION, size=len(chosen)) / geometry.pixel_scale
    angle = rng.uniform(0.0, np.pi, size=len(chosen))
    dy, dx = half * np.sin(angle), half * np.cos(angle)
    y = np.concatenate([y, y[chosen] + dy])
    x = np.concatenate([x, x[chosen] + dx])
    y[chosen] -= dy
    x[chosen] -= dx
    both = np.concatenate([pair, pair[chosen]])
    return Sky(geometry, x, y, np.concatenate([ratio, ratio[chosen]]), both)


def set_fluxes(sky: Sky, exposures: Sequence[Conditions], stamps: Sequence[Sequence[galsim.Image]]) -> Stars:
    """Choose fluxes for the wanted signal-to-noise ratios."""
    information = np.zeros(len(sky.x))
    for conditions, drawn in zip(exposures, stamps, strict=True):
        noise = (conditions.sky + READ_NOISE**2) / conditions.per_njy**2
        information += [np.sum(stamp.array**2) / noise for stamp in drawn]
    flux = sky.signal_to_noise / np.sqrt(information)
    exact = np.zeros_like(flux)
    for conditions, drawn in zip(exposures, stamps, strict=True):
        for k, stamp in enumerate(drawn):
            electrons = np.clip(stamp.array, 0.0, None) * conditions.per_njy
            noise = conditions.sky + READ_NOISE**2 + flux[k] * electrons
            exact[k] += np.sum(electrons**2 / noise)
    return Stars(sky, flux, 1.0 / np.sqrt(exact))


def draw_truth(stars: Stars, fwhm: float) -> Array:
    """Draw the stars of a patch at a Gaussian PSF."""
    shape = stars.sky.geometry.bbox.shape
    radius = round(4 * fwhm)
    padded = np.zeros([size + 2 * radius for size in shape])
    for x, y, flux in zip(stars.sky.x, stars.sky.y, stars.flux, strict=True):
        row, column = round(y), round(x)
        stamp = flux * gaussian_profile(x, y, fwhm, radius)
        padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1] += stamp
    return padded[radius:-radius, radius:-radius]


def measure_image(image: npt.NDArray[Any], stars: Stars, fwhm: float) -> dict[str, Any]:
    """Measure the single stars and the pairs of an image.

    All stars are subtracted as they truly are; an error of flux, of position
    and of width is that of a fit of the PSF and its derivatives to what is
    left, flux alone for ``flux`` and all of them together for the others.

    Returns
    -------
    record : `dict`
        ``stars``, rows of signal-to-noise ratio, flux error over flux and
        over the Cramer-Rao bound, shifts along y and x in pixels, relative
        error of the FWHM, and position (y, x); ``pairs``, as of
        the quality benchmark; ``stacks``, sums of what is left around bright
        stars and of their fluxes, for each quarter of the patch.
    """
    truth = draw_truth(stars, fwhm)
    residual = np.asarray(image, dtype=float) - truth
    height, width = residual.shape
    rows: list[list[float]] = []
    stacks = [{"flux": 0.0, "sum": np.zeros((2 * _RADIUS + 1,) * 2)} for _ in range(4)]
    reach = _RADIUS + _MARGIN
    for k in np.flatnonzero(stars.sky.pair < 0):
        x, y, flux = float(stars.sky.x[k]), float(stars.sky.y[k]), float(stars.flux[k])
        row, column = round(y), round(x)
        # The area within which the stamps of the stacks lie.
        if not (reach <= row < height - reach and reach <= column < width - reach):
            continue
        wide = residual[row - reach : row + reach + 1, column - reach : column + reach + 1]
        if not np.isfinite(wide).all():
            continue
        errors = _fit(wide[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN], x, y, flux, fwhm)
        rows.append([float(stars.signal_to_noise[k]), errors[0] / flux, errors[0] / stars.bound[k]])
        rows[-1] += [*errors[1:], y, x]
        if stars.signal_to_noise[k] > 500.0:
            stack = stacks[2 * (y > height / 2) + (x > width / 2)]
            moved = shift(wide, (row - y, column - x), order=3)
            stack["sum"] = stack["sum"] + moved[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
            stack["flux"] = stack["flux"] + flux
    sums = [{"flux": s["flux"], "sum": np.asarray(s["sum"]).tolist()} for s in stacks]
    return {"stars": rows, "pairs": _pairs(image, stars, fwhm), "stacks": sums}


def _fit(residual: Array, x: float, y: float, flux: float, fwhm: float) -> list[float]:
    """Return the errors of flux, y, x and the relative one of the FWHM."""
    profile = gaussian_profile(x, y, fwhm, _RADIUS)
    offset = np.arange(-_RADIUS, _RADIUS + 1)
    dy, dx = (offset + round(c) - c for c in (y, x))
    square = (fwhm / 2.354820045) ** 2
    by_row = profile * dy[:, None] / square
    by_column = profile * dx / square
    by_width = profile * ((dy[:, None] ** 2 + dx**2) / square - 2.0)
    design = np.stack([profile, by_row, by_column, by_width], axis=-1).reshape(-1, 4)
    joint = np.linalg.lstsq(design, residual.ravel(), rcond=None)[0]
    plain = float(np.sum(profile * residual) / np.sum(profile**2))
    return [plain, *(float(c) / (flux + joint[0]) for c in joint[1:])]


def _pairs(image: npt.NDArray[Any], stars: Stars, fwhm: float) -> list[list[float]]:
    sky = stars.sky
    if not (sky.pair >= 0).any():
        return []
    height, width = image.shape
    edge = _RADIUS + _MARGIN
    clean = (sky.y > edge) & (sky.y < height - edge) & (sky.x > edge) & (sky.x < width - edge)
    separation = np.zeros(len(sky.x))
    for number in range(int(sky.pair.max()) + 1):
        first, second = np.flatnonzero(sky.pair == number)
        separation[[first, second]] = np.hypot(sky.x[first] - sky.x[second], sky.y[first] - sky.y[second])
        clean[[first, second]] = clean[first] & clean[second]
    bright = stars.signal_to_noise >= 0.5 * _PAIR_SIGNAL_TO_NOISE[0]
    catalogue = Table(
        {"x": sky.x, "y": sky.y, "pair": sky.pair, "separation": separation, "is_clean": clean & bright}
    )
    # Of the scene, only its catalogue is used.
    scene = cast(Scene, SimpleNamespace(catalogue=catalogue))
    rows: list[list[float]] = measure_pairs(Product("", image, fwhm), scene)["pairs"]
    return rows


def stack_psf_residual(stacks: Sequence[dict[str, Any]], fwhm: float) -> tuple[float, float]:
    """Return how far stacked stars are from the declared PSF."""
    peak = 4.0 * np.log(2.0) / (np.pi * fwhm**2)
    groups = [stacks, *(stacks[k::4] for k in range(4))]
    values = []
    for group in groups:
        flux = sum(s["flux"] for s in group)
        total = np.sum([s["sum"] for s in group], axis=0)
        values.append(float(np.abs(total).max() / flux / peak) if flux > 0 else float("nan"))
    return values[0], max((v for v in values[1:] if np.isfinite(v)), default=float("nan"))
