# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Close pairs of equal stars: from which separation on they are split."""

from __future__ import annotations

__all__ = ("measure_pairs", "pair_separation_limit")

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, map_coordinates, maximum_filter, spline_filter
from scipy.optimize import minimize

from lsst.astroclearnet.simulation import PIXEL_SCALE

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]

_RADIUS = 4.0
_MARGIN = 8
"""Pixels around a star without which its image cannot be interpolated."""

_STEP = 0.2
_MIN_RATIO = 0.3
"""Peak of the fainter of two maxima relative to the brighter one."""

_FALSE_SPLITS = 0.01
_BOOTSTRAPS = 100


def measure_pairs(product: Product, scene: Scene) -> dict[str, Any]:
    """Measure how clearly the stars of a scene have two maxima.

    Returns
    -------
    record : `dict`
        ``pairs``: rows of separation in arcsec (0 for single stars) and depth
        of the saddle between the two highest maxima within 4 pixels, relative
        to the highest; 0 with one maximum.
    """
    image = np.asarray(product.image, dtype=float)
    finite = np.isfinite(image)
    coefficients = spline_filter(np.where(finite, image, 0.0), order=3)
    catalogue = scene.catalogue[scene.catalogue["is_clean"]]
    seen = binary_erosion(finite, iterations=_MARGIN)
    catalogue = catalogue[seen[tuple(np.rint(catalogue[c]).astype(int) for c in ("y", "x"))]]
    rows = []
    for star in catalogue[catalogue["pair"] < 0]:
        rows.append([0.0, _saddle(coefficients, float(star["x"]), float(star["y"]))])
    for pair in np.unique(catalogue["pair"][catalogue["pair"] >= 0]):
        both = catalogue[catalogue["pair"] == pair]
        if len(both) == 2:
            depth = _saddle(coefficients, float(np.mean(both["x"])), float(np.mean(both["y"])))
            rows.append([float(both["separation"][0]) * PIXEL_SCALE, depth])
    return {"pairs": rows}


def _saddle(coefficients: Array, x: float, y: float) -> float:
    """Return the relative depth of the saddle between two maxima."""
    offset = np.arange(-_RADIUS, _RADIUS + 0.5 * _STEP, _STEP)
    dy, dx = np.meshgrid(offset, offset, indexing="ij")
    values = _interpolate(coefficients, y + dy, x + dx)
    is_peak = (values == maximum_filter(values, size=3)) & (np.hypot(dx, dy) < _RADIUS - _STEP)
    order = np.argsort(-np.where(is_peak, values, -np.inf), axis=None)[: np.count_nonzero(is_peak)]
    if len(order) == 0 or values.flat[order[0]] <= 0.0:
        return 0.0
    highest = values.flat[order[0]]
    deepest = 0.0
    along = np.linspace(0.0, 1.0, 21)
    for other in order[1:]:
        if values.flat[other] < _MIN_RATIO * highest:
            break
        (y0, x0), (y1, x1) = ((dy.flat[i] + y, dx.flat[i] + x) for i in (order[0], other))
        path = _interpolate(coefficients, y0 + along * (y1 - y0), x0 + along * (x1 - x0))
        deepest = max(deepest, float((values.flat[other] - path.min()) / highest))
    return deepest


def _interpolate(coefficients: Array, y: Array, x: Array) -> Array:
    return np.asarray(map_coordinates(coefficients, [y, x], order=3, prefilter=False, mode="nearest"))


def pair_separation_limit(rows: Array) -> dict[str, tuple[float, float]]:
    """Return the separation at which half of the pairs are split.

    A star counts as split when the saddle is deeper than that of 99 percent
    of the single stars.  The share of split pairs is fitted with a logistic
    function of the separation.

    Returns
    -------
    figures : `dict` [`str`, `tuple` [`float`, `float`]]
        Value and standard error of ``separation`` in arcsec and of the share
        of single stars that are split, ``false``; NaN without single stars or
        pairs.
    """
    singles, pairs = rows[rows[:, 0] == 0.0, 1], rows[rows[:, 0] > 0.0]
    if len(singles) < 10 or len(pairs) < 10:
        return {"separation": (math.nan, math.nan), "false": (math.nan, math.nan)}
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_BOOTSTRAPS):
        limit = _limit(rng.choice(singles, len(singles)))
        chosen = pairs[rng.integers(len(pairs), size=len(pairs))]
        draws.append(_half_split(chosen[:, 0], chosen[:, 1] > limit))
    limit = _limit(singles)
    rate = float(np.mean(singles > limit))
    return {
        "separation": (_half_split(pairs[:, 0], pairs[:, 1] > limit), float(np.std(draws))),
        "false": (rate, math.sqrt(rate * (1.0 - rate) / len(singles))),
    }


def _limit(singles: Array) -> float:
    return float(np.quantile(singles, 1.0 - _FALSE_SPLITS, method="higher"))


def _half_split(separation: Array, split: npt.NDArray[np.bool_]) -> float:
    """Fit a logistic function; return where it crosses one half."""

    def loss(p: Array) -> float:
        argument = (separation - p[0]) / math.exp(p[1])
        # Minus the log-likelihood, with a weak prior against steps.
        likelihood = np.logaddexp(0.0, np.where(split, -argument, argument))
        return float(np.sum(likelihood)) + 0.01 * (p[1] + 3.0) ** 2

    found = minimize(loss, [0.45, -3.0], method="Nelder-Mead")
    return float(np.clip(found.x[0], 0.0, 1.0))
