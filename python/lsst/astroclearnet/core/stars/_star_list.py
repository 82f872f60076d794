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

SAME = 2.0
"""Distance in pixels up to which two tiles have found the same star."""


MOST_TOGETHER = 3
"""Largest number of stars that are fitted together."""

NUM_ERRORS = 3 * MOST_TOGETHER
"""Number of independent errors of stars that are fitted together."""


@dataclasses.dataclass(frozen=True)
class StarList:
    """Stars of a patch that are fitted as point sources, brightest first.

    Attributes
    ----------
    positions
        Shape (m, 2), double, row and column on the patch.
    flux
        Shape (m,), double, in the flux unit of the exposures.
    errors
        Shape (m, 3, NUM_ERRORS), double, of flux, row and column, for each of
        independent errors of unit variance, from noise and from errors of the
        PSFs.  Stars that were fitted together have them in common.
    fit_position
        Shape (m, 2), double, mean position of those fitted together.
    chi_square
        Shape (m,), double, reduced chi-square of the fit.
    misfit
        Shape (m,), double, what a point source leaves of the light, relative,
        root mean square.
    """

    positions: torch.Tensor
    flux: torch.Tensor
    errors: torch.Tensor
    fit_position: torch.Tensor
    chi_square: torch.Tensor
    misfit: torch.Tensor

    @classmethod
    def empty(cls) -> StarList:
        """Return no stars."""
        shapes = (2,), (), (3, NUM_ERRORS), (2,), (), ()
        return cls(*(torch.zeros(0, *shape, dtype=torch.float64) for shape in shapes))

    @classmethod
    def fitted_together(
        cls,
        positions: torch.Tensor,
        flux: torch.Tensor,
        covariance: torch.Tensor,
        chi_square: float,
        misfit: float,
    ) -> StarList:
        """List the stars of one fit.

        Parameters
        ----------
        positions, flux
            Those of the stars, at most `MOST_TOGETHER`.
        covariance
            Shape (3 m, 3 m), of flux, row and column of each.
        chi_square, misfit
            Those of the fit.
        """
        number = len(flux)
        errors = covariance.new_zeros(number, 3, NUM_ERRORS)
        errors[:, :, : 3 * number] = _square_root(covariance).reshape(number, 3, 3 * number)
        middle = positions.mean(dim=0).expand(number, 2)
        same = (flux.new_full((number,), value) for value in (chi_square, misfit))
        return cls(positions, flux, errors, middle, *same)

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def covariance(self) -> torch.Tensor:
        """Covariance of flux, row and column of each, (m, 3, 3)."""
        return self.errors @ self.errors.mT

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
        repeats = (distance < SAME).tril(diagonal=-1).any(dim=1)
        return every.select(~repeats)


def _square_root(covariance: torch.Tensor) -> torch.Tensor:
    """Return the symmetric square root of a covariance."""
    # Fluxes and positions have different units.
    scale = covariance.diagonal().clamp(min=1e-300).sqrt()
    values, vectors = torch.linalg.eigh(covariance / scale[:, None] / scale)
    return scale[:, None] * ((vectors * values.clamp(min=0.0).sqrt()) @ vectors.T)
