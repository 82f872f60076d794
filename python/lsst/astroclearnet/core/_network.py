# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network: a function from the exposures to the restored image."""

from __future__ import annotations

__all__ = ("MixingNetwork",)

import torch
from torch import nn

from ._bank import FilterBank
from ._options import NetworkOptions

_SIGNIFICANCE = 3.0
"""Deviation, in sigma, from which a finer estimate is preferred a priori."""

_NEIGHBORHOOD = 5
"""Side, in pixels, of the square in which it is looked for."""

_PRIOR_FLOOR = 1e-3
"""A priori weight of an estimate that nothing speaks for."""


class MixingNetwork(nn.Module):
    """Mix, pixel by pixel, linear estimates of several strengths.

    The first layer of AstroClearNet (Sukurdeep, Navarro & Budavari 2025,
    arXiv 2504.06463), parallel depth-wise convolutions over the exposures,
    is here a bank of depth-wise filters that the PSFs and variances fix: the
    regularised estimates of `LinearEstimator`.  What is learned is how to
    combine them: three small convolutional layers turn the bank, in units of
    its noise, into weights that are positive and sum to 1 in every pixel.
    The image is the bank weighted with them, so flux is conserved, and the
    result follows a common scale of exposures and errors exactly.

    The layers correct a starting point: an estimate is preferred to the next
    smoother one where the two differ significantly in the neighbourhood.

    Parameters
    ----------
    options
        Size of the network.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        num_strengths = len(options.strengths)
        hidden = options.hidden_channels
        self._non_negative = options.non_negative
        self.layers = nn.Sequential(
            _convolution(2 * num_strengths, hidden, 3, padding=1),
            nn.LeakyReLU(0.1),
            _convolution(hidden, hidden, 3, padding=2, dilation=2),
            nn.LeakyReLU(0.1),
            _convolution(hidden, num_strengths, 1),
        )
        self.sky_level = nn.Parameter(torch.zeros(()))
        """Level below which there is no light, in units of the noise of the
        smoothest estimate."""

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
        """Return the weights of the estimates of a bank.

        Parameters
        ----------
        bank
            The bank, with s estimates.

        Returns
        -------
        weights : `torch.Tensor`
            Shape (s, *latent_shape), positive, sum 1.
        """
        correction = self.layers(bank.features[None])[0]
        return torch.softmax(_prior(bank.significance).log() + correction, dim=0)

    def combine(self, weights: torch.Tensor, bank: FilterBank) -> torch.Tensor:
        """Return the image that weights make of a bank.

        Parameters
        ----------
        weights
            Shape (s, *latent_shape), from `mixture`.
        bank
            The bank.

        Returns
        -------
        image : `torch.Tensor`
            Shape latent_shape, nowhere below the sky level where the network
            is non-negative.
        """
        image = (weights * bank.estimates).sum(dim=0)
        if not self._non_negative:
            return image
        level = self.sky_level * bank.unit
        return torch.relu(image - level) + level

    def forward(self, bank: FilterBank) -> torch.Tensor:
        """Return the restored image.

        Parameters
        ----------
        bank
            The bank.

        Returns
        -------
        image : `torch.Tensor`
            Shape latent_shape.
        """
        return self.combine(self.mixture(bank), bank)


def _convolution(inputs: int, outputs: int, size: int, **options: int) -> nn.Conv2d:
    """Return a layer without parameters: they are drawn from a generator."""
    layer: nn.Conv2d = nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, size, padding_mode="replicate", **options
    )
    return layer


def _prior(significance: torch.Tensor) -> torch.Tensor:
    """Return weights, (s, H, W), for significances, (s - 1, H, W)."""
    strongest = nn.functional.max_pool2d(
        significance[None], _NEIGHBORHOOD, stride=1, padding=_NEIGHBORHOOD // 2
    )[0]
    finer = torch.sigmoid(2.0 * (strongest - _SIGNIFICANCE))
    remaining = torch.cumprod(1.0 - finer, dim=0)
    first = torch.ones_like(remaining[:1])
    shares = torch.cat([finer * torch.cat([first, remaining[:-1]]), remaining[-1:]])
    return shares.clamp(min=_PRIOR_FLOOR)
