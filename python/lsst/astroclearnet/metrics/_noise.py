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

import numpy as np
from astropy.stats import mad_std
from numpy.typing import NDArray
from scipy.signal import fftconvolve

_NUM_SIGMA = 5.0
_NJY_ZERO_POINT = 31.4
_MIN_POSITIONS = 100
_MIN_INFORMATION = 0.9


def point_source_depth(variance: NDArray[Any], psf: NDArray[Any]) -> float:
    """Return the 5 sigma depth for point sources that a variance plane claims.

    The error of a flux fitted with the PSF f on pixels of independent noise
    with the variance v is sqrt(v / sum(f^2)).

    Parameters
    ----------
    variance
        Variance plane in nJy^2, any shape; its median over finite positive
        pixels counts.
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
    """Return the 5 sigma depth for point sources that blank sky shows.

    The PSF is fitted with equal pixel weights at every position of blank sky,
    and the robust scatter of these fluxes is taken as their error.  It holds
    whatever correlates the noise of neighbouring pixels and whatever the
    variance plane says.

    Parameters
    ----------
    image
        Image in nJy, shape (H, W), background-subtracted; NaN where not to be
        used.
    psf
        PSF stamp with unit sum, shape (P, P).
    sources
        True on pixels with sources, shape (H, W).

    Returns
    -------
    depth : `float`
        AB magnitude; NaN where fewer than 100 positions have at least 90
        percent of the squared PSF on blank sky, and where the scatter is
        zero, as in a map clipped at zero.
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
    """Return the 5 sigma depth that an error of fluxes means.

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
    return float(_NJY_ZERO_POINT - 2.5 * np.log10(_NUM_SIGMA * sigma))


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
        Mean of the correlation coefficients of horizontal and of vertical
        neighbours; 0 for white noise, NaN with fewer than 100 pairs of
        either kind.
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
