# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Choice of the target PSF from what the exposures can deliver."""

from __future__ import annotations

__all__ = (
    "gaussian_pair_limit",
    "linear_noise",
    "linear_psf_residual",
    "psf_fit_scatter",
    "suggest_target_fwhm",
)

import math

import numpy as np
import torch

from .._errors import InputError
from .._options import DebiasingOptions
from ..exposures import fwhm_to_sigma, kernel_fwhm
from ..forward import ForwardModel
from ._star_image import penalty_weight_for_residual, star_image, star_psf_residual

_MIN_FWHM = 2.5
"""A narrower Gaussian is not well sampled."""

_FINER = 1.5
"""Side of a pixel of the exposures, in pixels of the patch, from which on the
noise of a coadd counts as white among the former."""


def linear_noise(
    psfs: np.ndarray, levels: np.ndarray, target_fwhm: float, *, pixel_side: float = 1.0
) -> float:
    """Return the noise of the linear image at a target PSF.

    The penalty weight is that of `restore` with default options.

    Parameters
    ----------
    psfs
        Shape (n, P, P), sum 1.
    levels
        Shape (n,), variance of the blank sky in each exposure.
    target_fwhm
        FWHM of the target PSF in pixels.
    pixel_side
        Side of the pixels of the exposures, in those of the PSFs.

    Returns
    -------
    noise : `float`
        Blank-sky rms of the linear image over that of the inverse-variance
        coadd, at full weight; on a grid that is finer than the exposures by
        1.5 or more over what a pixel of it has of a coadd in their pixels.
    """
    return _noise(*_linear_estimate(psfs, levels, target_fwhm), pixel_side)


def linear_psf_residual(psfs: np.ndarray, levels: np.ndarray, target_fwhm: float) -> float:
    """Return the residual of stars in the linear image from a target PSF.

    Parameters
    ----------
    psfs, levels, target_fwhm
        As for `linear_noise`.

    Returns
    -------
    residual : `float`
        Over the peak: that of `DebiasingOptions`, or more where the target is
        too sharp for the exposures.
    """
    return star_psf_residual(*_linear_estimate(psfs, levels, target_fwhm))


def psf_fit_scatter(psfs: np.ndarray, levels: np.ndarray, target_fwhm: float) -> float:
    """Return the scatter of a plain PSF fit over its Cramer-Rao bound.

    The flux of a faint star is fitted on the linear image with the target PSF
    and equal weights.  With G the transform of the target PSF, S the spectrum
    of the noise, R the transform of the image of a star and w the inverse of
    the variances, the flux has a variance of int(G^2 S) / (int(G R))^2; the
    Cramer-Rao bound of all exposures is 1 / sum(w f^2) over exposures and
    pixels (Zackay and Ofek 2017, ApJ 836, 187).

    Parameters
    ----------
    psfs, levels, target_fwhm
        As for `linear_noise`.

    Returns
    -------
    scatter : `float`
        At least 1.  For a common Gaussian PSF of standard deviation s and a
        target of t it is t^2 / (s sqrt(2 t^2 - s^2)), where 2 t^2 > s^2 by so
        much that the penalty does not matter.
    """
    model, power, penalty_weight = _linear_estimate(psfs, levels, target_fwhm)
    target = model.target_transform
    spectrum = _noise_spectrum(model, power, penalty_weight)
    variance = float(model.fold_transform(target**2 * spectrum))
    response = float(model.fold_transform(target * star_image(model, power, penalty_weight)))
    information = float(_shares(levels) @ np.sum(psfs**2, axis=(1, 2)))
    return math.sqrt(variance * information) / response


def gaussian_pair_limit(target_fwhm: float) -> float:
    """Return the separation below which a Gaussian shows two stars as one.

    Between two equal stars there is a dip if they are more than two standard
    deviations apart (Sparrow 1916, ApJ 44, 76).

    Parameters
    ----------
    target_fwhm
        FWHM of the target PSF.

    Returns
    -------
    separation : `float`
        0.849 ``target_fwhm``.
    """
    return 2.0 * fwhm_to_sigma(target_fwhm)


def suggest_target_fwhm(
    psfs: np.ndarray, levels: np.ndarray, *, max_noise: float = 2.0, pixel_side: float = 1.0
) -> float:
    """Return the sharpest target PSF within limits on noise and residuals.

    The residual of stars is that of `DebiasingOptions`, or at most 5 % more.

    Parameters
    ----------
    psfs, levels
        As for `linear_noise`.
    max_noise
        The largest `linear_noise` that is allowed.
    pixel_side
        As for `linear_noise`.

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
    max_residual = 1.05 * DebiasingOptions().max_psf_residual
    widest = max(_MIN_FWHM, float(np.median([kernel_fwhm(psf) for psf in psfs])))
    for fwhm in np.arange(_MIN_FWHM, widest, 0.05):
        estimate = _linear_estimate(psfs, levels, float(fwhm))
        if _noise(*estimate, pixel_side) <= max_noise and star_psf_residual(*estimate) <= max_residual:
            return float(fwhm)
    return widest


def _linear_estimate(
    psfs: np.ndarray, levels: np.ndarray, target_fwhm: float
) -> tuple[ForwardModel, torch.Tensor, float]:
    """Return model, power and penalty weight of the linear image."""
    # With its margin the grid has at least 96 pixels.
    size = max(96 - psfs.shape[-1] + 1, 2)
    model = ForwardModel(torch.from_numpy(psfs).double()[:, None, None], (size, size), target_fwhm)
    shares = torch.from_numpy(_shares(levels)).float()
    power = torch.tensordot(shares, model.mean_otfs.abs() ** 2, dims=1)
    penalty_weight = penalty_weight_for_residual(model, power, DebiasingOptions().max_psf_residual)
    return model, power, penalty_weight


def _noise(model: ForwardModel, power: torch.Tensor, penalty_weight: float, pixel_side: float) -> float:
    """Return the noise of the linear image; that of the coadd is 1."""
    noise = math.sqrt(float(model.fold_transform(_noise_spectrum(model, power, penalty_weight))))
    return noise * pixel_side if pixel_side > _FINER else noise


def _shares(levels: np.ndarray) -> np.ndarray:
    """Return the weights of the exposures, with sum 1."""
    weights: np.ndarray = (1.0 / levels) / np.sum(1.0 / levels)
    return weights


def _noise_spectrum(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> torch.Tensor:
    """Return the spectrum of the noise; that of the coadd is 1."""
    return (1.0 + penalty_weight) ** 2 * power / (power + penalty_weight * model.inverse_target_power) ** 2
