# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Inverse-variance weights of the exposures on the patch."""

from __future__ import annotations

__all__ = ("WEIGHT_FLOOR", "WeightMaps", "iterate_weight_maps", "weight_maps")

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from ..exposures import masked_medians
from ._model import ForwardModel

WEIGHT_FLOOR = 0.02
"""Weight, relative to the full one, below which noise is not extrapolated."""

_PRESENT = 0.5
"""Share of a pixel of the patch that must have data for it to count."""


@dataclasses.dataclass(frozen=True)
class WeightMaps:
    """Weights of exposures on the patch.

    Attributes
    ----------
    weights
        Shape (n, H, W), inverse variance of the light in a pixel of the
        patch.
    presence
        Shape (n, H, W), share of the pixel that has data, from 0 to 1.
    typical
        Shape (n,), median weight where there are data.
    """

    weights: torch.Tensor
    presence: torch.Tensor
    typical: torch.Tensor

    @property
    def used(self) -> torch.Tensor:
        """Whether a pixel has data, shape (n, H, W), bool."""
        return self.presence > _PRESENT


def weight_maps(model: ForwardModel, weights: torch.Tensor) -> WeightMaps:
    """Bring weights of exposures onto the patch.

    Parameters
    ----------
    model
        Forward model of all exposures.
    weights
        Shape (n, h, w), inverse variances in the pixels of the exposures, 0
        where one is not used.

    Returns
    -------
    maps : `WeightMaps`
        Their maps.
    """
    maps = list(iterate_weight_maps(model, weights))
    return WeightMaps(
        weights=torch.cat([one.weights for one in maps]),
        presence=torch.cat([one.presence for one in maps]),
        typical=torch.cat([one.typical for one in maps]),
    )


def iterate_weight_maps(
    model: ForwardModel, weights: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
) -> Iterator[WeightMaps]:
    """Yield what `weight_maps` returns for one exposure after the other.

    The first axis has length 1.

    Parameters
    ----------
    model, weights
        As for `weight_maps`.
    exposures
        Indices of the exposures that ``weights`` belong to; all by default.
    """
    sampling = model.sampling
    chosen = range(len(weights)) if exposures is None else sampling.indices(exposures)
    for exposure, weight in zip(chosen, weights, strict=True):
        # With the variance v a pixel of area A tells the light per pixel of
        # the patch to A^2 / v, and there are 1 / A such pixels.
        data = torch.empty(2, *weight.shape, device=weight.device)
        torch.mul(weight, sampling.area[exposure], out=data[0])
        torch.gt(weight, 0.0, out=data[1])
        maps, presence = sampling.mean(data, [exposure, exposure]).split(1)
        presence.clamp_(max=1.0)
        typical = masked_medians(maps, presence > _PRESENT, 0.0)
        yield WeightMaps(weights=maps, presence=presence, typical=typical)
