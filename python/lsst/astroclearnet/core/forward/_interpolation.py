# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation of the latent image at the pixels of an exposure."""

from __future__ import annotations

__all__ = ("Interpolation",)

from typing import Protocol

import torch

from ._kernel_profile import COEFFICIENTS, REACH, WIDTH
from ._latent_grid import LatentGrid

_LEAST_TOGETHER = 3
"""Images that a CPU interpolates faster side by side: one takes 17 ns a pixel
both ways, up to eight take 33, and 1 each to be brought together and apart."""


class Interpolation:
    """Interpolation of images at given positions.

    A value is the sum of 5x5 pixels, weighted with the kernel along both
    axes, of an image whose transform was divided by `transfer_function`
    along both axes.  What remains are aliases of the highest frequencies, of
    which an image with a PSF of 3 pixels FWHM has hardly any.

    The weights are computed from the positions whenever they are needed, by
    compiled functions, in one thread on a CPU.  On a GPU each pixel of the
    latent image collects in a fixed order what is added to it, so that sums
    are reproducible.

    Parameters
    ----------
    y
        Shape (h, w), float64, rows on the patch; NaN for a pixel that has no
        position.
    x
        Shape (h, w), float64, columns.
    scale
        Shape (h, w), float32, factor of each interpolated value.
    grid
        Grid of the patch and the image, with a margin of at least `REACH`.

    Raises
    ------
    ValueError
        If the margin is too narrow.
    """

    def __init__(self, y: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, grid: LatentGrid) -> None:
        if grid.margin < REACH:
            raise ValueError(f"The taps of a position reach {REACH} pixels beyond, the margin {grid.margin}.")
        known = y.isfinite()
        height, width = grid.latent_shape
        row, ty = _first_tap(y, grid.margin, height)
        column, tx = _first_tap(x, grid.margin, width)
        first = torch.where(known, row * width + column, -1).flatten()
        self._shape, self._latent_shape = y.shape, grid.latent_shape
        self._scale = torch.where(known, scale, 0.0).flatten()
        engine: type[_Engine] = _CompiledInterpolation
        if y.device.type != "cpu":
            # Triton is not needed, and need not be installed, without a GPU.
            from ._interpolation_gpu import BinnedInterpolation

            engine = BinnedInterpolation
        self._engine = engine(first, ty.flatten(), tx.flatten(), grid.latent_shape)

    def observe(self, images: torch.Tensor) -> torch.Tensor:
        """Interpolate images.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, float32, divided by the transfer
            function.

        Returns
        -------
        values : `torch.Tensor`
            Shape (b, h, w), float32; 0 for a pixel that has no position.
        """
        values = self._engine.observe(images.detach().contiguous(), self._scale)
        return values.reshape(len(images), *self._shape)

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `observe`.

        Parameters
        ----------
        values
            Shape (b, h, w).

        Returns
        -------
        images : `torch.Tensor`
            Shape ``(b, *latent_shape)``, float32.
        """
        return self._engine.adjoint((values.detach().flatten(1) * self._scale).float())

    def normal(self, images: torch.Tensor, weights: torch.Tensor) -> None:
        """Interpolate images, weight the values, and apply the adjoint.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, float32, contiguous, as for
            `observe`; replaced.
        weights
            Shape (h, w).
        """
        factors = (weights.flatten() * self._scale).mul_(self._scale).float()
        self._engine.normal(images, factors)


class _Engine(Protocol):
    """Interpolation by first taps, -1 for none, and offsets, (p,) each."""

    def __init__(
        self, first: torch.Tensor, ty: torch.Tensor, tx: torch.Tensor, latent_shape: tuple[int, int]
    ) -> None: ...

    def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Return values, (b, p), times factors, (p,)."""
        ...

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Return images."""
        ...

    def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
        """Replace images by the adjoints of their values times factors."""
        ...


class _CompiledInterpolation:
    """Interpolation by compiled functions on a CPU."""

    def __init__(
        self, first: torch.Tensor, ty: torch.Tensor, tx: torch.Tensor, latent_shape: tuple[int, int]
    ) -> None:
        # The compiler takes 0.2 s to load: only where it is needed.
        from . import _interpolation_cpu

        self._compiled = _interpolation_cpu
        self._pixels = first.clamp(min=0).to(torch.int32).numpy(), ty.numpy(), tx.numpy()
        self._latent_shape = latent_shape

    def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        values = torch.empty(len(images), len(factors))
        width, scale = self._latent_shape[1], factors.numpy()
        for image, result in zip(images.flatten(1).numpy(), values.numpy(), strict=True):
            self._compiled.observe_one(image, width, self._pixels, scale, COEFFICIENTS, result)
        return values

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(values), *self._latent_shape)
        width = self._latent_shape[1]
        for value, image in zip(values.numpy(), images.flatten(1).numpy(), strict=True):
            self._compiled.adjoint_one(value, width, self._pixels, COEFFICIENTS, image)
        return images

    def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
        compiled, (height, width), weights = self._compiled, self._latent_shape, factors.numpy()
        if len(images) < _LEAST_TOGETHER:
            for image in images.flatten(1):
                source = image.clone().numpy()
                compiled.normal_one(source, width, self._pixels, weights, COEFFICIENTS, image.zero_().numpy())
            return
        lanes = compiled.LANES
        before, after = torch.empty(2, height, width, lanes)
        for some in images.split(lanes):
            compiled.interleave(some.numpy(), before.numpy())
            source, result = before.flatten().numpy(), after.zero_().flatten().numpy()
            compiled.normal_lanes(source, width, lanes, self._pixels, weights, COEFFICIENTS, result)
            compiled.separate(after.numpy(), some.numpy())


def _first_tap(position: torch.Tensor, margin: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first tap, int64, and the variable of the polynomials."""
    end = position.nan_to_num() + (margin - 0.5 * WIDTH)
    first = end.ceil().clamp_(0, length - WIDTH)
    return first.long(), (2.0 * (first - end) - 1.0).float()
