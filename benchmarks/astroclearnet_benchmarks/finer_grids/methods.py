# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images of a scene by several methods, with the PSF that each declares."""

from __future__ import annotations

__all__ = ("DrawPsf", "FinerImage", "combine", "drizzle", "restored")

import dataclasses
import time
from collections.abc import Callable, Iterator

import galsim
import numpy as np

from lsst.astroclearnet.core import InputError, restore

from ..peers import ImcomSystem
from .scene import TARGET_FWHM, Array, Scene, gaussian

_STAMP = 8
"""Output pixels along the side of what IMCOM solves at once."""

_PADDING = 10
"""Output pixels around it whose data enter."""

type DrawPsf = Callable[[tuple[int, int], float, float], Array]
"""Draws a PSF of sum 1 at a position (y, x), in an image of some shape."""


@dataclasses.dataclass(frozen=True)
class FinerImage:
    """An image of a scene on a grid.

    Attributes
    ----------
    method
        Name of the method.
    factor
        Pixels of the grid along the side of one of the exposures.
    image
        Shape (H, W), light per pixel of the grid; NaN where there is none.
    psf
        The PSF that the method declares.
    seconds
        Time of a processor.
    note
        What the method says of itself.
    """

    method: str
    factor: int
    image: Array
    psf: DrawPsf
    seconds: float
    note: str = ""


def restored(scene: Scene, factor: int, target_fwhm: float = TARGET_FWHM) -> Iterator[FinerImage]:
    """Yield the linear and the restored image of this package.

    Parameters
    ----------
    scene
        The scene.
    factor
        Pixels of the grid along the side of one of the exposures.
    target_fwhm
        FWHM of the target PSF in pixels of the exposures.
    """
    start = time.process_time()
    result = restore(**scene.arguments(factor, target_fwhm))  # type: ignore[arg-type]
    seconds = time.process_time() - start

    def draw(shape: tuple[int, int], y: float, x: float) -> Array:
        return gaussian(shape, target_fwhm * factor, y=y, x=x)

    for name, image in (("linear_image", result.linear_image), ("image", result.image)):
        yield FinerImage(name, factor, image, draw, seconds, result.network_doubt)


def drizzle(scene: Scene, factor: int, pixfrac: float) -> FinerImage:
    """Drizzle the exposures, with equal weights and a square kernel.

    The PSF is that of infinitely many dithers: the mean of the exposures,
    convolved with the drop and with the output pixel.

    Parameters
    ----------
    scene, factor
        As for `restored`.
    pixfrac
        Side of the drop in pixels of the exposures.
    """
    try:
        from drizzle.resample import Drizzle
    except ImportError as exc:
        raise InputError("The package drizzle is missing: pip install './benchmarks[peers]'.") from exc
    start = time.process_time()
    side = scene.size * factor
    output = Drizzle(kernel="square", out_shape=(side, side), fillval=np.nan)
    for image, y, x in zip(scene.images, *scene.positions(factor), strict=True):
        output.add_image(
            image.astype(np.float32),
            exptime=1.0,
            pixmap=np.stack([x, y], axis=-1),
            pixfrac=pixfrac,
            iscale=1.0 / factor**2,
            pixel_scale_ratio=1.0 / factor,
        )
    seconds = time.process_time() - start
    mean = galsim.Add(scene.profiles) / scene.num_exposures
    profile = galsim.Convolve(mean, galsim.Pixel(pixfrac), galsim.Pixel(1.0 / factor))

    def draw(shape: tuple[int, int], y: float, x: float) -> Array:
        row, column, half = round(y), round(x), 6 * factor
        stamp = profile.shift((x - column) / factor, (y - row) / factor).drawImage(
            nx=2 * half + 1, ny=2 * half + 1, scale=1.0 / factor, method="no_pixel"
        )
        full = np.zeros((shape[0] + 2 * half, shape[1] + 2 * half))
        full[row : row + 2 * half + 1, column : column + 2 * half + 1] = stamp.array
        return full[half:-half, half:-half]

    image = np.array(output.out_img, dtype=float)
    return FinerImage(f"drizzle, pixfrac {pixfrac:g}", factor, image, draw, seconds)


def combine(scene: Scene, factor: int, kappa: float) -> FinerImage:
    """Combine the exposures by the linear algebra of PyIMCOM.

    The dithers are shifts, so that all stamps share one system.

    Parameters
    ----------
    scene, factor
        As for `restored`.
    kappa
        Lagrange multiplier of the noise.
    """
    start = time.process_time()
    side, reach = scene.size * factor, _PADDING + _STAMP
    y, x = scene.positions(factor)
    first = (side // 2) // (_STAMP * factor) * _STAMP * factor
    rows, columns = (
        (axis - first >= -_PADDING) & (axis - first < reach) for axis in (y[:, :, 0], x[:, 0, :])
    )
    # Every exposure has as many pixels around a stamp, give or take one.
    number = int(min(rows.sum(axis=1).min(), columns.sum(axis=1).min()))
    starts = np.stack([rows.argmax(axis=1), columns.argmax(axis=1)], axis=-1)
    take = starts[:, :, None] + np.arange(number)
    positions = np.stack(
        [
            np.stack(np.meshgrid(y[n, take[n, 0], 0] - first, x[n, 0, take[n, 1]] - first, indexing="ij"))
            for n in range(scene.num_exposures)
        ]
    ).reshape(scene.num_exposures, 2, -1)
    system = ImcomSystem(scene.psfs(factor) * factor**2, TARGET_FWHM * factor, positions)
    weights, _ = system.solve(np.ones(positions[:, 0].size, dtype=bool), kappa)
    image = np.full((side, side), np.nan)
    last = scene.size + 2 - number
    for row in range(0, side - _STAMP + 1, _STAMP):
        for column in range(0, side - _STAMP + 1, _STAMP):
            step = np.array([(row - first) // factor, (column - first) // factor])
            begin = starts + step
            if (begin < 0).any() or (begin > last).any():
                continue
            data = [
                exposure[y0 : y0 + number, x0 : x0 + number]
                for exposure, (y0, x0) in zip(scene.images, begin, strict=True)
            ]
            values = weights @ np.stack(data).ravel()
            image[row : row + _STAMP, column : column + _STAMP] = values.reshape(_STAMP, _STAMP)
    seconds = time.process_time() - start

    def draw(shape: tuple[int, int], y: float, x: float) -> Array:
        return gaussian(shape, TARGET_FWHM * factor, y=y, x=x)

    return FinerImage(f"PyIMCOM, kappa {kappa:g}", factor, image, draw, seconds)
