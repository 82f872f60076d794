# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation by compiled functions and by sparse matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core.forward import CompiledInterpolation, LatentGrid, SparseInterpolation
from lsst.astroclearnet.core.forward._interpolation_kernels import axis_weights
from lsst.astroclearnet.core.forward._interpolation_lanes import BLOCK
from lsst.astroclearnet.core.forward._interpolation_profile import LANES, WIDTH, kernel_profile

SHAPE = (41, 34)


def make_pixels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return positions on a patch, up to its border, some unknown, and areas.

    Their number is no multiple of that of a block.
    """
    rows, columns = np.mgrid[-3:44, -3:37].astype(float)
    y = math.cos(0.3) * (rows - 20) - math.sin(0.3) * (columns - 17) + 20.3
    x = math.sin(0.3) * (rows - 20) + math.cos(0.3) * (columns - 17) + 16.6
    y, x = (np.append(c.ravel(), ends) for c, ends in ((y, (-0.5, 40.49)), (x, (33.49, -0.5))))
    known = (y >= -0.5) & (y < SHAPE[0] - 0.5) & (x >= -0.5) & (x < SHAPE[1] - 0.5)
    assert 0 < known.sum() < len(known)
    assert len(y) % BLOCK
    area = np.where(known, 0.8 + 0.01 * rows[0, 0] + 0.001 * np.arange(len(y)), 0.0)
    y, x = np.where(known, y, np.nan), np.where(known, x, np.nan)
    return torch.from_numpy(y), torch.from_numpy(x), torch.from_numpy(area.astype(np.float32))


@pytest.mark.parametrize("margin", [0, 2, 9])
def test_compiled_is_sparse(margin: int) -> None:
    """If it fails, CPU and GPU see other pixels; with a margin narrower than
    the kernel, where an image wraps around.
    """
    grid = LatentGrid(SHAPE, margin)
    compiled, sparse = CompiledInterpolation(*make_pixels(), grid), SparseInterpolation(*make_pixels(), grid)
    generator = torch.Generator().manual_seed(margin)
    image = torch.randn(grid.latent_shape, generator=generator)
    torch.testing.assert_close(compiled.observe(image), sparse.observe(image), rtol=0.0, atol=2e-6)
    values = torch.randn(len(make_pixels()[0]), generator=generator)
    torch.testing.assert_close(compiled.adjoint(values), sparse.adjoint(values), rtol=0.0, atol=4e-6)


@pytest.mark.parametrize("number", [1, 3, LANES, LANES + 3])
@pytest.mark.parametrize("margin", [1, 8])
def test_normal_is_made_of_its_parts(number: int, margin: int) -> None:
    """If it fails, images that are solved for together mix, or weights are
    those of other pixels.
    """
    grid = LatentGrid(SHAPE, margin)
    generator = torch.Generator().manual_seed(number)
    pixels = make_pixels()
    images = torch.randn((number, *grid.latent_shape), generator=generator)
    weights = torch.rand(len(pixels[0]), generator=generator)
    weights[5:9] = 0.0
    for kind in (CompiledInterpolation, SparseInterpolation):
        operator = kind(*pixels, grid)
        found = images.clone()
        operator.normal(found, weights, torch.full((operator.scratch_size(number, grid),), torch.nan))
        for image, result in zip(images, found, strict=True):
            expected = operator.adjoint(weights * operator.observe(image))
            torch.testing.assert_close(result, expected, rtol=0.0, atol=4e-6)


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    """If it fails, a draw of the noise changes with the number of draws."""
    grid = LatentGrid(SHAPE, 7)
    operator = CompiledInterpolation(*make_pixels(), grid)
    images = torch.randn((5, *grid.latent_shape), generator=torch.Generator().manual_seed(1))
    weights = torch.ones(len(make_pixels()[0]))
    together, alone = images.clone(), images[3:4].clone()
    operator.normal(together, weights, torch.empty(operator.scratch_size(5, grid)))
    operator.normal(alone, weights, torch.empty(operator.scratch_size(1, grid)))
    assert torch.equal(together[3], alone[0])


def test_weights_are_those_of_the_kernel() -> None:
    """If it fails, the prefilter does not undo the interpolation."""
    position = np.linspace(3.0, 5.0, BLOCK)
    first, s = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32)
    weights = np.empty((WIDTH, BLOCK), np.float32)
    axis_weights(position, 6, first, s, weights)
    taps = first + np.arange(WIDTH)[:, None]
    np.testing.assert_allclose(weights, kernel_profile(taps - (position + 6.0)), rtol=0.0, atol=1e-7)
    assert abs(taps - (position + 6.0)).max() <= 0.5 * WIDTH
