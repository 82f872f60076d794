# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""The way of images through kernels, pixels and weights, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._convolution import Convolution, ConvolutionMemory
from ._sampling import Sampling
from ._threads import num_workers, ordered_map


class KernelSums:
    """Sums over kernels of what convolution makes of images.

    Beside what the convolution holds, the memory that is needed does not grow
    with the number of kernels.

    Parameters
    ----------
    convolution
        With each kernel.
    prefilter
        Shape (Hl, Wl // 2 + 1), factor of the transforms of images before and
        after; `None` for 1.
    memory
        Memory of other sums on the same grid, which are not computed at the
        same time.

    Attributes
    ----------
    memory
        What is kept from sum to sum.
    """

    def __init__(
        self,
        convolution: Convolution,
        prefilter: torch.Tensor | None,
        memory: list[ConvolutionMemory] | None = None,
    ) -> None:
        self.convolution = convolution
        self._prefilter = prefilter
        self.memory: list[ConvolutionMemory] = [] if memory is None else memory

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"memory": []}

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
        kept = self.memory
        if len(kept) < threads or len(kept[0].images) < number:
            kept.clear()
            kept.extend(self.convolution.allocate(number) for _ in range(threads))
        return [memory.narrow(number) for memory in kept[:threads]]

    def apply(
        self,
        latents: torch.Tensor,
        change: Callable[[int, torch.Tensor], None],
        kernels: Sequence[int],
    ) -> torch.Tensor:
        """Convolve images, change them, and apply the adjoint.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``.
        change
            Takes a place among the kernels and convolved images, and changes
            these.
        kernels
            Indices of kernels.

        Returns
        -------
        latents : `torch.Tensor`
            Shape ``(b, *latent_shape)``, sums over kernels.
        """
        transform = self.convolution.transform(latents, self._prefilter)

        def one(place: int, memory: ConvolutionMemory) -> torch.Tensor:
            self.convolution.convolve(transform, kernels[place], memory)
            change(place, memory.images)
            return self.convolution.correlate(kernels[place], memory)

        return self.add_up(one, len(latents), len(kernels))

    def add_up(
        self, function: Callable[[int, ConvolutionMemory], torch.Tensor], number: int, most: int
    ) -> torch.Tensor:
        """Return the sum of images that are given by their transforms.

        Parameters
        ----------
        function
            Takes a place, below ``most``, and memory; returns transforms.
        number
            Number of images.
        most
            Number of places.
        """
        memories = self.memories(number, most)
        total = torch.zeros_like(memories[0].spectrum)
        for part in ordered_map(function, range(most), memories):
            total += part
        return self.convolution.inverse_transform(total, self._prefilter)


class NormalOperator(KernelSums):
    """Convolution and sampling of images, weighting, and the adjoint.

    Parameters
    ----------
    convolution
        With the kernel of each exposure.
    sampling
        At the pixels of each exposure.
    """

    def __init__(self, convolution: Convolution, sampling: Sampling) -> None:
        super().__init__(convolution, sampling.prefilter)
        self.sampling = sampling

    def adjoint(
        self, data: torch.Tensor, weights: torch.Tensor | None, exposures: Sequence[int]
    ) -> torch.Tensor:
        """Return the sum over exposures of the adjoint of weighted data.

        Parameters
        ----------
        data
            Shape (n, h, w), of the exposures.
        weights
            Shape (n, h, w); `None` for 1.
        exposures
            Their indices.

        Returns
        -------
        latent : `torch.Tensor`
            Shape latent_shape.
        """

        def one(place: int, memory: ConvolutionMemory) -> torch.Tensor:
            some = data[place] if weights is None else data[place] * weights[place]
            memory.images.copy_(self.sampling.adjoint(some[None], [exposures[place]]))
            return self.convolution.correlate(exposures[place], memory)

        return self.add_up(one, 1, len(exposures))[0]

    def normal(self, latents: torch.Tensor, weights: torch.Tensor, exposures: Sequence[int]) -> torch.Tensor:
        """Predict exposures, weight them, and apply the adjoint.

        Parameters
        ----------
        latents
            Shape ``(b, *latent_shape)``, several latent images.
        weights
            Shape (n, h, w), of the exposures.
        exposures
            Their indices.

        Returns
        -------
        latents : `torch.Tensor`
            Shape ``(b, *latent_shape)``, sums over exposures.
        """

        def observe(place: int, images: torch.Tensor) -> None:
            self.sampling.normal(images, weights[place], exposures[place])

        return self.apply(latents, observe, exposures)
