# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""The way of images through kernels, pixels and weights, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._convolution import Convolution, ConvolutionMemory
from ._sampling import Sampling
from ._threads import num_workers, ordered_map


@dataclasses.dataclass(frozen=True)
class SharedKernel:
    """Exposures that are convolved with one kernel.

    Attributes
    ----------
    kernel
        Index of the kernel.
    places
        Where the exposures are in an array of data.
    exposures
        Their indices.
    """

    kernel: int
    places: tuple[int, ...]
    exposures: tuple[int, ...]

    def take(self, data: torch.Tensor) -> list[torch.Tensor]:
        """Return the data of the exposures.

        Parameters
        ----------
        data
            Shape (n, h, w).
        """
        return [data[place] for place in self.places]


class NormalOperator:
    """Convolution and sampling of images, weighting, and the adjoint.

    Beside the memory that convolution and sampling hold, that which is needed
    does not grow with the number of exposures.

    Parameters
    ----------
    convolution
        With each kernel.
    sampling
        At the pixels of each exposure.
    """

    def __init__(self, convolution: Convolution, sampling: Sampling) -> None:
        self.convolution = convolution
        self.sampling = sampling
        self._memory: list[ConvolutionMemory] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": []}

    def adjoint(
        self, data: torch.Tensor, weights: torch.Tensor | None, groups: Sequence[SharedKernel]
    ) -> torch.Tensor:
        """Return the sum over exposures of the adjoint of weighted data.

        Parameters
        ----------
        data
            Shape (n, h, w).
        weights
            Shape (n, h, w); `None` for 1.
        groups
            The exposures.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape.
        """

        def one(group: SharedKernel, memory: ConvolutionMemory) -> torch.Tensor:
            image = memory.images[0].zero_()
            for place, exposure in zip(group.places, group.exposures, strict=True):
                some = data[place] if weights is None else data[place] * weights[place]
                image += self.sampling.adjoint(some[None], [exposure])[0]
            return self.convolution.correlate(group.kernel, memory)

        return self._sum(one, 1, groups)[0]

    def normal(
        self, latents: torch.Tensor, weights: torch.Tensor, groups: Sequence[SharedKernel]
    ) -> torch.Tensor:
        """Predict exposures, weight them, and apply the adjoint.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``, several latent images.
        weights
            Shape (n, h, w).
        groups
            The exposures.

        Returns
        -------
        latents : `torch.Tensor`
            Shape ``(b, *latent_shape)``, sums over exposures.
        """
        transform = self.convolution.transform(latents, self.sampling.prefilter)

        def one(group: SharedKernel, memory: ConvolutionMemory) -> torch.Tensor:
            self.convolution.convolve(transform, group.kernel, memory)
            self.sampling.normal(memory.images, group.take(weights), group.exposures)
            return self.convolution.correlate(group.kernel, memory)

        return self._sum(one, len(latents), groups)

    def memories(self, number: int, most: int) -> list[ConvolutionMemory]:
        """Return memory for each thread; it is kept for the next time.

        Parameters
        ----------
        number
            Number of images.
        most
            Number of threads that there is work for.
        """
        threads = max(1, min(num_workers(self.convolution.means.device), most))
        kept = self._memory
        if len(kept) < threads or len(kept[0].images) < number:
            kept.clear()
            kept.extend(self.convolution.allocate(number) for _ in range(threads))
        return [memory.narrow(number) for memory in kept[:threads]]

    def _sum(
        self,
        function: Callable[[SharedKernel, ConvolutionMemory], torch.Tensor],
        number: int,
        groups: Sequence[SharedKernel],
    ) -> torch.Tensor:
        """Return the sum of latent images, given by their transforms."""
        memories = self.memories(number, len(groups))
        total = torch.zeros_like(memories[0].spectrum)
        for part in ordered_map(function, groups, memories):
            total += part
        return self.convolution.inverse_transform(total, self.sampling.prefilter)
