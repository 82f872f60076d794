# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""PSFs that vary over the patch: a few kernels and smooth coefficients."""

from __future__ import annotations

import dataclasses
import math

import torch

from ._latent_grid import LatentGrid

_RANK_TOLERANCE = 1e-3
"""Change of a PSF over a patch, relative to its norm, worth a component."""


@dataclasses.dataclass(frozen=True)
class VaryingKernels:
    """Kernels as a mean and components with coefficients that vary smoothly.

    Attributes
    ----------
    kernels
        Shape (n, 1 + B, P, P), the mean of each exposure and its components.
    nodes
        Shape (n, B, n_cells_y, n_cells_x), float32, coefficients of the
        components at the centres of cells.
    rows
        Shape (Hl, n_cells_y), float32, what makes rows of the latent image of
        those of cells.
    columns
        Shape (Wl, n_cells_x), float32, the same for columns.
    """

    kernels: torch.Tensor
    nodes: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def separate(cls, psfs: torch.Tensor, grid: LatentGrid) -> VaryingKernels:
        """Split PSFs into means and components.

        Parameters
        ----------
        psfs
            Shape (n, n_cells_y, n_cells_x, P, P), PSFs in cells that cover
            the patch.
        grid
            Grid of the patch and the latent image.

        Returns
        -------
        kernels : `VaryingKernels`
            The kernels.
        """
        n, cells_y, cells_x = psfs.shape[:3]
        mean = psfs.mean(dim=(1, 2))
        deviation = (psfs - mean[:, None, None]).reshape(n, cells_y * cells_x, -1)
        left, values, right = torch.linalg.svd(deviation, full_matrices=False)
        scale = _RANK_TOLERANCE * torch.linalg.vector_norm(mean, dim=(1, 2)) * math.sqrt(cells_y * cells_x)
        rank = int((values > scale[:, None]).sum(dim=1).max())
        components = right[:, :rank].reshape(n, rank, *mean.shape[1:])
        nodes = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 2)
        hats = (
            _extend(_hats(length, cells, psfs), grid.margin, full)
            for length, cells, full in zip(grid.shape, (cells_y, cells_x), grid.latent_shape, strict=True)
        )
        return cls(
            torch.cat([mean[:, None], components], dim=1),
            nodes.reshape(n, rank, cells_y, cells_x).to(torch.float32),
            *hats,
        )

    @property
    def num_components(self) -> int:
        """Number of components of a kernel beside its mean (`int`)."""
        return self.nodes.shape[1]

    def window(self, rows: slice, columns: slice, grid: LatentGrid, window: LatentGrid) -> VaryingKernels:
        """Return the kernels of a window of the patch.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.
        grid
            Grid of the patch.
        window
            Grid of the window.

        Returns
        -------
        kernels : `VaryingKernels`
            The kernels there.
        """
        cut = (
            _extend(hats[grid.margin :][part], window.margin, full)
            for hats, part, full in zip(
                (self.rows, self.columns), (rows, columns), window.latent_shape, strict=True
            )
        )
        return VaryingKernels(self.kernels, self.nodes, *cut)

    def coefficients(self, exposure: int) -> torch.Tensor:
        """Return the coefficients of the components.

        Parameters
        ----------
        exposure
            Index of the exposure.

        Returns
        -------
        coefficients : `torch.Tensor`
            Shape (B, *latent_shape).
        """
        return self.rows @ self.nodes[exposure] @ self.columns.T

    def mean_coefficients(self, grid: LatentGrid) -> torch.Tensor:
        """Return the means of the coefficients over the patch.

        Parameters
        ----------
        grid
            Grid of the patch and the latent image.

        Returns
        -------
        means : `torch.Tensor`
            Shape (n, B).
        """
        m = grid.margin
        row, column = (
            hats[m : m + size].mean(dim=0)
            for hats, size in zip((self.rows, self.columns), grid.shape, strict=True)
        )
        return self.nodes @ column @ row


def _hats(length: int, number: int, like: torch.Tensor) -> torch.Tensor:
    """Return what interpolates between the centres of cells, and beyond.

    Shape (length, number); linear.
    """
    if number == 1:
        return torch.ones(length, 1, device=like.device)
    pixels = torch.arange(length, dtype=torch.float64, device=like.device)
    position = (pixels + 0.5) * number / length - 0.5
    first = position.floor().long().clamp(0, number - 2)
    share = (position - first)[:, None]
    hats = torch.zeros(length, number, dtype=share.dtype, device=like.device)
    hats.scatter_(1, first[:, None], 1.0 - share)
    hats.scatter_(1, first[:, None] + 1, share)
    return hats.to(torch.float32)


def _extend(hats: torch.Tensor, margin: int, length: int) -> torch.Tensor:
    """Continue what interpolates into the margin with its edges."""
    return hats[torch.arange(-margin, length - margin, device=hats.device).clamp(0, len(hats) - 1)]
