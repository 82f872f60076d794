# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Point sources at known positions as a linear model of an image."""

from __future__ import annotations

__all__ = ("point_source_image",)

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csc_array


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
    design = design_matrix(shape, psf, np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    image: NDArray[np.float64] = design @ np.asarray(flux, dtype=float)
    return image.reshape(shape)


def design_matrix(shape: tuple[int, int], psf: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> csc_array:
    """Return the images of stars of unit flux as columns of a sparse matrix.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel.
    x, y
        Positions in pixels, shape (n,); a position that is not finite gives
        an empty column.

    Returns
    -------
    design : `scipy.sparse.csc_array`
        Matrix of shape (H * W, n).

    Raises
    ------
    ValueError
        If the stamp is not square with an odd size.
    """
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
    """Return the stamp shifted by fractions of a pixel.

    The shift is a phase in Fourier space, exact for a band-limited PSF.

    Parameters
    ----------
    psf
        PSF stamp, shape (P, P) with P odd.
    dx, dy
        Shifts in pixels, shape (n,).

    Returns
    -------
    stamps : `numpy.ndarray`
        Shifted stamps, shape (n, P, P).
    """
    size = psf.shape[0]
    transform = np.fft.rfft2(np.asarray(psf, dtype=float))
    phase_y = np.exp(-2j * np.pi * np.outer(dy, np.fft.fftfreq(size)))
    phase_x = np.exp(-2j * np.pi * np.outer(dx, np.fft.rfftfreq(size)))
    return np.fft.irfft2(transform * phase_y[:, :, None] * phase_x[:, None, :], s=(size, size))
