# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of an image against the truth, and against what it declares."""

from __future__ import annotations

__all__ = ("measure_errors",)

import math

import numpy as np
import numpy.typing as npt
from astropy.stats import mad_std
from scipy.ndimage import distance_transform_edt

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_FAINT, _BRIGHT = 0.3, 3.0
"""Limits in sky sigmas of sky, faint and bright sources."""

_NEAR = 6.0
_FULL_DEPTH = 0.995
_MIN_PIXELS = 50


def measure_errors(
    product: Product, scene: Scene, truth: Array, target_truth: Array
) -> dict[str, dict[str, float]]:
    """Measure errors by brightness, distance to sources and depth.

    Returns
    -------
    record : `dict` [`str`, `dict` [`str`, `float`]]
        ``rms``: rms errors to the truth at the target PSF in sky sigmas of
        the inverse-variance coadd, by bin; ``pull_mad`` and ``pull_rms``: the
        widths of the error to the truth at the declared PSF over the declared
        sigma; ``beyond_2``, ``beyond_3`` and ``beyond_4``: shares of pixels
        beyond as many sigmas; ``hole``: rms error, declared sigma and pull
        in the hole, share of it that is flagged, and the error on the sky at
        reduced over that at full depth, with the ratio that depth predicts;
        ``sky``: the mean on blank sky in sky sigmas.
    """
    image = np.asarray(product.image, dtype=float)
    seen = np.isfinite(image) & (scene.depth > 0.0)
    error = (image - target_truth) / scene.sky_sigma
    bins = _bins(scene, target_truth)
    record: dict[str, dict[str, float]] = {
        "rms": {name: _rms(error[seen & inside]) for name, inside in bins.items()},
        "sky": {"mean": _mean(error[seen & bins["sky"]])},
        "hole": _hole(product, scene, error, bins["sky"] & seen),
    }
    if product.variance is None:
        return record
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (image - truth) / np.sqrt(np.asarray(product.variance, dtype=float))
    declared = seen & np.isfinite(pull)
    for name, inside in bins.items():
        values = pull[declared & inside]
        if len(values) < _MIN_PIXELS:
            continue
        record.setdefault("pull_mad", {})[name] = float(mad_std(values))
        record.setdefault("pull_rms", {})[name] = _rms(values)
        for limit in (2, 3, 4):
            record.setdefault(f"beyond_{limit}", {})[name] = float(np.mean(np.abs(values) > limit))
    return record


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else math.nan


def _mean(values: Array) -> float:
    return float(np.mean(values)) if values.size else math.nan


def _bins(scene: Scene, truth: Array) -> dict[str, Mask]:
    """Return the pixels of each bin."""
    level = truth / scene.sky_sigma
    sources = level > _BRIGHT
    near = (distance_transform_edt(~sources) <= _NEAR) & ~sources
    if not sources.any():
        near = np.zeros_like(sources)
    full = scene.depth > _FULL_DEPTH
    return {
        "all": np.ones_like(sources),
        "sky": level < _FAINT,
        "faint": (level >= _FAINT) & ~sources,
        "sources": sources,
        "near": near,
        "far": ~near & ~sources,
        "full_depth": full & ~sources,
        "reduced_depth": ~full & ~sources,
    }


def _hole(product: Product, scene: Scene, error: Array, sky: Mask) -> dict[str, float]:
    """Measure the hole and the places that miss some exposures."""
    hole = (scene.depth == 0.0) & product.covered
    flagged = ~np.isfinite(product.image) if product.flagged is None else product.flagged
    valid = hole & np.isfinite(error)
    reduced = sky & (scene.depth > 0.5) & (scene.depth < _FULL_DEPTH)
    full = sky & (scene.depth >= _FULL_DEPTH)
    figures = {
        "error": _rms(error[valid]),
        "flagged": float(np.mean(flagged[hole])) if hole.any() else math.nan,
    }
    if min(np.count_nonzero(reduced), np.count_nonzero(full)) >= _MIN_PIXELS and error[full].any():
        figures["depth_ratio"] = float(mad_std(error[reduced]) / mad_std(error[full]))
        figures["predicted_ratio"] = float(np.median(scene.depth[reduced] ** -0.5))
    if product.variance is not None:
        sigma = np.sqrt(np.asarray(product.variance, dtype=float)) / scene.sky_sigma
        valid, sky = valid & np.isfinite(sigma), sky & np.isfinite(sigma)
        figures["declared"] = float(np.median(sigma[valid])) if valid.any() else math.nan
        figures["sky_declared"] = float(np.median(sigma[sky])) if sky.any() else math.nan
        figures["pull"] = _rms(error[valid] / sigma[valid])
    return figures
