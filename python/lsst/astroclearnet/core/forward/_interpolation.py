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

from collections.abc import Iterable, Sequence
from typing import Protocol, Self

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

    @staticmethod
    def normal(
        operators: Sequence[Interpolation], images: torch.Tensor, weights: Sequence[torch.Tensor]
    ) -> None:
        """Interpolate images at the pixels of several exposures, weight the
        values, and add up the adjoints.

        Parameters
        ----------
        operators
            Those of the exposures, on the same grid.
        images
            Shape ``(b, *latent_shape)``, float32, contiguous, as for
            `observe`; replaced.
        weights
            Shape (h, w) each.
        """
        factors = (
            (weight.flatten() * one._scale).mul_(one._scale).float()
            for one, weight in zip(operators, weights, strict=True)
        )
        engines = [one._engine for one in operators]
        type(engines[0]).normal(engines, images, factors)


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

    @classmethod
    def normal(cls, engines: Sequence[Self], images: torch.Tensor, factors: Iterable[torch.Tensor]) -> None:
        """Replace images by the sum of the adjoints of their values times
        factors.
        """
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

    @classmethod
    def normal(cls, engines: Sequence[Self], images: torch.Tensor, factors: Iterable[torch.Tensor]) -> None:
        compiled, (height, width) = engines[0]._compiled, engines[0]._latent_shape
        if len(images) < _LEAST_TOGETHER:
            sources = images.flatten(1).clone().numpy()
            results = images.zero_().flatten(1).numpy()
            for one, factor in zip(engines, factors, strict=True):
                weights = factor.numpy()
                for source, result in zip(sources, results, strict=True):
                    compiled.normal_one(source, width, one._pixels, weights, COEFFICIENTS, result)
            return
        lanes = compiled.LANES
        parts = images.split(lanes)
        before, after = torch.empty(2, len(parts), height, width, lanes)
        for some, source in zip(parts, before, strict=True):
            compiled.interleave(some.numpy(), source.numpy())
        after.zero_()
        for one, factor in zip(engines, factors, strict=True):
            weights = factor.numpy()
            for source, result in zip(before.flatten(1).numpy(), after.flatten(1).numpy(), strict=True):
                compiled.normal_lanes(source, width, lanes, one._pixels, weights, COEFFICIENTS, result)
        for some, result in zip(parts, after, strict=True):
            compiled.separate(result.numpy(), some.numpy())


def _first_tap(position: torch.Tensor, margin: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first tap, int64, and the variable of the polynomials."""
    end = position.nan_to_num() + (margin - 0.5 * WIDTH)
    first = end.ceil().clamp_(0, length - WIDTH)
    return first.long(), (2.0 * (first - end) - 1.0).float()
