# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors at which an iterative solve stops."""

from __future__ import annotations

__all__ = ("Precision",)

import dataclasses

import torch

from ..exposures import largest_around

_EDGE = 4
"""Distance in pixels from missing data up to which errors converge slowly."""


@dataclasses.dataclass(frozen=True)
class Precision:
    """Tolerances of a solution; those of light and noise add in quadrature.

    Attributes
    ----------
    light
        Rms error over the rms light, among pixels that data surround.
    noise
        Rms error over the rms noise among them.  Stopping early takes noise
        away: up to twice this share of its variance.
    edge_noise
        Rms error over the rms noise in each block of 8 x 8 pixels at the edge
        of the data, where convergence is slow; 1e-3 of the light is allowed
        besides.  `None` if the edge does not count.
    """

    light: float = 3e-3
    noise: float = 0.02
    edge_noise: float | None = None


class ErrorMeasure:
    """Compares errors of solutions with a precision.

    Parameters
    ----------
    covered
        Shape latent_shape, 1 where there are data, 0 elsewhere.
    relative_weight
        Shape latent_shape, sum of weights over its value at full weight.
    """

    def __init__(self, covered: torch.Tensor, relative_weight: torch.Tensor) -> None:
        size = 2 * _EDGE + 1
        missing = largest_around(1.0 - covered, size)
        inner = covered * (1.0 - missing)
        choices = (inner, covered, torch.ones_like(covered))
        self._inner = next(choice for choice in choices if bool(choice.any()))
        self._edge = covered - inner
        variance = relative_weight.clamp(min=0.02).reciprocal()
        edge_share, self._variance = _block_means(torch.stack([self._edge, variance]))
        self._has_edge = bool((edge_share > 0).any())
        # Blocks without an edge never count.
        self._inverse_share = torch.where(edge_share > 0, edge_share, torch.inf).reciprocal_()

    def ratios(
        self,
        errors: torch.Tensor,
        solutions: torch.Tensor,
        noise: torch.Tensor,
        precision: Precision,
    ) -> torch.Tensor:
        """Return errors over those that are allowed, (2, b): among pixels
        that data surround, and at the edge of the data.

        Parameters
        ----------
        errors, solutions
            Shape ``(b, *latent_shape)``.
        noise
            Shape (b,), standard deviation of each at full weight.
        precision
            What is allowed.
        """
        found, light = (self._mean_square(images) for images in (errors, solutions))
        worst = found / (precision.light**2 * light + precision.noise**2 * noise.square())
        edge = torch.zeros_like(worst)
        if precision.edge_noise is not None and self._has_edge:
            light = _block_means(solutions.square())
            variance = self._variance * noise.square()[:, None, None]
            allowed = precision.edge_noise**2 * variance + 1e-3**2 * light
            found = _block_means(errors.square() * self._edge).mul_(self._inverse_share)
            edge = (found / allowed).amax(dim=(1, 2))
        return torch.stack([worst, edge]).sqrt()

    def _mean_square(self, images: torch.Tensor) -> torch.Tensor:
        """Return mean squares where data surround a pixel, (b,)."""
        return (images.square().flatten(1) @ self._inner.flatten()) / self._inner.sum()


def _block_means(images: torch.Tensor) -> torch.Tensor:
    """Return means over blocks of 8 x 8 pixels."""
    return torch.nn.functional.avg_pool2d(images, 8, ceil_mode=True)
