# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""The grid of the latent image: the patch and a margin around it."""

from __future__ import annotations

__all__ = ("LatentGrid",)

import dataclasses

import torch

from ..exposures import fast_length

_LIGHT_BEYOND = 1e-3
"""Share of the light of a PSF that may lie beyond the margin."""


@dataclasses.dataclass(frozen=True)
class LatentGrid:
    """Grid of the latent image of a patch.

    The latent image is periodic: the margin keeps what wraps around away from
    the data.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    margin
        Pixels by which the latent image extends beyond the patch above and to
        the left, and at least beyond it on the other sides.
    """

    shape: tuple[int, int]
    margin: int

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Height and width of the latent image in pixels."""
        rows, columns = (fast_length(s + 2 * self.margin) for s in self.shape)
        return rows, columns

    def window(self, rows: slice, columns: slice) -> LatentGrid:
        """Return the grid of a window of the patch.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.

        Returns
        -------
        grid : `LatentGrid`
            Its grid, with the same margin.
        """
        return LatentGrid((rows.stop - rows.start, columns.stop - columns.start), self.margin)

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Place maps of the patch on the latent grid, zeros in the margin.

        Parameters
        ----------
        maps
            Shape (..., H, W).

        Returns
        -------
        embedded : `torch.Tensor`
            Shape ``(..., *latent_shape)``.
        """
        m = self.margin
        bottom, right = (full - size - m for full, size in zip(self.latent_shape, self.shape, strict=True))
        return torch.nn.functional.pad(maps, (m, right, m, bottom))

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Cut the margin off images on the latent grid.

        Parameters
        ----------
        images
            Shape ``(..., *latent_shape)``.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (..., H, W).
        """
        m = self.margin
        return images[..., m : m + self.shape[0], m : m + self.shape[1]]


def psf_margin(psfs: torch.Tensor, length: int) -> int:
    """Return the distance beyond which PSFs have hardly any light.

    What lies further wraps around; the latent image holds a whole PSF.

    Parameters
    ----------
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P).
    length
        Smaller side of the patch in pixels.

    Returns
    -------
    margin : `int`
        The distance in pixels.
    """
    mean = psfs.mean(dim=(1, 2)).abs()
    radius = psfs.shape[-1] // 2
    for margin in range(max(0, radius + 1 - length // 2), radius):
        inner = slice(radius - margin, radius + margin + 1)
        beyond = 1.0 - mean[:, inner, inner].sum(dim=(1, 2)) / mean.sum(dim=(1, 2))
        if float(beyond.max()) < _LIGHT_BEYOND:
            return margin
    return radius
