# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network that mixes estimates of a band with the help of the others."""

from __future__ import annotations

__all__ = ("JointNetwork",)

import math

import torch
from torch import nn

from ..estimate import SMOOTHED_FWHMS, make_layer
from ._guided_bank import GuidedBank

_CHANNELS = 24
"""Channels of the layers."""

_DILATIONS = (1, 2, 4)
"""Dilation of the last convolution of each block: with them the network
sees 8 pixels around, more than twice a target PSF."""

_OWN = 4.0
"""Logarithm of the prior weight of the restored image over that of any other
estimate."""

_NUM_MORE = 4
"""Features beside those of the two banks and their differences: the two
restored images, the noise of the guide and the agreement of its bands."""


class JointNetwork(nn.Module):
    """Pixel-wise weighted mean of the estimates of a guided bank.

    A few residual blocks (He et al. 2015, arXiv 1512.03385) see the guide,
    and absolute values of what is known of the band, and return corrections
    to logarithms of the weights, which are positive with sum 1.  Where no
    other band has data the weight of the band's own restored image is 1.

    Parameters
    ----------
    num_penalty_weights
        Number of linear estimates of the bank that are solved for.
    """

    def __init__(self, num_penalty_weights: int) -> None:
        super().__init__()
        self.num_penalty_weights = num_penalty_weights
        size = num_penalty_weights + len(SMOOTHED_FWHMS)
        self.stem = _convolution(4 * size + 1 + _NUM_MORE, _CHANNELS, 3, 1)
        self.conditions = make_layer(nn.Linear, 2 * size - 2, _CHANNELS)
        self.blocks = nn.ModuleList(_Block(dilation) for dilation in _DILATIONS)
        self.head = _convolution(_CHANNELS, 2 + 2 * size, 1, 1)

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters (`int`)."""
        return sum(p.numel() for p in self.parameters())

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the initial parameters, with which the restored image is
        hardly changed.

        Parameters
        ----------
        generator
            Source of random numbers, on the CPU.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("norm.weight"):
                    parameter.fill_(1.0)
                elif parameter.ndim == 1 or name.startswith("conditions"):
                    parameter.zero_()
                else:
                    draw = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(draw * math.sqrt(2.0 / parameter[0].numel()))
                    if name.endswith("last.weight") or name.startswith("head"):
                        parameter.mul_(0.1)

    def mixture(self, bank: GuidedBank) -> torch.Tensor:
        """Return the weights of the estimates, ``(s, *latent_shape)``.

        Parameters
        ----------
        bank
            The bank.
        """
        features = bank.features[None].contiguous(memory_format=torch.channels_last)
        x = self.stem(features) + self.conditions(bank.log_ratios)[:, None, None]
        for block in self.blocks:
            x = block(x)
        logits = self.head(x)[0]
        prior = torch.zeros(len(logits), 1, 1, device=logits.device)
        prior[0] = _OWN
        others = torch.softmax(logits + prior, dim=0)[1:] * bank.largest_weight
        return torch.cat([1.0 - others.sum(dim=0, keepdim=True), others])

    def forward(self, bank: GuidedBank) -> torch.Tensor:
        """Return the weighted mean of the estimates, latent_shape.

        Parameters
        ----------
        bank
            The bank.
        """
        # Differences, so that a weight of 1 is exact.
        others = bank.estimates[1:] - bank.estimates[0]
        return bank.estimates[0] + (self.mixture(bank)[1:] * others).sum(dim=0)


class _Block(nn.Module):
    """Residual block of two convolutions of normalised channels (Ba, Kiros &
    Hinton 2016, arXiv 1607.06450).
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_CHANNELS)
        self.first = _convolution(_CHANNELS, _CHANNELS, 1, 1)
        self.last = _convolution(_CHANNELS, _CHANNELS, 3, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        result: torch.Tensor = x + self.last(nn.functional.leaky_relu(inner, 0.1))
        return result


def _convolution(inputs: int, outputs: int, size: int, dilation: int) -> nn.Conv2d:
    """Return a convolution of the same shape, without initial parameters."""
    padding = dilation * (size // 2)
    mode = "replicate" if padding else "zeros"
    layer = make_layer(
        nn.Conv2d, inputs, outputs, size, padding=padding, dilation=dilation, padding_mode=mode
    )
    return layer.to(memory_format=torch.channels_last)
