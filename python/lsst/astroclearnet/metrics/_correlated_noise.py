# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Photometry on images whose noise is correlated from pixel to pixel."""

from __future__ import annotations

__all__ = (
    "correlated_weights",
    "correlation_matrix",
    "flux_error_factor",
    "psf_flux_correlated",
    "psf_flux_error",
)

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, pinvh
from scipy.signal import correlate

from ._photometry import _MIN_RESOLUTION, _design_matrix

_RIDGE = 0.01
"""White noise added to the correlation when weights are computed, relative to
the pixel variance.  It keeps the weights off frequencies at which the noise
nearly vanishes, where the profile would have to be known exactly."""

_MAX_RIDGE = 1.0


def psf_flux_correlated(
    image: NDArray[Any],
    variance: NDArray[Any],
    correlation: NDArray[Any],
    psf: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the PSF to stars with the covariance of the noise.

    Each star is fitted in a box of the size of the stamp, together with all
    stars whose PSF reaches into it, with the weights of `correlated_weights`
    for noise of one variance (generalised least squares, Aitken 1936, Proc. R.
    Soc. Edinburgh 55, 42); the errors follow from the covariance
    sqrt(V_p V_q) rho(p - q) of pixels p and q alone.

    Parameters
    ----------
    image, variance
        As for `psf_flux`; the variance must not follow the noise of the
        individual pixels.
    correlation
        Noise correlation as a function of pixel separation along y and x,
        shape (K, K) with K odd, or (n, K, K) with one stamp for each star.
    psf, x, y, model
        As for `psf_flux`.

    Returns
    -------
    flux, error : `numpy.ndarray`
        As for `psf_flux`.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, if the correlation is not 1 at
        zero separation, or if the stamp is not square with an odd size.
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
    radius = psf.shape[0] // 2
    flux, error = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for index in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        row, column = round(y[index]) - radius, round(x[index]) - radius
        rows, columns = (slice(max(start, 0), max(start + 2 * radius + 1, 0)) for start in (row, column))
        box = data[rows, columns]
        if not np.isfinite(box).any():
            continue
        reach = 2 * radius + 1
        near = (np.abs(x - x[index]) <= reach) & (np.abs(y - y[index]) <= reach)
        near[index] = False
        members = np.append(index, np.flatnonzero(near))
        design = _design_matrix(box.shape, psf, x[members] - columns.start, y[members] - rows.start)
        rho = correlation_matrix(stamps[index % len(stamps)], box.shape)
        flux[index], error[index] = _solve(design.toarray(), box, spread[rows, columns], rho)
    return flux, error


def psf_flux_error(variance: float, correlation: NDArray[Any], psf: NDArray[Any]) -> float:
    """Return the error that `psf_flux_correlated` has on blank sky.

    Parameters
    ----------
    variance
        Variance of a pixel.
    correlation
        Noise correlation as a function of pixel separation, shape (K, K) with
        K odd.
    psf
        PSF stamp, shape (P, P) with P odd, unit sum.

    Returns
    -------
    error : `float`
        Standard deviation of the flux of an isolated star.
    """
    rho = correlation_matrix(np.asarray(correlation), (psf.shape[0], psf.shape[1]))
    profile = np.asarray(psf, dtype=float).ravel()
    weights = correlated_weights(profile, rho)
    return float(np.sqrt(variance * (weights @ rho @ weights)) / (weights @ profile))


def flux_error_factor(correlation: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return the ratio of the true error of a flux to that for white noise.

    A flux sum_p w_p d_p has the variance V sum_pq w_p w_q rho(p - q), while
    software that assumes white noise states V sum_p w_p^2.  The factor is

        sqrt( sum_d rho(d) A(d) / A(0) ),   A(d) = sum_p w_p w_{p + d} .

    It does not depend on the normalisation of the weights, and assumes that
    the variance V hardly changes over them.

    Parameters
    ----------
    correlation
        Noise correlation as a function of pixel separation along y and x,
        shape (K, K) with K odd, or (n, K, K) for n cells, as in
        ``restored_coadd_linear_noise``; 0 beyond the stamp.
    weights
        Weights of the pixels, shape (H, W): the PSF stamp for
        ``base_PsfFlux``; 1 inside and 0 outside of the aperture for
        ``base_CircularApertureFlux``.

    Returns
    -------
    factor : `numpy.ndarray`
        Shape () or (n,), float64; NaN for cells whose correlation is unknown
        (0 at zero separation) or would give the flux a negative variance.

    Raises
    ------
    ValueError
        If the correlation is not square with an odd size or not 1 at zero
        separation, if all weights vanish or one is not finite, or if a single
        correlation gives the flux a negative variance.
    """
    stamps = np.asarray(correlation, dtype=float)
    size = stamps.shape[-1] if stamps.ndim else 0
    if stamps.ndim not in (2, 3) or stamps.shape[-2] != size or size % 2 == 0:
        raise ValueError(f"Correlations must be square stamps of odd size; got shape {stamps.shape}.")
    middle = stamps[..., size // 2, size // 2]
    known = (middle != 0.0) | (stamps.ndim == 2)
    if not np.allclose(middle[known], 1.0, atol=1e-4):
        raise ValueError(f"The correlation of a pixel with itself must be 1; got {middle.min()}.")
    profile = np.asarray(weights, dtype=float)
    if profile.ndim != 2 or not np.isfinite(profile).all() or not profile.any():
        raise ValueError("Weights must be an image of finite values that are not all 0.")
    overlap = correlate(np.pad(profile, size // 2), profile, mode="valid")
    ratio = np.sum(stamps * overlap, axis=(-1, -2)) / overlap[size // 2, size // 2]
    if stamps.ndim == 3:
        ratio = np.where(known & (ratio >= 0.0), ratio, np.nan)
    elif ratio < 0.0:
        raise ValueError(
            f"The correlation gives the flux a variance of {float(ratio):.3g} times that of white noise."
        )
    return np.sqrt(ratio)


def correlation_matrix(stamp: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the correlation matrix of all pixels of a box.

    Parameters
    ----------
    stamp
        Noise correlation as a function of pixel separation, shape (K, K) with
        K odd; 0 beyond.
    shape
        Height and width of the box in pixels.

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
    """Return the minimum-variance weights for profiles in correlated noise.

    Parameters
    ----------
    profiles
        Profiles divided by the sigma of each pixel, shape (m,) or (m, k).
    correlation
        Correlation matrix of the pixels, shape (m, m); 1 percent of white
        noise is added to it, more where it is not positive definite.

    Returns
    -------
    weights : `numpy.ndarray`
        Inverse correlation times profiles, of their shape.

    Raises
    ------
    ValueError
        If the matrix is far from positive definite.
    """
    ridge = _RIDGE
    while ridge <= _MAX_RIDGE:
        try:
            factor = cho_factor(correlation + ridge * np.eye(len(correlation)), lower=True)
        except LinAlgError:
            # A truncated stamp need not be positive definite.
            ridge *= 2.0
        else:
            return np.asarray(cho_solve(factor, profiles))
    raise ValueError("The correlation is no correlation: its matrix has eigenvalues well below 0.")


def _check_correlation(correlation: NDArray[Any], number: int) -> NDArray[Any]:
    """Return correlation stamps with shape (1, K, K) or (n, K, K)."""
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
    box: NDArray[np.float64],
    variance: NDArray[np.float64],
    correlation: NDArray[np.float64],
) -> tuple[float, float]:
    """Return flux and error of the first star; NaN if degenerate."""
    used = np.isfinite(box.ravel())
    # Variances of bright stars have errors of PSFs, which are not correlated
    # as noise is: weights must not follow them.
    spread = np.sqrt(variance.ravel()[used])
    sigma = np.median(spread)
    columns = design[used] / sigma
    size = np.sqrt(np.sum(columns**2, axis=0))
    if not size[0] > 0:
        return np.nan, np.nan
    columns = columns[:, size > 0] / size[size > 0]
    rho = correlation[np.ix_(used, used)]
    weighted = correlated_weights(columns, rho)
    normal = columns.T @ weighted
    # Neighbours of which only a wing is in the box have small columns.
    scale = np.sqrt(np.diag(normal))
    inverse = pinvh(normal / np.outer(scale, scale), rtol=1e-9) / np.outer(scale, scale)
    if (inverse @ normal)[0, 0] < _MIN_RESOLUTION:
        return np.nan, np.nan
    weights = weighted @ inverse[:, 0]
    flux = float(weights @ (box.ravel()[used] / sigma))
    weights *= spread / sigma
    return flux / size[0], float(np.sqrt(weights @ rho @ weights)) / size[0]
