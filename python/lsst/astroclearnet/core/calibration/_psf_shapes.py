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
from scipy.ndimage import affine_transform

NUM_SHAPES = 4
"""Number of changes: width, ellipticities along the axes and the diagonals,
and wings."""

_WING_WIDTH = 2.0
"""Width of the copy of a PSF that light of its wings goes into, relative."""

_FINE = 3
"""Odd number of points per pixel that splines interpolate between: with one,
errors of 1e-4 at high frequencies grow when a PSF is deconvolved."""

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
    steps = _STEP * torch.eye(NUM_SHAPES, dtype=psfs.dtype)
    several = psfs[:, None].expand(-1, NUM_SHAPES, -1, -1)
    return (reshape_psfs(several, steps) - reshape_psfs(several, -steps)) / (2.0 * _STEP)


def _reshape(stamp: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Change the shape of one PSF."""
    width, along, diagonal, wings = change
    longer = expm(np.array([[width + along, diagonal], [diagonal, width - along]]))
    changed = _stretch(stamp, longer)
    if not wings:
        return changed
    return (1.0 - wings) * changed + wings * _stretch(changed, _WING_WIDTH * np.eye(2))


def _stretch(stamp: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move light away from the middle by a matrix, conserving its sum."""
    size, middle = stamp.shape[0], stamp.shape[0] // 2
    spectrum = np.pad(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(stamp))), (_FINE - 1) // 2 * size)
    fine = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum)).real)
    step = _FINE * np.linalg.inv(matrix)
    stretched = affine_transform(
        fine,
        step,
        offset=fine.shape[0] // 2 - step @ np.full(2, middle),
        output_shape=stamp.shape,
        order=5,
        # Wings go on beyond the edge at its level.
        mode="nearest",
    )
    return np.asarray(stretched * (stamp.sum() / stretched.sum()))
