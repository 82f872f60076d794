# This file is tile_data of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Differences between the backgrounds of exposures."""

from __future__ import annotations

__all__ = ("BackgroundDifferences", "fit_background_differences")

import dataclasses
import functools
import math
from collections.abc import Iterable

import torch

from .._errors import InputError
from ..estimate import LinearEstimator, Precision, record_solve
from ..exposures import ExposureStack, Tile
from ..forward import ForwardModel
from ._background_blocks import BlockAverages, BlockGrid

_STRENGTH = 1e-3
"""Strength of the linear estimate that residuals are taken from."""

_PRECISION = Precision(light=3e-4, noise=0.01)
"""Of the estimate: what a bright galaxy leaves must be small beside the
noise of an average over thousands of pixels."""

_MAX_ROUNDS = 10
"""Bound on estimates; each follows the backgrounds found with the last."""

_TOLERANCE = 0.01
"""Change of a background, in units of the noise of a pixel, that is enough."""


@dataclasses.dataclass(frozen=True)
class BackgroundDifferences:
    """Backgrounds of exposures, relative to each other.

    Only differences can be known: what all exposures share is light like any
    other.  The mean of all backgrounds, with the weights that the exposures
    have in the restored image, is a plane that is zero; so are those of each
    group of exposures that overlaps no other.

    Attributes
    ----------
    coefficients
        Shape (n, 3), level at the centre of the patch and slopes along rows
        (y) and columns (x) per pixel of the patch, in units of the exposures
        for the area of a pixel of the patch; 0 where unknown.
    sigma
        Shape (n, 3), standard deviations from noise; infinite where unknown.
    center
        Row and column of the centre of the patch.
    """

    coefficients: torch.Tensor
    sigma: torch.Tensor
    center: tuple[float, float]

    @classmethod
    def none(cls, num_exposures: int) -> BackgroundDifferences:
        """Return that there are none that are known.

        Parameters
        ----------
        num_exposures
            Number of exposures.

        Returns
        -------
        differences : `BackgroundDifferences`
            Zero, of infinite standard deviation.
        """
        nothing = torch.zeros(num_exposures, 3)
        return cls(nothing, torch.full_like(nothing, math.inf), (0.0, 0.0))

    def within(self, tile: Tile, exposures: torch.Tensor) -> BackgroundDifferences:
        """Return those of some exposures in pixels of a tile.

        Parameters
        ----------
        tile
            The tile.
        exposures
            Shape (m,), which exposures.

        Returns
        -------
        differences : `BackgroundDifferences`
            The same planes.
        """
        center = (self.center[0] - tile.rows.start, self.center[1] - tile.columns.start)
        return BackgroundDifferences(self.coefficients[exposures], self.sigma[exposures], center)

    def evaluate(self, model: ForwardModel) -> torch.Tensor:
        """Return the backgrounds in the pixels of the exposures.

        Parameters
        ----------
        model
            Forward model of the exposures.

        Returns
        -------
        background : `torch.Tensor`
            Shape (n, h, w), to be subtracted from the exposures; 0 for
            pixels that are not on the patch.
        """
        y, x = model.sampling.positions()
        level, slope_y, slope_x = self.coefficients.to(y.device)[:, :, None, None].unbind(dim=1)
        plane = level + slope_y * (y - self.center[0]) + slope_x * (x - self.center[1])
        return (torch.nan_to_num(plane) * model.sampling.area).to(self.coefficients.dtype)


class BackgroundTile:
    """A tile, for the fit of backgrounds.

    Parameters
    ----------
    tile
        The tile.
    exposures
        Shape (m,), which of the exposures of the patch it has.
    images
        Shape (m, h, w), their pixels.
    model
        Their forward model.
    weights
        Shape (m, h, w), inverse variances, 0 where a pixel is not used.
    """

    def __init__(
        self,
        tile: Tile,
        exposures: torch.Tensor,
        images: torch.Tensor,
        model: ForwardModel,
        weights: torch.Tensor,
    ) -> None:
        self.tile = tile
        self.exposures = exposures
        self.model = model
        self.weights = weights
        self._images = images
        self._found: tuple[torch.Tensor, torch.Tensor] | None = None

    @functools.cached_property
    def _estimator(self) -> LinearEstimator:
        return LinearEstimator(self.model, self.weights)

    def residual(self, background: BackgroundDifferences) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a linear estimate leaves of the exposures.

        Parameters
        ----------
        background
            Backgrounds of all exposures of the patch, subtracted before.

        Returns
        -------
        residual : `torch.Tensor`
            Shape (m, h, w).
        prediction : `torch.Tensor`
            Shape (m, h, w), the light that was found.
        """
        images = self._images - background.within(self.tile, self.exposures).evaluate(self.model)
        # What is left of the last time is solved for: its error stays as it
        # is, and is no difference of backgrounds.
        old, latent = (0.0, 0.0) if self._found is None else self._found
        right = self._estimator.right_side(images - old)
        latent = latent + self._estimator.solve(right, (_STRENGTH,), precision=_PRECISION)[0]
        self._found = images, latent
        prediction = self.model.predict(latent)
        return images - prediction, prediction


def fit_background_differences(
    stack: ExposureStack, model: ForwardModel, weights: torch.Tensor, *, order: int = 1
) -> BackgroundDifferences:
    """Fit what the backgrounds of exposures differ by.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    order
        0 for constants, 1 for planes.

    Returns
    -------
    backgrounds : `BackgroundDifferences`
        The differences, from `fit_backgrounds`.

    Raises
    ------
    InputError
        If there is no such order.
    """
    rows, columns = (slice(0, size) for size in stack.shape)
    exposures = torch.arange(stack.num_exposures)
    tile_data = BackgroundTile(Tile(rows, columns, rows, columns), exposures, stack.images, model, weights)
    return fit_backgrounds([tile_data], stack.shape, stack.num_exposures, order=order)


def fit_backgrounds(
    tiles: Iterable[BackgroundTile], shape: tuple[int, int], num_exposures: int, *, order: int = 1
) -> BackgroundDifferences:
    """Fit what the backgrounds of exposures differ by, tile by tile.

    Residuals of a linear estimate of the sky from all exposures are averaged
    in blocks of the patch, robustly.  On such scales the estimate follows the
    weighted mean of the backgrounds in each block, so that the average in
    block k and exposure t is

        d(t, k) = b(t, k) - sum over s of w(s, k) b(s, k) / sum of w(s, k),

    with the weights w(t, k) of the exposure in the block.  This is solved for
    planes b over the whole patch by least squares.  Light does not enter: a
    source that is the same in all exposures is in the estimate, and blocks in
    which exposures disagree, or in which an error of a percent of the light
    would matter, count less.  The planes are subtracted and the fit is
    repeated until it does not change.

    Parameters
    ----------
    parts
        Tiles that cover the patch; they are gone through several times.
    shape
        Height and width of the patch in pixels.
    num_exposures
        Number of exposures of the patch.
    order
        0 for constants, 1 for planes.

    Returns
    -------
    backgrounds : `BackgroundDifferences`
        The differences, on the CPU.

    Raises
    ------
    InputError
        If there is no such order.
    """
    if order not in (0, 1):
        raise InputError(f"order={order} of backgrounds is not known: give 0 (constants) or 1 (planes).")
    grid = BlockGrid.cover(shape, 3 if order else 1)
    coefficients = torch.zeros(num_exposures, 3, dtype=torch.float64)
    found = dataclasses.replace(BackgroundDifferences.none(num_exposures), center=grid.center)
    for number in range(1, _MAX_ROUNDS + 1):
        averages = BlockAverages.empty(grid, num_exposures)
        for tile_data in tiles:
            left = tile_data.residual(found)
            averages.add(tile_data.tile, tile_data.exposures, tile_data.model, tile_data.weights, *left)
        change, sigma = averages.solve()
        coefficients = coefficients + change
        found = BackgroundDifferences(coefficients.float(), sigma.float(), grid.center)
        residual = averages.significance(change) / _TOLERANCE
        if residual <= 1.0 or number == _MAX_ROUNDS:
            break
    record_solve("background", steps=number, residual=residual)
    return found
