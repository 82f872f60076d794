# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Maxima and means over squares."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core.exposures import box_means, close_holes, largest_around

IMAGES = torch.randn(3, 21, 34, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 3, 5, 9, 15, 65])
def test_largest_around_is_that_of_the_square(size: int) -> None:
    """If this fails, outliers and sources are grown by other distances."""
    expected = torch.nn.functional.max_pool2d(IMAGES, size, stride=1, padding=size // 2)
    assert torch.equal(largest_around(IMAGES, size), expected)
    assert torch.equal(largest_around(IMAGES[0], size), expected[0])


@pytest.mark.parametrize("size", [1, 3, 7, 9, 65, 99])
def test_box_means_are_those_of_the_square(size: int) -> None:
    """If this fails, variances of unusable pixels are those of others."""
    kernel = torch.full((1, 1, size, size), 1.0 / size**2)
    expected = torch.nn.functional.conv2d(IMAGES[:, None], kernel, padding=size // 2)[:, 0]
    assert torch.allclose(box_means(IMAGES, size), expected, atol=2e-6)


def test_small_holes_are_closed() -> None:
    """If it fails, holes that are inpainted count as edges, or the reverse."""
    pixels = torch.ones(40, 50, dtype=torch.bool)
    pixels[10:14, 20:24] = False
    pixels[:, 30:] = False
    closed = close_holes(pixels, 2)
    assert closed[:, :30].all()
    assert not closed[:, 30:].any()
    pixels[9:14, 19:24] = False
    assert torch.equal(close_holes(pixels, 2), pixels)
