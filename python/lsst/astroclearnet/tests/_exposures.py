# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Simulated exposures whose truth is known in closed form."""

from __future__ import annotations

__all__ = ("ExposureArrays", "gaussian_stars", "make_exposure_arrays", "make_exposure_stack")

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import ExposureStack, fwhm_to_sigma, gaussian_kernel

_STARS = ((22.3, 27.6, 4000.0), (47.8, 61.1, 1500.0), (50.4, 18.7, 600.0))
"""Row, column and flux of the stars of the default scene."""


class ExposureArrays(NamedTuple):
    """The arrays that a restoration takes, in the order it takes them."""

    images: np.ndarray
    """Shape (n, H, W), float64."""

    variances: np.ndarray
    """Shape (n, H, W), float64."""

    good: np.ndarray
    """Shape (n, H, W), bool."""

    psfs: np.ndarray
    """Shape (n, P, P), float64, sum 1."""


def gaussian_stars(
    shape: tuple[int, int], stars: Sequence[tuple[float, float, float]], fwhm: float
) -> np.ndarray:
    """Return stars seen with a Gaussian PSF, evaluated from the formula.

    Parameters
    ----------
    shape
        Height and width in pixels.
    stars
        Row, column and flux of each star.
    fwhm
        FWHM of the PSF in pixels.

    Returns
    -------
    image : `numpy.ndarray`
        Shape ``shape``, float64.
    """
    sigma = fwhm_to_sigma(fwhm)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for y, x, flux in stars:
        profile = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / sigma**2)
        image += flux * profile / (2.0 * math.pi * sigma**2)
    return image


def make_exposure_arrays(
    shape: tuple[int, int] = (66, 80),
    fwhms: Sequence[float] = (3.2, 4.0, 4.8, 3.6),
    *,
    stars: Sequence[tuple[float, float, float]] = _STARS,
    sigmas: Sequence[float] | float = 1.0,
    gain: float | None = None,
    seed: int | None = 0,
    psf_size: int = 25,
) -> ExposureArrays:
    """Return exposures of stars with Gaussian PSFs and white noise.

    Parameters
    ----------
    shape
        Height and width in pixels.
    fwhms
        FWHM of the PSF of each exposure in pixels.
    stars
        Row, column and flux of each star.
    sigmas
        Noise of the blank sky, for all exposures or for each.
    gain
        Photo-electrons in one unit of flux.  Where given, stars add photon
        noise, and the variances hold it as estimated from the noisy pixels,
        as those of calibrated images do.
    seed
        Seed of the noise; `None` for noise-free images.
    psf_size
        Odd number of pixels on a side of the PSFs.

    Returns
    -------
    arrays : `ExposureArrays`
        All pixels are good.
    """
    sigma = np.broadcast_to(np.asarray(sigmas, dtype=float), (len(fwhms),))[:, None, None]
    truth = np.stack([gaussian_stars(shape, stars, fwhm) for fwhm in fwhms])
    photons = np.zeros(truth.shape) if gain is None else truth / gain
    noise = np.zeros(truth.shape)
    if seed is not None:
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=truth.shape) * np.sqrt(sigma**2 + photons)
    variances = np.broadcast_to(sigma**2, truth.shape).copy()
    if gain is not None:
        # A sky of sigma^2 gain electrons, never below a tenth of itself.
        variances = np.maximum(variances + (truth + noise) / gain, 0.1 * variances)
    return ExposureArrays(
        images=truth + noise,
        variances=variances,
        good=np.ones(truth.shape, dtype=bool),
        psfs=np.stack([gaussian_kernel(fwhm, psf_size) for fwhm in fwhms]),
    )


def make_exposure_stack(*args: Any, **kwargs: Any) -> ExposureStack:
    """Return what `make_exposure_arrays` makes as a stack on the CPU.

    Parameters
    ----------
    *args
        As for `make_exposure_arrays`.
    **kwargs
        As for `make_exposure_arrays`.

    Returns
    -------
    stack : `~lsst.astroclearnet.core.ExposureStack`
        The exposures.
    """
    return ExposureStack.from_arrays(*make_exposure_arrays(*args, **kwargs))
