# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fluxes of stars against the truth, another image, and the aperture."""

from __future__ import annotations

__all__ = ("SIGNAL_TO_NOISE_BINS", "FluxRatio", "curve_of_growth", "flux_ratio", "star_statistics")

import dataclasses
from typing import Any

import numpy as np
import sep
from astropy.stats import mad_std
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

SIGNAL_TO_NOISE_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, np.inf))
"""Lower and upper limits of the bins of `star_statistics`."""

_MEDIAN_ERROR = np.sqrt(np.pi / 2.0)
"""Standard error of the median relative to that of the mean."""

_MIN_STARS = 3
"""Least number of stars for an error from their scatter."""


def star_statistics(
    measured_flux: ArrayLike, measured_error: ArrayLike, true_flux: ArrayLike, signal_to_noise: ArrayLike
) -> Table:
    """Return bias and scatter of fluxes in bins of signal-to-noise ratio.

    Parameters
    ----------
    measured_flux, measured_error
        Fluxes and their claimed standard deviations, shape (n,); stars with a
        NaN flux are left out.
    true_flux
        True fluxes, shape (n,), positive.
    signal_to_noise
        Signal-to-noise ratio for the binning, shape (n,); not that of the
        measured flux, which would select on the noise.

    Returns
    -------
    table : `astropy.table.Table`
        One row for every bin of `SIGNAL_TO_NOISE_BINS` with the columns
        ``snr_min``, ``snr_max``, ``num_stars``, ``bias_percent`` (median of
        measured / true - 1), ``bias_percent_error``, ``scatter_percent`` (from
        the median absolute deviation) and ``pull_width`` (the same of
        (measured - true) / claimed error).  NaN without stars; the scatter
        needs two.
    """
    flux, error, truth, snr = (
        np.asarray(values, dtype=float)
        for values in (measured_flux, measured_error, true_flux, signal_to_noise)
    )
    usable = np.isfinite(flux) & (truth > 0)
    rows = []
    for low, high in SIGNAL_TO_NOISE_BINS:
        chosen = usable & (snr >= low) & (snr < high)
        number = int(np.count_nonzero(chosen))
        ratio = 100.0 * (flux[chosen] / truth[chosen] - 1.0)
        pull = (flux[chosen] - truth[chosen]) / error[chosen]
        bias = float(np.median(ratio)) if number else np.nan
        scatter = float(mad_std(ratio)) if number > 1 else np.nan
        width = float(mad_std(pull, ignore_nan=True)) if number > 1 else np.nan
        bias_error = _MEDIAN_ERROR * scatter / np.sqrt(number) if number > 1 else np.nan
        rows.append((low, high, number, bias, bias_error, scatter, width))
    names = (
        "snr_min",
        "snr_max",
        "num_stars",
        "bias_percent",
        "bias_percent_error",
        "scatter_percent",
        "pull_width",
    )
    return Table(rows=rows, names=names)


@dataclasses.dataclass(frozen=True)
class FluxRatio:
    """Fluxes of stars in an image relative to those in another.

    Attributes
    ----------
    offset, error
        Median of the ratio of the fluxes, minus one, and its standard
        deviation from the scatter of the stars.
    scatter
        Robust standard deviation of the ratio.
    num_stars
        Number of stars with a flux in both.
    """

    offset: float
    error: float
    scatter: float
    num_stars: int

    @property
    def significance(self) -> float:
        """Offset in units of its error (`float`)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.abs(self.offset) / np.float64(self.error))


def flux_ratio(flux: ArrayLike, reference: ArrayLike) -> FluxRatio:
    """Compare the fluxes of stars in two images.

    Parameters
    ----------
    flux, reference
        Fluxes of the same stars, shape (n,); those that are not finite and
        positive in both are left out.

    Returns
    -------
    ratio : `FluxRatio`
        NaN with fewer than three stars.
    """
    one, other = np.asarray(flux, dtype=float), np.asarray(reference, dtype=float)
    usable = np.isfinite(one) & np.isfinite(other) & (one > 0) & (other > 0)
    number = int(usable.sum())
    if number < _MIN_STARS:
        return FluxRatio(np.nan, np.nan, np.nan, number)
    ratio = one[usable] / other[usable]
    scatter = float(mad_std(ratio))
    return FluxRatio(
        float(np.median(ratio) - 1.0), float(_MEDIAN_ERROR * scatter / np.sqrt(number)), scatter, number
    )


def curve_of_growth(
    image: NDArray[Any], x: ArrayLike, y: ArrayLike, radii: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the curve of growth of stars, normalised to the largest aperture.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W).
    x, y
        Positions of the stars in pixels, shape (n,).
    radii
        Radii in pixels, shape (k,), ascending.

    Returns
    -------
    growth, error : `numpy.ndarray`
        Shape (k,), median over the stars of the relative flux within each
        radius, NaN without stars, and its standard deviation from the scatter
        of the stars, NaN with fewer than three.
    """
    data = np.ascontiguousarray(np.nan_to_num(np.asarray(image, dtype=float)))
    bad = np.ascontiguousarray(~np.isfinite(image))
    x, y, radii = (np.asarray(values, dtype=float) for values in (x, y, radii))
    empty = np.full(radii.size, np.nan)
    if not x.size:
        return empty, empty
    fluxes = np.array([sep.sum_circle(data, x, y, radius, mask=bad)[0] for radius in radii])
    positive = fluxes[-1] > 0
    if not positive.any():
        return empty, empty
    growth = fluxes[:, positive] / fluxes[-1, positive]
    number = growth.shape[1]
    error = _MEDIAN_ERROR * mad_std(growth, axis=1) / np.sqrt(number) if number >= _MIN_STARS else empty
    return np.median(growth, axis=1), np.asarray(error)
