# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Correlation and interpolation by Fourier transforms.

`scipy.signal` has both, and takes half a second to import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, irfft2, next_fast_len, rfft, rfft2


def _correlate(image: NDArray[Any], kernel: NDArray[Any]) -> NDArray[np.float64]:
    """Return sums of an image times a kernel at all places where they meet."""
    shape = [a + b - 1 for a, b in zip(image.shape, kernel.shape, strict=True)]
    fast = [next_fast_len(size, real=True) for size in shape]
    product = rfft2(np.asarray(image, dtype=float), s=fast)
    product *= rfft2(np.asarray(kernel, dtype=float)[::-1, ::-1], s=fast)
    return np.asarray(irfft2(product, s=fast)[: shape[0], : shape[1]])


def _correlate_centered(image: NDArray[Any], kernel: NDArray[Any]) -> NDArray[np.float64]:
    """Return those with the middle of the kernel on each pixel."""
    top, left = ((size - 1) // 2 for size in kernel.shape)
    height, width = image.shape
    return _correlate(image, kernel)[top : top + height, left : left + width]


def _upsample(image: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Return the band-limited interpolation of an image, (f H, f W)."""
    fine = np.asarray(image, dtype=float)
    for axis, size in enumerate(image.shape):
        spectrum = rfft(fine, axis=axis)
        if size % 2 == 0:
            # The highest frequency was that of both signs.
            spectrum[(slice(None),) * axis + (-1,)] *= 0.5
        fine = factor * irfft(spectrum, factor * size, axis=axis)
    return fine
