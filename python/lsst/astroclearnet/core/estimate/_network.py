# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network, which mixes the estimates of the filter bank."""

from __future__ import annotations

__all__ = ("MixingNetwork",)

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .._options import NetworkOptions
from ._bank import SMOOTHED_FWHMS, FilterBank

_REACH = 3
"""Radius in pixels of the receptive field of the layers."""

_STRIP = 64
"""Rows that are worked on at once where no gradients are needed."""


class MixingNetwork(nn.Module):
    """Pixel-wise weighted mean of the estimates of a filter bank.

    The first layer of AstroClearNet (Sukurdeep, Navarro & Budavari 2025,
    arXiv 2504.06463), parallel depth-wise convolutions over the exposures,
    is here a bank of depth-wise filters that the PSFs and variances fix: the
    regularised estimates of `LinearEstimator`.  Three small convolutional
    layers learn the weights of the mean from the bank in units of its noise,
    as corrections to `FilterBank.log_prior`.  The weights are positive with
    sum 1, so flux is conserved, and the image scales with its unit.

    Parameters
    ----------
    options
        Size of the network.

    Attributes
    ----------
    sky_level
        Level below which there is no light, in units of the noise of the
        smoothest estimate.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.penalty_weights = options.penalty_weights
        size = len(options.penalty_weights) + len(SMOOTHED_FWHMS)
        hidden = options.hidden_channels
        self._non_negative = options.non_negative
        self.layers = nn.Sequential(
            _convolution(2 * size + 1, hidden, 3, padding=1),
            nn.LeakyReLU(0.1),
            _convolution(hidden, hidden, 3, padding=2, dilation=2),
            nn.LeakyReLU(0.1),
            _convolution(hidden, size, 1),
        )
        self.sky_level = nn.Parameter(torch.zeros(()))

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters (`int`)."""
        return sum(p.numel() for p in self.parameters())

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the initial parameters.

        Parameters
        ----------
        generator
            Source of random numbers, on the CPU.
        """
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    fan_in = layer.weight[0].numel()
                    draw = torch.randn(layer.weight.shape, generator=generator)
                    layer.weight.copy_(draw * (2.0 / fan_in) ** 0.5)
                    if layer.bias is not None:
                        layer.bias.zero_()
            # The starting point is hardly corrected at first.
            self.layers[-1].weight.mul_(0.1)  # type: ignore[operator]
            self.sky_level.zero_()

    def mixture(self, bank: FilterBank) -> torch.Tensor:
        """Return the weights of the estimates, ``(s, *latent_shape)``.

        Parameters
        ----------
        bank
            The bank.
        """
        if torch.is_grad_enabled():
            correction = self.layers(bank.features[None])[0]
        else:
            correction = self._correct_strips(bank.features)
        return torch.softmax(bank.log_prior + correction, dim=0)

    def _correct_strips(self, features: torch.Tensor) -> torch.Tensor:
        """Apply the layers to some rows at a time, which takes less memory."""
        strips = []
        height = features.shape[1]
        for start in range(0, height, _STRIP):
            stop = min(start + _STRIP, height)
            first, last = max(start - _REACH, 0), min(stop + _REACH, height)
            strips.append(self.layers(features[None, :, first:last])[0, :, start - first : stop - first])
        return torch.cat(strips, dim=1)

    def forward(self, bank: FilterBank, origin: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """Return the weighted mean of the estimates, latent_shape.

        Parameters
        ----------
        bank
            The bank.
        origin
            Ignored: the layers keep the resolution.
        """
        image = (self.mixture(bank) * bank.estimates).sum(dim=0)
        if not self._non_negative:
            return image
        level = self.sky_level * bank.noise[bank.num_solved - 1]
        return torch.relu(image - level) + level


def make_layer[Layer: nn.Module](make: Callable[..., Layer], *arguments: int, **options: Any) -> Layer:
    """Make a layer whose parameters are set later.

    The generator of PyTorch is left as it was.  `torch.nn.utils.skip_init`
    would take 0.3 s to load.

    Parameters
    ----------
    make
        Class of the layer.
    *arguments, **options
        What it takes.
    """
    with torch.random.fork_rng(devices=[]):
        return make(*arguments, **options)


def _convolution(inputs: int, outputs: int, size: int, **options: int) -> nn.Conv2d:
    """Return a layer without initial parameters."""
    layer = make_layer(nn.Conv2d, inputs, outputs, size, padding_mode="replicate", **options)
    return layer.to(memory_format=torch.channels_last)
