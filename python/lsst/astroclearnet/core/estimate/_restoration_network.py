# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network that is trained once and applied to every patch."""

from __future__ import annotations

__all__ = ("RestorationNetwork",)

import math

import torch
from torch import nn

from ._bank import SMOOTHED_FWHMS, FilterBank
from ._network import make_layer

_CHANNELS = (16, 24, 32, 48)
"""Channels at full resolution and after each halving."""

_STRIDE = 2 ** (len(_CHANNELS) - 1)
"""Pixels of the coarsest resolution."""

_LARGEST_RESIDUAL = 3.0
"""Bound on what is added to the mean, in units of the noise of the estimate of
the middle penalty weight: between it and structure that one would believe."""


class RestorationNetwork(nn.Module):
    """Pixel-wise weighted mean of a filter bank, with a bounded residual.

    The first layer of AstroClearNet (Sukurdeep, Navarro & Budavari 2025,
    arXiv 2504.06463), parallel depth-wise convolutions over the exposures,
    is a bank of depth-wise filters that the PSFs and variances fix.  A U-Net
    (Ronneberger, Fischer & Brox 2015, arXiv 1505.04597) of residual blocks
    (He et al. 2015, arXiv 1512.03385) sees the bank in units of its noise, so
    that it is the same function for any number, depth, and order of
    exposures.  For each pixel it returns corrections to
    `FilterBank.log_prior`, from which positive weights with sum 1 follow, and
    a residual of a few sigma, which the mean of the estimates lacks.  The
    image scales with its unit.

    Parameters
    ----------
    penalty_weights
        Those of the filter bank, rising.

    Attributes
    ----------
    penalty_weights
        Those of the filter bank.
    sky_level
        Level below which there is no light, in units of the noise of the
        estimate of the strongest penalty.
    """

    sky_level = -0.1

    def __init__(self, penalty_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.penalty_weights = penalty_weights
        size = len(penalty_weights) + len(SMOOTHED_FWHMS)
        self._middle = len(penalty_weights) // 2
        self.stem = _convolution(2 * size + 1, _CHANNELS[0], 3)
        self.conditions = make_layer(nn.Linear, 2 * size - 2, _CHANNELS[0])
        self.down = nn.ModuleList(_Block(c) for c in _CHANNELS)
        self.widen = nn.ModuleList(
            _convolution(a, b, 1) for a, b in zip(_CHANNELS, _CHANNELS[1:], strict=False)
        )
        self.narrow = nn.ModuleList(
            _convolution(b, a, 1) for a, b in zip(_CHANNELS, _CHANNELS[1:], strict=False)
        )
        self.up = nn.ModuleList(_Block(c) for c in _CHANNELS[:-1])
        self.head = _convolution(_CHANNELS[0], size + 1, 1)

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
            for name, parameter in self.named_parameters():
                # At first blocks are nearly the identity, and the image nearly
                # that of the prior, whatever the conditions.
                if name.endswith("layer.weight"):
                    parameter.fill_(1.0)
                    continue
                if parameter.ndim == 1 or name.startswith("conditions"):
                    parameter.zero_()
                    continue
                draw = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(draw * math.sqrt(2.0 / parameter[0].numel()))
                if name.endswith("last.weight") or name.startswith("head"):
                    parameter.mul_(0.1)

    def forward(self, bank: FilterBank, origin: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """Return the image, latent_shape.

        Parameters
        ----------
        bank
            The bank.
        origin
            Row and column of its first pixel: the pixels of the coarser
            resolutions start at multiples of 8, so that an image does not
            depend on how it is divided into tiles.
        """
        *logits, residual = self._layers(bank, origin)
        shares = torch.softmax(bank.log_prior + torch.stack(logits), dim=0)
        bound = _LARGEST_RESIDUAL * bank.noise[self._middle] * bank.relative_noise
        image = (shares * bank.estimates).sum(dim=0) + bound * torch.tanh(residual / _LARGEST_RESIDUAL)
        level = self.sky_level * bank.sky_noise
        above = image - level
        # With a slope the network learns from pixels that are too dark.
        positive = nn.functional.leaky_relu(above, 0.1) if self.training else torch.relu(above)
        return positive + level

    def _layers(self, bank: FilterBank, origin: tuple[int, int]) -> torch.Tensor:
        """Return corrections and residual, ``(s + 1, *latent_shape)``."""
        height, width = bank.relative_noise.shape
        top, left = (o % _STRIDE for o in origin)
        bottom, right = -(top + height) % _STRIDE, -(left + width) % _STRIDE
        features = nn.functional.pad(bank.features[None], (left, right, top, bottom), mode="replicate")
        # The layout in which convolutions are fastest.
        features = features.contiguous(memory_format=torch.channels_last)
        x = self.stem(features) + self.conditions(bank.log_ratios)[:, None, None]
        kept = []
        for block, widen in zip(self.down, self.widen, strict=False):
            x = block(x)
            kept.append(x)
            x = widen(nn.functional.avg_pool2d(x, 2))
        x = self.down[-1](x)
        for block, narrow, finer in zip(
            reversed(self.up), reversed(self.narrow), reversed(kept), strict=True
        ):
            x = nn.functional.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x + finer)
        return self.head(x)[0, :, top : top + height, left : left + width]


class _PixelNorm(nn.Module):
    """Normalisation of the channels of each pixel (Ba, Kiros & Hinton 2016,
    arXiv 1607.06450), without which training diverges; other pixels do not
    matter, so that tiles agree.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


class _Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _PixelNorm(channels)
        self.first = _convolution(channels, channels, 3)
        self.last = _convolution(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(self.norm(x))
        result: torch.Tensor = x + self.last(nn.functional.leaky_relu(inner, 0.1))
        return result


def _convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """Return a convolution of the same shape, without initial parameters."""
    layer = make_layer(
        nn.Conv2d, inputs, outputs, size, padding=size // 2, padding_mode="replicate" if size > 1 else "zeros"
    )
    return layer.to(memory_format=torch.channels_last)
