# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet as it was published."""

from __future__ import annotations

__all__ = ("PublishedAstroClearNet",)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lsst.astroclearnet.core import ExposureStack, InputError
from lsst.astroclearnet.core.exposures import masked_medians
from lsst.astroclearnet.core.tiles import make_generator

from ._networks import descend, noise_unit
from ._point_model import PointModel
from ._restorer import Restoration, Restorer
from ._stops import check_positive, check_stops

_INITIAL_SPREAD = 0.1
"""Norm of the random part of the first kernels of a branch."""


@dataclass(frozen=True)
class PublishedAstroClearNet(Restorer):
    """AstroClearNet in the literal reading of the paper.

    Sukurdeep, Navarro & Budavari (2025, arXiv:2504.06463), and Navarro, Hall,
    Budavari & Sukurdeep (2023, arXiv:2302.02030) before it.  The latent image
    of non-negative points of light is a function of the exposures themselves,
    x = F_theta(y), a network of parallel depth-wise convolutions that ends in
    a ReLU, and theta minimises by Adam

        sum_t sum m(t) H((y(t) - f(t) * F_theta(y)) / sigma(t))

    with masks m, Huber loss H, PSFs f and sigma(t)^2 the variances as given:
    the exposures it fits are the ones it sees.

    It gives at each stop the latent image convolved with the target, without a
    variance.  The declared FWHM is that of the target; the true PSF is
    broader.  NaN where no pixel is near enough to constrain the image.

    Attributes
    ----------
    stops
        Numbers of iterations at which to hand over an image.
    branches
        Number of parallel branches.
    kernel_size
        Odd number of pixels on a side of all kernels.
    delta
        Deviation in units of sigma at which the loss turns linear.
    learning_rate
        Step of Adam.
    name
        Words that name the method in a table.

    Notes
    -----
    The model, the loss, the parallel depth-wise convolutions and the ReLU are
    the authors'.  Their number of layers, channels and kernel sizes, the
    initial state, the rate and the number of iterations are assumed here:

    * F_theta(y) = ReLU(sum_b d(b) * ReLU(c(b) + sum_t h(b, t) * y(t))), with
      one kernel h for each branch b and exposure t, one kernel d and one
      offset c for each branch, all of one size;
    * it starts close to the inverse-variance coadd: h is the weight of the
      exposure at its middle plus small random numbers, and the d are equal
      and sum to one;
    * exposures enter in units of the noise of all together, with masked
      pixels filled from their inverse-variance mean, or by zero where there
      is none;
    * delta is the value with which the authors run ImageMM;
    * the rate is about the largest that works: at three times that, a first
      step can turn the image dark everywhere, from where a ReLU does not
      return.

    The authors report no post-processing; the convolution with the target is
    there to compare.
    """

    stops: tuple[int, ...] = (100, 200, 400, 800, 1600)
    branches: int = 4
    kernel_size: int = 15
    delta: float = 2.0
    learning_rate: float = 1e-3
    name: str = "AstroClearNet as published"

    def __post_init__(self) -> None:
        check_stops(self.stops)
        check_positive(branches=self.branches, delta=self.delta, learning_rate=self.learning_rate)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size={self.kernel_size} must be odd, to have a middle pixel.")

    def _restore(
        self,
        images: NDArray[Any],
        variances: NDArray[Any],
        good: NDArray[np.bool_],
        psfs: NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        stack = ExposureStack.from_arrays(images, variances, good, psfs)
        model = PointModel.from_stack(stack, target_fwhm)
        root = stack.good * stack.variances.rsqrt()
        constrained = model.constrained(root**2)
        unit = noise_unit(stack)
        shares = 1.0 / masked_medians(stack.variances, stack.good, torch.inf)
        shares = shares / shares.sum()
        network = _ParallelNetwork(model, shares, self.branches, self.kernel_size)
        network.initialize(make_generator(seed))
        inputs = torch.fft.rfft2(model.embed(_fill(stack, shares)) / unit)
        norm = 1.0 / stack.good.sum()

        def render() -> torch.Tensor:
            return unit * network(inputs) * constrained

        def loss(latent: torch.Tensor) -> torch.Tensor:
            deviation = root * (stack.images - model.predict(latent))
            zero = torch.zeros_like(deviation)
            return norm * nn.functional.huber_loss(deviation, zero, reduction="sum", delta=self.delta)

        fit = descend(network, render, loss, stops=self.stops, learning_rate=self.learning_rate)
        for iteration, latent in fit:
            image = model.show(latent, constrained)
            yield Restoration(image=image, fwhm=target_fwhm, iteration=iteration)


def _fill(stack: ExposureStack, shares: torch.Tensor) -> torch.Tensor:
    """Fill masked pixels from the mean of the exposures."""
    weights = shares[:, None, None] * stack.good
    total = weights.sum(dim=0)
    mean = (weights * stack.images).sum(dim=0) / torch.where(total > 0, total, 1.0)
    return torch.where(stack.good, stack.images, mean)


class _ParallelNetwork(nn.Module):
    """Parallel branches of depth-wise convolutions.

    Maps transforms of exposures on the latent grid, (n, Hl, Wl // 2 + 1), to
    a non-negative image, latent_shape.
    """

    def __init__(self, model: PointModel, shares: torch.Tensor, branches: int, size: int) -> None:
        super().__init__()
        self._model = model
        self._shares = shares
        self.kernels = nn.Parameter(torch.zeros((branches, len(shares), size, size)))
        self.offsets = nn.Parameter(torch.zeros((branches, 1, 1)))
        self.merging = nn.Parameter(torch.zeros((branches, size, size)))

    def initialize(self, generator: torch.Generator) -> None:
        middle = self.kernels.shape[-1] // 2
        with torch.no_grad():
            draw = torch.randn(self.kernels.shape, generator=generator)
            self.kernels.copy_(draw * (_INITIAL_SPREAD / self.kernels[0].numel() ** 0.5))
            self.kernels[:, :, middle, middle] += self._shares
            self.merging[:, middle, middle] = 1.0 / len(self.merging)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        model = self._model
        sums = torch.fft.irfft2((model.transfer(self.kernels) * inputs).sum(dim=1), s=model.latent_shape)
        branches = torch.relu(sums + self.offsets)
        return torch.relu(model.convolve(branches, model.transfer(self.merging)).sum(dim=0))
