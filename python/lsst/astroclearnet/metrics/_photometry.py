# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Point sources at known positions: images of them, and fits of their flux."""

from __future__ import annotations

__all__ = ("point_source_image", "psf_flux")

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import pinvh
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components

_MIN_RESOLUTION = 0.99
"""Least diagonal element of the resolution matrix of a star that is
distinguished from its neighbours."""


def psf_flux(
    image: NDArray[Any],
    variance: NDArray[Any],
    psf: NDArray[Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    model: NDArray[Any] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the PSF to all stars of an image at once.

    A linear least-squares fit of the PSF shifted to each position; stars whose
    stamps overlap are solved together.  All good pixels have the same weight,
    as variances that hold the photon noise of the stars would bias the
    fluxes.  The errors come from the variance plane, without correlations
    between pixels.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W).
    variance
        Variance plane, shape (H, W); pixels whose variance is not finite and
        positive are not used.
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel, unit
        sum.
    x, y
        Positions in pixels, shape (n,), of all the stars, also of those that
        matter only as neighbours.
    model
        Noise-free image of what is not a star, shape (H, W), subtracted first.

    Returns
    -------
    flux, error : `numpy.ndarray`
        Fluxes in the unit of the image and their standard deviations, shape
        (n,); NaN for stars without good pixels or inseparable from another.

    Raises
    ------
    ValueError
        If the planes differ in shape or the stamp is not square with an odd
        size.
    """
    data = np.asarray(image, dtype=float)
    spread = np.asarray(variance, dtype=float)
    if model is not None:
        data = data - model
    if data.shape != spread.shape:
        raise ValueError(f"Image and variance differ in shape: {data.shape} and {spread.shape}.")
    good = np.isfinite(data) & np.isfinite(spread) & (spread > 0)
    design = _design_matrix(data.shape, psf, np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    design = csc_array(design.tocsr()[good.ravel()])
    flux = np.full(design.shape[1], np.nan)
    error = np.full(design.shape[1], np.nan)
    if flux.size == 0:
        return flux, error
    num_groups, group = connected_components(design.T @ design, directed=False)
    for index in range(num_groups):
        members = np.flatnonzero(group == index)
        columns = design[:, members]
        rows = np.unique(columns.indices)
        if rows.size == 0:
            continue
        flux[members], error[members] = _solve(columns.tocsr()[rows], data[good][rows], spread[good][rows])
    return flux, error


def _solve(
    columns: Any, data: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit one group of stars with equal pixel weights; NaN if degenerate."""
    normal = (columns.T @ columns).toarray()
    inverse = pinvh(normal, rtol=1e-9)
    solution = inverse @ (columns.T @ data)
    noise = (columns.T @ columns.multiply(variance[:, None])).toarray()
    error = np.sqrt(np.diag(inverse @ noise @ inverse))
    unresolved = np.diag(inverse @ normal) < _MIN_RESOLUTION
    return np.where(unresolved, np.nan, solution), np.where(unresolved, np.nan, error)


def point_source_image(
    shape: tuple[int, int], psf: NDArray[Any], x: ArrayLike, y: ArrayLike, flux: ArrayLike
) -> NDArray[np.float64]:
    """Return the noise-free image of stars.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel.
    x, y
        Positions in pixels, shape (n,); stars off the image are clipped.
    flux
        Fluxes, shape (n,).

    Returns
    -------
    image : `numpy.ndarray`
        Image, shape ``shape``, in the unit of ``flux``.

    Raises
    ------
    ValueError
        If the stamp is not square with an odd size.
    """
    design = _design_matrix(shape, psf, np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    image: NDArray[np.float64] = design @ np.asarray(flux, dtype=float)
    return image.reshape(shape)


def _design_matrix(shape: tuple[int, int], psf: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> csc_array:
    """Return stars of unit flux as columns of a matrix, (H * W, n)."""
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
        raise ValueError(f"A PSF stamp must be square with an odd size; got shape {psf.shape}.")
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(usable, x, -1e6), np.where(usable, y, -1e6)
    ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
    stamps = _shifted_stamps(psf, x - ix, y - iy)
    offset = np.arange(psf.shape[0]) - psf.shape[0] // 2
    rows = np.broadcast_to((iy[:, None] + offset)[:, :, None], stamps.shape)
    columns = np.broadcast_to((ix[:, None] + offset)[:, None, :], stamps.shape)
    star = np.broadcast_to(np.arange(x.size)[:, None, None], stamps.shape)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    pixel = rows[inside] * shape[1] + columns[inside]
    return coo_array((stamps[inside], (pixel, star[inside])), shape=(shape[0] * shape[1], x.size)).tocsc()


def _shifted_stamps(psf: NDArray[Any], dx: NDArray[Any], dy: NDArray[Any]) -> NDArray[np.float64]:
    """Shift the stamp by sub-pixel amounts with a phase in Fourier space."""
    size = psf.shape[0]
    transform = np.fft.rfft2(np.asarray(psf, dtype=float))
    phase_y = np.exp(-2j * np.pi * np.outer(dy, np.fft.fftfreq(size)))
    phase_x = np.exp(-2j * np.pi * np.outer(dx, np.fft.rfftfreq(size)))
    return np.fft.irfft2(transform * phase_y[:, :, None] * phase_x[:, None, :], s=(size, size))
