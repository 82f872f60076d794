# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pairs recovered at equal numbers of false children, and their errors."""

from __future__ import annotations

__all__ = ("FINDERS", "Blends", "Scores", "bootstrap", "gather", "recovered_at")

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..record import Figure

type Array = npt.NDArray[np.float64]
type Indices = npt.NDArray[np.int64]

FINDERS = ("height", "prominence")
"""What a finder of peaks demands of them: a height, as that of Rubin's
deblender, or a height above the saddle to any higher peak."""

_BOOTSTRAPS = 500


@dataclasses.dataclass(frozen=True)
class Scores:
    """Thresholds below which peaks of k blends are found, in noise levels.

    Attributes
    ----------
    pair
        Below which both sources of a pair have a peak, shape (k,); minus
        infinity where they never do.
    false, blend
        Below which each peak beyond the best of each source is found, and the
        number of its blend, shape (f,).
    """

    pair: Array
    false: Array
    blend: Indices


@dataclasses.dataclass(frozen=True)
class Blends:
    """Blends of all fields, k of them.

    Attributes
    ----------
    field
        Number of the field, shape (k,).
    kind
        Kind, shape (k,).
    separation
        In arcsec, shape (k,); NaN for sources without companion.
    scores
        By finder and method.
    children
        By method: flux of children over the true one, of the brighter and the
        fainter source, shape (k, 2); NaN for sources without companion.
    """

    field: Indices
    kind: npt.NDArray[np.str_]
    separation: Array
    scores: dict[tuple[str, str], Scores]
    children: dict[str, Array]

    @property
    def is_pair(self) -> npt.NDArray[np.bool_]:
        """Blends of two sources, shape (k,) (`numpy.ndarray`)."""
        return np.isfinite(self.separation)


def gather(records: Sequence[dict[str, Any]], methods: Sequence[str]) -> Blends:
    """Gather what was measured in fields.

    Parameters
    ----------
    records
        What `measure_field` returned of each field.
    methods
        Names of the images.

    Returns
    -------
    blends : `Blends`
        The blends of all fields.
    """
    rows = [(number, blend) for number, record in enumerate(records) for blend in record["blends"]]
    blends = [blend for _, blend in rows]
    nothing = [np.nan, np.nan]
    return Blends(
        field=np.array([number for number, _ in rows], dtype=np.int64),
        kind=np.array([blend["kind"] for blend in blends]),
        separation=np.array([blend["separation"] for blend in blends]),
        scores={(finder, method): _score(blends, finder, method) for finder in FINDERS for method in methods},
        children={
            method: np.array([b["children"][method] if len(b["flux"]) > 1 else nothing for b in blends])
            for method in methods
        },
    )


def _score(blends: Sequence[dict[str, Any]], finder: str, method: str) -> Scores:
    """Return the thresholds at which peaks of an image are found."""
    pair = np.full(len(blends), -np.inf)
    false: list[float] = []
    of_blend: list[int] = []
    for number, blend in enumerate(blends):
        member, height, depth = np.array(blend["peaks"][method], dtype=float).reshape(-1, 3).T
        score = height * depth if finder == "prominence" else height
        is_false = np.ones(len(score), dtype=bool)
        best = []
        for index in range(len(blend["flux"])):
            own = np.flatnonzero(member == index)
            best.append(float(score[own].max()) if own.size else -np.inf)
            if own.size:
                is_false[own[np.argmax(score[own])]] = False
        if len(best) > 1:
            pair[number] = min(best)
        false += score[is_false].tolist()
        of_blend += [number] * int(is_false.sum())
    return Scores(pair, np.array(false), np.array(of_blend, dtype=np.int64))


def recovered_at(scores: Scores, rate: float, chosen: Indices | None = None) -> npt.NDArray[np.bool_]:
    """Tell which pairs are recovered at a number of false children.

    Parameters
    ----------
    scores
        Scores of an image.
    rate
        Mean number of false children of a bright source.
    chosen
        Blends to average over, which may repeat; by default each one once.

    Returns
    -------
    recovered : `numpy.ndarray`
        Of each of these, whether both sources have a peak at the lowest
        threshold with at most this number, shape (c,).
    """
    chosen = np.arange(len(scores.pair)) if chosen is None else chosen
    times = np.bincount(chosen, minlength=len(scores.pair))[scores.blend]
    order = np.argsort(-scores.false)
    too_many = np.cumsum(times[order]) > rate * len(chosen)
    threshold = scores.false[order][np.argmax(too_many)] if too_many.any() else -np.inf
    return np.asarray(scores.pair[chosen] > threshold)


def bootstrap(field: Indices, statistic: Callable[[Indices], float]) -> Figure:
    """Return a statistic of blends and its standard error, over fields.

    Parameters
    ----------
    field
        Number of the field of each blend, shape (k,).
    statistic
        Function of the indices of blends, which may repeat.

    Returns
    -------
    figure : `Figure`
        Its value for all blends, and its standard error.
    """
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(field == number) for number in np.unique(field)]
    draws = [
        statistic(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]))
        for _ in range(_BOOTSTRAPS)
    ]
    return statistic(np.arange(len(field))), float(np.nanstd(draws))
