# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of a solution where data surround a pixel, and at their edge."""

from __future__ import annotations

import torch

_LEAST_SIGNIFICANCE = 6.0
"""What a solution, in units of its noise, is taken for at least when its error
is judged."""

_EDGE = 4
"""Distance in pixels from missing data up to which errors are judged in each
neighbourhood: they converge slowly."""

_EDGE_BLOCK = 8
"""Side in pixels of such a neighbourhood."""

_EDGE_LIMITS = (200.0, 1e-3)
"""What a solution is taken for there at least, in units of its noise, and the
error that is good enough, relative to the solution."""


class ErrorMeasure:
    """Mean squares over the regions in which an error is to be small.

    Those are the pixels that data surround, together, and each neighbourhood
    at the edge of the data.

    Parameters
    ----------
    covered
        Shape latent_shape, 1 where there are data, 0 elsewhere.
    """

    def __init__(self, covered: torch.Tensor) -> None:
        size = 2 * _EDGE + 1
        missing = torch.nn.functional.max_pool2d(1.0 - covered[None], size, stride=1, padding=_EDGE)[0]
        self._edge = covered * missing
        self._share = _block_means(self._edge[None])[0]
        inner = covered - self._edge
        choices = (inner, covered, torch.ones_like(covered))
        self._inner = next(choice for choice in choices if bool(choice.any()))

    def limits(self, tolerance: float, edges: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is asked in each region.

        Parameters
        ----------
        tolerance
            Relative error that is good enough where data surround a pixel.
        edges
            Whether the edge of the data counts.

        Returns
        -------
        least : `torch.Tensor`
            Shape (r,), what a solution is taken for at least, in units of its
            noise.
        tolerances : `torch.Tensor`
            Shape (r,), relative error that is good enough.
        """
        number = int((self._share > 0).sum()) if edges else 0
        least, tolerances = self._edge.new_tensor(
            [(_LEAST_SIGNIFICANCE, tolerance)] + number * [_EDGE_LIMITS]
        ).unbind(dim=1)
        return least, tolerances

    def squares(self, images: torch.Tensor, *, edges: bool) -> torch.Tensor:
        """Return mean squares of images over the regions.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``.
        edges
            Whether the edge of the data counts.

        Returns
        -------
        squares : `torch.Tensor`
            Shape (b, r).
        """
        squares = images.square()
        inner = (squares.flatten(1) @ self._inner.flatten()[:, None]) / self._inner.sum()
        if not edges:
            return inner
        used = self._share > 0
        return torch.cat([inner, _block_means(squares * self._edge)[:, used] / self._share[used]], dim=1)


def _block_means(images: torch.Tensor) -> torch.Tensor:
    """Return means over blocks of images, shape (b, Hl, Wl)."""
    return torch.nn.functional.avg_pool2d(images, _EDGE_BLOCK, ceil_mode=True)
