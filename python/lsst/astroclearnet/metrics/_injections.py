# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Completeness and fluxes of sources whose truth is known."""

from __future__ import annotations

__all__ = (
    "count_recovered",
    "find_peaks",
    "has_counterpart",
    "injection_bins",
    "matched_fluxes",
    "significance_map",
    "surface_brightness",
)

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter
from scipy.signal import fftconvolve
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import lsqr
from scipy.spatial import cKDTree

_MEDIAN_ERROR = math.sqrt(math.pi / 2.0)
"""Error of a median over that of a mean, for a normal distribution."""


def matched_fluxes(
    image: NDArray[Any], templates: Sequence[tuple[slice, slice, NDArray[Any]]]
) -> NDArray[np.float64]:
    """Fit sources of known profile and position to an image, all at once.

    Parameters
    ----------
    image
        Image without other sources, such as the difference of two, shape
        (H, W); pixels that are not finite do not count.
    templates
        Rows, columns and light of each source.

    Returns
    -------
    ratio : `numpy.ndarray`
        Fitted light of each source over that of its template, shape (n,), by
        least squares with equal weights; NaN without a good pixel.
    """
    data = np.asarray(image, dtype=float)
    height, width = data.shape
    values, pixels, sources = [], [], []
    for index, (rows, columns, light) in enumerate(templates):
        y, x = np.arange(height)[rows], np.arange(width)[columns]
        pixels.append((y[:, None] * width + x).ravel())
        values.append(np.asarray(light, dtype=float).ravel())
        sources.append(np.full(values[-1].size, index))
    if not templates:
        return np.zeros(0)
    good = np.isfinite(data).ravel()
    content, pixel, source = (np.concatenate(part) for part in (values, pixels, sources))
    content = np.where(good[pixel], content, 0.0)
    size = np.sqrt(np.bincount(source, content**2, minlength=len(templates)))
    is_seen = size > 0.0
    # Of unit length, so that bright and faint sources converge alike.
    content /= np.where(is_seen, size, 1.0)[source]
    design: Any = csr_array(coo_array((content, (pixel, source)), shape=(data.size, len(templates))))
    fitted = lsqr(design, np.where(good, data.ravel(), 0.0), atol=1e-10, btol=1e-10)[0]
    return np.where(is_seen, fitted / np.where(is_seen, size, 1.0), np.nan)


def significance_map(image: NDArray[Any], variance: NDArray[Any], psf: NDArray[Any]) -> NDArray[np.float64]:
    """Return the signal-to-noise ratio of a point source in every pixel.

    It is the matched filter for white noise, sum(f d / v) / sqrt(sum(f^2 / v))
    with the PSF f, the data d and their variance v.

    Parameters
    ----------
    image, variance
        Background-subtracted image and its variance, shape (H, W); pixels that
        are not finite and of positive variance do not count.
    psf
        PSF stamp, shape (P, P) with P odd.

    Returns
    -------
    significance : `numpy.ndarray`
        Shape (H, W); 0 where no pixel counts.
    """
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    weight = np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0)
    profile = np.asarray(psf, dtype=float)[::-1, ::-1]
    light = fftconvolve(np.where(good, image, 0.0) * weight, profile, mode="same")
    information = fftconvolve(weight, profile**2, mode="same")
    # Fourier transforms leave rounding errors in its place.
    known = information > 1e-9 * information.max(initial=0.0)
    return np.asarray(np.where(known, light / np.sqrt(np.where(known, information, 1.0)), 0.0))


def find_peaks(significance: NDArray[Any], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the local maxima above a threshold.

    Parameters
    ----------
    significance
        Map, shape (H, W).
    threshold
        Least value of a peak.

    Returns
    -------
    x, y : `numpy.ndarray`
        Columns and rows, shape (n,), of pixels that none of their eight
        neighbours exceeds.
    """
    is_peak = (significance >= threshold) & (significance == maximum_filter(significance, 3))
    y, x = np.nonzero(is_peak)
    return x, y


def has_counterpart(
    x: ArrayLike, y: ArrayLike, other_x: ArrayLike, other_y: ArrayLike, *, radius: float
) -> NDArray[np.bool_]:
    """Tell which positions have another position near.

    Parameters
    ----------
    x, y
        Positions in pixels, shape (n,).
    other_x, other_y
        The others, shape (m,); m may be 0.
    radius
        Largest distance in pixels.

    Returns
    -------
    found : `numpy.ndarray`
        Shape (n,), bool.
    """
    places, others = np.column_stack([x, y]), np.column_stack([other_x, other_y])
    if not len(places) or not len(others):
        return np.zeros(len(places), dtype=bool)
    distance, _ = cKDTree(others).query(places)
    return np.asarray(distance <= radius)


def surface_brightness(magnitude: ArrayLike, half_light_radius: ArrayLike) -> NDArray[np.float64]:
    """Return the mean surface brightness inside the half-light ellipse.

    Parameters
    ----------
    magnitude
        AB magnitudes, shape (n,).
    half_light_radius
        Radii of circles of the area of these ellipses in arcsec, shape (n,);
        0 for stars.

    Returns
    -------
    brightness : `numpy.ndarray`
        AB magnitudes per square arcsec, shape (n,); NaN for stars.
    """
    radius = np.asarray(half_light_radius, dtype=float)
    area = np.where(radius > 0.0, 2.0 * math.pi * radius**2, np.nan)
    return np.asarray(magnitude, dtype=float) + 2.5 * np.log10(area)


def count_recovered(
    value: ArrayLike, detected: ArrayLike, flux_ratio: ArrayLike, *, step: float
) -> list[dict[str, float]]:
    """Return completeness and flux ratios in bins of a property of sources.

    Parameters
    ----------
    value
        The property, such as the magnitude, shape (n,); sources without a
        finite one do not count.
    detected
        Whether each source was detected, shape (n,).
    flux_ratio
        Measured over true flux, shape (n,), NaN where it is not known.
    step
        Width of the bins, whose limits are multiples of it.

    Returns
    -------
    bins : `list` [`dict` [`str`, `float`]]
        For each bin with a source: its limits ``low`` and ``high``;
        ``num_sources``; the fraction ``completeness`` that was detected, and
        the limits ``completeness_low`` and ``completeness_high`` of its 68 %
        interval (Wilson 1927, JASA 22, 209); the median ``flux_ratio``, its
        ``flux_ratio_error`` for normal errors, and the robust
        ``flux_ratio_scatter`` of single sources, NaN where they are not known.

    Raises
    ------
    ValueError
        If the width is not positive.
    """
    if not step > 0.0:
        raise ValueError(f"step={step} must be positive.")
    values, ratios = np.asarray(value, dtype=float), np.asarray(flux_ratio, dtype=float)
    found = np.asarray(detected, dtype=bool)
    numbers = np.floor(values / step)
    bins = []
    for number in np.unique(numbers[np.isfinite(values)]):
        chosen = numbers == number
        total, hits = int(chosen.sum()), int(found[chosen].sum())
        known = ratios[chosen & np.isfinite(ratios)]
        scatter = float(mad_std(known)) if known.size > 1 else math.nan
        middle = (hits + 0.5) / (total + 1.0)
        half = math.sqrt(hits * (total - hits) / total + 0.25) / (total + 1.0)
        bins.append(
            {
                "low": float(number * step),
                "high": float((number + 1) * step),
                "num_sources": total,
                "completeness": hits / total,
                "completeness_low": middle - half,
                "completeness_high": middle + half,
                "flux_ratio": float(np.median(known)) if known.size else math.nan,
                "flux_ratio_error": _MEDIAN_ERROR * scatter / math.sqrt(known.size)
                if known.size > 1
                else math.nan,
                "flux_ratio_scatter": scatter,
            }
        )
    return bins


def injection_bins(sources: Table, names: Sequence[str], *, step: float) -> list[dict[str, Any]]:
    """Return completeness and fluxes by magnitude and surface brightness.

    Only sources count that lie where nothing is detected without them.

    Parameters
    ----------
    sources
        Table of injected sources with the columns ``mag``,
        ``surface_brightness`` (NaN for stars), ``is_on_source``, and
        ``<name>_is_detected`` and ``<name>_flux_ratio`` for each coadd.
    names
        Names of the coadds.
    step
        Width of the bins.

    Returns
    -------
    bins : `list` [`dict`]
        Those of `count_recovered`, with the ``image``, the ``kind`` of the
        sources (``star`` or ``galaxy``) and the ``property`` (``magnitude``
        or, for galaxies, ``surface_brightness``).
    """
    alone = sources[~np.asarray(sources["is_on_source"])]
    galaxy = np.isfinite(np.asarray(alone["surface_brightness"], dtype=float))
    bins: list[dict[str, Any]] = []
    for name in names:
        for kind, chosen, columns in (
            ("star", ~galaxy, {"magnitude": "mag"}),
            ("galaxy", galaxy, {"magnitude": "mag", "surface_brightness": "surface_brightness"}),
        ):
            part = alone[chosen]
            for quantity, column in columns.items():
                counted = count_recovered(
                    np.asarray(part[column], dtype=float),
                    part[f"{name}_is_detected"],
                    part[f"{name}_flux_ratio"],
                    step=step,
                )
                bins += [{"image": name, "kind": kind, "property": quantity, **each} for each in counted]
    return bins
