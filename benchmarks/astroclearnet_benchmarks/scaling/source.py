# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of any size that are made when they are read."""

from __future__ import annotations

__all__ = ("SyntheticSource", "star_catalogue")

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from lsst.astroclearnet.core import (
    ExposureCutouts,
    ExposureStack,
    PixelPositions,
    fwhm_to_sigma,
    gaussian_kernel,
)
from lsst.astroclearnet.core.noise import white_noise

_FWHMS = (3.2, 5.2)
"""Range of seeing in pixels."""

_GROWTH = 0.05
"""Relative growth of the PSF from one side of the patch to the other."""

_PSF_SIZE = 33
_PSF_SPACING = 50
_DENSITY = 1.0 / 900.0
"""Stars in a pixel."""

_FLUXES = (30.0, 1e4)
_BLOCK = 256
_STAMP = 14


def star_catalogue(shape: tuple[int, int], rows: slice, columns: slice, seed: int) -> np.ndarray:
    """Return the stars around a region of a patch, which follow the place."""
    found = [np.zeros((0, 3))]
    first, last = (
        [(edge + sign * _STAMP) // _BLOCK for edge in edges]
        for edges, sign in (((rows.start, columns.start), -1), ((rows.stop, columns.stop), 1))
    )
    for i in range(max(first[0], 0), last[0] + 1):
        for j in range(max(first[1], 0), last[1] + 1):
            rng = np.random.default_rng([seed, i, j])
            number = rng.poisson(_DENSITY * _BLOCK**2)
            place = (np.array([i, j]) + rng.random((number, 2))) * _BLOCK
            flux = np.exp(rng.uniform(*np.log(_FLUXES), size=number))
            found.append(np.column_stack([place, flux]))
    stars = np.concatenate(found)
    inside = (stars[:, 0] < shape[0]) & (stars[:, 1] < shape[1])
    return stars[inside]


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """Rotated, dithered exposures of stars that cover a patch.

    Nothing is kept: an exposure is made where it is asked for, and is the
    same whatever part of it that is.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    num_exposures
        Number of exposures.
    seed
        Which sky and noise.
    threads
        Number of threads that make exposures.
    """

    shape: tuple[int, int]
    num_exposures: int
    seed: int = 1
    threads: int = 1

    resident_bytes = 0

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        """Return the shape of the exposures in a region."""
        sizes = [self._frame(t, rows, columns)[1] for t in range(self.num_exposures)]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        return self.num_exposures, height, width

    def read(self, rows: slice, columns: slice) -> ExposureCutouts:
        """Return the exposures in a region."""
        stars = star_catalogue(self.shape, rows, columns, self.seed)
        region = (rows.stop - rows.start, columns.stop - columns.start)
        frames = [self._frame(t, rows, columns) for t in range(self.num_exposures)]
        size = [max(frame[1][axis] for frame in frames) for axis in (0, 1)]
        shape = (self.num_exposures, *size)
        images, y, x = np.empty(shape, dtype=np.float32), np.empty(shape), np.empty(shape)

        def make(t: int) -> None:
            origin, _, angle, shift = frames[t]
            grid = np.meshgrid(*(o + np.arange(s) for o, s in zip(origin, size, strict=True)), indexing="ij")
            y[t], x[t] = _turn(grid[0], grid[1], angle, shift)
            images[t] = white_noise(self.seed, 1 << 20, t, _positive(origin), (size[0], size[1]))
            self._add_stars(images[t], t, stars, origin, angle, shift)
            y[t] -= rows.start
            x[t] -= columns.start

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(make, range(self.num_exposures)))
        positions = PixelPositions.from_arrays(region, y, x, np.ones(shape, dtype=np.float32))
        return ExposureCutouts(
            exposures=torch.arange(self.num_exposures),
            stack=ExposureStack.from_arrays(
                images,
                np.ones(shape, dtype=np.float32),
                np.ones(shape, dtype=bool),
                self._psfs(rows, columns),
                positions=positions,
            ),
            origins=tuple(_positive(frame[0]) for frame in frames),
        )

    def fwhm(self, exposure: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the seeing of an exposure."""
        rank = ((exposure * 0.618034) % 1.0) ** 1.5
        sign = 1.0 if exposure % 2 else -1.0
        place = (y / self.shape[0] if exposure % 3 else x / self.shape[1]) - 0.5
        return (_FWHMS[0] + rank * (_FWHMS[1] - _FWHMS[0])) * (1.0 + sign * _GROWTH * place)

    def _frame(
        self, exposure: int, rows: slice, columns: slice
    ) -> tuple[tuple[int, int], tuple[int, int], float, tuple[float, float]]:
        """Return origin and size of pixels around a region, and their map."""
        rng = np.random.default_rng([self.seed, exposure])
        angle = math.radians(rng.uniform(-4.0, 4.0))
        dither = rng.uniform(-30.0, 30.0, 2)
        shift = (0.5 * self.shape[0] + dither[0], 0.5 * self.shape[1] + dither[1])
        corners = np.array([(y, x) for y in (rows.start, rows.stop) for x in (columns.start, columns.stop)])
        v, u = _turn_back(corners[:, 0], corners[:, 1], angle, shift)
        origin = (math.floor(v.min()), math.floor(u.min()))
        size = (math.ceil(v.max()) - origin[0] + 1, math.ceil(u.max()) - origin[1] + 1)
        return origin, size, angle, shift

    def _add_stars(
        self,
        image: np.ndarray,
        exposure: int,
        stars: np.ndarray,
        origin: tuple[int, int],
        angle: float,
        shift: tuple[float, float],
    ) -> None:
        v, u = _turn_back(stars[:, 0], stars[:, 1], angle, shift)
        sigma = fwhm_to_sigma(1.0) * self.fwhm(exposure, stars[:, 0], stars[:, 1])
        for row, column, s, flux in zip(v - origin[0], u - origin[1], sigma, stars[:, 2], strict=True):
            spans = [
                slice(max(round(c) - _STAMP, 0), min(round(c) + _STAMP + 1, n))
                for c, n in ((row, image.shape[0]), (column, image.shape[1]))
            ]
            if any(span.start >= span.stop for span in spans):
                continue
            profiles = [
                np.exp(-0.5 * ((np.arange(span.start, span.stop) - c) / s) ** 2)
                for span, c in zip(spans, (row, column), strict=True)
            ]
            image[spans[0], spans[1]] += np.outer(*profiles) * (flux / (2.0 * math.pi * s**2))

    def _psfs(self, rows: slice, columns: slice) -> np.ndarray:
        """Return PSFs in the middles of cells, (n, cells_y, cells_x, P, P)."""
        middles = []
        for region in (rows, columns):
            length = region.stop - region.start
            number = max(1, round(length / _PSF_SPACING))
            middles.append(region.start + (np.arange(number) + 0.5) * length / number)
        y, x = np.meshgrid(*middles, indexing="ij")
        return np.stack(
            [
                np.stack([[gaussian_kernel(f, _PSF_SIZE) for f in line] for line in self.fwhm(t, y, x)])
                for t in range(self.num_exposures)
            ]
        )


def _turn(
    v: np.ndarray, u: np.ndarray, angle: float, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    c, s = math.cos(angle), math.sin(angle)
    return c * v - s * u + shift[0], s * v + c * u + shift[1]


def _turn_back(
    y: np.ndarray, x: np.ndarray, angle: float, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    c, s = math.cos(angle), math.sin(angle)
    y, x = y - shift[0], x - shift[1]
    return c * y + s * x, -s * y + c * x


def _positive(origin: tuple[int, int]) -> tuple[int, int]:
    """Return the same place counted from where all are positive."""
    return origin[0] + (1 << 16), origin[1] + (1 << 16)
