# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Differences between the backgrounds of exposures."""

from __future__ import annotations

import dataclasses
import math

import torch

from ..exposures import Tile
from ..forward import ForwardModel


@dataclasses.dataclass(frozen=True)
class BackgroundDifferences:
    """Backgrounds of exposures relative to each other.

    Only differences are measurable.  The mean of all backgrounds, weighted as
    in the restored image, is zero, and so is that of each group of exposures
    that overlaps no other.

    Attributes
    ----------
    coefficients
        Shape (n, 3), level at the centre of the patch and slopes along rows
        and columns per pixel of the patch, in flux per patch pixel; 0 where
        unknown.
    sigma
        Shape (n, 3), standard deviations from noise; infinite where unknown.
    center
        Row and column of the centre of the patch.
    """

    coefficients: torch.Tensor
    sigma: torch.Tensor
    center: tuple[float, float]

    @classmethod
    def unknown(cls, num_exposures: int) -> BackgroundDifferences:
        """Return zeros with infinite standard deviations.

        Parameters
        ----------
        num_exposures
            Number of exposures.

        Returns
        -------
        differences : `BackgroundDifferences`
            The differences.
        """
        nothing = torch.zeros(num_exposures, 3)
        return cls(nothing, torch.full_like(nothing, math.inf), (0.0, 0.0))

    def within(self, tile: Tile, exposures: torch.Tensor) -> BackgroundDifferences:
        """Select exposures, in the pixel coordinates of a tile.

        Parameters
        ----------
        tile
            The tile.
        exposures
            Shape (m,), indices of exposures.

        Returns
        -------
        differences : `BackgroundDifferences`
            The same planes.
        """
        center = (self.center[0] - tile.rows.start, self.center[1] - tile.columns.start)
        return BackgroundDifferences(self.coefficients[exposures], self.sigma[exposures], center)

    def evaluate(self, model: ForwardModel) -> torch.Tensor:
        """Return the backgrounds in the pixels of the exposures.

        Parameters
        ----------
        model
            Forward model of the exposures.

        Returns
        -------
        background : `torch.Tensor`
            Shape (n, h, w); 0 for pixels off the patch.
        """
        area, dtype = model.sampling.area, self.coefficients.dtype
        planes = torch.empty(area.shape, dtype=dtype, device=area.device)
        coefficients = self.coefficients.to(area.device)
        for plane, y, x, (level, *slopes) in zip(
            planes, *model.sampling.positions(), coefficients, strict=True
        ):
            rows, columns = ((p - c).to(dtype) for p, c in zip((y, x), self.center, strict=True))
            plane.copy_(level + slopes[0] * rows).addcmul_(columns, slopes[1])
        return planes.nan_to_num_().mul_(area)
