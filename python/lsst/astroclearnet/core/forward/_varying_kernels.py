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
        components at the centres of cells; 0 beyond the rank of the exposure.
    ranks
        Number of components of each exposure, at most B.
    rows
        Shape (Hl, n_cells_y), float32, linear interpolation from rows of cells
        to those of the latent image.
    columns
        Shape (Wl, n_cells_x), float32, the same for columns.
    """

    kernels: torch.Tensor
    nodes: torch.Tensor
    ranks: tuple[int, ...]
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def separate(cls, psfs: torch.Tensor, grid: LatentGrid) -> VaryingKernels:
        """Split PSFs into means and components.

        Parameters
        ----------
        psfs
            Shape (n, n_cells_y, n_cells_x, P, P), of cells.
        grid
            Grid of the patch.
        """
        n, cells_y, cells_x = psfs.shape[:3]
        mean = psfs.mean(dim=(1, 2))
        deviation = (psfs - mean[:, None, None]).reshape(n, cells_y * cells_x, -1)
        left, values, right = torch.linalg.svd(deviation, full_matrices=False)
        scale = _RANK_TOLERANCE * torch.linalg.vector_norm(mean, dim=(1, 2)) * math.sqrt(cells_y * cells_x)
        ranks = (values > scale[:, None]).sum(dim=1).tolist()
        rank = max(ranks)
        values = torch.where(values > scale[:, None], values, 0.0)
        components = right[:, :rank].reshape(n, rank, *mean.shape[1:])
        nodes = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 2)
        hats = (
            _extend(_hats(length, cells, psfs), grid.margin, full)
            for length, cells, full in zip(grid.shape, (cells_y, cells_x), grid.latent_shape, strict=True)
        )
        return cls(
            torch.cat([mean[:, None], components], dim=1),
            nodes.reshape(n, rank, cells_y, cells_x).to(torch.float32),
            tuple(ranks),
            *hats,
        )

    def coefficients(self, exposure: int) -> torch.Tensor:
        """Return coefficients of components, shape (rank, *latent_shape).

        Parameters
        ----------
        exposure
            Index of the exposure.
        """
        return self.rows @ self.nodes[exposure, : self.ranks[exposure]] @ self.columns.T

    def mean(self, rows: slice, columns: slice, grid: LatentGrid) -> torch.Tensor:
        """Return the mean kernels over a box of the patch, (n, P, P).

        Parameters
        ----------
        rows, columns
            The box.
        grid
            Grid of the patch.
        """
        row, column = (
            hats[grid.margin :][part].mean(dim=0)
            for hats, part in zip((self.rows, self.columns), (rows, columns), strict=True)
        )
        means = self.nodes @ column @ row
        return self.kernels[:, 0] + (means[:, :, None, None] * self.kernels[:, 1:]).sum(dim=1)


def _hats(length: int, number: int, like: torch.Tensor) -> torch.Tensor:
    """Return linear interpolation between cell centres, (length, number)."""
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
    """Continue interpolation into the margin with the values at the edges."""
    return hats[torch.arange(-margin, length - margin, device=hats.device).clamp(0, len(hats) - 1)]
