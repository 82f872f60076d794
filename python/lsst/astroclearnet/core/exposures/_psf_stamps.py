# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether the light of PSF images lies where it must."""

from __future__ import annotations

__all__ = ("find_psf_fault",)

import numpy as np

from ._kernels import fwhm_to_sigma

_LARGEST_OFFSET = 0.04
"""Offset of a PSF from the middle of its stamp beyond which it is refused, in
units of its FWHM.  Real models (DECam PSFEx, HSC, Piff of LSSTCam and
LSSTComCam) are off by 0.017 at most; defocus of up to 3 waves with half a wave
of coma, centred by its first moments, by 0.028."""

_LEAST_OFFSET = 0.1
"""The same in pixels, where it is more."""

_LARGEST_PEDESTAL = 0.1
"""Share of the light in a level that does not fall towards the edge of the
stamp, beyond which a PSF is refused.  Real models have 0.03 at most; seeing
(Kolmogorov) that is cut at its FWHM, 0.03, and at 0.8 of it, 0.16."""

_WING_SLOPE = 11.0 / 3.0
"""Power with which the light of a star falls far out, the smallest that seeing
has (Kolmogorov, doi:10.1364/JOSA.56.001372)."""

_SMALLEST_SIGMA = 0.85
"""Standard deviation in pixels of the narrowest weight; one of two pixels FWHM
is the narrowest that pixels can show."""

_NUM_STEPS, _SMALLEST_STEP = 50, 1e-3
"""Number of steps towards the centre at most, each of which about halves the
distance, and the length in pixels of the last one."""


def find_psf_fault(stamps: np.ndarray) -> str:
    """Say what is wrong with the place of the light in PSF stamps.

    The centre is the maximum of the stamp smoothed with a Gaussian of the
    same effective area.  Because an asymmetric PSF may be centred by its
    wings instead, the centre under twice as wide a weight counts if it is
    nearer.

    Parameters
    ----------
    stamps
        Shape (..., P, P), P odd, finite, of positive sums.

    Returns
    -------
    fault : `str`
        What is wrong with the first one that is wrong, to follow "The PSF";
        empty if the light of all is around the middle pixel, within 4 % of
        the FWHM or 0.1 pixels, and falls off to the edge.
    """
    size = stamps.shape[-1]
    psfs = np.asarray(stamps, dtype=float).reshape(-1, size, size)
    psfs = psfs / psfs.sum(axis=(1, 2), keepdims=True)
    pedestals = _pedestals(psfs)
    if (pedestals > _LARGEST_PEDESTAL).any():
        return (
            f"does not fall to zero at the edge of its stamp: a background of that level would be "
            f"{pedestals.max():.0%} of its light, more than {_LARGEST_PEDESTAL:.0%}. Bring its peak to the "
            "middle pixel (from the corner, numpy.fft.fftshift does so), subtract a background, or take a "
            "larger stamp."
        )
    # Effective area of a Gaussian: 4 pi sigma^2.
    sigmas = np.maximum(np.sqrt(1.0 / (4.0 * np.pi * np.square(psfs).sum(axis=(1, 2)))), _SMALLEST_SIGMA)
    start = _centers(np.maximum(psfs, 0.0), np.zeros((len(psfs), 2)), np.full(len(psfs), np.inf))
    centers = [_iterate_centers(psfs, start, factor * sigmas) for factor in (1.0, 2.0)]
    offsets = np.min([np.hypot(*center.T) for center in centers], axis=0)
    limits = np.maximum(_LARGEST_OFFSET * sigmas / fwhm_to_sigma(1.0), _LEAST_OFFSET)
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
    """Return the share of light in a level that wings do not explain."""
    size, middle = psfs.shape[-1], psfs.shape[-1] // 2
    r = np.abs(np.arange(size) - middle)
    rings = np.maximum(r[:, None], r)[..., None] == np.arange(middle + 1)
    levels = np.tensordot(psfs, rings / rings.sum(axis=(0, 1)), axes=2)
    # A stamp that was cut and padded with zeros ends where it was cut.
    outer = middle - np.argmax(levels[:, ::-1] != 0, axis=1)
    inner = 2 * outer // 3
    edge, inside = (np.take_along_axis(levels, ring[:, None], axis=1)[:, 0] for ring in (outer, inner))
    # Of the level at the edge, what remains if the rest falls off as wings do.
    with np.errstate(divide="ignore", invalid="ignore"):
        wings = np.maximum(inside - edge, 0.0) / ((outer / inner) ** _WING_SLOPE - 1.0)
    return np.where(outer > 0, (edge - wings) * (2 * outer + 1) ** 2, 0.0)


def _iterate_centers(psfs: np.ndarray, centers: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Return centres, of shape (n, 2), under Gaussian weights around them."""
    for _ in range(_NUM_STEPS):
        last, centers = centers, _centers(psfs, centers, sigmas)
        if not (np.abs(centers - last) > _SMALLEST_STEP).any():
            break
    return centers


def _centers(psfs: np.ndarray, middles: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Return centroids, of shape (n, 2), under Gaussian weights somewhere."""
    r = np.arange(psfs.shape[-1]) - psfs.shape[-1] // 2
    weights = np.exp(-0.5 * ((r - middles[:, :, None]) / sigmas[:, None, None]) ** 2)
    marginals = (
        np.einsum("nyx,nx->ny", psfs, weights[:, 1]) * weights[:, 0],
        np.einsum("nyx,ny->nx", psfs, weights[:, 0]) * weights[:, 1],
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([(m * r).sum(axis=1) / m.sum(axis=1) for m in marginals], axis=1)
