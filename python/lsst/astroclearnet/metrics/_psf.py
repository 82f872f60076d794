# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Width of a PSF stamp."""

from __future__ import annotations

__all__ = ("fwhm_of_kernel", "seeing_of_kernel")

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import minimize
from scipy.signal import resample

_NUM_ANGLES = 64
_RADIUS_STEP = 0.02
_UPSAMPLING = 4


def seeing_of_kernel(kernel: NDArray[Any]) -> float:
    """Return the FWHM of the PSF of an exposure, whatever its stamp.

    Parameters
    ----------
    kernel
        PSF stamp, shape (P, Q), any normalisation.

    Returns
    -------
    fwhm : `float`
        Full width at half maximum in pixels, as of `fwhm_of_kernel`; where
        the stamp is too small for that, the FWHM of the Gaussian with its
        effective area 1 / sum(kernel^2).
    """
    try:
        width = fwhm_of_kernel(kernel)
    except ValueError:
        width = float("nan")
    if np.isfinite(width):
        return width
    stamp = np.asarray(kernel, dtype=float)
    area = stamp.sum() ** 2 / np.sum(stamp**2)
    return float(np.sqrt(2.0 * np.log(2.0) * area / np.pi))


def fwhm_of_kernel(kernel: NDArray[Any]) -> float:
    """Return the full width at half maximum of a PSF stamp.

    The stamp is interpolated as a band-limited function, its peak is found
    between the pixels and the azimuthal mean of the profile around the peak
    is followed out to half of the peak.

    Parameters
    ----------
    kernel
        PSF stamp, shape (P, Q) with P and Q at least 6; any normalisation and
        any sub-pixel centre.  A stamp centred on a pixel is measured to 1
        percent; one that is not to a few percent below 3 pixels, where it is
        not band-limited any more.

    Returns
    -------
    fwhm : `float`
        Diameter in pixels; NaN if the profile does not fall to half of its
        peak inside the stamp.

    Raises
    ------
    ValueError
        If the stamp is too small, has pixels that are not finite, or has no
        positive pixel.
    """
    stamp = np.asarray(kernel, dtype=float)
    if stamp.ndim != 2 or min(stamp.shape) < 6:
        raise ValueError(f"A PSF stamp must be 2-D and at least 6x6 pixels; got shape {stamp.shape}.")
    if not np.isfinite(stamp).all() or stamp.max() <= 0:
        raise ValueError("A PSF stamp must be finite and have a positive peak.")
    height, width = stamp.shape
    fine = resample(resample(stamp, _UPSAMPLING * height, axis=0), _UPSAMPLING * width, axis=1)
    rows, columns = (np.arange(_UPSAMPLING * size) / _UPSAMPLING for size in stamp.shape)
    spline = RectBivariateSpline(rows, columns, fine)
    start = np.array(np.unravel_index(np.argmax(stamp), stamp.shape), dtype=float)
    found = minimize(
        lambda p: -float(spline.ev(p[0], p[1])) / stamp.max(),
        start,
        method="L-BFGS-B",
        bounds=[(p - 1.0, p + 1.0) for p in start],
    )
    y, x = found.x
    edge = min(y, x, height - 1 - y, width - 1 - x)
    radius = np.arange(0.0, max(edge, 0.0), _RADIUS_STEP)
    angle = 2.0 * np.pi * np.arange(_NUM_ANGLES) / _NUM_ANGLES
    profile = spline.ev(y + np.outer(radius, np.sin(angle)), x + np.outer(radius, np.cos(angle))).mean(axis=1)
    below = np.flatnonzero(profile <= 0.5 * -found.fun * stamp.max())
    if below.size == 0 or below[0] == 0:
        return float("nan")
    outer = below[0]
    half = 0.5 * profile[0]
    fraction = (profile[outer - 1] - half) / (profile[outer - 1] - profile[outer])
    return float(2.0 * (radius[outer - 1] + fraction * _RADIUS_STEP))
