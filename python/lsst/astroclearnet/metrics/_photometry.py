# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Photometry at known positions, and its bias and scatter against truth."""

from __future__ import annotations

__all__ = ("SIGNAL_TO_NOISE_BINS", "psf_flux", "star_statistics")

from typing import Any

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import pinvh
from scipy.sparse import csc_array, hstack
from scipy.sparse.csgraph import connected_components

from ._point_sources import design_matrix

SIGNAL_TO_NOISE_BINS = ((5.0, 20.0), (20.0, 100.0), (100.0, np.inf))
"""Lower and upper limits of the bins of `star_statistics`."""

_MIN_RESOLUTION = 0.99
_MEDIAN_ERROR = np.sqrt(np.pi / 2.0)


def psf_flux(
    image: NDArray[Any],
    variance: NDArray[Any],
    psf: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
    fit_background: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the PSF to all stars of an image at once.

    Every star is one column of a linear model, the PSF shifted to its known
    position, and all stars whose stamps overlap are solved together.  All
    good pixels have the same weight, as the pixels' own variances would bias
    the fluxes when they hold the photon noise of the stars; the errors come
    from the variance plane.  Correlations of the noise between pixels are not
    in the errors.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W); NaN where not to be used.
    variance
        Variance plane, shape (H, W); pixels whose variance is not finite and
        positive are not used.
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel, with
        unit sum.
    x, y
        Positions in pixels, shape (n,), of all the stars, also of those that
        matter only as neighbours.
    model
        Noise-free image of what is not a star, shape (H, W), subtracted
        first.
    fit_background
        Whether to fit a constant under every group of overlapping stamps.

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
        If the planes differ in shape or the stamp is not square with an odd
        size.
    """
    data = np.asarray(image, dtype=float)
    spread = np.asarray(variance, dtype=float)
    if model is not None:
        data = data - model
    if data.shape != spread.shape:
        raise ValueError(f"Image and variance differ in shape: {data.shape} and {spread.shape}.")
    good = np.isfinite(data) & np.isfinite(spread) & (spread > 0)
    design = design_matrix(data.shape, psf, np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    design = csc_array(design.tocsr()[good.ravel()])
    flux = np.full(design.shape[1], np.nan)
    error = np.full(design.shape[1], np.nan)
    if flux.size == 0:
        return flux, error
    num_groups, group = connected_components(design.T @ design, directed=False)
    for index in range(num_groups):
        members = np.flatnonzero(group == index)
        columns = design[:, members]
        rows = np.unique(columns.indices)
        if rows.size == 0:
            continue
        columns = columns.tocsr()[rows]
        if fit_background:
            columns = hstack([columns, np.ones((rows.size, 1))], format="csr")
        solution, deviation = _solve(columns, data[good][rows], spread[good][rows])
        flux[members] = solution[: members.size]
        error[members] = deviation[: members.size]
    return flux, error


def _solve(
    columns: Any, data: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve one group by least squares with equal weights.

    Parameters
    ----------
    columns
        Sparse design matrix, shape (m, k).
    data, variance
        Pixels and their variances, shape (m,).

    Returns
    -------
    solution, error : `numpy.ndarray`
        Coefficients and their standard deviations, shape (k,); NaN where the
        data do not determine a coefficient.
    """
    normal = (columns.T @ columns).toarray()
    inverse = pinvh(normal, rtol=1e-9)
    solution = inverse @ (columns.T @ data)
    noise = (columns.T @ columns.multiply(variance[:, None])).toarray()
    error = np.sqrt(np.diag(inverse @ noise @ inverse))
    unresolved = np.diag(inverse @ normal) < _MIN_RESOLUTION
    return np.where(unresolved, np.nan, solution), np.where(unresolved, np.nan, error)


def star_statistics(
    measured_flux: ArrayLike, measured_error: ArrayLike, true_flux: ArrayLike, signal_to_noise: ArrayLike
) -> Table:
    """Return the bias and the scatter of fluxes in bins of signal-to-noise.

    Parameters
    ----------
    measured_flux, measured_error
        Fluxes and their claimed standard deviations, shape (n,); stars with a
        NaN flux are left out.
    true_flux
        True fluxes, shape (n,), positive.
    signal_to_noise
        Signal-to-noise ratio that decides the bin, shape (n,); it should not
        come from the measured flux, which would select on the noise.

    Returns
    -------
    table : `astropy.table.Table`
        One row for every bin of `SIGNAL_TO_NOISE_BINS` with the columns
        ``snr_min``, ``snr_max``, ``num_stars``, ``bias_percent`` (median of
        measured / true - 1), ``bias_percent_error``, ``scatter_percent``
        (from the median absolute deviation) and ``pull_width`` (the same of
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
