# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Compiled interpolation of images on the CPU, from positions alone.

No weight is stored: those of a pixel take less time to compute than to fetch,
and serve up to `LANES` images at once, whose values lie side by side.  A call
runs in one thread, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ._interpolation_lanes import BLOCK, gather_lanes, gather_one, scatter_lanes, scatter_one
from ._interpolation_profile import LANES, WIDTH, kernel_profile

_OPTIONS: Any = {
    # A product may be added without being rounded; the order of sums stays.
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}

_DEGREE = 9
"""Degree of the polynomials that stand for the kernel."""


def _fit(function: Callable[[np.ndarray], np.ndarray]) -> tuple[np.float32, ...]:
    """Return coefficients of powers of 2 s - 1 for s from 0 to 1."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    coefficients = np.polynomial.polynomial.polyfit(nodes, function(0.5 * nodes + 0.5), _DEGREE)
    return tuple(np.float32(c) for c in coefficients)


def _inner_tap(number: int) -> tuple[np.float32, ...]:
    """Return the weight of a tap by how far the first one is from the end."""
    return _fit(lambda s: kernel_profile(number - 0.5 * WIDTH + s))


_REACH = 0.8
"""Root of 1 - z^2 for a distance of a pixel from the end of the kernel, where
z is that from the centre in half widths."""


def _outer_tap() -> tuple[np.float32, ...]:
    """Return the root of the weight of the first tap.

    The kernel ends like a square root: a polynomial in the root of 1 - z^2,
    in units of its reach, follows it.
    """
    return _fit(lambda r: np.sqrt(kernel_profile(0.5 * WIDTH * np.sqrt(1.0 - (_REACH * r) ** 2))))


_OUTER = _outer_tap()
_INNER_1, _INNER_2, _INNER_3 = (_inner_tap(number) for number in (1, 2, 3))
_LINEAR, _SQUARE = np.float32(0.8 / _REACH**2), np.float32(0.16 / _REACH**2)
_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


@njit(**_OPTIONS)
def _polynomial(c: tuple[np.float32, ...], t: np.float32) -> np.float32:
    low = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * c[4])))
    square = t * t
    return low + square * square * t * (c[5] + t * (c[6] + t * (c[7] + t * (c[8] + t * c[9]))))


@njit(**_OPTIONS)
def _outer_weight(s: np.float32) -> np.float32:
    root = _polynomial(_OUTER, _TWO * np.sqrt(s * (_LINEAR - _SQUARE * s)) - _ONE)
    return root * root


@njit(**_OPTIONS)
def axis_weights(
    position: np.ndarray, margin: int, first: np.ndarray, s: np.ndarray, weights: np.ndarray
) -> None:
    """Compute the weights of some pixels along one axis.

    Parameters
    ----------
    position
        Shape (p,), float64, rows or columns of the patch; NaN counts as 0.
    margin
        Margin of the images.
    first
        Shape (p,), int32, filled with the row or column of the first tap.
    s
        Shape (p,), float32, filled with how far it is from the end of the
        kernel.
    weights
        Shape (WIDTH, p), float32, filled with the weights.
    """
    number = len(position)
    for p in range(number):
        place = position[p]
        end = (place if place == place else 0.0) + (margin - 0.5 * WIDTH)
        tap = np.ceil(end)
        first[p] = np.int32(tap)
        s[p] = np.float32(tap - end)
    w0, w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3], weights[4]
    # Loops of one statement become vector instructions.
    for p in range(number):
        w0[p] = _outer_weight(s[p])
    for p in range(number):
        w1[p] = _polynomial(_INNER_1, _TWO * s[p] - _ONE)
    for p in range(number):
        w2[p] = _polynomial(_INNER_2, _TWO * s[p] - _ONE)
    for p in range(number):
        w3[p] = _polynomial(_INNER_3, _TWO * s[p] - _ONE)
    for p in range(number):
        w4[p] = _outer_weight(_ONE - s[p])


@njit(**_OPTIONS)
def _scratch() -> tuple[np.ndarray, ...]:
    return np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32), np.empty((WIDTH, BLOCK), np.float32)


@njit(**_OPTIONS)
def _inside(row: int, column: int, height: int, width: int) -> bool:
    return row >= 0 and column >= 0 and row <= height - WIDTH and column <= width - WIDTH


@njit(**_OPTIONS)
def _gather_wrapped(
    image: np.ndarray,
    row: int,
    column: int,
    wy: np.ndarray,
    wx: np.ndarray,
    p: int,
    factor: np.float32,
    values: np.ndarray,
) -> None:
    """Add up the taps of a pixel at the border of periodic images."""
    height, width, lanes = image.shape
    for k in range(lanes):
        total = _ZERO
        for i in range(WIDTH):
            for j in range(WIDTH):
                total += wy[i, p] * wx[j, p] * image[(row + i) % height, (column + j) % width, k]
        values[k] = factor * total


@njit(**_OPTIONS)
def _scatter_wrapped(
    image: np.ndarray, row: int, column: int, wy: np.ndarray, wx: np.ndarray, p: int, values: np.ndarray
) -> None:
    """Add to the taps of a pixel at the border of periodic images."""
    height, width, lanes = image.shape
    for i in range(WIDTH):
        for j in range(WIDTH):
            for k in range(lanes):
                image[(row + i) % height, (column + j) % width, k] += wy[i, p] * wx[j, p] * values[k]


@njit(**_OPTIONS)
def observe_one(
    image: np.ndarray, y: np.ndarray, x: np.ndarray, scale: np.ndarray, margin: int, data: np.ndarray
) -> None:
    """Interpolate an image at the pixels of an exposure.

    Parameters
    ----------
    image
        Shape (H, W, 1), float32, periodic.
    y
        Shape (p,), float64, rows on the patch.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what values are multiplied with; 0 for a pixel
        without a position.
    margin
        Margin of the image.
    data
        Shape (p,), float32, filled with the values.
    """
    row, s, wy = _scratch()
    column, _, wx = _scratch()
    value = np.empty(1, np.float32)
    height, width, _ = image.shape
    flat = image.reshape(-1)
    for start in range(0, len(y), BLOCK):
        axis_weights(y[start : start + BLOCK], margin, row, s, wy)
        axis_weights(x[start : start + BLOCK], margin, column, s, wx)
        for p in range(min(BLOCK, len(y) - start)):
            factor = scale[start + p]
            if factor == _ZERO:
                value[0] = _ZERO
            elif _inside(row[p], column[p], height, width):
                place = np.int64(row[p] * width + column[p])
                gather_one(flat, place, np.int64(width), wy, wx, np.int64(p), factor, value)
            else:
                _gather_wrapped(image, row[p], column[p], wy, wx, p, factor, value)
            data[start + p] = value[0]


@njit(**_OPTIONS)
def adjoint_one(
    data: np.ndarray, y: np.ndarray, x: np.ndarray, scale: np.ndarray, margin: int, image: np.ndarray
) -> None:
    """Apply the adjoint of `observe_one`.

    Parameters
    ----------
    data
        Shape (p,), float32.
    y
        Shape (p,), float64, rows on the patch.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what values are multiplied with; 0 for a pixel
        without a position.
    margin
        Margin of the image.
    image
        Shape (H, W, 1), float32, periodic; the result is added to it.
    """
    row, s, wy = _scratch()
    column, _, wx = _scratch()
    value = np.empty(1, np.float32)
    height, width, _ = image.shape
    flat = image.reshape(-1)
    for start in range(0, len(y), BLOCK):
        axis_weights(y[start : start + BLOCK], margin, row, s, wy)
        axis_weights(x[start : start + BLOCK], margin, column, s, wx)
        for p in range(min(BLOCK, len(y) - start)):
            value[0] = scale[start + p] * data[start + p]
            if value[0] == _ZERO:
                continue
            if _inside(row[p], column[p], height, width):
                place = np.int64(row[p] * width + column[p])
                scatter_one(flat, place, np.int64(width), wy, wx, np.int64(p), value)
            else:
                _scatter_wrapped(image, row[p], column[p], wy, wx, p, value)


@njit(**_OPTIONS)
def normal_one(
    image: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    margin: int,
    result: np.ndarray,
) -> None:
    """Interpolate an image, weight the values, and apply the adjoint.

    Parameters
    ----------
    image
        Shape (H, W, 1), float32, periodic.
    y
        Shape (p,), float64, rows on the patch.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what values are multiplied with; 0 for a pixel
        without a position.
    weights
        Shape (p,), float32.
    margin
        Margin of the images.
    result
        Shape (H, W, 1), float32; the result is added to it.
    """
    row, s, wy = _scratch()
    column, _, wx = _scratch()
    value = np.empty(1, np.float32)
    height, width, _ = image.shape
    flat, flat_result = image.reshape(-1), result.reshape(-1)
    for start in range(0, len(y), BLOCK):
        axis_weights(y[start : start + BLOCK], margin, row, s, wy)
        axis_weights(x[start : start + BLOCK], margin, column, s, wx)
        for p in range(min(BLOCK, len(y) - start)):
            factor = scale[start + p] * weights[start + p] * scale[start + p]
            if factor == _ZERO:
                continue
            if _inside(row[p], column[p], height, width):
                place = np.int64(row[p] * width + column[p])
                gather_one(flat, place, np.int64(width), wy, wx, np.int64(p), factor, value)
                scatter_one(flat_result, place, np.int64(width), wy, wx, np.int64(p), value)
            else:
                _gather_wrapped(image, row[p], column[p], wy, wx, p, factor, value)
                _scatter_wrapped(result, row[p], column[p], wy, wx, p, value)


@njit(**_OPTIONS)
def normal_lanes(
    images: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    margin: int,
    result: np.ndarray,
) -> None:
    """Do for `LANES` images what `normal_one` does for one.

    Parameters
    ----------
    images
        Shape (H, W, LANES), float32, periodic.
    y
        Shape (p,), float64, rows on the patch.
    x
        Shape (p,), float64, columns.
    scale
        Shape (p,), float32, what values are multiplied with; 0 for a pixel
        without a position.
    weights
        Shape (p,), float32.
    margin
        Margin of the images.
    result
        Shape (H, W, LANES), float32; the result is added to it.
    """
    height, width, _ = images.shape
    flat, flat_result = images.reshape(-1), result.reshape(-1)
    row, s, wy = _scratch()
    column, _, wx = _scratch()
    values = np.empty(LANES, np.float32)
    for start in range(0, len(y), BLOCK):
        axis_weights(y[start : start + BLOCK], margin, row, s, wy)
        axis_weights(x[start : start + BLOCK], margin, column, s, wx)
        for p in range(min(BLOCK, len(y) - start)):
            factor = scale[start + p] * weights[start + p] * scale[start + p]
            if factor == _ZERO:
                continue
            if _inside(row[p], column[p], height, width):
                place = np.int64(row[p] * width + column[p]) * LANES
                stride = np.int64(width * LANES)
                gather_lanes(flat, place, stride, wy, wx, np.int64(p), factor, values)
                scatter_lanes(flat_result, place, stride, wy, wx, np.int64(p), values)
            else:
                _gather_wrapped(images, row[p], column[p], wy, wx, p, factor, values)
                _scatter_wrapped(result, row[p], column[p], wy, wx, p, values)


@njit(**_OPTIONS)
def interleave(images: np.ndarray, lanes: np.ndarray) -> None:
    """Lay the values of images side by side.

    Parameters
    ----------
    images
        Shape (b, H, W), at most `LANES` images.
    lanes
        Shape (H, W, LANES), filled; 0 in lanes that are not used.
    """
    number, height, width = images.shape
    for y in range(height):
        for k in range(number):
            for x in range(width):
                lanes[y, x, k] = images[k, y, x]
        for k in range(number, LANES):
            for x in range(width):
                lanes[y, x, k] = _ZERO


@njit(**_OPTIONS)
def separate(lanes: np.ndarray, images: np.ndarray) -> None:
    """Undo `interleave`.

    Parameters
    ----------
    lanes
        Shape (H, W, LANES).
    images
        Shape (b, H, W), filled; at most `LANES` images.
    """
    number, height, width = images.shape
    for y in range(height):
        for k in range(number):
            for x in range(width):
                images[k, y, x] = lanes[y, x, k]
