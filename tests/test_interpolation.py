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
import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core.forward import Interpolation, LatentGrid, transfer_function
from lsst.astroclearnet.core.forward._interpolation_cpu import _compile
from lsst.astroclearnet.core.forward._kernel_profile import COEFFICIENTS, REACH
from lsst.astroclearnet.tests import assert_adjoint

SHAPE = (41, 34)

type Pixels = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def make_pixels(shape: tuple[int, int] = SHAPE) -> Pixels:
    """Return positions on a patch, up to its border, some unknown, and
    areas.
    """
    rows, columns = np.mgrid[-3 : shape[0] + 3, -3 : shape[1] + 3].astype(float)
    middle = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    y = math.cos(0.3) * (rows - middle[0]) - math.sin(0.3) * (columns - middle[1]) + middle[0] + 0.3
    x = math.sin(0.3) * (rows - middle[0]) + math.cos(0.3) * (columns - middle[1]) + middle[1] + 0.1
    # The corners of the patch.
    y[0, :2], x[0, :2] = (-0.5, shape[0] - 0.501), (shape[1] - 0.501, -0.5)
    known = (y >= -0.5) & (y < shape[0] - 0.5) & (x >= -0.5) & (x < shape[1] - 0.5)
    assert known[0, :2].all()
    assert not known.all()
    area = np.where(known, 0.8 + 0.01 * rows[0, 0] + 0.001 * np.arange(y.size).reshape(y.shape), 0.0)
    y, x = np.where(known, y, np.nan), np.where(known, x, np.nan)
    return torch.from_numpy(y), torch.from_numpy(x), torch.from_numpy(area.astype(np.float32))


def random_images(number: int, grid: LatentGrid) -> torch.Tensor:
    """Return images of noise."""
    return torch.randn(number, *grid.latent_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("margin", [REACH, 9])
def test_waves_are_interpolated(margin: int) -> None:
    """If it fails, pixels are taken from elsewhere or weighted wrongly."""
    grid = LatentGrid(SHAPE, margin)
    y, x, area = make_pixels()
    rows, columns = (torch.arange(n, dtype=torch.float64) - margin for n in grid.latent_shape)
    for cycles in ((0, 0), (3, 2), (-5, 8)):
        ky, kx = (c / n for c, n in zip(cycles, grid.latent_shape, strict=True))
        wave = torch.cos(2.0 * math.pi * (ky * rows[:, None] + kx * columns) + 0.4)
        wave /= float(np.prod(transfer_function(np.array([ky, kx]))))
        expected = torch.nan_to_num(area * torch.cos(2.0 * math.pi * (ky * y + kx * x) + 0.4))
        found = Interpolation(y, x, area, grid).observe(wave.float()[None])[0]
        # The aliases.
        torch.testing.assert_close(found, expected.float(), rtol=0.0, atol=1e-3 * float(area.max()))


@pytest.mark.parametrize(("shape", "margin"), [(SHAPE, REACH), (SHAPE, 9), ((1, 1), REACH), ((4, 2), 4)])
@pytest.mark.parametrize("number", [1, 2, 6])
def test_adjoint(shape: tuple[int, int], margin: int, number: int) -> None:
    """If it fails, the normal equations are not those of the problem."""
    grid = LatentGrid(shape, margin)
    y, x, area = make_pixels(shape)
    operator = Interpolation(y, x, area, grid)
    assert_adjoint(operator.observe, operator.adjoint, (number, *grid.latent_shape), (number, *y.shape))


@pytest.mark.parametrize("number", [1, 2, 3, 8, 11])
def test_normal_operator_of_several_images(number: int) -> None:
    """If it fails, images that are solved for together mix, or weights are
    those of other pixels.
    """
    grid = LatentGrid(SHAPE, 7)
    y, x, area = make_pixels()
    operator = Interpolation(y, x, area, grid)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(2))
    weights[5:9] = 0.0
    images = random_images(number, grid)
    expected = operator.adjoint(operator.observe(images) * weights)
    first = images[: min(number, 3)].clone()
    operator.normal(images, weights)
    torch.testing.assert_close(images, expected, rtol=0.0, atol=2e-6)
    if number > 3:
        operator.normal(first, weights)
        assert torch.equal(images[:3], first)


def test_pixels_without_a_position_are_left_alone() -> None:
    """If it fails, what lies off the patch gets into the estimate."""
    grid = LatentGrid(SHAPE, 5)
    y, x, area = make_pixels()
    operator = Interpolation(y, x, area, grid)
    unknown = y.isnan()
    assert not operator.observe(random_images(2, grid))[:, unknown].any()
    assert not operator.adjoint(unknown.float()[None]).any()


def test_flux_is_kept() -> None:
    """If it fails, fluxes depend on where a pixel lies between others."""
    grid = LatentGrid(SHAPE, 5)
    y, x, _ = make_pixels()
    known = y.isfinite()
    found = Interpolation(y, x, known.float(), grid).adjoint(known.float()[None])
    # The aliases of frequency 0, along both axes.
    assert float(found.sum()) == pytest.approx(int(known.sum()), rel=1e-4)


def test_narrow_margins_are_refused() -> None:
    """If it fails, taps lie outside the memory of the image."""
    y, x, area = make_pixels()
    with pytest.raises(ValueError, match="reach 3 pixels beyond, the margin 2"):
        Interpolation(y, x, area, LatentGrid(SHAPE, REACH - 1))


@pytest.mark.parametrize(("shape", "number"), [((9, 8), 1), ((7, 8), 6), ((1, 1), 9)])
def test_a_gpu_computes_the_same(
    shape: tuple[int, int], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a GPU sees another sky than a CPU."""
    pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    from lsst.astroclearnet.core.forward import _interpolation_gpu

    if device.type == "cpu":
        # What the interpreter takes does not depend on the size of a block.
        monkeypatch.setattr(_interpolation_gpu, "_BLOCK", 256)
    grid = LatentGrid(shape, 4)
    # Several pixels in each of the latent image, and none in others.
    y, x, area = (torch.cat([c, c.flip(0)]) for c in make_pixels(shape))
    area = area.nan_to_num()
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(2))
    images = random_images(number, grid)
    ours = Interpolation(y, x, area, grid)
    theirs = Interpolation(y, x, area, grid)
    first, ty, tx = (torch.from_numpy(p) for p in ours._engine._pixels)  # type: ignore[attr-defined]
    first = torch.where(y.isfinite().flatten(), first.long(), -1)
    first, ty, tx = (c.to(device) for c in (first, ty, tx))
    theirs._engine = _interpolation_gpu.BinnedInterpolation(first, ty, tx, grid.latent_shape)
    theirs._scale = theirs._scale.to(device)
    values = theirs.observe(images.to(device))
    torch.testing.assert_close(values.cpu(), ours.observe(images), rtol=0.0, atol=1e-6)
    back = theirs.adjoint(values)
    torch.testing.assert_close(back.cpu(), ours.adjoint(values.cpu()), rtol=0.0, atol=2e-6)
    assert float((values * values).sum()) == pytest.approx(float((back.cpu() * images).sum()), rel=1e-5)
    normal = images.to(device)
    theirs.normal(normal, weights.to(device))
    ours.normal(images, weights)
    torch.testing.assert_close(normal.cpu(), images, rtol=0.0, atol=4e-6)


def test_functions_are_compiled_where_nothing_can_be_written() -> None:
    """If it fails, an installation that is only read cannot be used."""
    code = compile("lambda x: 2 * x", "<no file>", "eval").co_consts[0]
    assert _compile(FunctionType(code, {}))(3) == 6


def test_kernel() -> None:
    """If it fails, a small shift of an exposure changes it by a step."""
    ends = np.polynomial.polynomial.polyval(np.array([-1.0, 1.0]), COEFFICIENTS.T.astype(float))
    assert np.abs(ends[1:, 0] - ends[:-1, 1]).max() < 5e-5
    assert abs(ends[0, 0]) < 5e-5


def test_transfer_function() -> None:
    """If it fails, the prefilter changes fluxes or widths."""
    assert transfer_function(np.array([0.0]))[0] == pytest.approx(1.0, abs=1e-12)
    frequency = np.linspace(0.0, 0.3, 7)
    aliases = np.abs(transfer_function(1.0 - frequency)) / transfer_function(frequency)
    assert aliases.max() < 2e-3


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lsst.astroclearnet.core.forward import _interpolation_gpu as gpu

for kernel in (gpu._gather_kernel, gpu._collect_kernel):
    constants = {"BLOCK": 128, "TOGETHER": 2}
    whole = {"first", "order", "starts", "most"}
    number = {"num_pixels", "num_images", "width", "image_size"}
    types = dict.fromkeys(kernel.arg_names, "*fp32")
    types |= {name: "*i32" for name in types if name in whole}
    types |= {name: "i32" for name in types if name in number}
    types |= {name: "constexpr" for name in types if name in constants}
    given = {(i,): constants[name] for i, name in enumerate(kernel.arg_names) if name in constants}
    source = ASTSource(fn=kernel, signature=types, constexprs=given)
    assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
"""


def test_a_gpu_can_be_compiled_for(tmp_path: Path) -> None:
    """If it fails, the kernels run in the interpreter alone."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", _COMPILE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
