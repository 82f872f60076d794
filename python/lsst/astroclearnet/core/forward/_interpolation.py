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

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

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
        self._shape, self._latent_shape = tuple(y.shape), grid.latent_shape
        self._scale = torch.where(known, scale, 0.0).flatten()
        engine: type[_Engine] = _CompiledInterpolation
        if y.device.type != "cpu":
            # Triton is not needed, and need not be installed, without a GPU.
            from ._interpolation_gpu import BinnedInterpolation

            engine = BinnedInterpolation
        self._engine = engine(first, ty.flatten(), tx.flatten(), grid.latent_shape)

    @classmethod
    def join(cls, operators: Sequence[Interpolation]) -> Interpolation:
        """Return the interpolation at the positions of several exposures.

        Parameters
        ----------
        operators
            Those of the exposures, of one shape and on the same grid.

        Returns
        -------
        joint : `Interpolation`
            For values of shape (..., m, h, w); it shares memory with them
            where it can.
        """
        joint = object.__new__(cls)
        first = operators[0]
        joint._shape, joint._latent_shape = (len(operators), *first._shape), first._latent_shape
        joint._scale = torch.cat([one._scale for one in operators])
        joint._engine = type(first._engine).join([one._engine for one in operators])
        return joint

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

    @classmethod
    def join(cls, engines: Sequence[Self]) -> Self:
        """Return the engine of the pixels of several, one after the other."""
        ...

    def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Return values, (b, p), times factors, (p,)."""
        ...

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Return images."""
        ...

    def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
        """Replace images by the adjoint of their values times factors."""
        ...


class _CompiledInterpolation:
    """Interpolation by compiled functions on a CPU."""

    def __init__(
        self, first: torch.Tensor, ty: torch.Tensor, tx: torch.Tensor, latent_shape: tuple[int, int]
    ) -> None:
        # The compiler takes 0.2 s to load: only where it is needed.
        from . import _interpolation_cpu

        self._compiled = _interpolation_cpu
        self._parts = [(first.clamp(min=0).to(torch.int32).numpy(), ty.numpy(), tx.numpy())]
        self._latent_shape = latent_shape

    @classmethod
    def join(cls, engines: Sequence[Self]) -> Self:
        joint = copy.copy(engines[0])
        joint._parts = [part for engine in engines for part in engine._parts]
        return joint

    def observe(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        values = torch.empty(len(images), len(factors))
        width = self._latent_shape[1]
        for image, result in zip(images.flatten(1).numpy(), values, strict=True):
            for pixels, scale, part in self._split(factors, result):
                self._compiled.observe_one(image, width, pixels, scale, COEFFICIENTS, part)
        return values

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(values), *self._latent_shape)
        width = self._latent_shape[1]
        for value, image in zip(values, images.flatten(1).numpy(), strict=True):
            for pixels, part in self._split(value):
                self._compiled.adjoint_one(part, width, pixels, COEFFICIENTS, image)
        return images

    def normal(self, images: torch.Tensor, factors: torch.Tensor) -> None:
        width, parts = self._latent_shape[1], list(self._split(factors))
        if len(images) < _LEAST_TOGETHER:
            for plane in images.flatten(1):
                image = plane.clone().numpy()
                plane.zero_()
                for pixels, weights in parts:
                    self._compiled.normal_one(image, width, pixels, weights, COEFFICIENTS, plane.numpy())
            return
        lanes = self._compiled.LANES
        before, after = torch.empty(2, *self._latent_shape, lanes)
        source, result = before.flatten().numpy(), after.flatten().numpy()
        for some in images.split(lanes):
            self._compiled.interleave(some.numpy(), before.numpy())
            after.zero_()
            for pixels, weights in parts:
                self._compiled.normal_lanes(source, width, lanes, pixels, weights, COEFFICIENTS, result)
            self._compiled.separate(after.numpy(), some.numpy())

    def _split(self, *values: torch.Tensor) -> Iterator[tuple[Any, ...]]:
        """Yield the pixels of each part with their values, (p,)."""
        sizes = [len(pixels[0]) for pixels in self._parts]
        for pixels, *some in zip(self._parts, *(v.split(sizes) for v in values), strict=True):
            yield pixels, *(one.numpy() for one in some)


def _first_tap(position: torch.Tensor, margin: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first tap, int64, and the variable of the polynomials."""
    end = position.nan_to_num() + (margin - 0.5 * WIDTH)
    first = end.ceil().clamp_(0, length - WIDTH)
    return first.long(), (2.0 * (first - end) - 1.0).float()
