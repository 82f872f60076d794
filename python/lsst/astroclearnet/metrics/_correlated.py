# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Photometry on images whose noise is correlated from pixel to pixel."""

from __future__ import annotations

__all__ = ("correlated_weights", "correlation_matrix", "psf_flux_correlated", "psf_flux_error")

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, pinvh

from ._point_sources import design_matrix

_RIDGE = 0.01
"""White noise, as a share of the variance of a pixel, that weights allow for.
It leaves the scatter as it is, and keeps weights off frequencies that have
next to no noise, where the profile would have to be known exactly."""

_MAX_RIDGE = 1.0
_MIN_RESOLUTION = 0.99


def psf_flux_correlated(
    image: NDArray[Any],
    variance: NDArray[Any],
    correlation: NDArray[Any],
    psf: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
    radius: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the PSF to stars with the covariance of the noise.

    Generalised least squares (Aitken 1936, Proc. R. Soc. Edinburgh 55, 42)
    with the covariance sqrt(V_p V_q) rho(p - q) of two pixels: the best
    linear unbiased flux, and its true error, on an image that was filtered.
    Each star is fitted on a square around it, together with all stars whose
    PSF reaches into that.  The weights are those of `correlated_weights`; the
    errors follow from the covariance alone.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W); NaN where not to be used.
    variance
        Variance plane, shape (H, W), which must not follow the noise of the
        pixels themselves; pixels whose variance is not finite and positive
        are not used.
    correlation
        Correlation coefficients of the noise of two pixels by their
        separation along y and x, shape (K, K) with K odd, or (n, K, K) with
        those around each star.
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel, with
        unit sum.
    x, y
        Positions in pixels, shape (n,), of all the stars, also of those that
        matter only as neighbours.
    model
        Noise-free image of what is not a star, shape (H, W), subtracted
        first.
    radius
        Half the side of the square in pixels; by default that of the stamp.

    Returns
    -------
    flux : `numpy.ndarray`
        Fluxes in the unit of the image, shape (n,).  NaN for stars without
        good pixels or so close to another that they cannot be told apart.
    error : `numpy.ndarray`
        Standard deviations of the fluxes, shape (n,).

    Raises
    ------
    ValueError
        If the arrays do not fit each other, if the correlation is not 1 in
        its middle, or if the stamp is not square with an odd size.
    """
    data = np.asarray(image, dtype=float)
    spread = np.asarray(variance, dtype=float)
    if data.shape != spread.shape:
        raise ValueError(f"Image and variance differ in shape: {data.shape} and {spread.shape}.")
    if model is not None:
        data = data - model
    data = np.where(np.isfinite(spread) & (spread > 0), data, np.nan)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    stamps = _check_correlation(correlation, x.size)
    radius = psf.shape[0] // 2 if radius is None else radius
    flux, error = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for index in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        row, column = round(y[index]) - radius, round(x[index]) - radius
        rows, columns = (slice(max(start, 0), max(start + 2 * radius + 1, 0)) for start in (row, column))
        window = data[rows, columns]
        if not np.isfinite(window).any():
            continue
        reach = radius + psf.shape[0] // 2 + 1
        near = (np.abs(x - x[index]) <= reach) & (np.abs(y - y[index]) <= reach)
        near[index] = False
        members = np.append(index, np.flatnonzero(near))
        design = design_matrix(window.shape, psf, x[members] - columns.start, y[members] - rows.start)
        rho = correlation_matrix(stamps[index % len(stamps)], window.shape)
        flux[index], error[index] = _solve(design.toarray(), window, spread[rows, columns], rho)
    return flux, error


def psf_flux_error(variance: float, correlation: NDArray[Any], psf: NDArray[Any]) -> float:
    """Return the error that `psf_flux_correlated` has on blank sky.

    Parameters
    ----------
    variance
        Variance of a pixel.
    correlation
        Correlation coefficients of the noise by separation, shape (K, K) with
        K odd.
    psf
        PSF stamp, shape (P, P) with P odd, with unit sum.

    Returns
    -------
    error : `float`
        Standard deviation of the flux of an isolated star.
    """
    rho = correlation_matrix(np.asarray(correlation), (psf.shape[0], psf.shape[1]))
    profile = np.asarray(psf, dtype=float).ravel()
    weights = correlated_weights(profile, rho)
    return float(np.sqrt(variance * (weights @ rho @ weights)) / (weights @ profile))


def correlation_matrix(stamp: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Spread a correlation stamp over all pairs of pixels of a window.

    Parameters
    ----------
    stamp
        Correlation coefficients by separation, shape (K, K) with K odd; they
        are 0 beyond it.
    shape
        Height and width of the window in pixels.

    Returns
    -------
    matrix : `numpy.ndarray`
        Shape (H * W, H * W).
    """
    half = stamp.shape[0] // 2
    padded = np.pad(np.asarray(stamp, dtype=float), max(0, max(shape) - 1 - half))
    middle = padded.shape[0] // 2
    y, x = (axis.ravel() for axis in np.indices(shape))
    matrix: NDArray[np.float64] = padded[middle + y[:, None] - y, middle + x[:, None] - x]
    return matrix


def correlated_weights(profiles: NDArray[Any], correlation: NDArray[Any]) -> NDArray[np.float64]:
    """Return the best weights to measure profiles in correlated noise.

    Parameters
    ----------
    profiles
        Profiles over the sigma of each pixel, shape (m,) or (m, k).
    correlation
        Correlation of the pixels, shape (m, m); some white noise is added,
        so that frequencies on which noise is claimed to vanish do not decide.

    Returns
    -------
    weights : `numpy.ndarray`
        The inverse of the correlation times the profiles, of their shape.

    Raises
    ------
    ValueError
        If the matrix is far from a correlation.
    """
    ridge = _RIDGE
    while ridge <= _MAX_RIDGE:
        try:
            factor = cho_factor(correlation + ridge * np.eye(len(correlation)), lower=True)
        except LinAlgError:
            # A stamp that was cut off need not be positive definite.
            ridge *= 2.0
        else:
            return np.asarray(cho_solve(factor, profiles))
    raise ValueError("The correlation is no correlation: its matrix has eigenvalues well below 0.")


def _check_correlation(correlation: NDArray[Any], number: int) -> NDArray[Any]:
    """Return stamps as an array of three dimensions, one of all stars or n.

    Parameters
    ----------
    correlation
        As of `psf_flux_correlated`.
    number
        Number of stars.

    Returns
    -------
    stamps : `numpy.ndarray`
        Shape (1, K, K) or (n, K, K).

    Raises
    ------
    ValueError
        If it is none of these, or not 1 in the middle.
    """
    stamps = np.asarray(correlation)
    if stamps.ndim == 2:
        stamps = stamps[np.newaxis]
    size = stamps.shape[-1]
    if stamps.ndim != 3 or stamps.shape[-2] != size or size % 2 == 0 or len(stamps) not in (1, number):
        raise ValueError(
            "Correlations must be square stamps of odd size, one in all or one for each of the "
            f"{number} stars; got shape {np.shape(correlation)}."
        )
    middle = stamps[:, size // 2, size // 2]
    if not np.allclose(middle, 1.0, atol=1e-4):
        raise ValueError(f"The correlation of a pixel with itself must be 1; got {middle.min()}.")
    return stamps


def _solve(
    design: NDArray[np.float64],
    window: NDArray[np.float64],
    variance: NDArray[np.float64],
    correlation: NDArray[np.float64],
) -> tuple[float, float]:
    """Fit stars to a window and return the flux of the first and its error.

    Parameters
    ----------
    design
        Images of the stars, shape (m, k).
    window, variance
        Pixels, NaN where not to be used, and their variances, m in all.
    correlation
        Their correlation, shape (m, m).

    Returns
    -------
    flux, error : `float`
        NaN where the data do not determine them.
    """
    used = np.isfinite(window.ravel())
    sigma = np.sqrt(variance.ravel()[used])
    columns = design[used] / sigma[:, np.newaxis]
    size = np.sqrt(np.sum(columns**2, axis=0))
    if not size[0] > 0:
        return np.nan, np.nan
    columns = columns[:, size > 0] / size[size > 0]
    rho = correlation[np.ix_(used, used)]
    weighted = correlated_weights(columns, rho)
    normal = columns.T @ weighted
    # Neighbours of which only a wing is in the window have small columns.
    scale = np.sqrt(np.diag(normal))
    inverse = pinvh(normal / np.outer(scale, scale), rtol=1e-9) / np.outer(scale, scale)
    if (inverse @ normal)[0, 0] < _MIN_RESOLUTION:
        return np.nan, np.nan
    weights = weighted @ inverse[:, 0]
    flux = float(weights @ (window.ravel()[used] / sigma))
    return flux / size[0], float(np.sqrt(weights @ rho @ weights)) / size[0]
