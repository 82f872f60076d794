# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of fluxes that were measured as if noise were white."""

from __future__ import annotations

__all__ = ("flux_error_factor",)

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate


def flux_error_factor(correlation: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return by what a flux error for white noise must be multiplied.

    A flux that is a weighted sum of pixels, f = sum_p w_p d_p, has the
    variance V sum_pq w_p w_q rho(p - q), while software that takes noise for
    white states V sum_p w_p^2.  The factor is the square root of their ratio,

        sqrt( sum_d rho(d) A(d) / A(0) ),   A(d) = sum_p w_p w_{p + d} .

    It does not depend on the scale of the weights, and assumes that the
    variance V changes little over them.

    Parameters
    ----------
    correlation
        Correlation coefficients of the noise of two pixels by their
        separation along y and x, shape (K, K) with K odd, or (n, K, K) for n
        cells, as in ``restored_coadd_linear_noise``; 0 beyond the stamp.
    weights
        Weights of the pixels, shape (H, W), in any unit: the PSF stamp for
        ``base_PsfFlux``, which weights all pixels alike apart from the
        profile; ones inside of an aperture and zeros outside for
        ``base_CircularApertureFlux``.

    Returns
    -------
    factor : `numpy.ndarray`
        Shape () or (n,), float64; of n cells NaN for those whose correlation
        is not known, 0 also in the middle, or would give the flux a negative
        variance.

    Raises
    ------
    ValueError
        If the correlation is not square with an odd size or not 1 in its
        middle, if all weights vanish or one is not finite, or if the variance
        of the flux would be negative, which means that the stamp is not the
        correlation of any noise on scales of the weights.
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
    # Room for all separations of the stamp, then those alone.
    padded = np.pad(profile, size // 2)
    overlap = correlate(padded, profile, mode="valid")
    ratio = np.sum(stamps * overlap, axis=(-1, -2)) / overlap[size // 2, size // 2]
    if stamps.ndim == 3:
        # One cell keeps those of the others.
        ratio = np.where(known & (ratio >= 0.0), ratio, np.nan)
    elif ratio < 0.0:
        raise ValueError(
            f"The correlation gives the flux a variance of {float(ratio):.3g} times that of white noise."
        )
    return np.sqrt(ratio)
