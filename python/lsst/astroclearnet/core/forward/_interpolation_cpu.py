# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation compiled for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

LANES = 8
"""Images whose values lie side by side: as many as fill a vector of AVX."""

_BLOCK = 64
"""Pixels whose weights are computed together: they stay in the cache."""

_OPTIONS: dict[str, Any] = {
    # A product may be added without being rounded; the order of sums stays.
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}

# An index that is known not to be negative takes no test for it.
_Index = np.uint64

type _Weights = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]
type _Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _compile[F: Callable[..., Any]](function: F) -> F:
    """Compile a function; keep the result if a directory can be written."""
    try:
        compiled: F = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        compiled = njit(**_OPTIONS)(function)
    return compiled


# Calls would count references to arrays.
_inline = njit(inline="always", **_OPTIONS)


@_inline
def _scratch() -> _Arrays:
    """Return memory for the weights of some pixels along one axis."""
    weights = np.empty((5, _BLOCK), np.float32)
    return weights[0], weights[1], weights[2], weights[3], weights[4]


@_inline
def _fill(t: np.ndarray, c: np.ndarray, weights: _Arrays) -> None:
    """Fill memory with the weights of taps along one axis."""
    w0, w1, w2, w3, w4 = weights
    a0, a1, a2, a3, a4, a5 = c[0, 0], c[0, 1], c[0, 2], c[0, 3], c[0, 4], c[0, 5]
    b0, b1, b2, b3, b4, b5 = c[1, 0], c[1, 1], c[1, 2], c[1, 3], c[1, 4], c[1, 5]
    c0, c2, c4 = c[2, 0], c[2, 2], c[2, 4]
    # Loops as short as these become vector instructions.
    for p in range(len(t)):
        q = t[p] * t[p]
        even, odd = a0 + q * (a2 + q * a4), t[p] * (a1 + q * (a3 + q * a5))
        w0[p], w4[p] = even + odd, even - odd
    for p in range(len(t)):
        q = t[p] * t[p]
        even, odd = b0 + q * (b2 + q * b4), t[p] * (b1 + q * (b3 + q * b5))
        w1[p], w3[p] = even + odd, even - odd
    for p in range(len(t)):
        q = t[p] * t[p]
        w2[p] = c0 + q * (c2 + q * c4)


@_inline
def _is_empty(values: np.ndarray) -> bool:
    """Return whether all are 0: detector images have whole blocks of pixels
    off the patch.
    """
    for value in values:  # noqa: SIM110
        if value != 0.0:
            return False
    return True


@_inline
def _taps(weights: _Arrays, p: np.uint64) -> _Weights:
    return weights[0][p], weights[1][p], weights[2][p], weights[3][p], weights[4][p]


@_inline
def _row(image: np.ndarray, k: np.uint64, x: _Weights) -> np.float32:
    x0, x1, x2, x3, x4 = x
    one, two, three, four = k + _Index(1), k + _Index(2), k + _Index(3), k + _Index(4)
    return x0 * image[k] + x1 * image[one] + x2 * image[two] + x3 * image[three] + x4 * image[four]


@_inline
def _add_row(image: np.ndarray, k: np.uint64, value: np.float32, x: _Weights) -> None:
    x0, x1, x2, x3, x4 = x
    image[k] += value * x0
    image[k + _Index(1)] += value * x1
    image[k + _Index(2)] += value * x2
    image[k + _Index(3)] += value * x3
    image[k + _Index(4)] += value * x4


@_inline
def _gather(image: np.ndarray, k: np.uint64, width: np.uint64, y: _Weights, x: _Weights) -> np.float32:
    y0, y1, y2, y3, y4 = y
    total = y0 * _row(image, k, x) + y1 * _row(image, k + width, x)
    total += y2 * _row(image, k + _Index(2) * width, x) + y3 * _row(image, k + _Index(3) * width, x)
    return total + y4 * _row(image, k + _Index(4) * width, x)


@_inline
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
    y, x = _scratch(), _scratch()
    for start in range(0, len(first), _BLOCK):
        stop = min(start + _BLOCK, len(first))
        if _is_empty(factors[start:stop]):
            values[start:stop] = 0.0
            continue
        _fill(ty[start:stop], c, y)
        _fill(tx[start:stop], c, x)
        for i in range(_Index(stop - start)):
            p = _Index(start) + i
            values[p] = 0.0
            if factors[p] != 0.0:
                total = _gather(image, _Index(first[p]), _Index(width), _taps(y, i), _taps(x, i))
                values[p] = factors[p] * total


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
    y, x = _scratch(), _scratch()
    for start in range(0, len(first), _BLOCK):
        stop = min(start + _BLOCK, len(first))
        if _is_empty(values[start:stop]):
            continue
        _fill(ty[start:stop], c, y)
        _fill(tx[start:stop], c, x)
        for i in range(_Index(stop - start)):
            p = _Index(start) + i
            if values[p] != 0.0:
                _scatter(image, _Index(first[p]), _Index(width), _taps(y, i), _taps(x, i), values[p])


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
    y, x = _scratch(), _scratch()
    for start in range(0, len(first), _BLOCK):
        stop = min(start + _BLOCK, len(first))
        if _is_empty(factors[start:stop]):
            continue
        _fill(ty[start:stop], c, y)
        _fill(tx[start:stop], c, x)
        for i in range(_Index(stop - start)):
            p = _Index(start) + i
            if factors[p] != 0.0:
                k, y_taps, x_taps = _Index(first[p]), _taps(y, i), _taps(x, i)
                value = factors[p] * _gather(image, k, _Index(width), y_taps, x_taps)
                _scatter(result, k, _Index(width), y_taps, x_taps, value)


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
    width
        As for `observe_one`.
    lanes
        Number of images: a constant would not become vector instructions.
    pixels, factors, c
        As for `observe_one`.
    results
        Shape (Hl * Wl * lanes,), float32, added to.
    """
    first, ty, tx = pixels
    sums = np.empty(5 * lanes, np.float32)
    y, x = _scratch(), _scratch()
    for start in range(0, len(first), _BLOCK):
        stop = min(start + _BLOCK, len(first))
        if _is_empty(factors[start:stop]):
            continue
        _fill(ty[start:stop], c, y)
        _fill(tx[start:stop], c, x)
        for i in range(_Index(stop - start)):
            p = _Index(start) + i
            if factors[p] != 0.0:
                k, y_taps = _Index(first[p]) * _Index(lanes), _taps(y, i)
                _gather_rows(images, k, _Index(width * lanes), y_taps, sums)
                _exchange(sums, _Index(lanes), _taps(x, i), factors[p])
                _scatter_rows(results, k, _Index(width * lanes), y_taps, sums)


@_inline
def _gather_rows(images: np.ndarray, k: np.uint64, stride: np.uint64, y: _Weights, sums: np.ndarray) -> None:
    """Add up the rows of taps, all lanes of a row side by side."""
    y0, y1, y2, y3, y4 = y
    two, three, four = k + _Index(2) * stride, k + _Index(3) * stride, k + _Index(4) * stride
    one = k + stride
    for i in range(_Index(len(sums))):
        total = y0 * images[k + i] + y1 * images[one + i] + y2 * images[two + i]
        sums[i] = total + y3 * images[three + i] + y4 * images[four + i]


@_inline
def _exchange(sums: np.ndarray, lanes: np.uint64, x: _Weights, factor: np.float32) -> None:
    """Replace sums of columns by what the value of the pixel adds to them."""
    x0, x1, x2, x3, x4 = x
    two, three, four = _Index(2) * lanes, _Index(3) * lanes, _Index(4) * lanes
    for i in range(lanes):
        total = x0 * sums[i] + x1 * sums[lanes + i] + x2 * sums[two + i]
        value = factor * (total + x3 * sums[three + i] + x4 * sums[four + i])
        sums[i], sums[lanes + i], sums[two + i] = x0 * value, x1 * value, x2 * value
        sums[three + i], sums[four + i] = x3 * value, x4 * value


@_inline
def _scatter_rows(
    results: np.ndarray, k: np.uint64, stride: np.uint64, y: _Weights, sums: np.ndarray
) -> None:
    for weight in y:
        for i in range(_Index(len(sums))):
            results[k + i] += weight * sums[i]
        k += stride


@_compile
def interleave(images: np.ndarray, lanes: np.ndarray) -> None:
    """Lay the values of images side by side.

    Parameters
    ----------
    images
        Shape (b, Hl, Wl), float32, at most `LANES` images.
    lanes
        Shape (Hl, Wl, LANES), float32, filled; 0 in lanes that are not used.
    """
    number, height, width = images.shape
    for y in range(height):
        for b in range(number):
            for x in range(width):
                lanes[y, x, b] = images[b, y, x]
        for b in range(number, LANES):
            for x in range(width):
                lanes[y, x, b] = 0.0


@_compile
def separate(lanes: np.ndarray, images: np.ndarray) -> None:
    """Undo `interleave`.

    Parameters
    ----------
    lanes
        Shape (Hl, Wl, LANES), float32.
    images
        Shape (b, Hl, Wl), float32, filled; at most `LANES` images.
    """
    number, height, width = images.shape
    for y in range(height):
        for b in range(number):
            for x in range(width):
                images[b, y, x] = lanes[y, x, b]
