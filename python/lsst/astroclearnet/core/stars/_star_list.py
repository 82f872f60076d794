# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stars with their fluxes and positions."""

from __future__ import annotations

__all__ = ("StarList",)

import dataclasses
from collections.abc import Sequence

import torch

from ..exposures import Tile

_SAME = 2.0
"""Distance in pixels up to which two tiles have found the same star."""


@dataclasses.dataclass(frozen=True)
class StarList:
    """Stars of a patch that are fitted as point sources, brightest first.

    Attributes
    ----------
    positions
        Shape (m, 2), double, row and column on the patch.
    flux
        Shape (m,), double, in the flux unit of the exposures.
    covariance
        Shape (m, 3, 3), double, of flux, row and column, from noise and from
        errors of the PSFs.
    chi_square
        Shape (m,), double, reduced chi-square of the fit.
    misfit
        Shape (m,), double, what a point source leaves of the light, relative,
        root mean square.
    """

    positions: torch.Tensor
    flux: torch.Tensor
    covariance: torch.Tensor
    chi_square: torch.Tensor
    misfit: torch.Tensor

    @classmethod
    def empty(cls) -> StarList:
        """Return no stars."""
        return cls(*(torch.zeros(0, *shape, dtype=torch.float64) for shape in ((2,), (), (3, 3), (), ())))

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def flux_sigma(self) -> torch.Tensor:
        """Standard deviations of the fluxes, (m,)."""
        return self.covariance[:, 0, 0].sqrt()

    @property
    def position_sigma(self) -> torch.Tensor:
        """Standard deviations of the positions, (m, 2)."""
        return self.covariance.diagonal(dim1=1, dim2=2)[:, 1:].sqrt()

    def select(self, chosen: torch.Tensor) -> StarList:
        """Return some of the stars.

        Parameters
        ----------
        chosen
            Shape (k,), indices, or (m,), bool.
        """
        return StarList(**{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)})

    def near(self, tile: Tile, radius: float) -> StarList:
        """Return the stars with light in a tile.

        Parameters
        ----------
        tile
            The tile.
        radius
            Radius of their light in pixels.
        """
        inside = torch.ones(len(self), dtype=torch.bool)
        for place, side in zip(self.positions.unbind(1), (tile.rows, tile.columns), strict=True):
            inside &= (place > side.start - radius - 0.5) & (place < side.stop + radius - 0.5)
        return self.select(inside)

    @classmethod
    def merge(cls, lists: Sequence[StarList]) -> StarList:
        """Join the stars of tiles; one that several have found is one.

        Parameters
        ----------
        lists
            Those of each tile.
        """
        if not lists:
            return cls.empty()
        every = cls(*(torch.cat([getattr(one, f.name) for one in lists]) for f in dataclasses.fields(cls)))
        every = every.select(every.flux.argsort(descending=True))
        distance = torch.cdist(every.positions, every.positions)
        # The brighter ones come first.
        repeats = (distance < _SAME).tril(diagonal=-1).any(dim=1)
        return every.select(~repeats)
