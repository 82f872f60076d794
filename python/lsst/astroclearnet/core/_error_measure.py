# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How far errors of a solution are from being small, wherever one looks."""

from __future__ import annotations

import torch

_BLOCK = 8
"""Side in pixels of the blocks in which errors are judged."""

_SIGNIFICANCE = 10.0
"""What a solution, in units of its noise, is taken for at least: steps that are
left out take noise away, and twice the share of its variance."""

_LARGEST_RATIO = 10.0
"""Error of one block, over that which is allowed on average."""

_EDGE = 4
"""Distance in pixels from missing data up to which errors converge slowly."""

_EDGE_TOLERANCE = 3e-3
"""Error that is allowed there in each block, relative to the light."""

_DEPTH_FLOOR = 0.02
"""Least depth from which noise is told."""


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
        self._inner_share, self._edge_share, self._variance = _block_means(
            torch.stack([self._inner, self._edge, variance])
        )

    def ratios(
        self,
        errors: torch.Tensor,
        solutions: torch.Tensor,
        noise: torch.Tensor,
        tolerance: float,
        edge_noise: float | None,
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
        tolerance
            Error that is allowed where data surround a pixel, relative to the
            light around, or to 10 sigma; as root mean square over the patch,
            and ten times as much in each block.
        edge_noise
            Error that is allowed in each block at the edge of the data, in
            units of the noise, where it is more than 1e-2 of the light; `None`
            if the edge does not count.

        Returns
        -------
        ratios : `torch.Tensor`
            Shape (b,), at most 1 where a solution is good enough.
        """
        squares = errors.square()
        light = _block_means(solutions.square())
        around = torch.nn.functional.avg_pool2d(light, 3, stride=1, padding=1, count_include_pad=False)
        light = torch.maximum(light, around)
        variance = self._variance * noise.square()[:, None, None]
        allowed = tolerance**2 * (light + _SIGNIFICANCE**2 * variance)
        found = _block_means(squares * self._inner) / allowed
        used = self._inner_share > 0
        mean = found.sum(dim=(1, 2)) / self._inner_share.sum()
        largest = (found[:, used] / self._inner_share[used]).amax(dim=1) / _LARGEST_RATIO**2
        worst = torch.maximum(mean, largest)
        used = self._edge_share > 0
        if edge_noise is not None and bool(used.any()):
            allowed = edge_noise**2 * variance + _EDGE_TOLERANCE**2 * light
            found = (_block_means(squares * self._edge) / allowed)[:, used] / self._edge_share[used]
            worst = torch.maximum(worst, found.amax(dim=1))
        return worst.sqrt()


def _block_means(images: torch.Tensor) -> torch.Tensor:
    """Return means over blocks of images, shape (b, Hl, Wl)."""
    return torch.nn.functional.avg_pool2d(images, _BLOCK, ceil_mode=True)
