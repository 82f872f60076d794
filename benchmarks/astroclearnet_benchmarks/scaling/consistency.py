# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether tiles and patches that overlap agree."""

from __future__ import annotations

__all__ = ("DISTANCES", "distance_to_borders", "measure_patches", "measure_seams")

import math
from collections.abc import Collection

import numpy as np

from lsst.astroclearnet.core import (
    ExposureCutouts,
    FitOptions,
    NoiseOptions,
    RestoreOptions,
    TilingOptions,
    fwhm_to_sigma,
    plan_memory,
    restore_exposures,
)

from ..record import Table
from .run import TARGET
from .source import SyntheticSource, star_catalogue

DISTANCES = ((0, 6), (6, 24), (24, 48), (48, 10000))
"""Limits in pixels of the distances from borders of tiles."""

_SKY = 0.05
"""Light, in sigma of the linear image, below which a pixel is blank."""


def measure_seams(*, quick: bool, device: str) -> list[Table]:
    """Compare errors at the borders of tiles with those inside."""
    size, exposures, side = (200, 4, 170) if quick else (520, 8, 330)
    source = SyntheticSource((size, size), exposures, seed=3)
    options = _options(quick, side)
    grid = plan_memory(source, options, device=device).grid
    result = restore_exposures(source, target_fwhm=TARGET, options=options, device=device)
    truth = render(source, slice(0, size), slice(0, size))
    sigma = np.sqrt(np.median(result.linear_variance))
    distance = distance_to_borders(
        grid.shape,
        {tile.inner_rows.start for tile in grid.tiles} - {0},
        {tile.inner_columns.start for tile in grid.tiles} - {0},
    )
    edge = np.minimum.outer(*(np.minimum(np.arange(size), size - 1 - np.arange(size)),) * 2)
    rows = []
    for name in ("image", "linear_image"):
        error = getattr(result, name) - truth
        noise = getattr(result, "noise_realizations" if name == "image" else "linear_noise_realizations")[0]
        variance = getattr(result, "variance" if name == "image" else "linear_variance")
        for low, high in DISTANCES:
            there = (distance >= low) & (distance < high) & (edge > 24)
            blank = there & (truth < _SKY * sigma)
            source_pixels = there & (truth > 3.0 * sigma)
            if not (blank.any() and source_pixels.any()):
                continue
            rows.append(
                {
                    "product": name,
                    "distance (pixels)": f"{low} to {high}" if high < size else f"beyond {low}",
                    "pixels": str(int(there.sum())),
                    "rms error on blank sky": f"{np.std(error[blank]) / sigma:.3f}",
                    "mean": f"{np.mean(error[blank]) / sigma:+.3f}",
                    "rms error on sources": f"{np.std(error[source_pixels]) / sigma:.2f}",
                    "error / declared": f"{np.sqrt(np.mean(error[blank] ** 2 / variance[blank])):.3f}",
                    "realisation / declared": f"{np.sqrt(np.mean(noise[there] ** 2 / variance[there])):.3f}",
                }
            )
    legend = (
        f"A patch of {size}x{size} pixels and {exposures} exposures in {len(grid.tiles)} tiles, against the "
        "truth, by the distance from the border between tiles, in units of the median sigma of the linear "
        "image. Errors at seams must not be above those inside."
    )
    return [Table("Seams between tiles", legend, rows)]


def measure_patches(*, quick: bool, device: str) -> list[Table]:
    """Compare two patches with fits of their own where they overlap."""
    size, exposures, overlap = (128, 4, 60) if quick else (300, 8, 100)
    whole = SyntheticSource((size, 2 * size - overlap), exposures, seed=5)
    options = _options(quick, 1024)
    left, right = (
        restore_exposures(
            _Window(whole, slice(0, size), slice(start, start + size)),
            target_fwhm=TARGET,
            options=options,
            device=device,
            seed=start,
        )
        for start in (0, size - overlap)
    )
    rows = []
    margin = 20
    for name, variance in (("image", "variance"), ("linear_image", "linear_variance")):
        one = getattr(left, name)[margin:-margin, size - overlap + margin : size - margin]
        two = getattr(right, name)[margin:-margin, margin : overlap - margin]
        sigma = np.sqrt(
            np.maximum(
                getattr(left, variance)[margin:-margin, size - overlap + margin : size - margin],
                getattr(right, variance)[margin:-margin, margin : overlap - margin],
            )
        )
        pull = (one - two) / sigma
        rows.append(
            {
                "product": name,
                "pixels": str(pull.size),
                "rms difference / sigma": f"{np.sqrt(np.mean(pull**2)):.3f}",
                "mean": f"{np.mean(pull):+.3f}",
                "beyond 3 sigma (%)": f"{100.0 * np.mean(np.abs(pull) > 3.0):.3f}",
            }
        )
    legend = (
        f"Two patches of {size}x{size} pixels that share {overlap} columns, each with its own network, seed "
        f"and calibration, {margin} pixels and more from their edges. They are made from the same pixels, so "
        "that they should agree to better than their declared errors."
    )
    return [Table("Overlap of two patches", legend, rows)]


class _Window:
    """A part of a larger source as a source of its own.

    Parameters
    ----------
    source
        The larger one.
    rows, columns
        The part.
    """

    resident_bytes = 0

    def __init__(self, source: SyntheticSource, rows: slice, columns: slice) -> None:
        self._source = source
        self._start = rows.start, columns.start
        self.shape = (rows.stop - rows.start, columns.stop - columns.start)
        self.num_exposures = source.num_exposures

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        return self._source.extent(*self._within(rows, columns))

    def read(self, rows: slice, columns: slice) -> ExposureCutouts:
        return self._source.read(*self._within(rows, columns))

    def _within(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        y, x = self._start
        return slice(rows.start + y, rows.stop + y), slice(columns.start + x, columns.stop + x)


def render(source: SyntheticSource, rows: slice, columns: slice) -> np.ndarray:
    """Return the sky at the target PSF."""
    sigma = fwhm_to_sigma(TARGET)
    y, x = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    image = np.zeros((len(y), len(x)))
    for row, column, flux in star_catalogue(source.shape, rows, columns, source.seed):
        profiles = [np.exp(-0.5 * ((axis - c) / sigma) ** 2) for axis, c in ((y, row), (x, column))]
        image += np.outer(*profiles) * (flux / (2.0 * math.pi * sigma**2))
    return image


def distance_to_borders(
    shape: tuple[int, int], rows: Collection[int], columns: Collection[int]
) -> np.ndarray:
    """Return the distance of each pixel from the next border of tiles.

    Borders are given by the first rows and columns behind them.
    """
    sides = []
    for size, starts in zip(shape, (rows, columns), strict=True):
        pixels = np.arange(size) + 0.5
        sides.append(np.min([np.abs(pixels - start) for start in starts] or [np.full(size, np.inf)], axis=0))
    return np.asarray(np.minimum.outer(sides[0], sides[1]))


def _options(quick: bool, side: int) -> RestoreOptions:
    return RestoreOptions(
        tiling=TilingOptions(max_tile_size=side),
        fit=FitOptions(max_epochs=1) if quick else FitOptions(),
        noise=NoiseOptions(num_draws=2, num_realizations=1) if quick else NoiseOptions(),
    )
