# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""White noise that is a function of the pixel."""

from __future__ import annotations

__all__ = ("white_noise",)

import numpy as np
import torch

_BLOCK = 128
"""Side in pixels of the blocks that are drawn as a whole."""

_MASK = (1 << 64) - 1


def white_noise(
    seed: int, draw: int, exposure: int, origin: tuple[int, int], shape: tuple[int, int]
) -> torch.Tensor:
    """Draw normal noise of unit variance for a box of an exposure.

    A pixel has the same noise in every box that holds it, so that overlapping
    tiles share theirs.  Blocks of pixels take their numbers from a
    counter-based generator (Philox, Salmon et al. 2011, SC'11).

    Parameters
    ----------
    seed
        Any non-negative integer below 2**64.
    draw, exposure
        Number of the draw and of the exposure.
    origin
        Row and column of the first pixel in the exposure, not negative.
    shape
        Height and width of the box in pixels.

    Returns
    -------
    noise : `torch.Tensor`
        Shape ``shape``, float32, on the CPU.
    """
    first = [start // _BLOCK for start in origin]
    last = [-(-(start + size) // _BLOCK) for start, size in zip(origin, shape, strict=True)]
    noise = np.empty([(b - a) * _BLOCK for a, b in zip(first, last, strict=True)], dtype=np.float32)
    key = np.array([seed & _MASK, (draw << 32) + exposure], dtype=np.uint64)
    for i, j in np.ndindex(last[0] - first[0], last[1] - first[1]):
        counter = np.array([0, 0, first[0] + i, first[1] + j], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        block = noise[i * _BLOCK : (i + 1) * _BLOCK, j * _BLOCK : (j + 1) * _BLOCK]
        block[...] = generator.standard_normal((_BLOCK, _BLOCK), dtype=np.float32)
    rows, columns = (
        slice(start - _BLOCK * a, start - _BLOCK * a + size)
        for start, size, a in zip(origin, shape, first, strict=True)
    )
    return torch.from_numpy(np.ascontiguousarray(noise[rows, columns]))
