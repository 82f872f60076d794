# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation compiled for a CPU."""

from __future__ import annotations

__all__ = ("LANES", "adjoint_one", "interleave", "normal_lanes", "normal_one", "observe_one", "separate")

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

LANES = 8
"""Images whose values lie side by side: as many as fill a vector of AVX."""

_OPTIONS: dict[str, Any] = {
    # A product may be added without being rounded; the order of sums stays.
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}

# An index that is known not to be negative takes no test for it.
_Index = np.uint64

type _Weights = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]


def _compile[F: Callable[..., Any]](function: F) -> F:
    """Compile a function; keep the result if a directory can be written."""
    try:
        compiled: F = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        compiled = njit(**_OPTIONS)(function)
    return compiled


@_compile
def _taps(t: np.float32, c: np.ndarray) -> _Weights:
    """Return the weights of the taps along one axis."""
    q = t * t
    even_0, odd_0 = c[0, 0] + q * (c[0, 2] + q * c[0, 4]), t * (c[0, 1] + q * (c[0, 3] + q * c[0, 5]))
    even_1, odd_1 = c[1, 0] + q * (c[1, 2] + q * c[1, 4]), t * (c[1, 1] + q * (c[1, 3] + q * c[1, 5]))
    middle = c[2, 0] + q * (c[2, 2] + q * c[2, 4])
    return even_0 + odd_0, even_1 + odd_1, middle, even_1 - odd_1, even_0 - odd_0


@_compile
def _row(image: np.ndarray, k: np.uint64, x: _Weights) -> np.float32:
    x0, x1, x2, x3, x4 = x
    one, two, three, four = k + _Index(1), k + _Index(2), k + _Index(3), k + _Index(4)
    return x0 * image[k] + x1 * image[one] + x2 * image[two] + x3 * image[three] + x4 * image[four]


@_compile
def _add_row(image: np.ndarray, k: np.uint64, value: np.float32, x: _Weights) -> None:
    x0, x1, x2, x3, x4 = x
    image[k] += value * x0
    image[k + _Index(1)] += value * x1
    image[k + _Index(2)] += value * x2
    image[k + _Index(3)] += value * x3
    image[k + _Index(4)] += value * x4


@_compile
def _gather(image: np.ndarray, k: np.uint64, width: np.uint64, y: _Weights, x: _Weights) -> np.float32:
    y0, y1, y2, y3, y4 = y
    total = y0 * _row(image, k, x) + y1 * _row(image, k + width, x)
    total += y2 * _row(image, k + _Index(2) * width, x) + y3 * _row(image, k + _Index(3) * width, x)
    return total + y4 * _row(image, k + _Index(4) * width, x)


@_compile
def _scatter(
    image: np.ndarray, k: np.uint64, width: np.uint64, y: _Weights, x: _Weights, value: np.float32
) -> None:
    y0, y1, y2, y3, y4 = y
    _add_row(image, k, y0 * value, x)
    _add_row(image, k + width, y1 * value, x)
    _add_row(image, k + _Index(2) * width, y2 * value, x)
    _add_row(image, k + _Index(3) * width, y3 * value, x)
    _add_row(image, k + _Index(4) * width, y4 * value, x)


@_compile
def observe_one(
    image: np.ndarray,
    width: int,
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray],
    factors: np.ndarray,
    c: np.ndarray,
    values: np.ndarray,
) -> None:
    """Interpolate an image.

    Parameters
    ----------
    image
        Shape (Hl * Wl,), float32.
    width
        Wl.
    pixels
        Shape (p,) each, index of the first tap, int32, and where the position
        lies between taps along rows and columns, float32.
    factors
        Shape (p,), float32, of the values; where it is 0 no tap is read.
    c
        `COEFFICIENTS` of the kernel.
    values
        Shape (p,), float32, filled.
    """
    first, ty, tx = pixels
    for p in range(len(first)):
        values[p] = 0.0
        if factors[p] != 0.0:
            y, x = _taps(ty[p], c), _taps(tx[p], c)
            values[p] = factors[p] * _gather(image, _Index(first[p]), _Index(width), y, x)


@_compile
def adjoint_one(
    values: np.ndarray,
    width: int,
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray],
    c: np.ndarray,
    image: np.ndarray,
) -> None:
    """Add values to the taps they are interpolated from.

    Parameters
    ----------
    values
        Shape (p,), float32; where it is 0 no tap is written.
    width, pixels, c
        As for `observe_one`.
    image
        Shape (Hl * Wl,), float32, added to.
    """
    first, ty, tx = pixels
    for p in range(len(first)):
        if values[p] != 0.0:
            y, x = _taps(ty[p], c), _taps(tx[p], c)
            _scatter(image, _Index(first[p]), _Index(width), y, x, values[p])


@_compile
def normal_one(
    image: np.ndarray,
    width: int,
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray],
    factors: np.ndarray,
    c: np.ndarray,
    result: np.ndarray,
) -> None:
    """Interpolate an image, and add the values to their taps.

    Parameters
    ----------
    image, width, pixels, factors, c
        As for `observe_one`.
    result
        Shape (Hl * Wl,), float32, added to.
    """
    first, ty, tx = pixels
    for p in range(len(first)):
        if factors[p] != 0.0:
            y, x, k = _taps(ty[p], c), _taps(tx[p], c), _Index(first[p])
            value = factors[p] * _gather(image, k, _Index(width), y, x)
            _scatter(result, k, _Index(width), y, x, value)


@_compile
def normal_lanes(
    images: np.ndarray,
    width: int,
    lanes: int,
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray],
    factors: np.ndarray,
    c: np.ndarray,
    results: np.ndarray,
) -> None:
    """Do what `normal_one` does for images whose values lie side by side.

    Parameters
    ----------
    images
        Shape (Hl * Wl * lanes,), float32.
    width, pixels, factors, c
        As for `observe_one`.
    lanes
        Number of images: a constant would not become vector instructions.
    results
        Shape (Hl * Wl * lanes,), float32, added to.
    """
    first, ty, tx = pixels
    size, stride = 5 * lanes, width * lanes
    sums = np.empty(size, np.float32)
    for p in range(len(first)):
        if factors[p] == 0.0:
            continue
        y, (x0, x1, x2, x3, x4) = _taps(ty[p], c), _taps(tx[p], c)
        y0, y1, y2, y3, y4 = y
        k = first[p] * lanes
        row_0, row_1 = images[k : k + size], images[k + stride : k + stride + size]
        row_2, row_3 = (
            images[k + 2 * stride : k + 2 * stride + size],
            images[k + 3 * stride : k + 3 * stride + size],
        )
        row_4 = images[k + 4 * stride : k + 4 * stride + size]
        for i in range(size):
            sums[i] = y0 * row_0[i] + y1 * row_1[i] + y2 * row_2[i] + y3 * row_3[i] + y4 * row_4[i]
        for i in range(lanes):
            left, right = (
                x0 * sums[i] + x1 * sums[lanes + i],
                x3 * sums[3 * lanes + i] + x4 * sums[4 * lanes + i],
            )
            value = factors[p] * (left + x2 * sums[2 * lanes + i] + right)
            sums[i], sums[lanes + i], sums[2 * lanes + i] = x0 * value, x1 * value, x2 * value
            sums[3 * lanes + i], sums[4 * lanes + i] = x3 * value, x4 * value
        for weight in y:
            row = results[k : k + size]
            for i in range(size):
                row[i] += weight * sums[i]
            k += stride


@_compile
def interleave(images: np.ndarray, lanes: np.ndarray) -> None:
    """Lay the values of images side by side.

    Parameters
    ----------
    images
        Shape (b, k), float32, at most `LANES` images.
    lanes
        Shape (k, LANES), float32, filled; 0 in lanes that are not used.
    """
    number, size = images.shape
    for start in range(0, size, 64):
        stop = min(start + 64, size)
        for b in range(number):
            for i in range(start, stop):
                lanes[i, b] = images[b, i]
        for b in range(number, LANES):
            for i in range(start, stop):
                lanes[i, b] = 0.0


@_compile
def separate(lanes: np.ndarray, images: np.ndarray) -> None:
    """Undo `interleave`.

    Parameters
    ----------
    lanes
        Shape (k, LANES), float32.
    images
        Shape (b, k), float32, filled; at most `LANES` images.
    """
    number, size = images.shape
    for start in range(0, size, 64):
        stop = min(start + 64, size)
        for b in range(number):
            for i in range(start, stop):
                images[b, i] = lanes[i, b]
