# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF stamps: Gaussians, widths, and checks of centring and extent."""

from __future__ import annotations

__all__ = ("find_psf_fault", "fwhm_to_sigma", "gaussian_kernel", "kernel_fwhm")

import math

import numpy as np

from .._errors import InputError

_MAX_OFFSET = 0.04
"""Largest offset of a PSF from the middle of its stamp in units of its FWHM.
Measured: real models (DECam PSFEx, HSC, Piff of LSSTCam and LSSTComCam) have
0.017 at most; defocus of up to 3 waves with half a wave of coma, centred by
its first moments, 0.028."""

_MAX_OFFSET_PIXELS = 0.1
"""The same in pixels, where larger."""

_MAX_PEDESTAL = 0.1
"""Largest share of flux in a constant level. Measured: real models have 0.03
at most; a Kolmogorov PSF has 0.03 in a stamp of its FWHM, and 0.16 in 0.8 of
it."""

_WING_SLOPE = 11.0 / 3.0
"""Power-law slope of the far wings of a Kolmogorov PSF, the shallowest of
seeing (doi:10.1364/JOSA.56.001372)."""

_SMALLEST_SIGMA = 0.85
"""Smallest sigma of a weight in pixels: 2 pixels FWHM are the least that
pixels sample."""

_MAX_STEPS, _SMALLEST_STEP = 50, 1e-3
"""Limit on the steps towards the centre, each of which about halves the
distance, and the step in pixels at convergence."""


def fwhm_to_sigma(fwhm: float) -> float:
    """Return the standard deviation of a Gaussian of a given FWHM.

    Parameters
    ----------
    fwhm
        Full width at half maximum.

    Returns
    -------
    sigma : `float`
        Standard deviation, in the units of ``fwhm``.
    """
    return fwhm / math.sqrt(8.0 * math.log(2.0))


def gaussian_kernel(fwhm: float, size: int) -> np.ndarray:
    """Return a circular Gaussian sampled at pixel centres.

    Parameters
    ----------
    fwhm
        Full width at half maximum in pixels.
    size
        Odd number of pixels on a side.

    Returns
    -------
    kernel : `numpy.ndarray`
        Shape (size, size), float64, sum 1, centred on the middle pixel.

    Raises
    ------
    InputError
        If ``fwhm`` is not positive or ``size`` is not odd.
    """
    if not fwhm > 0:
        raise InputError(f"A Gaussian of FWHM {fwhm} pixels does not exist; give a positive width.")
    if size < 1 or size % 2 == 0:
        raise InputError(f"A kernel of {size} pixels has no middle pixel; give an odd size.")
    r = np.arange(size) - size // 2
    profile = np.exp(-0.5 * (r / fwhm_to_sigma(fwhm)) ** 2)
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def kernel_fwhm(kernel: np.ndarray) -> float:
    """Return the FWHM of the Gaussian with the same effective area.

    The effective area 1 / sum(kernel^2), for a Gaussian 4 pi sigma^2, sets
    the noise of PSF photometry.

    Parameters
    ----------
    kernel
        Shape (P, P), any normalisation.

    Returns
    -------
    fwhm : `float`
        Width in pixels.
    """
    normalized = np.asarray(kernel, dtype=float) / np.sum(kernel)
    area = 1.0 / float(np.sum(normalized**2))
    return math.sqrt(8.0 * math.log(2.0) * area / (4.0 * math.pi))


def find_psf_fault(stamps: np.ndarray) -> str:
    """Describe what is wrong with the centring or extent of PSF stamps.

    The centre is the maximum of the stamp smoothed with a Gaussian of the
    same effective area, or of twice that width if this is nearer: an
    asymmetric PSF may be centred by its wings.

    Parameters
    ----------
    stamps
        Shape (..., P, P), P odd, finite, of positive sums.

    Returns
    -------
    fault : `str`
        The first fault, to follow "The PSF"; empty if all are centred within
        4 % of the FWHM or 0.1 pixels, and fall off to the edge.
    """
    size = stamps.shape[-1]
    psfs = np.asarray(stamps, dtype=float).reshape(-1, size, size)
    psfs = psfs / psfs.sum(axis=(1, 2), keepdims=True)
    pedestals = _pedestals(psfs)
    if (pedestals > _MAX_PEDESTAL).any():
        return (
            f"does not fall to zero at the edge of its stamp: a background of that level would be "
            f"{pedestals.max():.0%} of its light, more than {_MAX_PEDESTAL:.0%}. Bring its peak to the "
            "middle pixel (from the corner, numpy.fft.fftshift does so), subtract a background, or take a "
            "larger stamp."
        )
    # A Gaussian has the effective area 4 pi sigma^2.
    sigmas = np.maximum(np.sqrt(1.0 / (4.0 * np.pi * np.square(psfs).sum(axis=(1, 2)))), _SMALLEST_SIGMA)
    start = _centers(np.maximum(psfs, 0.0), np.zeros((len(psfs), 2)), np.full(len(psfs), np.inf))
    centers = [_iterate_centers(psfs, start, factor * sigmas) for factor in (1.0, 2.0)]
    offsets = np.min([np.hypot(*center.T) for center in centers], axis=0)
    limits = np.maximum(_MAX_OFFSET * sigmas / fwhm_to_sigma(1.0), _MAX_OFFSET_PIXELS)
    wrong = np.flatnonzero(~(offsets <= limits))
    if not len(wrong):
        return ""
    n = wrong[0]
    return (
        f"is not in the middle of its stamp but {offsets[n]:.2f} pixels off (y {centers[0][n, 0]:+.2f}, "
        f"x {centers[0][n, 1]:+.2f}), more than {limits[n]:.2f}: it would move all sources. Shift it onto "
        "the middle pixel of a stamp with an odd number of pixels; one of an even number that was padded is "
        "half a pixel off."
    )


def _pedestals(psfs: np.ndarray) -> np.ndarray:
    """Return the share of flux in a constant level, other than wings."""
    size, middle = psfs.shape[-1], psfs.shape[-1] // 2
    r = np.abs(np.arange(size) - middle)
    rings = np.maximum(r[:, None], r)[..., None] == np.arange(middle + 1)
    levels = np.tensordot(psfs, rings / rings.sum(axis=(0, 1)), axes=2)
    # A stamp padded with zeros ends where the padding starts.
    outer = middle - np.argmax(levels[:, ::-1] != 0, axis=1)
    inner = 2 * outer // 3
    edge, inside = (np.take_along_axis(levels, ring[:, None], axis=1)[:, 0] for ring in (outer, inner))
    # Subtract power-law wings from the level at the edge.
    with np.errstate(divide="ignore", invalid="ignore"):
        wings = np.maximum(inside - edge, 0.0) / ((outer / inner) ** _WING_SLOPE - 1.0)
    return np.where(outer > 0, (edge - wings) * (2 * outer + 1) ** 2, 0.0)


def _iterate_centers(psfs: np.ndarray, centers: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Return centres, (n, 2), under iterated Gaussian weights."""
    for _ in range(_MAX_STEPS):
        last, centers = centers, _centers(psfs, centers, sigmas)
        if not (np.abs(centers - last) > _SMALLEST_STEP).any():
            break
    return centers


def _centers(psfs: np.ndarray, middles: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Return centroids, (n, 2), under Gaussian weights at given positions."""
    r = np.arange(psfs.shape[-1]) - psfs.shape[-1] // 2
    weights = np.exp(-0.5 * ((r - middles[:, :, None]) / sigmas[:, None, None]) ** 2)
    marginals = (
        np.einsum("nyx,nx->ny", psfs, weights[:, 1]) * weights[:, 0],
        np.einsum("nyx,ny->nx", psfs, weights[:, 0]) * weights[:, 1],
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([(m * r).sum(axis=1) / m.sum(axis=1) for m in marginals], axis=1)
