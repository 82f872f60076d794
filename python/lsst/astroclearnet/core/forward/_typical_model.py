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
from ._normal_operator import KernelSums


class TypicalModel:
    """About what each exposure should look like, weighted and brought back.

    Exposures with kernels that are much alike share their mean, PSFs do not
    vary over the patch, and pixels are not sampled: their weights are those of
    the places on the patch.  The work goes with the number of kernels that
    differ: detector images of a visit have about one, and so do visits of the
    same seeing.

    Parameters
    ----------
    model
        The exact model.
    exposures
        Indices of the exposures.
    shares
        Shape (n,), weights of the exposures, of sum 1.
    weights
        Shape (n, h, w), those of their pixels.
    """

    def __init__(
        self, model: ForwardModel, exposures: Sequence[int], shares: torch.Tensor, weights: torch.Tensor
    ) -> None:
        members = defaultdict(list)
        for place, exposure in enumerate(exposures):
            members[model.kernel_numbers[exposure]].append((place, exposure))
        otfs, number = model.mean_otfs, len(members)
        means = otfs.new_zeros(number, *otfs.shape[1:])
        self._weights = torch.zeros(number, *model.latent_shape, device=otfs.device)
        for label, mean, total in zip(sorted(members), means, self._weights, strict=True):
            places, indices = zip(*members[label], strict=True)
            parts = torch.stack([shares[place] for place in places])
            parts = parts.clamp(min=torch.finfo(shares.dtype).tiny)
            for place, part, exposure in zip(places, parts / parts.sum(), indices, strict=True):
                mean.add_(part * otfs[exposure])
                # Without the prefilter it stays positive.
                data = weights[place] * model.sampling.area[exposure]
                total.add_(model.sampling.adjoint(data[None], [exposure])[0])
        none = (means.new_empty(0),) * number
        self._kernels = range(number)
        convolution = Convolution(means, none, none, model.latent_shape)
        self._sums = KernelSums(convolution, None, model.memory)

    def normal(self, latents: torch.Tensor) -> torch.Tensor:
        """Do about what `ForwardModel.normal` does.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``.
        """

        def weight(kernel: int, images: torch.Tensor) -> None:
            images.mul_(self._weights[kernel])

        return self._sums.apply(latents, weight, self._kernels)
