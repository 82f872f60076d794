# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Point-spread functions as small images."""

from __future__ import annotations

__all__ = (
    "fwhm_to_sigma",
    "gaussian_kernel",
    "kernel_fwhm",
)

import math

import numpy as np

from .._errors import InputError


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

    The effective area 1 / sum(kernel^2) is what decides the noise of PSF
    photometry; for a Gaussian it equals 4 pi sigma^2.

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
