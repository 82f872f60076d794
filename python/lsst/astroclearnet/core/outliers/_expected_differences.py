# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What may differ between one exposure and the others."""

from __future__ import annotations

import math

import torch

from ..exposures import fwhm_to_sigma, largest_around


def find_structure(
    light: torch.Tensor, inside: torch.Tensor | None, sigma: float, noise: torch.Tensor
) -> torch.Tensor:
    """Return light above its surroundings, as of stars and cores of galaxies.

    Parameters
    ----------
    light
        Shape (n, h, w).
    inside
        Shape (n, h, w), bool, pixels whose light is known; `None` for all.
    sigma
        Standard deviation of the PSF in pixels.
    noise
        Shape (), light that is not structure.

    Returns
    -------
    structure : `torch.Tensor`
        Shape (n, h, w), not negative: light less its morphological opening.
    """

    def known(values: torch.Tensor) -> torch.Tensor:
        return values if inside is None else values.masked_fill(~inside, -math.inf)

    # At 1.5 FWHM a Gaussian star has 0.2 % of its peak.
    size = 2 * max(1, round(1.5 * sigma / fwhm_to_sigma(1.0))) + 1
    base = largest_around(known(-largest_around(known(-light), size)), size)
    structure = (light - base - noise).clamp_(min=0.0)
    return structure if inside is None else structure.masked_fill_(~inside, 0.0)


def list_differences(
    light: torch.Tensor, inside: torch.Tensor, brightness: torch.Tensor, *, shift: float, width: float
) -> torch.Tensor:
    """Return one standard deviation of what may differ in an exposure.

    Parameters
    ----------
    light
        Shape (1, h, w), expected light.
    inside
        Shape (1, h, w), bool, pixels whose light is known.
    brightness
        Shape (1, h, w), one standard deviation of brightness.
    shift
        Standard deviation of the position in pixels along an axis.
    width
        Standard deviation of second moments of the PSF in square pixels.

    Returns
    -------
    templates : `torch.Tensor`
        Shape (6, h, w): brightness, positions (2) and second moments (3).
    """
    pairs = [
        (inside.narrow(axis, 1, length) & inside.narrow(axis, 0, length)).to(light.dtype)
        for axis, length in ((1, light.shape[1] - 1), (2, light.shape[2] - 1))
    ]
    rows, columns = (_slope(light, pair, axis) for axis, pair in enumerate(pairs, 1))
    templates = [
        brightness,
        shift * rows,
        shift * columns,
        width * _slope(rows, pairs[0], 1),
        width * _slope(columns, pairs[1], 2),
        math.sqrt(2.0) * width * _slope(rows, pairs[1], 2),
    ]
    return torch.cat(templates)


def _slope(image: torch.Tensor, pairs: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the mean difference from both neighbours that are known."""
    length = image.shape[axis] - 1
    half = torch.diff(image, dim=axis).mul_(pairs).mul_(0.5)
    slope = torch.zeros_like(image)
    slope.narrow(axis, 0, length).add_(half)
    slope.narrow(axis, 1, length).add_(half)
    return slope
