# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What pairs of exposures tell of the errors they differ by."""

from __future__ import annotations

__all__ = (
    "NUM_TEMPLATES",
    "angular_frequencies",
    "calibrate_pairs",
    "pair_information",
    "template_multipliers",
)

import math
from collections.abc import Iterator

import torch

from ._depth import weight_maps
from ._forward_model import ForwardModel

NUM_TEMPLATES = 4
"""Errors of an exposure: of its flux, in y, in x and of the width."""

_BLOCK = 64
"""Side in pixels of the blocks in which depths are taken to be constant."""

_NULL = 1e-6
"""Share of the largest eigenvalue below which a template has no light."""


def template_multipliers(dilation: torch.Tensor) -> torch.Tensor:
    """Return what makes templates of the transform of light.

    Parameters
    ----------
    dilation
        Shape (..., height, width // 2 + 1), the multiplier of the template
        of the width, with an even width.

    Returns
    -------
    multipliers : `torch.Tensor`
        Shape (..., 4, height, width // 2 + 1), real; those of the shifts are
        to be multiplied with -i.
    """
    height, columns = dilation.shape[-2:]
    ky, kx = angular_frequencies(height, 2 * (columns - 1), dilation)
    # At the highest frequency a shift of half a pixel has no sign.
    ky, kx = (k * (k.abs() < 0.999 * math.pi) for k in (ky, kx))
    first = [torch.ones_like(ky * kx), ky + 0.0 * kx, kx + 0.0 * ky]
    return torch.stack([*(m.expand_as(dilation) for m in first), dilation], dim=-3)


def angular_frequencies(height: int, width: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the angular frequencies of a real Fourier transform.

    Parameters
    ----------
    height
        Rows of the image.
    width
        Columns of the image.
    like
        Tensor of the type and on the device to use.

    Returns
    -------
    ky : `torch.Tensor`
        Shape (height, 1), radians per pixel.
    kx : `torch.Tensor`
        Shape (width // 2 + 1,), radians per pixel.
    """
    ky = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)[:, None]
    kx = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
    return 2.0 * math.pi * ky, 2.0 * math.pi * kx


def pair_information(
    model: ForwardModel, light: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each pair of exposures tells of its differences.

    It is S_ts of `exposure_consistency`, with - k^2 for the multiplier of the
    width and with weights that vary over the patch, but not within a source.

    Parameters
    ----------
    model
        Forward model of the exposures.
    light
        Shape latent_shape, image that the templates are made of.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.

    Returns
    -------
    pairs : `torch.Tensor`
        Shape (n, n, 4, 4), double.
    alone : `torch.Tensor`
        Shape (n, 4, 4), double, what each exposure would tell of its errors
        if the image were known.
    """
    maps = weight_maps(model, weights)
    # Interpolation overshoots a little at the edge of the data.
    unit = maps.typical.sum().clamp(min=1e-30)
    depth = model.embed((maps.weights * maps.used).clamp(min=0.0) / unit)
    ky, kx = angular_frequencies(_BLOCK, _BLOCK, light)
    multipliers = template_multipliers(-(ky**2 + kx**2))
    multiplicity = torch.full_like(multipliers[0], 2.0)
    multiplicity[:, [0, -1]] = 1.0
    # The product of a shift with another template is odd in frequency.
    even = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]).to(light)
    products = even[..., None, None] * multipliers[:, None] * multipliers * multiplicity / _BLOCK**2
    power = _block_power(model)
    number = model.num_exposures
    pairs = torch.zeros(number, number, NUM_TEMPLATES**2, dtype=torch.float64, device=light.device)
    alone = torch.zeros(number, NUM_TEMPLATES**2, dtype=torch.float64, device=light.device)
    for part, depths in _blocks(light, depth):
        brightness = part.square()
        total = brightness.sum()
        if not float(total) > 0 or not bool(depths.any()):
            continue
        brightness = brightness / total
        mean = (depths * brightness).flatten(1).sum(dim=1)
        shared = depths / depths.sum(dim=0).clamp(min=1e-30)
        overlap = (depths * brightness).flatten(1) @ shared.flatten(1).T
        # Relative to depths that do not vary in the block.
        overlap = overlap * mean.sum() / (mean[:, None] * mean).clamp(min=1e-30)
        known = mean[:, None] * power.flatten(1)
        share = known / known.sum(dim=0).clamp(min=1e-30)
        strength = (products * torch.fft.rfft2(part).abs() ** 2).flatten(0, 1).flatten(1)
        information = torch.einsum("tk,pk,sk->tsp", known, strength, share)
        pairs += (overlap[..., None] * information).double()
        alone += (known @ strength.T).double()
    pairs = 0.5 * unit.double() * (pairs + pairs.transpose(0, 1))
    square = (NUM_TEMPLATES, NUM_TEMPLATES)
    return pairs.unflatten(-1, square), unit.double() * alone.unflatten(-1, square)


def calibrate_pairs(pairs: torch.Tensor, alone: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Return the information of pairs with the weights as they are.

    Weights vary within stars by their photon noise, in much the same way in
    all exposures, and the widths of PSFs that are not Gaussian have other
    multipliers: what takes ``alone`` into ``exact`` does so for pairs.

    Parameters
    ----------
    pairs
        Shape (n, n, 4, 4), of `pair_information`.
    alone
        Shape (n, 4, 4), of `pair_information`.
    exact
        Shape (n, 4, 4), products of the templates themselves.

    Returns
    -------
    calibrated : `torch.Tensor`
        Shape (n, n, 4, 4).
    """
    scale = alone.diagonal(dim1=1, dim2=2).rsqrt()
    root = _root(scale[:, :, None] * alone * scale[:, None])
    inverse = torch.linalg.pinv(root, rtol=_NULL, hermitian=True)
    # The symmetric C for which C alone C = exact.
    change = inverse @ _root(root @ (scale[:, :, None] * exact * scale[:, None]) @ root) @ inverse
    change = change * scale[:, None] / scale[:, :, None]
    mean = 0.5 * (change[:, None] + change)
    return mean @ pairs @ mean.mT


def _root(matrices: torch.Tensor) -> torch.Tensor:
    """Return the roots of positive matrices."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0)[..., None, :].sqrt()) @ vectors.mT


def _block_power(model: ForwardModel) -> torch.Tensor:
    """Return the powers of the mean difference kernels on the grid of a block.

    They are smooth in frequency, so that the nearest one will do.
    """
    height, width = model.latent_shape
    device = model.mean_otfs.device
    rows = torch.round(torch.fft.fftfreq(_BLOCK, device=device) * height).long()
    columns = torch.round(torch.fft.rfftfreq(_BLOCK, device=device) * width).long()
    return model.mean_otfs[:, rows][:, :, columns].abs() ** 2


def _blocks(light: torch.Tensor, depth: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield overlapping blocks of light and depth.

    The squares of the windows of the light add up to one.
    """
    step = _BLOCK // 2
    taper = torch.sin(math.pi * (torch.arange(_BLOCK) + 0.5) / _BLOCK).to(light)
    bottom, right = (step + (-size) % step for size in light.shape)
    padding = (step, right, step, bottom)
    lights = torch.nn.functional.pad(light, padding).unfold(0, _BLOCK, step).unfold(1, _BLOCK, step)
    depths = torch.nn.functional.pad(depth, padding).unfold(1, _BLOCK, step).unfold(2, _BLOCK, step)
    for row in range(lights.shape[0]):
        for column in range(lights.shape[1]):
            yield taper[:, None] * taper * lights[row, column], depths[:, row, column]
