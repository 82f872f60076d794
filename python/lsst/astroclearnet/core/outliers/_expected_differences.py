# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What may differ between one exposure and the others."""

from __future__ import annotations

import dataclasses
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
    ways = [_Neighbours.along(axis, inside, light.dtype) for axis in (1, 2)]
    rows, columns = (way.slope(light) for way in ways)
    templates = [
        brightness,
        shift * rows,
        shift * columns,
        width * ways[0].slope(rows),
        width * ways[1].slope(columns),
        math.sqrt(2.0) * width * ways[1].slope(rows),
    ]
    return torch.cat(templates)


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    """Pairs of known neighbours along an axis, 0 or 1, and one over their
    number for each pixel.
    """

    axis: int
    pairs: torch.Tensor
    share: torch.Tensor

    @classmethod
    def along(cls, axis: int, inside: torch.Tensor, dtype: torch.dtype) -> _Neighbours:
        length = inside.shape[axis] - 1
        pairs = (inside.narrow(axis, 1, length) & inside.narrow(axis, 0, length)).to(dtype)
        one = cls(axis, pairs, torch.ones((), dtype=dtype, device=inside.device))
        return dataclasses.replace(one, share=one._sum(pairs).clamp_(min=1.0).reciprocal_())

    def slope(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mean difference from neighbours, where the data end from
        one alone.
        """
        return self._sum(torch.diff(image, dim=self.axis).mul_(self.pairs)).mul_(self.share)

    def _sum(self, pairs: torch.Tensor) -> torch.Tensor:
        length, axis = pairs.shape[self.axis], self.axis
        before = torch.nn.functional.pad(pairs, (0, 0, 1, 0) if axis == 1 else (1, 0))
        before.narrow(axis, 0, length).add_(pairs)
        return before
