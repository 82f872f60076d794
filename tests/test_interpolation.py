# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Interpolation at any position, and its adjoint."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core.forward import Interpolation, LatentGrid, transfer_function
from lsst.astroclearnet.core.forward._interpolation import _matrix, _to_torch
from lsst.astroclearnet.tests import assert_adjoint

SHAPE = (41, 34)


def make_pixels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return positions on a patch, up to its border, some unknown, and
    areas.
    """
    rows, columns = np.mgrid[-3:44, -3:37].astype(float)
    y = math.cos(0.3) * (rows - 20) - math.sin(0.3) * (columns - 17) + 20.3
    x = math.sin(0.3) * (rows - 20) + math.cos(0.3) * (columns - 17) + 16.6
    y, x = (np.append(c.ravel(), ends) for c, ends in ((y, (-0.5, 40.49)), (x, (33.49, -0.5))))
    known = (y >= -0.5) & (y < SHAPE[0] - 0.5) & (x >= -0.5) & (x < SHAPE[1] - 0.5)
    assert 0 < known.sum() < len(known)
    area = np.where(known, 0.8 + 0.01 * rows[0, 0] + 0.001 * np.arange(len(y)), 0.0)
    y, x = np.where(known, y, np.nan), np.where(known, x, np.nan)
    return torch.from_numpy(y), torch.from_numpy(x), torch.from_numpy(area.astype(np.float32))


@pytest.mark.parametrize("margin", [0, 2, 9])
def test_waves_are_interpolated(margin: int) -> None:
    """If it fails, pixels are taken from elsewhere or weighted wrongly; with
    a margin narrower than the kernel, where an image wraps around.
    """
    grid = LatentGrid(SHAPE, margin)
    y, x, area = make_pixels()
    rows, columns = (torch.arange(n, dtype=torch.float64) - margin for n in grid.latent_shape)
    for cycles in ((0, 0), (3, 2), (-5, 8)):
        ky, kx = (c / n for c, n in zip(cycles, grid.latent_shape, strict=True))
        wave = torch.cos(2.0 * math.pi * (ky * rows[:, None] + kx * columns) + 0.4)
        wave /= float(np.prod(transfer_function(np.array([ky, kx]))))
        expected = torch.nan_to_num(area * torch.cos(2.0 * math.pi * (ky * y + kx * x) + 0.4))
        found = Interpolation(y, x, area, grid).observe(wave.float())
        # The aliases.
        torch.testing.assert_close(found, expected.float(), rtol=0.0, atol=1e-3 * float(area.max()))


@pytest.mark.parametrize("margin", [0, 2, 9])
@pytest.mark.parametrize("whole", [False, True])
def test_adjoint(margin: int, whole: bool) -> None:
    """If it fails, the normal equations are not those of the problem."""
    grid = LatentGrid(SHAPE, margin)
    y, x, area = make_pixels()
    if whole:
        y, x = (c.round().clamp(0, n - 1) for c, n in zip((y, x), SHAPE, strict=True))
    operator = Interpolation(y, x, area, grid, whole=whole)
    assert_adjoint(operator.observe, operator.adjoint, grid.latent_shape, (len(y),))


def test_whole_pixels_are_taken_as_they_are() -> None:
    """If it fails, a co-registered stack is smoothed."""
    grid = LatentGrid(SHAPE, 9)
    y, x = torch.tensor([0.0, 7.0, np.nan, 40.0]), torch.tensor([0.0, 30.0, np.nan, 33.0])
    image = torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(1))
    found = Interpolation(y, x, torch.tensor([1.0, 1.0, 0.0, 2.0]), grid, whole=True).observe(image)
    assert found.tolist() == [image[9, 9], image[16, 39], 0.0, 2.0 * image[49, 42]]


def test_images_do_not_depend_on_those_beside_them() -> None:
    """If it fails, an image is another one if more are solved for with it."""
    grid = LatentGrid(SHAPE, 7)
    y, x, area = make_pixels()
    operator = Interpolation(y, x, area, grid)
    weights = torch.rand(len(y), generator=torch.Generator().manual_seed(2))
    images = torch.randn(6, *grid.latent_shape, generator=torch.Generator().manual_seed(1))
    expected = [operator.adjoint(operator.observe(image) * weights) for image in images]
    operator.normal(images, weights)
    assert torch.equal(images, torch.stack(expected))


@pytest.mark.parametrize("margin", [0, 9])
def test_a_gpu_multiplies_with_the_same_matrices(margin: int) -> None:
    """If it fails, a GPU sees another sky than a CPU."""
    grid = LatentGrid(SHAPE, margin)
    y, x, area = make_pixels()
    operator = Interpolation(y, x, area, grid)
    matrix = _matrix(y.numpy(), x.numpy(), area.numpy(), grid, whole=False)
    image = torch.randn(grid.latent_shape, generator=torch.Generator().manual_seed(1))
    values = _to_torch(matrix, torch.device("cpu")) @ image.flatten()
    torch.testing.assert_close(values, operator.observe(image), rtol=1e-5, atol=4e-6)
    back = _to_torch(matrix.T.tocsr(), torch.device("cpu")) @ values
    torch.testing.assert_close(back, operator.adjoint(values).flatten(), rtol=1e-5, atol=4e-6)


def test_transfer_function() -> None:
    """If it fails, the prefilter changes fluxes or widths."""
    assert transfer_function(np.array([0.0]))[0] == pytest.approx(1.0, abs=1e-12)
    frequency = np.linspace(0.0, 0.3, 7)
    aliases = np.abs(transfer_function(1.0 - frequency)) / transfer_function(frequency)
    assert aliases.max() < 2e-3
