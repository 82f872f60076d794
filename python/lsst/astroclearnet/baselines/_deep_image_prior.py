# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A convolutional network as the only prior."""

from __future__ import annotations

__all__ = ("DeepImagePrior",)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import skip_init

from ..core import ExposureStack
from ..core.tiles import make_generator
from ._networks import descend, noise_unit
from ._point_model import PointModel
from ._restorer import Restoration, Restorer
from ._stops import check_positive, check_stops

_INPUT_CHANNELS = 16
"""Channels of the fixed noise that the network starts from."""

_INPUT_SCALE = 0.1
"""Upper limit of the uniform noise."""

_WIDTHS = (16, 32, 64)
"""Channels of the network at full, half and quarter resolution."""


@dataclass(frozen=True)
class DeepImagePrior(Restorer):
    """Deep image prior from fixed noise.

    Ulyanov, Vedaldi & Lempitsky (2018, CVPR, arXiv:1711.10925): an
    encoder-decoder with skip connections maps uniform noise that is drawn
    once to the latent image of non-negative points of light, and its
    parameters minimise by Adam

        sum_t sum m(t) (y(t) - f(t) * x)^2 / v(t)

    over all exposures, with masks m, PSFs f and variances v.  That the
    network learns smooth structure before noise is the only regularisation,
    so that it has to be stopped.

    It gives at each stop the latent image convolved with the target, without a
    variance.  The declared FWHM is that of the target; the true PSF is
    broader.  NaN where no pixel is near enough to constrain the image.

    Attributes
    ----------
    stops
        Numbers of iterations at which to hand over an image.
    learning_rate
        Step of Adam.
    name
        Words that name the method in a table.

    Notes
    -----
    The network has three resolutions of 16, 32 and 64 channels with two 3x3
    convolutions each on the way down and up, batch normalisation and leaky
    ReLU as in the paper, nearest-neighbour upsampling, and a softplus in
    units of the noise of all exposures together at the end.  It is smaller
    than that of the paper, to fit a CPU.
    """

    stops: tuple[int, ...] = (100, 200, 300, 500)
    learning_rate: float = 0.03
    name: str = "deep image prior"

    def __post_init__(self) -> None:
        check_stops(self.stops)
        check_positive(learning_rate=self.learning_rate)

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
        weights = stack.good / stack.variances
        constrained = model.constrained(weights)
        unit = noise_unit(stack)
        generator = make_generator(seed)
        noise = torch.rand((1, _INPUT_CHANNELS, *model.latent_shape), generator=generator) * _INPUT_SCALE
        network = _HourglassNetwork(_INPUT_CHANNELS, _WIDTHS)
        network.initialize(generator)
        norm = 1.0 / stack.good.sum()

        def render() -> torch.Tensor:
            return unit * network(noise)[0, 0] * constrained

        def loss(latent: torch.Tensor) -> torch.Tensor:
            return norm * (weights * (stack.images - model.predict(latent)) ** 2).sum()

        fit = descend(network, render, loss, stops=self.stops, learning_rate=self.learning_rate)
        for iteration, latent in fit:
            image = model.show(latent, constrained)
            yield Restoration(image=image, fwhm=target_fwhm, iteration=iteration)


class _HourglassNetwork(nn.Module):
    """Encoder and decoder with skip connections.

    Maps (1, channels, H, W) to a non-negative (1, 1, H, W).
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (channels, *widths[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.head = skip_init(nn.Conv2d, widths[0], 1, 1)

    def initialize(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    draw = torch.randn(layer.weight.shape, generator=generator)
                    layer.weight.copy_(draw * (2.0 / layer.weight[0].numel()) ** 0.5)
            self.head.bias.zero_()

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        skips = [self.down[0](noise)]
        for block in self.down[1:]:
            skips.append(block(nn.functional.avg_pool2d(skips[-1], 2, ceil_mode=True)))
        features = skips.pop()
        for block in reversed(self.up):
            skip = skips.pop()
            features = nn.functional.interpolate(features, size=skip.shape[-2:], mode="nearest")
            features = block(torch.cat([features, skip], dim=1))
        return nn.functional.softplus(self.head(features))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(skip_init(nn.Conv2d, channels, outputs, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)
