# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Weighted mean of exposures."""

from __future__ import annotations

__all__ = ("Coadd", "coadd_psf", "inverse_variance_coadd")

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Coadd:
    """A linear combination of exposures.

    Attributes
    ----------
    image
        Coadd, shape (H, W), in the unit of the exposures; NaN where no
        exposure has a good pixel.
    variance
        Variance of every pixel by linear propagation, shape (H, W); NaN
        where the image is.
    weights
        Weight of every exposure in every pixel, shape (n, H, W); they sum to
        one where there is an exposure and are zero elsewhere.
    num_exposures
        Number of exposures in every pixel, shape (H, W), integer.
    """

    image: NDArray[Any]
    variance: NDArray[Any]
    weights: NDArray[Any]
    num_exposures: NDArray[np.int64]


def inverse_variance_coadd(images: NDArray[Any], variances: NDArray[Any], good: NDArray[np.bool_]) -> Coadd:
    """Average exposures with one weight for each of them.

    The weight of an exposure is the inverse of the median variance of its
    good pixels.  The variance of the pixel itself would favour downward
    fluctuations, and give stars another flux than the sky its noise, wherever
    it holds the photon noise of the source.

    Parameters
    ----------
    images
        Exposures on a common pixel grid and flux scale, shape (n, H, W).
    variances
        Their variances, shape (n, H, W).
    good
        True on pixels to use, shape (n, H, W).  Pixels whose image or
        variance is not finite are never used.

    Returns
    -------
    coadd : `Coadd`
        The weighted mean, in the floating-point type of ``images``.

    Raises
    ------
    ValueError
        If the shapes differ or are not (n, H, W).

    Notes
    -----
    For weights w and masks m, image = sum(w m y) / sum(w m) and variance =
    sum(w^2 m v) / sum(w m)^2, for noise that is independent from exposure to
    exposure.
    """
    usable = usable_pixels(images, variances, good)
    weight = exposure_weights(variances, usable)
    return combine(images, variances, usable, weight)


def coadd_psf(psfs: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return the PSF of a weighted mean of exposures.

    Parameters
    ----------
    psfs
        PSF stamps of the exposures, shape (n, P, P).
    weights
        Weights of the exposures, shape (n,), or the weights of a `Coadd`,
        shape (n, H, W), whose mean over all pixels counts.

    Returns
    -------
    psf : `numpy.ndarray`
        Stamp with unit sum, shape (P, P).

    Raises
    ------
    ValueError
        If the numbers of exposures differ or no weight is positive.
    """
    if psfs.ndim != 3 or len(weights) != len(psfs):
        raise ValueError(
            "Expected PSF stamps (n, P, P) and weights for n exposures; "
            f"got {psfs.shape} and {weights.shape}."
        )
    total = np.asarray(weights, dtype=float).reshape(len(psfs), -1).mean(axis=1)
    if not total.sum() > 0:
        raise ValueError("The PSF of a coadd without any exposure is not defined.")
    psf = np.tensordot(total, psfs, axes=1)
    return (psf / psf.sum()).astype(psfs.dtype)


def usable_pixels(
    images: NDArray[Any], variances: NDArray[Any], good: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Check the planes of a stack and tell which pixels can be used.

    Parameters
    ----------
    images, variances, good
        Planes of the exposures, shape (n, H, W).

    Returns
    -------
    usable : `numpy.ndarray`
        Good pixels with a finite image and a finite positive variance, shape
        (n, H, W).

    Raises
    ------
    ValueError
        If the shapes differ or are not (n, H, W).
    """
    if images.ndim != 3 or variances.shape != images.shape or good.shape != images.shape:
        raise ValueError(
            "Images, variances and good must share one shape (n, H, W); "
            f"got {images.shape}, {variances.shape} and {good.shape}."
        )
    return good.astype(bool) & np.isfinite(images) & np.isfinite(variances) & (variances > 0)


def exposure_weights(variances: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the inverse median variance of every exposure.

    Parameters
    ----------
    variances, usable
        Variances and pixels to use, shape (n, H, W).

    Returns
    -------
    weight : `numpy.ndarray`
        Weights, shape (n,); zero for an exposure without usable pixels.
    """
    return np.array(
        [1.0 / np.median(v[u]) if u.any() else 0.0 for v, u in zip(variances, usable, strict=True)],
        dtype=float,
    )


def combine(
    images: NDArray[Any], variances: NDArray[Any], usable: NDArray[np.bool_], weight: NDArray[np.float64]
) -> Coadd:
    """Average exposures with given weights.

    Parameters
    ----------
    images, variances, usable
        Planes of the exposures, shape (n, H, W).
    weight
        Weights, shape (n,).

    Returns
    -------
    coadd : `Coadd`
        The weighted mean.
    """
    weights = weight[:, None, None] * usable
    total = weights.sum(axis=0)
    covered = total > 0
    weights /= np.where(covered, total, 1.0)
    image = np.sum(weights * np.where(usable, images, 0.0), axis=0)
    variance = np.sum(weights**2 * np.where(usable, variances, 0.0), axis=0)
    dtype = np.result_type(images, np.float32)
    return Coadd(
        image=np.where(covered, image, np.nan).astype(dtype),
        variance=np.where(covered, variance, np.nan).astype(dtype),
        weights=weights.astype(dtype),
        num_exposures=np.count_nonzero(weights, axis=0),
    )
