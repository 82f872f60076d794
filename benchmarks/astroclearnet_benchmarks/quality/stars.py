# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Isolated stars: their profile, and the flux a PSF fit gives them."""

from __future__ import annotations

__all__ = ("STAR_BINS", "measure_stars", "pool_stack", "star_photometry")

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.stats import mad_std
from scipy.ndimage import shift

from lsst.astroclearnet.metrics import correlated_weights, correlation_matrix

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]

STAR_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, 1000.0), (1000.0, math.inf))
"""Limits of the bins of signal-to-noise ratio."""

_RADIUS = 6
"""Half-size in pixels of the stamp of a plain fit, and of the stack."""

_MARGIN = 3
"""Pixels around it from which it is interpolated."""

_WIDE_RADIUS = 9
"""Half-size for weights from the covariance, which reach further."""

_CLIP = 5.0


def measure_stars(product: Product, scene: Scene, truth: Array) -> dict[str, Any]:
    """Measure the clean isolated stars of a scene at their true positions.

    Everything else is subtracted as it truly is, so that the deviation of a
    flux is that of the profile times the deviation of the image.

    Returns
    -------
    record : `dict`
        ``stars``: rows of signal-to-noise ratio, flux error over flux, flux
        error over the Cramer-Rao bound for a plain fit of the PSF, the same
        for weights from the declared covariance, and their pull (NaN without
        covariance).  ``stacks``: what `pool_stack` needs, by bin.
    """
    residual = np.asarray(product.image, dtype=float) - truth
    rows: list[list[float]] = []
    stacks: list[dict[str, Any]] = [{"number": 0} for _ in STAR_BINS]
    for star in scene.catalogue[scene.catalogue["is_clean"]]:
        x, y, flux = (float(star[name]) for name in ("x", "y", "flux"))
        snr = float(star["signal_to_noise"])
        wide = _cut(residual, x, y, _RADIUS + _MARGIN)
        if not np.isfinite(wide).all() or not snr >= STAR_BINS[0][0]:
            continue
        stamp = wide[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        profile = gaussian_profile(x, y, product.fwhm, _RADIUS)
        error = float(np.sum(profile * stamp) / np.sum(profile**2))
        weighted, declared = _weighted_fit(product, residual, x, y)
        bound = flux / snr
        rows.append([snr, error / flux, error / bound, weighted / bound, weighted / declared])
        index = next(i for i, (_, high) in enumerate(STAR_BINS) if snr < high)
        centred = shift(wide, (round(y) - y, round(x) - x), order=3)
        _accumulate(stacks[index], centred[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN], flux)
    for stack in stacks:
        for name in ("sum", "square", "cross"):
            stack[name] = np.asarray(stack.get(name, 0.0)).round(8).tolist()
    return {"stars": rows, "stacks": stacks}


def gaussian_profile(x: float, y: float, fwhm: float, radius: int) -> Array:
    """Return a stamp of a star of unit flux at a Gaussian PSF."""
    offset = np.arange(-radius, radius + 1)
    square = (offset[:, np.newaxis] + round(y) - y) ** 2 + (offset + round(x) - x) ** 2
    return np.asarray(4.0 * math.log(2.0) / (math.pi * fwhm**2) * 0.5 ** (4.0 * square / fwhm**2))


def _cut(image: Array, x: float, y: float, radius: int) -> Array:
    """Cut a stamp; NaN beyond the border."""
    row, column = round(y), round(x)
    rows, columns = (np.arange(c - radius, c + radius + 1) for c in (row, column))
    height, width = image.shape
    stamp = image[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))].astype(float)
    stamp[(rows < 0) | (rows >= height)] = np.nan
    stamp[:, (columns < 0) | (columns >= width)] = np.nan
    return stamp


def _accumulate(stack: dict[str, Any], stamp: Array, flux: float) -> None:
    """Add a star to the sums of a stack."""
    stack["number"] += 1
    terms = {"flux": flux, "flux_square": flux**2, "sum": stamp, "square": stamp**2, "cross": stamp * flux}
    for name, term in terms.items():
        stack[name] = stack.get(name, 0.0) + term


def _weighted_fit(product: Product, residual: Array, x: float, y: float) -> tuple[float, float]:
    """Fit with the declared covariance; return flux error and its sigma."""
    if product.variance is None or product.correlation is None:
        return math.nan, math.nan
    radius = _WIDE_RADIUS
    deviation = _cut(residual, x, y, radius)
    sigma = np.sqrt(_cut(np.asarray(product.variance, dtype=float), x, y, radius))
    if not (np.isfinite(deviation).all() and np.isfinite(sigma).all()):
        return math.nan, math.nan
    window = (slice(round(c) - radius, round(c) + radius + 1) for c in (y, x))
    size = 2 * radius + 1
    correlation = correlation_matrix(product.correlation(*window), (size, size))
    profile = (gaussian_profile(x, y, product.fwhm, radius) / sigma).ravel()
    weights = correlated_weights(profile, correlation)
    weights /= weights @ profile
    return float(weights @ (deviation / sigma).ravel()), math.sqrt(weights @ correlation @ weights)


def pool_stack(stacks: Iterable[dict[str, Any]], fwhm: float) -> dict[str, float]:
    """Compare the stack of all stars of a bin with the declared PSF.

    Returns
    -------
    figures : `dict` [`str`, `float`]
        In units of the peak of the PSF: ``largest`` deviation of any pixel,
        ``noise`` of that pixel, and ``excess``, the largest deviation beyond
        three times its noise; and ``number`` of stars.
    """
    used = [stack for stack in stacks if stack["number"]]
    number = sum(stack["number"] for stack in used)
    if number < 2:
        return {"largest": math.nan, "noise": math.nan, "excess": math.nan, "number": float(number)}
    total, square, cross, flux, flux_square = (
        np.sum([np.asarray(stack[name]) for stack in used], axis=0)
        for name in ("sum", "square", "cross", "flux", "flux_square")
    )
    ratio = total / flux
    scatter = np.sqrt(np.clip(square - 2.0 * ratio * cross + ratio**2 * flux_square, 0.0, None)) / flux
    peak = 4.0 * math.log(2.0) / (math.pi * fwhm**2)
    where = np.unravel_index(np.argmax(np.abs(ratio)), ratio.shape)
    return {
        "largest": float(np.abs(ratio).max() / peak),
        "noise": float(scatter[where] / peak),
        "excess": float(np.clip(np.abs(ratio) - 3.0 * scatter, 0.0, None).max() / peak),
        "number": float(number),
    }


def star_photometry(rows: Array, low: float, high: float) -> dict[str, tuple[float, float]]:
    """Summarise the fluxes of the stars of a bin.

    Returns
    -------
    figures : `dict` [`str`, `tuple` [`float`, `float`]]
        Value and standard error of ``bias`` (mean of error over flux),
        ``scatter`` and ``weighted_scatter`` (rms about the mean, over the
        Cramer-Rao bound) and ``pull`` (the same over the declared error),
        without stars beyond 5 robust sigmas, NaN with fewer than 10 stars;
        and the shares of the stars beyond, ``clipped`` of the plain fit and
        ``weighted_clipped`` of that with the covariance, without an error.
    """
    inside = rows[(rows[:, 0] >= low) & (rows[:, 0] < high)]
    figures = {}
    for name, column, clipped in (
        ("bias", 1, 2),
        ("scatter", 2, 2),
        ("weighted_scatter", 3, 3),
        ("pull", 4, 4),
    ):
        values = inside[_is_kept(inside[:, clipped]), column]
        number = len(values)
        if number < 10:
            figures[name] = (math.nan, math.nan)
        elif name == "bias":
            figures[name] = (float(np.mean(values)), float(np.std(values) / math.sqrt(number)))
        else:
            width = float(np.std(values, ddof=1))
            figures[name] = (width, width / math.sqrt(2.0 * number))
    for name, column in (("clipped", 2), ("weighted_clipped", 3)):
        measured = inside[np.isfinite(inside[:, column]), column]
        share = float(np.mean(~_is_kept(measured))) if len(measured) else math.nan
        figures[name] = (share, math.nan)
    return figures


def _is_kept(errors: Array) -> npt.NDArray[np.bool_]:
    """Return which errors are not outliers; NaN are not kept."""
    finite = np.isfinite(errors)
    if not finite.any():
        return finite
    deviation = errors - np.median(errors[finite])
    kept: npt.NDArray[np.bool_] = finite & (np.abs(deviation) <= _CLIP * mad_std(deviation[finite]))
    return kept
