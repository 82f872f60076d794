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

import math

import torch

_WORD = (1 << 64) - 1
_HALF = (1 << 32) - 1


def white_noise(
    seed: int,
    draw: int,
    exposure: int,
    origin: tuple[int, int],
    shape: tuple[int, int],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw normal noise of unit variance for a box of an exposure.

    A pixel has the same noise in every box that holds it, so that overlapping
    tiles share theirs, and on every device but for the rounding of elementary
    functions.  Numbers come from a counter-based generator (Squares, Widynski
    2020, arXiv 2004.06278) and are made normal by Box and Muller's transform.

    Parameters
    ----------
    seed
        Any non-negative integer below 2**64.
    draw, exposure
        Number of the draw and of the exposure.
    origin
        Row and column of the first pixel in the exposure, not negative and
        below 2**31.
    shape
        Height and width of the box in pixels.
    device
        Where to draw.

    Returns
    -------
    noise : `torch.Tensor`
        Shape ``shape``, float32.
    """
    key = _signed(_mix(seed ^ _mix((draw << 32) + exposure)) | 1)
    rows = torch.arange(origin[0], origin[0] + shape[0], device=device)
    # A number for two pixels, of which the first has an even column.
    pairs = torch.arange(origin[1] // 2, (origin[1] + shape[1] + 1) // 2, device=device)
    bits = _squares(((rows << 31)[:, None] + pairs) * key, key)
    # Uniform between 0 and 1, both excluded.
    first, second = (half.to(torch.float32).add_(0.5).mul_(2.0**-32) for half in (_high(bits), bits & _HALF))
    radius = first.log_().mul_(-2.0).clamp_(min=0.0).sqrt_()
    angle = second.mul_(2.0 * math.pi)
    noise = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)
    start = origin[1] % 2
    return noise[:, start : start + shape[1]].contiguous()


def _squares(y: torch.Tensor, key: int) -> torch.Tensor:
    """Return the numbers of counters, multiplied with the key, int64."""
    x, z = y, y + key
    for term in (y, z, y):
        x = _swap((x * x).add_(term))
    last = (x * x).add_(z)
    return _high(_swap(last).square_().add_(y)).bitwise_xor_(last)


def _mix(word: int) -> int:
    """Return a word of 64 bits, each a function of all bits of another
    (SplitMix64, Steele, Lea & Flood 2014, OOPSLA, 453).
    """
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    """Return the signed integer of the same 64 bits."""
    return word - (1 << 64) if word >> 63 else word


def _high(words: torch.Tensor) -> torch.Tensor:
    """Return the upper 32 bits of words."""
    return (words >> 32) & _HALF


def _swap(words: torch.Tensor) -> torch.Tensor:
    """Swap the halves of words."""
    return (words << 32) | _high(words)
