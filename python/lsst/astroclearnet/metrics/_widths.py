# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Widths and shapes of PSF stamps, and widths of the stars of an image."""

from __future__ import annotations

__all__ = ("fwhm_of_kernel", "seeing_of_kernel", "shape_of_kernel", "stellar_fwhms")

from typing import Any

import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import least_squares, minimize
from scipy.signal import resample
from scipy.spatial import cKDTree

_NUM_ANGLES = 64
_RADIUS_STEP, _STEPS = 0.02, 50
_UPSAMPLING = 4

_MAX_SHAPE_STEPS = 100
_SHAPE_TOLERANCE = 1e-6
"""Relative change of the moments of a stamp at which the iteration ends."""

_RADIUS = 10
"""Half size in pixels of the box in which a star is fitted."""

_MIN_SIGNAL_TO_NOISE = 50.0
_MAX_STARS = 40
_MAX_NEIGHBOR_FLUX = 0.02
_NUM_NOISE_PIXELS = 36.0
"""Effective number of noise pixels (4 pi sigma^2) for a FWHM of 4 pixels."""


def seeing_of_kernel(kernel: NDArray[Any]) -> float:
    """Return the FWHM of the PSF of an exposure, also of a truncated stamp.

    Parameters
    ----------
    kernel
        PSF stamp, shape (P, Q), any normalisation.

    Returns
    -------
    fwhm : `float`
        Full width at half maximum in pixels as of `fwhm_of_kernel`; where the
        stamp is too small for that, the FWHM of the Gaussian with its
        effective area 1 / sum(kernel^2).
    """
    try:
        width = fwhm_of_kernel(kernel)
    except ValueError:
        width = float("nan")
    if np.isfinite(width):
        return width
    stamp = np.asarray(kernel, dtype=float)
    sigma = stamp.sum() / np.sqrt(4.0 * np.pi * np.sum(stamp**2))
    return float(sigma * gaussian_sigma_to_fwhm)


def fwhm_of_kernel(kernel: NDArray[Any]) -> float:
    """Return the full width at half maximum of a PSF stamp.

    The azimuthal mean of the band-limited interpolation of the stamp is
    followed from the sub-pixel peak out to half of the peak.

    Parameters
    ----------
    kernel
        PSF stamp, shape (P, Q) with P and Q at least 6; any normalisation and
        sub-pixel centre.  A stamp centred on a pixel is measured to 1 percent;
        one that is not to a few percent below 3 pixels, where it is no longer
        band-limited.

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
    profile = np.zeros(0)
    # Outwards in steps of a pixel, until there is no need to go on.
    for part in np.split(radius, range(_STEPS, len(radius), _STEPS)):
        ring = spline.ev(y + np.outer(part, np.sin(angle)), x + np.outer(part, np.cos(angle)))
        profile = np.append(profile, ring.mean(axis=1))
        below = np.flatnonzero(profile <= 0.5 * -found.fun * stamp.max())
        if below.size:
            break
    if below.size == 0 or below[0] == 0:
        return float("nan")
    outer = below[0]
    half = 0.5 * profile[0]
    fraction = (profile[outer - 1] - half) / (profile[outer - 1] - profile[outer])
    return float(2.0 * (radius[outer - 1] + fraction * _RADIUS_STEP))


def shape_of_kernel(kernel: NDArray[Any]) -> tuple[float, float, float]:
    """Return the size and the ellipticity of a PSF stamp.

    They follow from adaptive moments, second moments under the elliptical
    Gaussian that fits the stamp best (Bernstein & Jarvis 2002, AJ 123, 583),
    and are defined as in the property maps of ``lsst.pipe.tasks``.

    Parameters
    ----------
    kernel
        PSF stamp, shape (P, Q), any normalisation.

    Returns
    -------
    size : `float`
        Determinant radius (I_xx I_yy - I_xy^2)^(1/4) in pixels, the standard
        deviation of a round Gaussian.
    e1, e2 : `float`
        (I_xx - I_yy) and 2 I_xy over I_xx + I_yy + 2 size^2.

    Raises
    ------
    ValueError
        If the stamp is too small, has pixels that are not finite, or no
        moments, as one without a peak.
    """
    stamp = np.asarray(kernel, dtype=float)
    if stamp.ndim != 2 or min(stamp.shape) < 3 or not np.isfinite(stamp).all() or not stamp.sum() > 0:
        raise ValueError("A PSF stamp must be finite, at least 3x3 pixels, and have a positive sum.")
    y, x = (axis.ravel() for axis in np.indices(stamp.shape, dtype=float))
    light = stamp.ravel()
    position = np.array([x, y])
    center = np.array([x[np.argmax(light)], y[np.argmax(light)]])
    sigma = stamp.sum() / np.sqrt(4.0 * np.pi * np.sum(stamp**2))
    moments = np.diag([sigma**2, sigma**2])
    for _ in range(_MAX_SHAPE_STEPS):
        offset = position - center[:, None]
        weighted = light * np.exp(-0.5 * np.einsum("ip,ij,jp->p", offset, np.linalg.inv(moments), offset))
        total = weighted.sum()
        center = center + 2.0 * (offset @ weighted) / total
        observed = (offset * weighted) @ offset.T / total
        # A Gaussian under a weight of its own shape shows half its moments.
        updated = np.linalg.inv(np.linalg.inv(observed) - np.linalg.inv(moments))
        if not (np.isfinite(updated).all() and np.linalg.det(updated) > 0 and updated[0, 0] > 0):
            raise ValueError("The PSF stamp has no adaptive moments: it has no peak, or is too small.")
        change = np.abs(updated - moments).max() / np.abs(updated).max()
        moments = updated
        if change < _SHAPE_TOLERANCE:
            break
    (xx, xy), (_, yy) = moments
    area = float(np.sqrt(xx * yy - xy**2))
    norm = xx + yy + 2.0 * area
    return area**0.5, float((xx - yy) / norm), float(2.0 * xy / norm)


def stellar_fwhms(
    image: NDArray[Any],
    variance: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    flux: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Return the FWHM of the bright isolated stars of an image.

    A circular Moffat profile with free centre, index and background is fitted
    to the 21x21 pixels around the brightest 40 stars that have a
    signal-to-noise ratio above 50, no bad pixel, no border and no neighbour
    with more than 2 percent of their flux in that box.

    Parameters
    ----------
    image, variance, x, y
        As for `psf_flux`.
    flux
        Approximate fluxes in the unit of the image, shape (n,).
    model
        As for `psf_flux`.

    Returns
    -------
    fwhm : `numpy.ndarray`
        Full width at half maximum in pixels, shape (n,), of the profile
        sampled by the pixels; NaN for stars that were not measured.
    """
    data = np.asarray(image if model is None else image - model, dtype=float)
    position = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    brightness = np.asarray(flux, dtype=float)
    widths = np.full(len(position), np.nan)
    sky = variance[np.isfinite(variance) & (variance > 0)]
    if sky.size == 0 or len(position) == 0:
        return widths
    bright = brightness > _MIN_SIGNAL_TO_NOISE * np.sqrt(np.median(sky) * _NUM_NOISE_PIXELS)
    candidates = np.flatnonzero(bright & np.isfinite(position).all(axis=1) & _isolated(position, brightness))
    num_measured = 0
    for star in candidates[np.argsort(-brightness[candidates])]:
        widths[star] = _moffat_fwhm(data, position[star])
        num_measured += bool(np.isfinite(widths[star]))
        if num_measured == _MAX_STARS:
            break
    return widths


def _isolated(position: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which stars have no relevant neighbour near their box."""
    isolated = np.ones(len(position), dtype=bool)
    finite = np.flatnonzero(np.isfinite(position).all(axis=1))
    pairs = cKDTree(position[finite]).query_pairs(1.5 * _RADIUS, output_type="ndarray")
    first, second = finite[pairs[:, 0]], finite[pairs[:, 1]]
    isolated[first[flux[second] > _MAX_NEIGHBOR_FLUX * flux[first]]] = False
    isolated[second[flux[first] > _MAX_NEIGHBOR_FLUX * flux[second]]] = False
    return isolated


def _moffat_fwhm(data: NDArray[np.float64], position: NDArray[np.float64]) -> float:
    """Fit a circular Moffat profile to one star; NaN if that fails."""
    ix, iy = (round(float(value)) for value in position)
    inside = _RADIUS <= ix < data.shape[1] - _RADIUS and _RADIUS <= iy < data.shape[0] - _RADIUS
    box = data[iy - _RADIUS : iy + _RADIUS + 1, ix - _RADIUS : ix + _RADIUS + 1] if inside else np.empty(0)
    if box.size == 0 or not np.isfinite(box).all() or box.max() <= 0:
        return float("nan")
    scale = float(box.max())
    dy, dx = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1].astype(float)

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        # amplitude, x, y, FWHM, 1 / Moffat index, background
        square = 4.0 * ((dx - p[1]) ** 2 + (dy - p[2]) ** 2) / p[3] ** 2
        profile = (1.0 + np.expm1(p[4] * np.log(2.0)) * square) ** (-1.0 / p[4])
        return np.ravel(p[0] * profile + p[5] - box / scale)

    low = np.array([0.0, -2.0, -2.0, 0.5, 0.01, -1.0])
    high = np.array([10.0, 2.0, 2.0, 2.0 * _RADIUS, 0.8, 1.0])
    start = np.array([1.0, position[0] - ix, position[1] - iy, 4.0, 0.3, 0.0])
    fit = least_squares(residual, start, bounds=(low, high), x_scale=[1.0, 0.3, 0.3, 2.0, 0.2, 0.01])
    free = fit.success and np.all(np.abs(fit.x[1:3]) < 1.99) and 0.51 < fit.x[3] < 1.9 * _RADIUS
    return float(fit.x[3]) if free else float("nan")
