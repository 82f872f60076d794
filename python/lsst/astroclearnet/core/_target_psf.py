# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Choice of the target PSF from what the exposures can deliver."""

from __future__ import annotations

__all__ = ("linear_noise", "suggest_target_fwhm")

import math

import numpy as np

from ._errors import InputError
from ._kernels import fwhm_to_sigma, kernel_fwhm

_GRID = 96
_STRENGTH = 1e-6
_MIN_FWHM = 2.5
"""A narrower Gaussian is not well sampled."""


def linear_noise(psfs: np.ndarray, levels: np.ndarray, target_fwhm: float) -> float:
    """Return the noise of the unbiased linear restoration to a target PSF.

    Parameters
    ----------
    psfs
        Shape (n, P, P), sum 1.
    levels
        Shape (n,), variance of the blank sky in each exposure.
    target_fwhm
        FWHM of the target PSF in pixels.

    Returns
    -------
    noise : `float`
        Blank-sky rms of the restoration over that of the inverse-variance
        coadd, at full depth.
    """
    size = max(_GRID, psfs.shape[-1])
    transforms = np.fft.rfft2(psfs, s=(size, size))
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    target = np.exp(-4.0 * (math.pi * fwhm_to_sigma(target_fwhm)) ** 2 * (ky**2 + kx**2))
    weights = (1.0 / levels) / np.sum(1.0 / levels)
    power = np.tensordot(weights, np.abs(transforms) ** 2, axes=1)
    # In units of the sky before the target PSF; the penalty is white there.
    spectrum = target * power / (power + _STRENGTH) ** 2
    columns = np.full(spectrum.shape[1], 2.0)
    columns[[0, -1]] = 1.0
    return math.sqrt(float((spectrum * columns).sum() / size**2))


def suggest_target_fwhm(psfs: np.ndarray, levels: np.ndarray, *, max_noise: float = 2.0) -> float:
    """Return the sharpest target PSF that keeps the noise in bounds.

    Parameters
    ----------
    psfs
        Shape (n, P, P), sum 1.
    levels
        Shape (n,), variance of the blank sky in each exposure.
    max_noise
        Largest blank-sky rms of the unbiased linear restoration, over that of
        the inverse-variance coadd.

    Returns
    -------
    target_fwhm : `float`
        FWHM in pixels, at least 2.5 and at most that of the median exposure.

    Raises
    ------
    InputError
        If ``max_noise`` is not positive.
    """
    if not max_noise > 0:
        raise InputError(f"max_noise={max_noise} must be positive.")
    widest = max(_MIN_FWHM, float(np.median([kernel_fwhm(psf) for psf in psfs])))
    for fwhm in np.arange(_MIN_FWHM, widest, 0.05):
        if linear_noise(psfs, levels, float(fwhm)) <= max_noise:
            return float(fwhm)
    return widest
