# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Completeness of detections at a given purity."""

from __future__ import annotations

__all__ = ("MAGNITUDES", "Search", "completeness", "filter_kernel", "measure_detection", "search")

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import sep
from astropy.stats import mad_std
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from lsst.astroclearnet.metrics import correlated_weights, correlation_matrix
from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY

from ..scenes import Scene
from .product import Product
from .stars import gaussian_profile

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

MAGNITUDES = (25.0, 26.0, 26.5)
"""Middles of the bins of magnitude, half a magnitude wide."""

_THRESHOLDS = np.geomspace(300.0, 0.6, 46)
"""Detection thresholds in units of the scatter of the filtered image."""

_SCATTER_FLOOR = 0.03
"""Least scatter, relative to that of an image at the same PSF with the white
noise of the inverse-variance coadd: some methods leave a sky without any."""

_FAINTEST = 27.2
_MATCH_RADIUS = 2.5
_BORDER = 5
_MIN_PURITY = 0.5
_MIN_AREA = 4
_FILTER_RADIUS = 9
_NARROW, _BROAD = 2.0 / 3.0, 5.0 / 3.0
_ARTEFACT_REACH = 3
_MIN_DEPTH = 0.9
_MIN_PIXELS = 50


@dataclasses.dataclass(frozen=True)
class Search:
    """What is detected above a threshold.

    Attributes
    ----------
    threshold
        Threshold in units of the scatter of the filtered image.
    sources
        Rows in the catalogue of the steady sources above i = 27.2 and in the
        pixels that are searched, sorted by brightness, shape (S,).
    is_found
        Which of them are found, shape (S,).
    num_true
        Number of all sources that are found, those out of reach included.
    false_x, false_y
        Positions of the false detections in pixels, shape (F,).
    on_artefact
        Which of those are on an artefact that is not flagged, shape (F,).
    number
        Number of detections.
    """

    threshold: float
    sources: npt.NDArray[np.int64]
    is_found: Mask
    num_true: int
    false_x: Array
    false_y: Array
    on_artefact: Mask
    number: int


def search(product: Product, scene: Scene, *, compensated: bool = False) -> Iterator[Search]:
    """Detect sources at many thresholds and compare with the catalogue.

    The image is filtered with the weights of an optimal flux of a star at
    its PSF: the PSF itself, or, if the product declares how its noise is
    correlated, the inverse of that correlation times the PSF.  Thresholds are
    relative to the scatter of the filtered image on blank sky.  Each detection
    takes the brightest source within 2.5 pixels that is above i = 27.2; a
    second one on the same source counts as false.

    A compensated filter finds what stands in the light of others: the
    difference of two Gaussians, of 2/3 and 5/3 of the FWHM of the PSF.

    Yields
    ------
    search : `Search`
        The detections, from the highest threshold down to the first at which
        fewer than half of them are true.
    """
    near_artefact = binary_dilation(scene.artefacts.max(axis=0) > scene.sky_sigma, iterations=_ARTEFACT_REACH)
    bad = ~np.isfinite(product.image)
    kernel = _compensated_kernel(product.fwhm) if compensated else filter_kernel(product)
    # Symmetric: correlation and convolution are the same.
    filled = np.where(bad, 0.0, product.image).astype(np.float64)
    filtered = np.ascontiguousarray(fftconvolve(filled, kernel, mode="same"))
    profile = gaussian_profile(0.0, 0.0, product.fwhm, _FILTER_RADIUS)
    plain = kernel if compensated else profile / np.sum(profile**2)
    white = scene.sky_sigma * math.sqrt(float(np.sum(plain**2)))
    unit = _scatter(filtered[scene.blank & ~near_artefact & ~bad & (scene.depth > _MIN_DEPTH)], white)
    reach = _searched(product, scene)
    steady = np.flatnonzero(scene.catalogue["is_steady"])
    x, y, flux = (np.asarray(scene.catalogue[name], dtype=float)[steady] for name in ("x", "y", "flux"))
    magnitude = AB_ZERO_POINT_NJY - 2.5 * np.log10(flux)
    order = np.argsort(magnitude)
    order = order[magnitude[order] < _FAINTEST]
    x, y = x[order], y[order]
    usable = _usable(reach, x, y)
    for threshold in _THRESHOLDS:
        objects = sep.extract(filtered, threshold * unit, mask=bad, filter_kernel=None, minarea=_MIN_AREA)
        inside = _usable(reach, objects["x"], objects["y"])
        found, is_false = _match(objects["x"][inside], objects["y"][inside], x, y)
        false_x, false_y = (np.asarray(objects[c][inside][is_false], dtype=float) for c in ("x", "y"))
        column, row = (np.rint(c).astype(int) for c in (false_x, false_y))
        is_found = np.zeros(len(x), dtype=bool)
        is_found[found] = True
        result = Search(
            threshold=float(threshold),
            sources=steady[order[usable]],
            is_found=is_found[usable],
            num_true=len(found),
            false_x=false_x,
            false_y=false_y,
            on_artefact=near_artefact[row, column],
            number=int(np.count_nonzero(inside)),
        )
        yield result
        genuine = result.number - int(np.count_nonzero(result.on_artefact))
        if len(found) < _MIN_PURITY * genuine and genuine > 20:
            break


def measure_detection(product: Product, scene: Scene) -> dict[str, Any]:
    """Count what `search` finds.

    False detections on the light of unflagged artefacts are counted on their
    own, so that depth and artefacts can be told apart.

    Returns
    -------
    record : `dict`
        ``detections``: rows of threshold, number of detections, of those
        that are true, of false ones on artefacts, and for each magnitude of
        `MAGNITUDES` the number of sources found; ``sources``: the number
        there is of each.
    """
    rows = []
    sources = [0] * len(MAGNITUDES)
    for each in search(product, scene):
        flux = np.asarray(scene.catalogue["flux"][each.sources], dtype=float)
        bins = [_near(AB_ZERO_POINT_NJY - 2.5 * np.log10(flux), m) for m in MAGNITUDES]
        found = [int(np.count_nonzero(inside & each.is_found)) for inside in bins]
        sources = [int(np.count_nonzero(inside)) for inside in bins]
        spurious = int(np.count_nonzero(each.on_artefact))
        rows.append([each.threshold, each.number, each.num_true, spurious, *found])
    return {"detections": rows, "sources": sources}


def filter_kernel(product: Product) -> Array:
    """Return the filter that detects stars best, as far as is declared.

    Returns
    -------
    kernel : `numpy.ndarray`
        Shape (19, 19), such that the filtered image is the flux of a star in
        each pixel: the PSF for noise that is white, or of which nothing is
        declared.
    """
    profile = gaussian_profile(0.0, 0.0, product.fwhm, _FILTER_RADIUS)
    weights = profile
    if product.correlation is not None:
        size = 2 * _FILTER_RADIUS + 1
        rows, columns = (slice(length // 2 - size, length // 2 + size) for length in product.image.shape)
        correlation = correlation_matrix(product.correlation(rows, columns), (size, size))
        weights = correlated_weights(profile.ravel(), correlation).reshape(size, size)
    return np.asarray(weights / np.sum(weights * profile))


def _compensated_kernel(fwhm: float) -> Array:
    """Return the difference of two Gaussians of unit sum."""
    narrow, broad = (
        gaussian_profile(0.0, 0.0, factor * fwhm, _FILTER_RADIUS) for factor in (_NARROW, _BROAD)
    )
    return np.asarray(narrow / narrow.sum() - broad / broad.sum())


def _scatter(values: Array, white: float) -> float:
    """Return the scatter on blank sky, with a floor; that of white noise for
    too few pixels.
    """
    return max(float(mad_std(values)) if len(values) >= _MIN_PIXELS else white, _SCATTER_FLOOR * white)


def _near(magnitude: npt.NDArray[Any], middle: float) -> Mask:
    return np.asarray(np.abs(magnitude - middle) < 0.25)


def _searched(product: Product, scene: Scene) -> Mask:
    """Return the pixels off the border that are not in a hole."""
    inside = binary_erosion(product.covered, iterations=_BORDER)
    return np.asarray(inside & (scene.depth > 0.0))


def _usable(searched: Mask, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Mask:
    """Tell which positions are in the pixels that are searched."""
    height, width = searched.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.asarray(inside & searched[row.clip(0, height - 1), column.clip(0, width - 1)])


def _match(
    x: npt.NDArray[Any], y: npt.NDArray[Any], true_x: npt.NDArray[Any], true_y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the sources found, and which detections are near none.

    Sources are sorted by brightness.
    """
    if len(x) == 0 or len(true_x) == 0:
        return np.zeros(0, dtype=np.int64), np.ones(len(x), dtype=bool)
    near = cKDTree(np.column_stack([true_x, true_y])).query_ball_point(np.column_stack([x, y]), _MATCH_RADIUS)
    found = sorted({min(sources) for sources in near if sources})
    return np.array(found, dtype=np.int64), np.array([not sources for sources in near])


def completeness(
    records: Sequence[dict[str, Any]], purity: float, *, with_artefacts: bool = False
) -> list[tuple[float, float]]:
    """Return the completeness at a purity, for all scenes together.

    Returns
    -------
    figures : `list` [`tuple` [`float`, `float`]]
        Value and standard error for each of `MAGNITUDES`, at the threshold
        of at least this purity that finds most sources, since a low one
        merges neighbours; NaN if none is as pure.
    """
    total: dict[float, npt.NDArray[np.float64]] = {}
    for record in records:
        for threshold, *counts in record["detections"]:
            total[threshold] = total.get(threshold, np.zeros(3 + len(MAGNITUDES))) + counts
    reached = {t: len([r for r in records if any(row[0] == t for row in r["detections"])]) for t in total}
    pure = []
    for threshold, (number, true, spurious, *_) in total.items():
        counted = number if with_artefacts else number - spurious
        if reached[threshold] == len(records) and true > 0 and true >= purity * counted:
            pure.append(threshold)
    if not pure:
        return [(math.nan, math.nan)] * len(MAGNITUDES)
    found = total[max(pure, key=lambda threshold: total[threshold][1])][3:]
    sources = np.sum([record["sources"] for record in records], axis=0)
    share = found / np.maximum(sources, 1)
    error = np.sqrt(share * (1.0 - share) / np.maximum(sources, 1))
    return [(float(value), float(width)) for value, width in zip(share, error, strict=True)]
