# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How far errors of a solution are from being small, wherever one looks."""

from __future__ import annotations

__all__ = ("Precision",)

import dataclasses

import torch

_BLOCK = 8
"""Side in pixels of the blocks in which errors at the edge are judged."""

_EDGE = 4
"""Distance in pixels from missing data up to which errors converge slowly."""

_EDGE_LIGHT = 1e-3
"""Error that is allowed there in each block, relative to the light."""

_DEPTH_FLOOR = 0.02
"""Least depth from which noise is told."""


@dataclasses.dataclass(frozen=True)
class Precision:
    """Errors that are allowed.

    Attributes
    ----------
    light
        Root mean square of the error where data surround a pixel, over that of
        the light there.
    noise
        The same in units of the noise, which adds in quadrature.  Steps that
        are left out take noise away: up to twice as much of its variance.
    edge_noise
        The same in each block at the edge of the data, where one waits long
        for it; 1e-3 of the light is allowed besides.  `None` if the edge does
        not count.
    """

    light: float = 3e-3
    noise: float = 0.02
    edge_noise: float | None = None


class ErrorMeasure:
    """Errors of solutions, relative to the noise and the light around.

    Parameters
    ----------
    covered
        Shape latent_shape, 1 where there are data, 0 elsewhere.
    depth
        Shape latent_shape, sum of weights over its value at full depth.
    """

    def __init__(self, covered: torch.Tensor, depth: torch.Tensor) -> None:
        size = 2 * _EDGE + 1
        missing = torch.nn.functional.max_pool2d(1.0 - covered[None], size, stride=1, padding=_EDGE)[0]
        inner = covered * (1.0 - missing)
        choices = (inner, covered, torch.ones_like(covered))
        self._inner = next(choice for choice in choices if bool(choice.any()))
        self._edge = covered - inner
        variance = depth.clamp(min=_DEPTH_FLOOR).reciprocal()
        self._edge_share, self._variance = _block_means(torch.stack([self._edge, variance]))

    def ratios(
        self,
        errors: torch.Tensor,
        solutions: torch.Tensor,
        noise: torch.Tensor,
        precision: Precision,
    ) -> torch.Tensor:
        """Return errors over those that are allowed.

        Parameters
        ----------
        errors
            Shape ``(b, *latent_shape)``, errors of solutions.
        solutions
            Shape ``(b, *latent_shape)``, the solutions.
        noise
            Shape (b,), standard deviation of each at full depth.
        precision
            What is allowed.

        Returns
        -------
        ratios : `torch.Tensor`
            Shape (b,), at most 1 where a solution is good enough.
        """
        found, light = (self._mean_square(images) for images in (errors, solutions))
        worst = found / (precision.light**2 * light + precision.noise**2 * noise.square())
        used = self._edge_share > 0
        if precision.edge_noise is not None and bool(used.any()):
            light = _block_means(solutions.square())
            variance = self._variance * noise.square()[:, None, None]
            allowed = precision.edge_noise**2 * variance + _EDGE_LIGHT**2 * light
            found = (_block_means(errors.square() * self._edge) / allowed)[:, used] / self._edge_share[used]
            worst = torch.maximum(worst, found.amax(dim=1))
        return worst.sqrt()

    def _mean_square(self, images: torch.Tensor) -> torch.Tensor:
        """Return mean squares where data surround a pixel, (b,)."""
        return (images.square().flatten(1) @ self._inner.flatten()) / self._inner.sum()


def _block_means(images: torch.Tensor) -> torch.Tensor:
    """Return means over blocks of images, shape (b, Hl, Wl)."""
    return torch.nn.functional.avg_pool2d(images, _BLOCK, ceil_mode=True)
