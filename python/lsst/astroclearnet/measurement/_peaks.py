# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Peaks of the denoised images of all bands together."""

from __future__ import annotations

__all__ = ("detection_image", "find_peaks")

from collections.abc import Sequence
from typing import Any

import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from ._band_images import BandImages

_DEBLEND_LEVELS = 256
_DEBLEND_CONTRAST = 1e-4
"""Levels at which a detection is divided, and the share of its light that a
part must hold: nearly every maximum counts, of which `_stands_out` chooses."""

_REACH = 12.0
"""Distance in pixels within which a peak must stand out from brighter ones:
four FWHM of restored images."""


def detection_image(bands: Sequence[BandImages]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Combine the denoised images of all bands.

    The weight of a band is the inverse of the median variance of its image to
    measure on: best for sources of a flat spectrum.

    Parameters
    ----------
    bands
        At least one band.

    Returns
    -------
    image, sigma : `numpy.ndarray`
        Combined image and its error, shape (H, W), in units of the noise of a
        pixel in the combined image to measure on; NaN without data.

    Raises
    ------
    ValueError
        If there is no band, or bands differ in shape.
    """
    if not bands:
        raise ValueError("There is no band to detect sources in.")
    if len(shapes := {band.image.shape for band in bands}) > 1:
        raise ValueError(f"All bands must be on one grid; got the shapes {sorted(shapes)}.")
    shape = bands[0].image.shape
    total, error, weight = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for band in bands:
        good = np.isfinite(band.detection) & np.isfinite(band.detection_variance) & band.good
        if not good.any():
            continue
        share = 1.0 / band.typical_variance
        total[good] += share * band.detection[good]
        error[good] += share**2 * band.detection_variance[good]
        weight[good] += share
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(weight > 0, 1.0 / np.sqrt(weight), np.nan)
        return total * scale, np.sqrt(error) * scale


def find_peaks(image: NDArray[Any], sigma: NDArray[Any], *, threshold: float = 3.0) -> Table:
    """Detect sources and divide them into peaks.

    Source Extractor (Bertin & Arnouts 1996, A&AS 117, 393) as implemented in
    ``sep``, without a filter: the image is denoised.  A peak must stand out
    from the lowest point on the way to each brighter one by the threshold,
    too.

    Parameters
    ----------
    image, sigma
        Denoised image and its error, shape (H, W); NaN without data.
    threshold
        Threshold of a pixel in ``sigma``.

    Returns
    -------
    peaks : `astropy.table.Table`
        A row for each peak, from top to bottom: ``x``, ``y`` (pixels, the
        maximum of parabolas through the brightest pixel and its neighbours)
        and ``significance``, its value over its error.

    Raises
    ------
    ValueError
        If the threshold is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"The detection threshold must be positive; got {threshold}.")
    good = np.isfinite(image) & np.isfinite(sigma) & (sigma > 0)
    data = np.ascontiguousarray(np.where(good, image, 0.0), dtype=float)
    error = np.ascontiguousarray(np.where(good, sigma, 1.0), dtype=float)
    # Process-wide limits that crowded patches of full size would exceed.
    sep.set_extract_pixstack(max(300_000, 2 * data.size))
    sep.set_sub_object_limit(100_000)
    found = sep.extract(
        data,
        threshold,
        err=error,
        mask=np.ascontiguousarray(~good),
        minarea=1,
        filter_kernel=None,
        deblend_nthresh=_DEBLEND_LEVELS,
        deblend_cont=_DEBLEND_CONTRAST,
        clean=False,
    )
    column, row = (np.asarray(found[name], dtype=int) for name in ("xpeak", "ypeak"))
    order = np.lexsort((column, row))
    column, row = column[order], row[order]
    chosen = _stands_out(data, row, column, threshold * error[row, column])
    column, row = column[chosen], row[chosen]
    return Table(
        {
            "x": column + _vertex(data, row, column, (0, 1)),
            "y": row + _vertex(data, row, column, (1, 0)),
            "significance": data[row, column] / error[row, column],
        }
    )


def _stands_out(
    data: NDArray[np.float64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    least: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which peaks stand out from the lowest point on a straight line
    to each brighter one that does.
    """
    value, chosen = data[row, column], np.ones(len(row), dtype=bool)
    near = cKDTree(np.column_stack([row, column])).query_ball_point(np.column_stack([row, column]), _REACH)
    for i in np.argsort(-value, kind="stable"):
        for j in near[i]:
            if chosen[j] and value[j] > value[i]:
                steps = np.linspace(0.0, 1.0, 2 * round(_REACH))
                line = [start[i] + steps * (start[j] - start[i]) for start in (row, column)]
                saddle = map_coordinates(data, line, order=1).min()
                chosen[i] &= value[i] - saddle >= least[i]
    return chosen


def _vertex(
    data: NDArray[np.float64], row: NDArray[np.int64], column: NDArray[np.int64], step: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the offset of the maximum of a parabola through three pixels."""
    padded = np.pad(data, 1, mode="edge")
    before, here, after = (padded[row + 1 + n * step[0], column + 1 + n * step[1]] for n in (-1, 0, 1))
    curvature = before - 2.0 * here + after
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.where(curvature < 0, 0.5 * (before - after) / curvature, 0.0)
    return np.clip(offset, -0.5, 0.5)
