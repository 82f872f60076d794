# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the errors of repeated observations are multiplied by."""

from __future__ import annotations

__all__ = ("ErrorFactors",)

import dataclasses
from typing import Self

import torch


@dataclasses.dataclass(frozen=True)
class ErrorFactors:
    """Factors that turn the scatter of repeated observations into errors.

    The sky that is observed again is the restored image, which lacks the
    faintest sources and has bumps of noise instead: errors are smaller than
    its scatter on the darkest pixels, and larger on faint bumps.  The factors
    are measured on simulations, where the truth is known, and depend on what
    is known without it.

    Attributes
    ----------
    flux_ratios, sigma_ratios
        Nodes, rising: the image and the sigma of repeated observations in
        units of the noise of the inverse-variance coadd.
    factors
        Factor on sigma by flux and sigma, interpolated in the logarithms;
        beyond the nodes that of the nearest.
    """

    flux_ratios: tuple[float, ...]
    sigma_ratios: tuple[float, ...]
    factors: tuple[tuple[float, ...], ...]

    @classmethod
    def none(cls) -> Self:
        """Return factors of 1."""
        return cls((1.0,), (1.0,), ((1.0,),))

    def at(self, image: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the factor for each pixel.

        Parameters
        ----------
        image, sigma, noise
            Shape (H, W), the restored image, sigma of repeated observations,
            and noise of the coadd.
        """
        table = torch.tensor(self.factors, dtype=image.dtype, device=image.device)
        row, down = _locate(image / noise, self.flux_ratios)
        column, right = _locate(sigma / noise, self.sigma_ratios)
        last_row, last_column = (size - 1 for size in table.shape)
        below, beside = (row + 1).clamp(max=last_row), (column + 1).clamp(max=last_column)
        return torch.lerp(
            torch.lerp(table[row, column], table[row, beside], right),
            torch.lerp(table[below, column], table[below, beside], right),
            down,
        )


def _locate(values: torch.Tensor, nodes: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the node before each value, and how far it is to the next."""
    logs = torch.tensor(nodes, dtype=values.dtype, device=values.device).log()
    place = values.clamp(min=nodes[0], max=nodes[-1]).log()
    index = (torch.searchsorted(logs, place, right=True) - 1).clamp(0, max(len(nodes) - 2, 0))
    step = (logs[1:] - logs[:-1])[index] if len(nodes) > 1 else torch.ones_like(place)
    return index, (place - logs[index]) / step
