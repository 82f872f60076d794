# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sampling at whole pixels."""

from __future__ import annotations

import torch

from ..exposures import PixelPositions
from ._latent_grid import LatentGrid


class WholePixels:
    """Sampling of images at pixels of the latent grid: a box of it.

    Parameters
    ----------
    offset
        Row and column on the patch of the first pixel of the exposure.
    scale
        Shape (h, w), float32, factor of each value, 0 off the patch.
    grid
        Grid of the patch and the image.
    """

    def __init__(self, offset: tuple[int, int], scale: torch.Tensor, grid: LatentGrid) -> None:
        self._latent_shape = grid.latent_shape
        boxes = [
            _overlap(first + grid.margin, size, length)
            for first, size, length in zip(offset, scale.shape, grid.latent_shape, strict=True)
        ]
        self._latent, self._data = zip(*boxes, strict=True)
        self._scale = scale
        self._square = scale[self._data] ** 2

    def observe(self, images: torch.Tensor) -> torch.Tensor:
        """Sample images; return values, (b, h, w).

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``.
        """
        values = images.new_zeros(len(images), *self._scale.shape)
        values[:, *self._data] = images[:, *self._latent]
        return values.mul_(self._scale)

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint of `observe`; return images.

        Parameters
        ----------
        values
            Shape (b, h, w).
        """
        images = torch.zeros(len(values), *self._latent_shape, device=values.device)
        images[:, *self._latent] = (values * self._scale)[:, *self._data]
        return images

    def normal(self, images: torch.Tensor, weights: torch.Tensor) -> None:
        """Sample images, weight the values, and apply the adjoint.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, replaced.
        weights
            Shape (h, w).
        """
        factors = torch.zeros(self._latent_shape, device=images.device)
        factors[self._latent] = weights[self._data] * self._square
        images.mul_(factors)


def find_offsets(positions: PixelPositions) -> list[tuple[int, int]] | None:
    """Return where the first pixels of exposures lie on whole pixels.

    Parameters
    ----------
    positions
        Positions of the pixels of exposures on the patch.

    Returns
    -------
    offsets : `list` [`tuple`] or `None`
        Row and column on the patch of the first pixel of each exposure;
        `None` if an exposure has pixels elsewhere than on the pixels of the
        patch, in their order.
    """
    bounds = []
    y, x = positions.y, positions.x
    repeated = y.stride(0) == x.stride(0) == 0
    for rows, columns in zip(y[:1] if repeated else y, x[:1] if repeated else x, strict=True):
        for shift in (
            rows - torch.arange(rows.shape[0], device=y.device)[:, None],
            columns - torch.arange(rows.shape[1], device=y.device),
        ):
            known = shift.isfinite()
            bounds += [
                torch.where(known, shift, torch.inf).amin(),
                torch.where(known, shift, -torch.inf).amax(),
            ]
    offsets = []
    for lowest, highest, left, right in torch.stack(bounds).reshape(-1, 4).tolist():
        if lowest > highest:
            # No pixel of this exposure lies on the patch.
            offsets.append((0, 0))
        elif lowest == highest and left == right and lowest.is_integer() and left.is_integer():
            offsets.append((int(lowest), int(left)))
        else:
            return None
    return offsets * (len(y) if repeated else 1)


def _overlap(first: int, size: int, length: int) -> tuple[slice, slice]:
    """Return where a row of pixels overlaps with an image, on both."""
    start, stop = max(0, first), max(0, min(length, first + size))
    stop = max(start, stop)
    return slice(start, stop), slice(start - first, stop - first)
