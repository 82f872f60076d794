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

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from ._convolution import Convolution
from ._model import ForwardModel
from ._normal_operator import NormalOperator, SharedKernel

_ALIKE = 0.1
"""Largest rms difference of kernels that count as alike, over the root of the
power of all exposures.  Solutions then have errors of 1 % at most on detector
images of very different seeing; with 0.2 it is 5 %."""

_STEP = 3
"""Kernels are compared at every third frequency along both axes."""


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
    penalty
        Shape (Hl, Wl // 2 + 1), added to the power, so that differences where
        there is no power do not count.

    Attributes
    ----------
    num_kernels
        Number of kernels.
    """

    def __init__(
        self, model: ForwardModel, exposures: Sequence[int], shares: torch.Tensor, penalty: torch.Tensor
    ) -> None:
        power = model.total_power(shares, exposures) + penalty
        labels = _find_alike(model.mean_otfs[list(exposures)], power)
        self._groups = [
            SharedKernel(number, tuple(places), tuple(exposures[place] for place in places))
            for number, places in enumerate(
                np.flatnonzero(labels == label).tolist() for label in np.unique(labels)
            )
        ]
        means = torch.empty(len(self._groups), *power.shape, dtype=torch.complex64, device=power.device)
        for mean, group in zip(means, self._groups, strict=True):
            weights = shares[list(group.places)].clamp(min=torch.finfo(shares.dtype).tiny)
            mean.zero_()
            for weight, exposure in zip(weights / weights.sum(), group.exposures, strict=True):
                mean.add_(weight * model.mean_otfs[exposure])
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


def _find_alike(otfs: torch.Tensor, power: torch.Tensor) -> np.ndarray:
    """Return the same label, shape (n,), for kernels that are all alike."""
    if len(otfs) == 1:
        return np.ones(1, dtype=int)
    some = (otfs[:, ::_STEP, ::_STEP] / power[::_STEP, ::_STEP].sqrt()).flatten(1)
    product = (some @ some.mH).real / some.shape[1]
    square = product.diagonal()
    distance = (square[:, None] + square - 2.0 * product).clamp_(min=0.0).sqrt().double().cpu().numpy()
    return fcluster(linkage(distance[np.triu_indices(len(otfs), 1)], "complete"), _ALIKE, "distance")
