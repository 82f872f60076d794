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

    Attributes
    ----------
    num_kernels
        Number of kernels.
    """

    def __init__(self, model: ForwardModel, exposures: Sequence[int], shares: torch.Tensor) -> None:
        members = defaultdict(list)
        for place, exposure in enumerate(exposures):
            members[model.kernel_numbers[exposure]].append((place, exposure))
        self._groups = [
            SharedKernel(number, *zip(*members[label], strict=True))
            for number, label in enumerate(sorted(members))
        ]
        otfs = model.mean_otfs
        means = otfs.new_zeros(len(self._groups), *otfs.shape[1:])
        for mean, group in zip(means, self._groups, strict=True):
            weights = shares[list(group.places)].clamp(min=torch.finfo(shares.dtype).tiny)
            for weight, exposure in zip(weights / weights.sum(), group.exposures, strict=True):
                mean.add_(weight * otfs[exposure])
        none = (means.new_empty(0),) * len(means)
        convolution = Convolution(means, none, none, model.latent_shape)
        self._operator = NormalOperator(convolution, model.sampling)

    @property
    def num_kernels(self) -> int:
        """Number of kernels (`int`)."""
        return len(self._groups)

    def adjoint(self, data: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Do about what `ForwardModel.adjoint` does.

        Parameters
        ----------
        data, weights
            Shape (n, h, w), those of the exposures.
        """
        return self._operator.adjoint(data, weights, self._groups)

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
