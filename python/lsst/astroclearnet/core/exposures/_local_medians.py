# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variances of the surroundings of pixels."""

from __future__ import annotations

__all__ = ("local_medians",)

import torch


def local_medians(image: torch.Tensor) -> torch.Tensor:
    """Return medians of the surroundings, the pixel itself left out.

    Medians along rows, then columns, of 5 pixels, which keep rectangles from
    3 pixels on as they are.

    Parameters
    ----------
    image
        Shape (H, W).

    Returns
    -------
    medians : `torch.Tensor`
        Shape (H, W).
    """
    left, right, middle, *others = (_shifted(image, k, 1) for k in (-2, 2, 0, -1, 1))
    low, high = _middle_two(left, right, *others)
    rows = _median_of_three(low, high, middle)
    low, high = _middle_two(*(_shifted(rows, k, 0) for k in (-2, 2, -1, 1)))
    own = _middle_two(left, right, *others)
    return _median_of_three(low, high, 0.5 * (own[0] + own[1]))


def surrounding_variance(variance: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Return for each pixel the median of the variances around.

    Parameters
    ----------
    variance
        Shape (H, W).
    good
        Shape (H, W), bool, pixels to use.

    Returns
    -------
    medians : `torch.Tensor`
        Shape (H, W), positive everywhere.
    """
    return local_medians(fill_variance(variance, good))


def _shifted(image: torch.Tensor, offset: int, dim: int) -> torch.Tensor:
    """Return pixels at an offset, mirrored at the edges."""
    if not offset:
        return image
    last = image.shape[dim] - 1
    index = (torch.arange(last + 1, device=image.device) + offset).abs()
    return image.index_select(dim, (last - (last - index).abs()).clamp(min=0))


def _middle_two(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the second and third of four values, in no order."""
    return (
        torch.maximum(torch.minimum(a, b), torch.minimum(c, d)),
        torch.minimum(torch.maximum(a, b), torch.maximum(c, d)),
    )


def _median_of_three(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def fill_variance(variance: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Give pixels that are not used the mean of those around.

    Parameters
    ----------
    variance
        Shape (H, W).
    good
        Shape (H, W), bool, pixels to use.

    Returns
    -------
    filled : `torch.Tensor`
        Shape (H, W), 1 without any pixel to use.
    """
    if bool(good.all()):
        return variance
    if not bool(good.any()):
        return torch.ones_like(variance)
    use = good.to(variance.dtype)
    filled = torch.where(good, variance, variance[good].median())
    for size in (65, 9, 3):
        share, total = _box_means(torch.stack([use, use * variance]), size)
        mean = total / share.clamp(min=1e-30)
        # Less than one pixel is rounding.
        filled = torch.where(~good & (share * size**2 > 0.5), mean, filled)
    return filled


def _box_means(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return means over squares, with zeros beyond the edge, (k, H, W)."""
    pool, reach = torch.nn.functional.avg_pool2d, size // 2
    rows = pool(images, (size, 1), stride=1, padding=(reach, 0))
    return pool(rows, (1, size), stride=1, padding=(0, reach))
