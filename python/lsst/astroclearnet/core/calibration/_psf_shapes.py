# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small changes of the shape of PSFs: width, ellipticity, wings."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import expm
from scipy.ndimage import affine_transform, spline_filter

NUM_SHAPES = 4
"""Number of changes: width, ellipticities along the axes and the diagonals,
and wings."""

_WING_WIDTH = 2.0
"""Width of the copy of a PSF that light of its wings goes into, relative."""

_FINE = 3
"""Odd number of points per pixel that splines interpolate between: with one,
errors of 1e-4 at high frequencies grow when a PSF is deconvolved."""

_ORDER = 5
"""Order of these splines."""

_STEP = 0.01
"""Change by which derivatives are differenced: errors go with its square."""


def reshape_psfs(psfs: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Change the shapes of PSFs.

    Parameters
    ----------
    psfs
        Shape (..., P, P), float64, centred on the middle pixel.
    changes
        Shape (..., 4): logarithm of the factor in width; shear, positive if
        rows get longer than columns, and along the diagonals; and share of the
        light that goes into a copy of twice the width.

    Returns
    -------
    reshaped : `torch.Tensor`
        Shape (..., P, P), of the same sums.
    """
    size = psfs.shape[-1]
    each = changes.expand(*psfs.shape[:-2], NUM_SHAPES).reshape(-1, NUM_SHAPES).cpu().numpy()
    stamps = psfs.reshape(-1, size, size).cpu().numpy()
    reshaped = [
        _reshape(stamp, change) if change.any() else stamp for stamp, change in zip(stamps, each, strict=True)
    ]
    return torch.from_numpy(np.stack(reshaped)).reshape(psfs.shape).to(psfs)


def psf_derivatives(psfs: torch.Tensor) -> torch.Tensor:
    """Return the derivatives of PSFs by each change.

    Parameters
    ----------
    psfs
        Shape (n, P, P), float64.

    Returns
    -------
    derivatives : `torch.Tensor`
        Shape (n, 4, P, P), of sum 0.
    """
    found = [_differentiate(stamp) for stamp in psfs.cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(psfs)


def _differentiate(stamp: np.ndarray) -> np.ndarray:
    """Return the derivatives of one PSF, (4, P, P)."""
    spline = _Spline(stamp)
    found = []
    for direction in np.eye(NUM_SHAPES)[:3]:
        wider, narrower = (spline.stretch(_longer(sign * _STEP * direction)) for sign in (1.0, -1.0))
        found.append((wider - narrower) / (2.0 * _STEP))
    return np.stack([*found, spline.stretch(_WING_WIDTH * np.eye(2)) - stamp])


def _longer(change: np.ndarray) -> np.ndarray:
    """Return the matrix by which width and ellipticity move light."""
    width, along, diagonal, _ = change
    return np.asarray(expm(np.array([[width + along, diagonal], [diagonal, width - along]])))


def _reshape(stamp: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Change the shape of one PSF."""
    changed, wings = _Spline(stamp).stretch(_longer(change)), change[3]
    if not wings:
        return changed
    return (1.0 - wings) * changed + wings * _Spline(changed).stretch(_WING_WIDTH * np.eye(2))


class _Spline:
    """A PSF between its pixels."""

    def __init__(self, stamp: np.ndarray) -> None:
        self._stamp = stamp
        spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(stamp)))
        spectrum = np.pad(spectrum, (_FINE - 1) // 2 * len(stamp))
        fine = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum)).real)
        # Wings go on beyond the edge at its level.
        self._coefficients = spline_filter(fine, order=_ORDER, mode="nearest")

    def stretch(self, matrix: np.ndarray) -> np.ndarray:
        """Move light away from the middle by a matrix, conserving its sum."""
        step = _FINE * np.linalg.inv(matrix)
        middle = np.full(2, len(self._stamp) // 2)
        stretched = affine_transform(
            self._coefficients,
            step,
            offset=len(self._coefficients) // 2 - step @ middle,
            output_shape=self._stamp.shape,
            order=_ORDER,
            mode="nearest",
            prefilter=False,
        )
        return np.asarray(stretched * (self._stamp.sum() / stretched.sum()))
