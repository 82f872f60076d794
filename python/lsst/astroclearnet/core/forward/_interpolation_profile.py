# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""The kernel that interpolates, and its transform."""

from __future__ import annotations

__all__ = ("transfer_function",)

import math

import numpy as np

WIDTH = 5
"""Width of the interpolation kernel in pixels."""

LANES = 8
"""Number of images that are interpolated at once on the CPU."""

_BANDWIDTH = 0.33
"""Frequency, in cycles per pixel, up to which images have power."""

_SHAPE = 0.97 * math.pi * WIDTH * (1.0 - _BANDWIDTH)
"""Exponent of the kernel that suits the bandwidth (Barnett, Magland & af
Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, section 4)."""

_QUADRATURE = 64
"""Number of points with which the transform of the kernel is computed."""


def _profile(offset: np.ndarray) -> np.ndarray:
    """Return the kernel, not normalised, at distances in pixels."""
    inside = np.clip(1.0 - (2.0 * offset / WIDTH) ** 2, 0.0, None)
    return np.exp(_SHAPE * (np.sqrt(inside) - 1.0))


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return points of the kernel and their weights in an integral of it."""
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE)
    # The kernel has a vertical tangent at its ends; in this variable not.
    angle = 0.5 * np.pi * nodes
    points = 0.5 * WIDTH * np.sin(angle)
    return points, weights * 0.25 * np.pi * WIDTH * np.cos(angle) * _profile(points)


_POINTS, _POINT_WEIGHTS = _quadrature()
_INTEGRAL = float(_POINT_WEIGHTS.sum())


def kernel_profile(offset: np.ndarray) -> np.ndarray:
    """Return the interpolation kernel.

    Parameters
    ----------
    offset
        Distance from the centre of the kernel in pixels.

    Returns
    -------
    profile : `numpy.ndarray`
        The kernel, of integral 1; 0 beyond half its width.
    """
    return np.where(np.abs(offset) <= 0.5 * WIDTH, _profile(offset) / _INTEGRAL, 0.0)


def transfer_function(frequency: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of the interpolation kernel.

    Parameters
    ----------
    frequency
        Cycles per pixel.

    Returns
    -------
    transfer : `numpy.ndarray`
        Its transform, 1 at frequency 0.
    """
    return np.cos(2.0 * np.pi * frequency[..., None] * _POINTS) @ _POINT_WEIGHTS / _INTEGRAL
