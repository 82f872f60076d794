# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bandwidths that interpolation and transforms reach on the card."""

from __future__ import annotations

__all__ = ("measure_kernels",)

import math
import time
from collections.abc import Callable

import torch

from lsst.astroclearnet.core.forward import Interpolation, LatentGrid
from lsst.astroclearnet.core.noise import white_noise

from ..record import Table
from .run import call_within, synchronize

_ANGLE = math.radians(3.0)
_MARGIN = 20
_REPEATS = 20

_PIXEL = 16
"""Bytes of a pixel of an exposure: first tap, two offsets, and a factor."""


def measure_kernels(*, device: str, seconds: float, quick: bool) -> list[Table]:
    """Time the kernels alone."""
    rows = call_within(seconds, time_kernels, device=device, quick=quick)
    legend = (
        f"The median of {_REPEATS} runs, each of which is waited for. Bytes are those that have to be moved "
        "at least once: images and values, and for the interpolation the positions of pixels. The copy of an "
        "image, which reads and writes each value once, is what can be reached."
        + f" **Not finished within {seconds:.0f} s.**"
        * (rows is None)
    )
    return [Table("Kernels", legend, rows or [])]


def time_kernels(*, device: str, quick: bool) -> list[dict[str, str]]:
    """Return the rows of the table."""
    rows = []
    for side in (128,) if quick else (1024, 4096):
        grid = LatentGrid((side, side), _MARGIN)
        interpolation = Interpolation(*_positions(side, device), grid)
        for number in (1, 6):
            shape = " x ".join(map(str, (number, *grid.latent_shape)))
            rows += _rows(shape, _make_work(interpolation, grid, number, device), device)
    return rows


def _make_work(
    interpolation: Interpolation, grid: LatentGrid, number: int, device: str
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return functions, and the bytes that they have to move."""
    height, width = grid.shape
    images = torch.rand(number, *grid.latent_shape, device=device)
    other = torch.empty_like(images)
    values = torch.rand(number, height, width, device=device)
    weights = torch.rand(height, width, device=device)
    spectrum = torch.fft.rfft2(images)
    one_way = 4 * images.numel() + 4 * values.numel() + _PIXEL * height * width
    transformed = 4 * images.numel() + 8 * spectrum.numel()

    def draw() -> None:
        for draw in range(number):
            white_noise(1, draw, 0, (0, 0), grid.shape, device)

    return {
        "copy": (lambda: other.copy_(images), 8 * images.numel()),
        "sample an exposure": (lambda: interpolation.observe(images), one_way),
        "adjoint": (lambda: interpolation.adjoint(values), one_way),
        "sample, weight, adjoint": (
            lambda: interpolation.normal(images, weights),
            2 * one_way,
        ),
        "real transform": (lambda: torch.fft.rfft2(images, out=spectrum), transformed),
        "inverse transform": (
            lambda: torch.fft.irfft2(spectrum, s=grid.latent_shape, out=other),
            transformed,
        ),
        "white noise": (draw, 4 * values.numel()),
    }


def _rows(shape: str, work: dict[str, tuple[Callable[[], object], int]], device: str) -> list[dict[str, str]]:
    rows = []
    best = math.nan
    for name, (function, num_bytes) in work.items():
        seconds = _median_time(function, device)
        bandwidth = num_bytes / seconds
        best = bandwidth if name == "copy" else best
        rows.append(
            {
                "kernel": name,
                "images": shape,
                "time (ms)": f"{1e3 * seconds:.3f}",
                "GB/s": f"{1e-9 * bandwidth:.0f}",
                "of the copy (%)": f"{100.0 * bandwidth / best:.0f}",
            }
        )
    return rows


def _median_time(function: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(time.perf_counter() - start)
    # The first one compiles.
    return sorted(times[1:])[_REPEATS // 2]


def _positions(side: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return positions of pixels of a rotated exposure, and their areas."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    middle = 0.5 * (side - 1)
    y = math.cos(_ANGLE) * (rows - middle) - math.sin(_ANGLE) * (columns - middle) + middle
    x = math.sin(_ANGLE) * (rows - middle) + math.cos(_ANGLE) * (columns - middle) + middle
    known = (y >= -0.5) & (y < side - 0.5) & (x >= -0.5) & (x < side - 0.5)
    y, x = (torch.where(known, c, math.nan).to(device) for c in (y, x))
    return y, x, torch.ones(side, side, device=device)
