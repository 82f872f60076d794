# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The kernel of the interpolation, and its Fourier transform."""

from __future__ import annotations

import math

import numpy as np

WIDTH = 5
"""Width of the interpolation kernel in pixels."""

REACH = WIDTH // 2 + 1
"""Pixels by which taps may lie beyond the patch: the least margin of the
latent image."""

_BANDWIDTH = 0.33
"""Frequency, in cycles per pixel, up to which images have power."""

_SHAPE = 0.97 * math.pi * WIDTH * (1.0 - _BANDWIDTH)
"""Exponent of the kernel that suits the bandwidth (Barnett, Magland & af
Klinteberg 2019, SIAM J. Sci. Comput. 41, C479, section 4)."""

_DEGREE = 5
"""Degree of the polynomials.  Aliases of images within the bandwidth are the
same for degrees 5 to 11, to three digits."""

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)


def _offsets(tap: int, t: np.ndarray) -> np.ndarray:
    """Return distances of a tap from the position, for t from -1 to 1."""
    return tap - 0.5 * WIDTH + 0.5 * (t + 1.0)


def _fit_taps() -> np.ndarray:
    """Fit a polynomial to the kernel for each tap up to the middle one."""
    t = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    rows = []
    for tap in range(WIDTH // 2 + 1):
        square = 1.0 - (2.0 * _offsets(tap, t) / WIDTH) ** 2
        # Rounding may leave the end.
        profile = np.exp(_SHAPE * (np.sqrt(square.clip(0.0)) - 1.0))
        rows.append(np.polynomial.polynomial.polyfit(t, profile, _DEGREE))
    rows[-1][1::2] = 0.0
    coefficients = np.array(rows)
    return (coefficients / _values(coefficients).sum()).astype(np.float32)


def _values(coefficients: np.ndarray) -> np.ndarray:
    """Return the taps at the nodes times weights of an integral, (taps, k)."""
    taps = []
    for tap in range(WIDTH):
        mirrored = tap > WIDTH // 2
        row = coefficients[WIDTH - 1 - tap if mirrored else tap]
        taps.append(np.polynomial.polynomial.polyval(-_NODES if mirrored else _NODES, row))
    return 0.5 * np.array(taps) * _NODE_WEIGHTS


COEFFICIENTS = _fit_taps()
"""Shape (3, 6), float32: the kernel, of integral 1.

Of a pixel at ``position`` along one axis the first tap is ``first =
ceil(position - WIDTH / 2)``.  Rows are the polynomials in ``t = 2 (first -
position + WIDTH / 2) - 1``, from -1 to 1, that give the weights of taps 0 to
2.  Those of taps 3 and 4 are those of 1 and 0 at -t, and that of tap 2 is
even.  These polynomials are the kernel: on a CPU and a GPU, and in
`transfer_function`.
"""


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
    values = _values(COEFFICIENTS.astype(np.float64))
    offsets = np.stack([_offsets(tap, _NODES) for tap in range(WIDTH)])
    return np.cos(2.0 * np.pi * frequency[..., None] * offsets.ravel()) @ (values / values.sum()).ravel()
