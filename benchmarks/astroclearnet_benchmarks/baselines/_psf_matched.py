# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Weighted mean of exposures brought to one PSF."""

from __future__ import annotations

__all__ = ("matching_kernel", "psf_matched_coadd")

from typing import Any

import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from numpy.typing import NDArray

from ._coadd import Coadd, combine, exposure_weights, inverse_variance_coadd, usable_pixels

_REGULARIZATION = 1e-6
"""Squared transfer, relative to zero frequency, below which the kernel is
damped."""

_MAX_FILLED = 0.01
"""Largest share of a kernel's absolute weight on filled pixels."""


def matching_kernel(psf: NDArray[Any], target_fwhm: float, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Return the transform of the kernel from a PSF to a circular Gaussian.

    The kernel is ``conj(F) G / (|F|^2 + eps)`` with eps = 1e-6, F the
    transform of the PSF and G that of the target, both with unit sum.

    Parameters
    ----------
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel.
    target_fwhm
        Full width at half maximum of the target in pixels.
    shape
        Height and width of the grid, at least (P, P).

    Returns
    -------
    transform : `numpy.ndarray`
        ``numpy.fft.rfft2`` of the kernel with its centre on pixel (0, 0),
        shape (H, W // 2 + 1), and value one at zero frequency.

    Raises
    ------
    ValueError
        If the stamp is not square with an odd size, does not fit the grid or
        has no positive sum, or the target width is not positive.
    """
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0 or psf.shape[0] > min(shape):
        raise ValueError(
            f"A PSF stamp must be square with an odd size and fit into {shape}; got shape {psf.shape}."
        )
    if not psf.sum() > 0 or not target_fwhm > 0:
        raise ValueError(
            "The PSF must have a positive sum and the target a positive FWHM; "
            f"got {psf.sum()} and {target_fwhm}."
        )
    stamp = np.zeros(shape)
    stamp[: psf.shape[0], : psf.shape[1]] = psf / psf.sum()
    middle = psf.shape[0] // 2
    transfer = np.fft.rfft2(np.roll(stamp, (-middle, -middle), axis=(0, 1)))
    sigma = target_fwhm * gaussian_fwhm_to_sigma
    square = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1])[None, :] ** 2
    target = np.exp(-2.0 * np.pi**2 * sigma**2 * square)
    kernel = np.conj(transfer) * target / (np.abs(transfer) ** 2 + _REGULARIZATION)
    return kernel / kernel[0, 0].real


def psf_matched_coadd(
    images: NDArray[Any],
    variances: NDArray[Any],
    good: NDArray[np.bool_],
    psfs: NDArray[Any],
    target_fwhm: float,
) -> Coadd:
    """Average exposures after bringing them to a common circular Gaussian PSF.

    Parameters
    ----------
    images
        Exposures on a common pixel grid and flux scale, shape (n, H, W).
    variances
        Their variances, shape (n, H, W), for noise independent from pixel to
        pixel.
    good
        True on pixels to use, shape (n, H, W).
    psfs
        PSF stamps, shape (n, P, P) with P odd, centred on the middle pixel.
    target_fwhm
        Full width at half maximum of the target in pixels.  It should not be
        below the width of the worst exposure: the kernels then deconvolve,
        which rings around stars and amplifies the noise.

    Returns
    -------
    coadd : `Coadd`
        The weighted mean of the matched exposures; its PSF is the target and
        its noise is correlated.

    Raises
    ------
    ValueError
        If the shapes do not agree or a stamp or the target is invalid.

    Notes
    -----
    Before an exposure is convolved, its masked pixels are filled from the
    inverse-variance coadd of all exposures, or with zero where there is none.
    A matched pixel is dropped where filled pixels hold more than 1 percent of
    the absolute weight of the kernel, so that the wrong seeing of the filling
    matters little (below 1 percent of the flux of a star whose central pixel
    is masked in one of three exposures); masks grow by about the width of the
    kernel.  Beyond the borders the exposures are mirrored.
    """
    if len(psfs) != len(images):
        raise ValueError(f"Got {len(psfs)} PSF stamps for {len(images)} exposures.")
    usable = usable_pixels(images, variances, good)
    plain = inverse_variance_coadd(images, variances, good)
    matched = np.zeros(images.shape)
    spread = np.ones(images.shape)
    kept = np.zeros(images.shape, dtype=bool)
    for index, seen in enumerate(usable):
        if not seen.any():
            continue
        filled = np.where(seen, images[index], np.nan_to_num(plain.image))
        variance = np.where(seen, variances[index], np.median(variances[index][seen]))
        matched[index], spread[index], share = _match(filled, variance, ~seen, psfs[index], target_fwhm)
        kept[index] = share <= _MAX_FILLED
    result = combine(matched, spread, kept, exposure_weights(spread, kept))
    dtype = np.result_type(images, np.float32)
    return Coadd(
        image=result.image.astype(dtype),
        variance=result.variance.astype(dtype),
        weights=result.weights.astype(dtype),
        num_exposures=result.num_exposures,
    )


def _match(
    image: NDArray[Any],
    variance: NDArray[Any],
    absent: NDArray[np.bool_],
    psf: NDArray[Any],
    target_fwhm: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Convolve one exposure with its matching kernel."""
    height, width = image.shape
    pad = min(psf.shape[0], height, width)
    shape = (height + 2 * pad, width + 2 * pad)
    transform = matching_kernel(psf, target_fwhm, shape)
    kernel = np.fft.irfft2(transform, s=shape)

    def convolve(plane: NDArray[Any], factor: NDArray[np.complex128]) -> NDArray[np.float64]:
        padded = np.fft.rfft2(np.pad(np.asarray(plane, dtype=float), pad, mode="symmetric"))
        return np.fft.irfft2(padded * factor, s=shape)[pad : pad + height, pad : pad + width]

    absolute = np.abs(kernel)
    share = convolve(absent, np.fft.rfft2(absolute / absolute.sum()))
    return convolve(image, transform), convolve(variance, np.fft.rfft2(kernel**2)), share
