# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""About what each exposure should look like, with few kernels."""

from __future__ import annotations

__all__ = ("TypicalModel",)

from collections import defaultdict
from collections.abc import Sequence

import torch

from ._convolution import Convolution
from ._model import ForwardModel
from ._normal_operator import NormalOperator, SharedKernel

_MOST_TOGETHER = 16
"""Exposures that are sampled one after the other by one thread."""


class TypicalModel:
    """A forward model in which exposures with kernels that are much alike
    share their mean, and PSFs do not vary over the patch.

    The work goes with the number of kernels that differ: detector images of a
    visit have about one, and so do visits of the same seeing.

    Parameters
    ----------
    model
        The exact model.
    exposures
        Indices of the exposures.
    shares
        Shape (n,), weights of the exposures, of sum 1.
    """

    def __init__(self, model: ForwardModel, exposures: Sequence[int], shares: torch.Tensor) -> None:
        members = defaultdict(list)
        for place, exposure in enumerate(exposures):
            members[model.kernel_numbers[exposure]].append((place, exposure))
        otfs = model.mean_otfs
        means = otfs.new_zeros(len(members), *otfs.shape[1:])
        self._groups: list[SharedKernel] = []
        for number, label in enumerate(sorted(members)):
            places, indices = zip(*members[label], strict=True)
            weights = torch.stack([shares[place] for place in places])
            weights = weights.clamp(min=torch.finfo(shares.dtype).tiny)
            for weight, exposure in zip(weights / weights.sum(), indices, strict=True):
                means[number].add_(weight * otfs[exposure])
            for start in range(0, len(places), _MOST_TOGETHER):
                some = slice(start, start + _MOST_TOGETHER)
                self._groups.append(SharedKernel(number, places[some], indices[some]))
        none = (means.new_empty(0),) * len(means)
        convolution = Convolution(means, none, none, model.latent_shape)
        self._operator = NormalOperator(convolution, model.sampling)

    def normal(self, latents: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Do about what `ForwardModel.normal` does.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``.
        weights
            Shape (n, h, w), those of the exposures.
        """
        return self._operator.normal(latents, weights, self._groups)
