# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation on a GPU, with kernels in Triton."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl

from ._kernel_profile import COEFFICIENTS

_BLOCK = 128
"""Pixels of one program: four warps."""

_MOST_TOGETHER = 8
"""Images for which weights are computed once, so that sums stay in
registers."""


class BinnedInterpolation:
    """Interpolation of images by the first taps of pixels.

    Pixels are sorted by their first tap.  Each pixel of the latent image then
    finds those that reach it, in 5x5 bins, and adds up what they give, always
    in the same order.

    Parameters
    ----------
    first
        Shape (p,), int64, index of the first tap in the latent image; -1 for
        a pixel that has no position.
    ty, tx
        Shape (p,), float32, where the position lies between taps.
    latent_shape
        Height and width of the latent image in pixels.
    """

    def __init__(
        self, first: torch.Tensor, ty: torch.Tensor, tx: torch.Tensor, latent_shape: tuple[int, int]
    ) -> None:
        self._latent_shape = latent_shape
        size = latent_shape[0] * latent_shape[1]
        sorted_first, order = torch.sort(torch.where(first < 0, size, first), stable=True)
        starts = torch.searchsorted(sorted_first, torch.arange(size + 1, device=first.device))
        self._most = starts.diff().amax().to(torch.int32)
        self._first, self._order, self._starts = (
            t.to(torch.int32) for t in (sorted_first % size, order, starts)
        )
        self._ty, self._tx = ty[order], tx[order]
        self._coefficients = _coefficients(first.device)

    def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Interpolate images; return values.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, float32, contiguous.
        factors
            Shape (p,), float32, of the values.
        """
        values = self._gather(images, factors)
        result = torch.empty_like(values)
        result[:, self._order] = values
        return result

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `observe` without factors; return images.

        Parameters
        ----------
        values
            Shape (b, p), float32.
        """
        images = torch.empty(len(values), *self._latent_shape, device=values.device)
        self._collect(values[:, self._order], images)
        return images

    def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
        """Interpolate images, and apply the adjoint.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, float32, contiguous; replaced.
        factors
            Shape (p,), float32, of the values.
        """
        self._collect(self._gather(images, factors), images)

    def _gather(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Return values in the order of the bins, (b, p)."""
        number, (height, width) = len(self._first), self._latent_shape
        values = torch.empty(len(images), number, device=images.device)
        pixels = self._first, self._ty, self._tx, self._order
        grid = triton.cdiv(number, _BLOCK), len(images)
        with _on_device_of(images):
            _gather_kernel[grid](
                images,
                *pixels,
                factors,
                self._coefficients,
                values,
                number,
                width,
                height * width,
                BLOCK=_BLOCK,
            )
        return values

    def _collect(self, values: torch.Tensor, images: torch.Tensor) -> None:
        """Fill images from values in the order of the bins, (b, p)."""
        height, width = self._latent_shape
        together = min(_MOST_TOGETHER, triton.next_power_of_2(len(images)))
        grid = triton.cdiv(height * width, _BLOCK), triton.cdiv(len(images), together)
        with _on_device_of(images):
            _collect_kernel[grid](
                values,
                self._starts,
                self._ty,
                self._tx,
                self._coefficients,
                self._most,
                images,
                len(self._first),
                len(images),
                width,
                height * width,
                BLOCK=_BLOCK,
                TOGETHER=together,
            )


@functools.cache
def _coefficients(device: torch.device) -> torch.Tensor:
    """Return the coefficients of the kernel on a device."""
    return torch.from_numpy(COEFFICIENTS).to(device)


def _on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Make its device the one on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


@triton.jit
def _tap(t: tl.tensor, coefficients: tl.tensor, tap: tl.constexpr) -> tl.tensor:
    """Return the weight of a tap along one axis."""
    row = 6 * (tap if tap <= 2 else 4 - tap)
    q = t * t
    even = tl.load(coefficients + row + 2) + q * tl.load(coefficients + row + 4)
    odd = tl.load(coefficients + row + 3) + q * tl.load(coefficients + row + 5)
    even = tl.load(coefficients + row) + q * even
    odd = t * (tl.load(coefficients + row + 1) + q * odd)
    return even + odd if tap <= 2 else even - odd


@triton.jit
def _gather_kernel(  # noqa: PLR0913
    images: tl.tensor,
    first: tl.tensor,
    ty: tl.tensor,
    tx: tl.tensor,
    order: tl.tensor,
    factors: tl.tensor,
    coefficients: tl.tensor,
    values: tl.tensor,
    num_pixels: tl.tensor,
    width: tl.tensor,
    image_size: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Interpolate an image at some pixels."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    known = k < num_pixels
    taps = images + image * image_size + tl.load(first + k, mask=known, other=0)
    factor = tl.load(factors + tl.load(order + k, mask=known, other=0), mask=known, other=0.0)
    used = known & (factor != 0.0)
    y = tl.load(ty + k, mask=known, other=0.0)
    x = tl.load(tx + k, mask=known, other=0.0)
    total = tl.full([BLOCK], 0.0, tl.float32)
    for i in tl.static_range(5):
        row = tl.full([BLOCK], 0.0, tl.float32)
        for j in tl.static_range(5):
            row += _tap(x, coefficients, j) * tl.load(taps + i * width + j, mask=used, other=0.0)
        total += _tap(y, coefficients, i) * row
    tl.store(values + image * num_pixels + k, factor * total, mask=known)


@triton.jit
def _collect_kernel(  # noqa: PLR0913
    values: tl.tensor,
    starts: tl.tensor,
    ty: tl.tensor,
    tx: tl.tensor,
    coefficients: tl.tensor,
    most: tl.tensor,
    images: tl.tensor,
    num_pixels: tl.tensor,
    num_images: tl.tensor,
    width: tl.tensor,
    image_size: tl.tensor,
    BLOCK: tl.constexpr,
    TOGETHER: tl.constexpr,
) -> None:
    """Add up the values whose taps reach some pixels of images."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = (tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)).to(tl.int64)
    inside = place < image_size
    row, column = place // width, place % width
    total = tl.full([BLOCK, TOGETHER], 0.0, tl.float32)
    repeats = tl.load(most)
    for i in tl.static_range(5):
        for j in tl.static_range(5):
            bin_known = inside & (row >= i) & (column >= j)
            start = tl.load(starts + place - i * width - j, mask=bin_known, other=0)
            stop = tl.load(starts + place - i * width - j + 1, mask=bin_known, other=0)
            for n in range(repeats):
                k = start + n
                known = k < stop
                y = tl.load(ty + k, mask=known, other=0.0)
                x = tl.load(tx + k, mask=known, other=0.0)
                weight = _tap(y, coefficients, i) * _tap(x, coefficients, j)
                found = tl.load(
                    values + image[None, :] * num_pixels + k[:, None],
                    mask=known[:, None] & (image < num_images)[None, :],
                    other=0.0,
                )
                total += weight[:, None] * found
    known = inside[:, None] & (image < num_images)[None, :]
    tl.store(images + image[None, :] * image_size + place[:, None], total, mask=known)
