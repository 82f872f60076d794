# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Geometry, PSFs and masks of the exposures of a training scene."""

from __future__ import annotations

__all__ = ()

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..scenes._exposures import PIXEL_FWHM_SQUARED
from ._recipe import FRAME_SHAPE, SHAPE, ExposureRecipe, TrainingRecipe
from ._sky_grid import Kernel, SkyGrid

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))
"""Row and column of the corners of the patch, in halves of its sides."""

_LONG_WINGS = 3.0
"""Radius of PSFs with long wings over half the side of their stamps."""


@dataclasses.dataclass(frozen=True)
class Optics:
    """PSFs of an exposure: the true ones, and those that are given.

    Attributes
    ----------
    transforms
        Transforms of the true PSFs at the corners of the patch, or of the one
        PSF.
    psfs
        Stamps of the given PSFs with unit sum, shape (P, P) or
        (cells, cells, P, P).
    """

    transforms: list[Array]
    psfs: Array


def corner_weights(sky: SkyGrid, recipe: TrainingRecipe) -> list[Array]:
    """Return the shares of the light that the PSFs of corners blur.

    Parameters
    ----------
    sky
        The sky.
    recipe
        Recipe of the scene.

    Returns
    -------
    weights : `list` [`numpy.ndarray`]
        Weights of bilinear interpolation on the grid of the sky; a single 1
        for a PSF that does not vary.
    """
    if recipe.cells == 1:
        return [np.ones((1, 1))]
    v, u = (2.0 * c / (size - 1) - 1.0 for c, size in zip((sky.y, sky.x), sky.shape, strict=True))
    return [(0.5 + 0.5 * row * v) * (0.5 + 0.5 * column * u) for row, column in _CORNERS]


def draw_optics(sky: SkyGrid, exposure: ExposureRecipe, recipe: TrainingRecipe) -> Optics:
    """Draw the PSFs of an exposure.

    Parameters
    ----------
    sky
        The sky, for its grid.
    exposure
        Recipe of the exposure.
    recipe
        Recipe of the scene.

    Returns
    -------
    optics : `Optics`
        The PSFs.  The flux scale of the exposure is such that stars have the
        right flux within their stamps.
    """
    places = [(0.0, 0.0)] if recipe.cells == 1 else list(_CORNERS)
    transforms, stamps = [], []
    for place in places:
        truth, given = (_kernel(exposure, place, recipe, is_true=is_true) for is_true in (True, False))
        transform = sky.kernel_transform(truth, exposure.angle, exposure.scale)
        stamp = sky.stamp(transform, recipe.stamp_size)
        transforms.append(transform / stamp.sum())
        if given != truth:
            transform = sky.kernel_transform(given, exposure.angle, exposure.scale)
            stamp = sky.stamp(transform, recipe.stamp_size)
        stamps.append(stamp / stamp.sum())
    if recipe.cells == 1:
        return Optics(transforms, stamps[0])
    middles = (2.0 * np.arange(recipe.cells) + 1.0) / recipe.cells - 1.0
    psfs = np.zeros((recipe.cells, recipe.cells, *stamps[0].shape))
    for (row, column), stamp in zip(places, stamps, strict=True):
        psfs += np.multiply.outer(np.outer(0.5 + 0.5 * row * middles, 0.5 + 0.5 * column * middles), stamp)
    return Optics(transforms, psfs)


def _kernel(
    exposure: ExposureRecipe, place: tuple[float, float], recipe: TrainingRecipe, *, is_true: bool
) -> Kernel:
    """Return the profile of a PSF at a place."""
    v, u = place
    along_x, along_y, shear = exposure.gradient
    fwhm = exposure.fwhm * (1.0 + along_x * u + along_y * v)
    g1, g2 = exposure.ellipticity[0] + shear * u, exposure.ellipticity[1] + shear * v
    if not is_true:
        fwhm *= 1.0 + exposure.width_error
        g1, g2 = g1 + exposure.ellipticity_error[0], g2 + exposure.ellipticity_error[1]
    # The shear and the pixel reach one pixel further out.
    radius = recipe.stamp_size // 2 - 1.5
    if recipe.has_long_wings:
        radius *= _LONG_WINGS
    return Kernel(math.sqrt(fwhm**2 - PIXEL_FWHM_SQUARED), exposure.beta, g1, g2, radius)


def pixel_places(exposure: ExposureRecipe, recipe: TrainingRecipe) -> tuple[Array, Array]:
    """Return where the pixels of an exposure are on the patch.

    Parameters
    ----------
    exposure
        Recipe of the exposure.
    recipe
        Recipe of the scene.

    Returns
    -------
    y, x : `numpy.ndarray`
        Rows and columns, shape (h, w).
    """
    if not recipe.is_dithered:
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
        return y, x
    rows, columns = np.mgrid[: FRAME_SHAPE[0], : FRAME_SHAPE[1]].astype(float)
    rows -= (FRAME_SHAPE[0] - 1) / 2.0
    columns -= (FRAME_SHAPE[1] - 1) / 2.0
    c, s = exposure.scale * math.cos(exposure.angle), exposure.scale * math.sin(exposure.angle)
    x = (SHAPE[1] - 1) / 2.0 + exposure.shift[0] + c * columns - s * rows
    y = (SHAPE[0] - 1) / 2.0 + exposure.shift[1] + s * columns + c * rows
    return y, x


def missing_places(exposure: ExposureRecipe, y: Array, x: Array) -> Mask:
    """Return pixels beyond a chip edge or in a gap between chips.

    Parameters
    ----------
    exposure
        Recipe of the exposure.
    y, x
        Rows and columns of its pixels on the patch.

    Returns
    -------
    missing : `numpy.ndarray`
        Of the shape of ``y``.
    """
    missing = np.zeros(y.shape, dtype=bool)
    for angle, distance, width in exposure.edges:
        across = _across(y, x, angle, distance)
        missing |= (across > 0.0) & (across < width)
    return missing


def added_variance(exposure: ExposureRecipe, y: Array, x: Array) -> Array:
    """Return the variance of noise that only a part of an exposure has.

    Parameters
    ----------
    exposure
        Recipe of the exposure.
    y, x
        Rows and columns of its pixels on the patch.

    Returns
    -------
    variance : `numpy.ndarray`
        In nJy^2, of the shape of ``y``.
    """
    angle, distance, over_sky = exposure.noisy_part
    return np.where(_across(y, x, angle, distance) > 0.0, over_sky * exposure.sky / exposure.per_njy**2, 0.0)


def _across(y: Array, x: Array, angle: float, distance: float) -> Array:
    """Return distances from a line, along its normal."""
    return (x - SHAPE[1] / 2.0) * math.cos(angle) + (y - SHAPE[0] / 2.0) * math.sin(angle) - distance


@dataclasses.dataclass(frozen=True)
class Holes:
    """Places of the patch that are masked in all exposures.

    Attributes
    ----------
    squares
        Row, column and side in pixels of squares.
    stars
        Column and row of the stars whose cores are masked.
    radius
        Radius of the cores in pixels.
    """

    squares: tuple[tuple[int, int, int], ...]
    stars: Array
    radius: float

    @classmethod
    def draw(cls, recipe: TrainingRecipe, truth: Array, stars: Array, rng: np.random.Generator) -> Holes:
        """Draw the places of holes, half of them where there is light.

        Parameters
        ----------
        recipe
            Recipe of the scene.
        truth
            The sky in units of its noise, shape (H, W).
        stars
            Column and row of bright stars, shape (k, 2).
        rng
            Random numbers.

        Returns
        -------
        holes : `Holes`
            The holes.
        """
        light = np.clip(truth, 0.01, 30.0).ravel()
        squares = []
        for side in recipe.holes:
            if rng.random() < 0.5:
                place = int(rng.choice(light.size, p=light / light.sum()))
                row, column = divmod(place, truth.shape[1])
            else:
                row, column = (int(rng.integers(size)) for size in truth.shape)
            squares.append((row, column, side))
        return cls(tuple(squares), stars, recipe.masked_cores)

    def cover(self, y: Array, x: Array) -> Mask:
        """Return which positions lie in a hole.

        Parameters
        ----------
        y, x
            Rows and columns on the patch.

        Returns
        -------
        covered : `numpy.ndarray`
            Of the shape of ``y``.
        """
        covered = np.zeros(y.shape, dtype=bool)
        for row, column, side in self.squares:
            covered |= (np.abs(y - row) < 0.5 * side) & (np.abs(x - column) < 0.5 * side)
        if self.radius > 0.0:
            for column, row in self.stars:
                covered |= np.hypot(y - row, x - column) < self.radius
        return covered
