# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures, good and bad, whose faults are known."""

from __future__ import annotations

__all__ = ("FAULTS", "Case", "make_case", "make_night_case")

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import ExposureStack, PixelPositions

type Array = npt.NDArray[np.float64]

FAULTS = ("none", "flux", "shift", "width")
"""What one of the exposures has."""

_SHAPE = (180, 190)
_STAMP = 31
_WING = 26.0
"""Distance in pixels to which a star is drawn."""

_SATURATION = 4000.0
"""Level in sigma of the sky above which pixels are masked."""

_GAIN = 10.0
"""Electrons in one sigma of the sky."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Exposures of one patch with what is wrong with them.

    Attributes
    ----------
    name
        What it is.
    stack
        The exposures.
    target_fwhm
        FWHM of a fitting target PSF in pixels.
    fault
        One of `FAULTS`.
    culprit
        The exposure that has it; -1 if none has.
    truth
        Shape (4, n), true offsets: flux scale, shifts along rows and
        columns in pixels, width of the PSF over the given one; NaN where they
        are not known.
    num_stars
        Number of stars that were drawn, -1 for real ones.
    """

    name: str
    stack: ExposureStack
    target_fwhm: float
    fault: str
    culprit: int
    truth: Array
    num_stars: int


@dataclasses.dataclass(frozen=True)
class _Psf:
    """Two elliptical Gaussians with their shares of the light."""

    shares: tuple[float, float]
    covariances: tuple[Array, Array]

    @classmethod
    def _draw(cls, rng: np.random.Generator, fwhm: float) -> _Psf:
        share = rng.uniform(0.6, 0.9)
        axis, stretch = rng.uniform(0, math.pi), rng.uniform(0.0, 0.1)
        turn = np.array([[math.cos(axis), -math.sin(axis)], [math.sin(axis), math.cos(axis)]])
        core = turn @ np.diag([1.0 + stretch, 1.0 - stretch]) @ turn.T * (fwhm / 2.3548) ** 2
        return cls((share, 1.0 - share), (core, core * rng.uniform(1.7, 2.3) ** 2))

    def _wider(self, error: float) -> _Psf:
        first, second = (c * (1.0 + error) ** 2 for c in self.covariances)
        return _Psf(self.shares, (first, second))

    def _evaluate(self, y: Array, x: Array, size: float = 0.0) -> Array:
        """Return the light of a source of Gaussian size at offsets."""
        total = np.zeros(np.broadcast(y, x).shape)
        for share, covariance in zip(self.shares, self.covariances, strict=True):
            full = covariance + size**2 * np.eye(2)
            inverse = np.linalg.inv(full)
            form = inverse[0, 0] * y**2 + 2.0 * inverse[0, 1] * y * x + inverse[1, 1] * x**2
            total += share * np.exp(-0.5 * form) / (2.0 * math.pi * math.sqrt(np.linalg.det(full)))
        return total

    def _stamp(self) -> Array:
        r = np.arange(_STAMP, dtype=float) - _STAMP // 2
        return self._evaluate(r[:, np.newaxis], r[np.newaxis, :])


@dataclasses.dataclass(frozen=True)
class _Sky:
    """Sources: rows, columns, fluxes, sizes, and whether they vary."""

    places: Array
    fluxes: Array
    sizes: Array
    varies: npt.NDArray[np.bool_]
    num_stars: int

    @classmethod
    def _draw(cls, rng: np.random.Generator) -> _Sky:
        num_stars = round(math.exp(rng.uniform(math.log(3), math.log(90))))
        num_galaxies, num_saturated = int(rng.integers(0, 15)), int(rng.choice([0, 0, 1, 2]))
        faint = 400.0 * (1.0 - rng.random(num_stars)) ** -0.8
        fluxes = np.concatenate(
            [
                np.minimum(faint, 6e4),
                np.exp(rng.uniform(math.log(3e5), math.log(3e6), num_saturated)),
                np.exp(rng.uniform(math.log(1e3), math.log(5e4), num_galaxies)),
            ]
        )
        number = len(fluxes)
        sizes = np.zeros(number)
        if num_galaxies:
            sizes[-num_galaxies:] = rng.uniform(0.8, 4.0, num_galaxies)
        varies = (sizes == 0) & (rng.random(number) < 0.05)
        return cls(rng.random((number, 2)) * _SHAPE, fluxes, sizes, varies, num_stars)


def make_case(fault: str, seed: int) -> Case:
    """Make rotated and dithered exposures on their own pixels.

    Returns
    -------
    case : `Case`
        3 to 12 exposures, one of which has the fault.  PSFs of half of the
        cases are wrong by 0.7 % of the width (standard deviation), flux
        scales by 1 %, positions by 0.05 pixels.
    """
    rng = np.random.default_rng([FAULTS.index(fault), seed])
    number = int(rng.integers(3, 13))
    sky = _Sky._draw(rng)
    truth = np.zeros((4, number))
    truth[0] = rng.normal(0.0, 0.01, number)
    truth[1:3] = rng.normal(0.0, 0.05, (2, number))
    if rng.random() < 0.5:
        truth[3] = rng.normal(0.0, 0.007, number)
    culprit = -1 if fault == "none" else int(rng.integers(number))
    if fault == "flux":
        truth[0, culprit] = rng.choice([-0.5, 1.0])
    elif fault == "shift":
        angle, size = rng.uniform(0, 2 * math.pi), rng.uniform(1.5, 8.0)
        truth[1:3, culprit] = size * math.sin(angle), size * math.cos(angle)
    elif fault == "width":
        truth[3, culprit] = rng.choice([-1, 1]) * rng.uniform(0.05, 0.1)
    seeing = rng.uniform(3.0, 5.0)
    shape = (200, 200)
    images, variances, good = (np.zeros((number, *shape)) for _ in range(3))
    y, x, area = (np.zeros((number, *shape)) for _ in range(3))
    psfs, widths = [], []
    for t in range(number):
        fwhm = seeing * rng.uniform(0.8, 1.35)
        widths.append(fwhm)
        given = _Psf._draw(rng, fwhm)
        psfs.append(given._stamp())
        y[t], x[t], area[t] = _grid(rng, shape)
        light = _render(rng, sky, given._wider(truth[3, t]), truth[1:3, t], y[t], x[t])
        light *= (1.0 + truth[0, t]) * area[t]
        sigma = rng.uniform(0.6, 1.6)
        variance = sigma**2 + np.maximum(light, 0.0) / _GAIN
        rays, flagged = _cosmic_rays(rng, shape, fwhm)
        images[t] = light + rng.normal(size=shape) * np.sqrt(variance) + rays
        images[t] += rng.normal(0.0, 0.1) + rng.normal(0.0, 2e-3) * (y[t] - y[t].mean())
        # As of calibrated images: from the noisy pixels.
        variances[t] = np.maximum(sigma**2 + images[t] / _GAIN, 0.2 * sigma**2)
        good[t] = ~flagged & ~_bleeds(light + rays)
    positions = PixelPositions.from_arrays(_SHAPE, y, x, area)
    stack = ExposureStack.from_arrays(
        images, variances, good.astype(bool), np.stack(psfs), positions=positions
    )
    return Case(
        name=f"{fault}, seed {seed}",
        stack=stack,
        target_fwhm=max(2.5, float(np.median(widths))),
        fault=fault,
        culprit=culprit,
        truth=truth,
        num_stars=sky.num_stars,
    )


def _grid(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Return rows, columns and areas of rotated and dithered pixels."""
    angle, scale = rng.uniform(-0.08, 0.08), rng.uniform(0.97, 1.03)
    center = np.array(_SHAPE) / 2.0 + rng.normal(0.0, 15.0, 2)
    rows, columns = np.mgrid[: shape[0], : shape[1]] - (np.array(shape) / 2.0)[:, np.newaxis, np.newaxis]
    y = center[0] + scale * (math.cos(angle) * rows - math.sin(angle) * columns)
    x = center[1] + scale * (math.sin(angle) * rows + math.cos(angle) * columns)
    return y, x, np.full(shape, scale**2)


def _render(rng: np.random.Generator, sky: _Sky, psf: _Psf, shift: Array, y: Array, x: Array) -> Array:
    light = np.zeros(y.shape)
    for place, flux, size, varies in zip(sky.places, sky.fluxes, sky.sizes, sky.varies, strict=True):
        reach = _WING + 3.0 * size
        dy, dx = y - place[0] - shift[0], x - place[1] - shift[1]
        near = (np.abs(dy) < reach) & (np.abs(dx) < reach)
        factor = 1.0 + 0.3 * rng.normal() if varies else 1.0
        light[near] += max(factor, 0.1) * flux * psf._evaluate(dy[near], dx[near], size)
    return light


def _cosmic_rays(
    rng: np.random.Generator, shape: tuple[int, int], fwhm: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the light of tracks, and the pixels of those that are flagged."""
    rays, flagged = np.zeros(shape), np.zeros(shape, dtype=bool)
    for _ in range(int(rng.integers(0, 25))):
        start, angle = rng.random(2) * shape, rng.uniform(0, 2 * math.pi)
        steps = np.arange(rng.integers(1, 16))[:, np.newaxis]
        track = np.round(start + steps * [math.sin(angle), math.cos(angle)]).astype(int)
        track = track[((track >= 0) & (track < shape)).all(axis=1)]
        here = tuple(track.T)
        rays[here] += math.exp(rng.uniform(math.log(20), math.log(3000)))
        if rng.random() < 0.6:
            flagged[here] = True
    return rays, flagged


def _bleeds(light: Array) -> npt.NDArray[np.bool_]:
    """Return saturated pixels with their neighbours, and their columns."""
    core = light > _SATURATION
    grown = core.copy()
    for axis in (0, 1):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    full = core.sum(axis=0) > 12
    grown[:, full] |= light[:, full] > 50.0
    return grown


def make_night_case(file: Path, fault: str, seed: int) -> Case:
    """Make a case of real exposures of one night."""
    rng = np.random.default_rng(seed)
    with np.load(file) as night:
        arrays = {name: night[name] for name in ("images", "variances", "good", "psfs")}
    number = int(rng.integers(4, 6))
    chosen = rng.choice(len(arrays["images"]), number, replace=False)
    corner = rng.integers(0, arrays["images"].shape[1] - 180 + 1, 2)
    window = (slice(corner[0], corner[0] + 180), slice(corner[1], corner[1] + 180))
    images, variances = (arrays[name][chosen][:, *window].astype(float) for name in ("images", "variances"))
    culprit = -1
    truth = np.full((4, number), np.nan)
    if fault == "flux":
        culprit, factor = int(rng.integers(number)), float(rng.choice([0.5, 2.0]))
        images[culprit] *= factor
        variances[culprit] *= factor**2
    stack = ExposureStack.from_arrays(
        images, variances, arrays["good"][chosen][:, *window], arrays["psfs"][chosen]
    )
    return Case(f"night, {fault}, seed {seed}", stack, 5.0, fault, culprit, truth, -1)
