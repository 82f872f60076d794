# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The deconvolution that Rubin's pipelines make for their deblender.

Restated from what ``DeconvolveExposureTask`` of ``meas_extensions_scarlet``
07c90b5 documents of itself, for one band, one PSF and no bad pixels.
"""

from __future__ import annotations

__all__ = ("STOCK_FWHM", "deconvolve", "difference_kernel", "find_footprints", "pixel_gaussian")

import math

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma, gaussian_sigma_to_fwhm
from scipy.fft import irfft2, rfft2
from scipy.ndimage import distance_transform_edt
from scipy.special import erf

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_MODEL_SIGMA = 0.8
STOCK_FWHM = _MODEL_SIGMA * float(gaussian_sigma_to_fwhm)
"""FWHM of the model PSF of scarlet in pixels."""

_MAX_ITERATIONS, _MIN_ITERATIONS = 100, 10
_RELATIVE_CHANGE = 1e-3
"""Of the loss, below which the iteration stops."""

_SIGNAL = 3.0
"""Noise levels above which a pixel has signal, for the size of a step."""

_STEPS = (0.01, 1.0)
_STEP_UNIT = 0.1
_DETECTION, _GROWTH = 5.0, 2.4
"""Threshold of detection in noise levels, and by how many standard deviations
of the PSF footprints grow: defaults of Rubin's detection."""

_FLOOR = 1e-3
"""Transfer of a target PSF below which a difference kernel fades out."""


def pixel_gaussian(sigma: float, shape: tuple[int, int]) -> Array:
    """Return a Gaussian that is integrated over pixels, around the first one.

    Parameters
    ----------
    sigma
        Standard deviation in pixels.
    shape
        Height and width of the image, which is periodic.

    Returns
    -------
    image : `numpy.ndarray`
        Shape ``shape``, of unit sum.
    """
    profiles = []
    for length in shape:
        offset = np.fft.fftfreq(length, 1.0 / length)
        edges = [erf((offset + half) / (sigma * math.sqrt(2.0))) for half in (-0.5, 0.5)]
        profiles.append(0.5 * (edges[1] - edges[0]))
    image = np.outer(*profiles)
    return np.asarray(image / image.sum())


def difference_kernel(
    psf: Array, fwhm: float, shape: tuple[int, int], *, integrated: bool = False
) -> npt.NDArray[np.complex128]:
    """Return the transform of what broadens a Gaussian to a PSF.

    Parameters
    ----------
    psf
        The PSF, shape (P, P), centred.
    fwhm
        FWHM of the Gaussian in pixels.
    shape
        Height and width of the images to convolve.
    integrated
        Whether the Gaussian is still to be integrated over pixels.

    Returns
    -------
    kernel : `numpy.ndarray`
        Its transform, as of `scipy.fft.rfft2`.
    """
    size = len(psf)
    padded = np.zeros(shape)
    padded[:size, :size] = psf
    padded = np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1))
    sigma = fwhm * float(gaussian_fwhm_to_sigma)
    if integrated:
        transfer = rfft2(pixel_gaussian(sigma, shape)).real
    else:
        y, x = np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1])
        transfer = np.exp(-2.0 * (math.pi * sigma) ** 2 * (x**2 + y**2))
    return np.asarray(rfft2(padded) * transfer / (transfer**2 + _FLOOR**2))


def find_footprints(coadd: Array, variance: Array, psf: Array) -> Mask:
    """Return the pixels of detected sources.

    Those above five standard deviations after smoothing with the PSF, grown as
    in Rubin's detection.

    Parameters
    ----------
    coadd, variance
        Coadd and its variance, shape (H, W).
    psf
        Its PSF, shape (P, P).

    Returns
    -------
    footprints : `numpy.ndarray`
        Shape (H, W).
    """
    half = len(psf) // 2
    padded = np.zeros(coadd.shape)
    padded[: len(psf), : len(psf)] = psf
    transfer = rfft2(np.roll(padded, (-half, -half), axis=(0, 1)))
    smoothed = irfft2(rfft2(coadd) * np.conj(transfer), s=coadd.shape)
    noise = np.sqrt(np.median(variance) * np.sum(psf**2))
    # That of the Gaussian of the same effective area.
    sigma = 1.0 / math.sqrt(4.0 * math.pi * float(np.sum(psf**2)))
    found = smoothed > _DETECTION * noise
    if not found.any():
        return np.asarray(found)
    return np.asarray(distance_transform_edt(~found) <= _GROWTH * sigma)


def deconvolve(
    coadd: Array, variance: Array, psf: Array, footprints: Mask, *, accelerated: bool = False
) -> tuple[Array, int]:
    """Deconvolve a coadd to the model PSF of scarlet.

    Unweighted gradient steps from the coadd itself, with negative light and
    light outside of footprints set to zero after each; the step is smaller for
    sparse and faint images.

    Parameters
    ----------
    coadd, variance
        Coadd and its variance, shape (H, W).
    psf
        Its PSF, shape (P, P).
    footprints
        Pixels of detected sources, shape (H, W).
    accelerated
        Whether to add momentum (Beck & Teboulle 2009), which is an option of
        the task; else the step is halved whenever the loss rises.

    Returns
    -------
    image : `numpy.ndarray`
        Shape (H, W), non-negative.
    iterations : `int`
        Number of steps.
    """
    kernel = difference_kernel(psf, STOCK_FWHM, coadd.shape, integrated=True)
    step, momentum = _first_step(coadd, variance), 1.0
    image, last = coadd.copy(), math.inf
    start = image
    for iteration in range(_MAX_ITERATIONS):
        # With momentum the step starts ahead of the image.
        residual = coadd - irfft2(rfft2(start) * kernel, s=coadd.shape)
        loss = 0.5 * float(np.sum(residual**2))
        gradient = irfft2(rfft2(residual) * np.conj(kernel), s=coadd.shape)
        previous, image = image, np.clip(start + step * gradient, 0.0, None) * footprints
        start = image
        if accelerated:
            following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
            start = image + (momentum - 1.0) / following * (image - previous)
            momentum = following
        elif loss > last:
            step /= 2.0
        if iteration > _MIN_ITERATIONS and abs(last - loss) < _RELATIVE_CHANGE * loss:
            break
        last = loss
    return image, iteration + 1


def _first_step(coadd: Array, variance: Array) -> float:
    """Return the size of a step, by the share of bright pixels."""
    noise = float(np.mean(np.sqrt(variance)))
    is_signal = coadd > _SIGNAL * noise
    ratio = float(np.median(coadd[is_signal])) / noise if is_signal.any() else 1.0
    return float(np.clip(is_signal.mean() * math.sqrt(ratio) / _STEP_UNIT, *_STEPS))
