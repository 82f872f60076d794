# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Depth and noise of an image."""

from __future__ import annotations

__all__ = ("depth_of_error", "measured_depth", "noise_correlation", "point_source_depth")

from typing import Any

import astropy.units as u
import numpy as np
from astropy.stats import mad_std
from numpy.typing import NDArray
from scipy.signal import fftconvolve

_MIN_POSITIONS = 100
"""Least number of positions or pixel pairs for a scatter or correlation."""

_MIN_INFORMATION = 0.9
"""Least share of the squared PSF that lies on blank sky."""


def point_source_depth(variance: NDArray[Any], psf: NDArray[Any]) -> float:
    """Return the 5 sigma point-source depth that a variance plane claims.

    For white noise of variance v, a fit of the PSF f has the error sqrt(v /
    sum(f^2)).

    Parameters
    ----------
    variance
        Variance plane in nJy^2, any shape; its median over finite positive
        pixels is used.
    psf
        PSF stamp with unit sum, shape (P, P).

    Returns
    -------
    depth : `float`
        AB magnitude; NaN without a finite positive variance.
    """
    usable = variance[np.isfinite(variance) & (variance > 0)]
    if usable.size == 0:
        return float("nan")
    return depth_of_error(
        float(np.sqrt(np.median(usable.astype(float)) / np.sum(np.square(psf, dtype=float))))
    )


def measured_depth(image: NDArray[Any], psf: NDArray[Any], sources: NDArray[np.bool_]) -> float:
    """Return the 5 sigma point-source depth measured on blank sky.

    The robust scatter of PSF fluxes, fitted with equal pixel weights at every
    position of blank sky.  It holds whatever the correlation of the noise and
    whatever the variance plane says.

    Parameters
    ----------
    image
        Background-subtracted image in nJy, shape (H, W).
    psf
        PSF stamp with unit sum, shape (P, P).
    sources
        True on pixels with sources, shape (H, W).

    Returns
    -------
    depth : `float`
        AB magnitude; NaN where fewer than 100 positions have at least 90
        percent of the squared PSF on blank sky, and where the scatter is zero,
        as in an image clipped at zero.
    """
    kernel = np.asarray(psf, dtype=float)
    blank = np.isfinite(image) & ~sources
    information = fftconvolve(blank.astype(float), kernel[::-1, ::-1] ** 2, mode="same")
    information /= np.sum(kernel**2)
    usable = blank & (information > _MIN_INFORMATION)
    if np.count_nonzero(usable) < _MIN_POSITIONS:
        return float("nan")
    level = np.where(blank, image, 0.0).astype(float)
    product = fftconvolve(level, kernel[::-1, ::-1], mode="same")
    # Scaled to what the whole stamp would have given for white noise.
    flux = product[usable] / np.sqrt(information[usable]) / np.sum(kernel**2)
    return depth_of_error(float(mad_std(flux)))


def depth_of_error(sigma: float) -> float:
    """Return the 5 sigma depth that corresponds to a flux error.

    Parameters
    ----------
    sigma
        Standard deviation of a flux in nJy.

    Returns
    -------
    depth : `float`
        AB magnitude of a source of 5 sigma; NaN if ``sigma`` is not positive.
    """
    if not sigma > 0:
        return float("nan")
    return float(u.Quantity(5.0 * sigma, u.nJy).to_value(u.ABmag))


def noise_correlation(image: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Return the correlation of the noise of adjacent pixels.

    Parameters
    ----------
    image
        Image, shape (H, W).
    mask
        True on pixels that are not blank sky, shape (H, W).

    Returns
    -------
    correlation : `float`
        Mean correlation coefficient of horizontal and of vertical neighbours;
        NaN with fewer than 100 pairs of either kind.
    """
    blank = np.isfinite(image) & ~mask
    coefficients = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = blank[one] & blank[other]
        first, second = image[one][both].astype(float), image[other][both].astype(float)
        if first.size < _MIN_POSITIONS or first.std() == 0 or second.std() == 0:
            return float("nan")
        coefficients.append(np.corrcoef(first, second)[0, 1])
    return float(np.mean(coefficients))
