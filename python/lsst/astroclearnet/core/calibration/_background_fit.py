# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of the differences between the backgrounds of exposures."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

import torch
from scipy.sparse.csgraph import connected_components

from .._errors import InputError
from ..estimate import LinearEstimator, Precision, record_solve
from ..exposures import Tile, masked_medians
from ..forward import ForwardModel
from ._background_differences import BackgroundDifferences

_PENALTY_WEIGHT = 1e-3
"""Penalty weight of the linear estimate that residuals are taken from."""

_PRECISION = Precision(light=1e-3, noise=0.03)
"""Its precision: errors that the residuals of all exposures share, as those of
the sky of a bright galaxy, drop out.  Planes agree with those of an exact
estimate to half of their standard deviation."""

_MAX_ROUNDS = 10
"""Limit on the number of estimates."""

_TOLERANCE = 0.25
"""Convergence: change of a background in sigma of a pixel.  The next is at
most 4 % of it in twelve fits to fields of stars, and 27 % in corners of
detectors; the fit after rejection then goes on from there."""

_BLOCK = 16
"""Smallest side of the averaging blocks in pixels."""

_MAX_BLOCKS = 4096
"""Number of blocks above which they are enlarged."""

_CLIP = 2.0
"""Huber threshold in sigma."""

_CLIP_STEPS = 50
"""Limit on iterations of a robust mean or fit."""

_CLIP_TOLERANCE = 0.01
"""Convergence of a robust mean or fit, in units of its noise."""

_MODEL_ERROR = 0.01
"""Assumed relative error of the predicted light of a block."""

_NULL = 1e-8
"""Relative eigenvalue below which a combination is degenerate."""

_UNKNOWN = 1e-3
"""Degenerate share of a coefficient above which it is unknown."""


@dataclasses.dataclass
class BackgroundTile:
    """A tile for the fit of backgrounds.

    Attributes
    ----------
    tile
        The tile.
    exposures
        Shape (m,), indices of its exposures.
    images
        Shape (m, h, w), their pixels.
    model
        Their forward model.
    weights
        Shape (m, h, w), inverse variances, 0 for unused pixels.
    latent
        Shape latent_shape, the linear estimate of its sky, or one to start
        from; `None` at first.
    """

    tile: Tile
    exposures: torch.Tensor
    images: torch.Tensor
    model: ForwardModel
    weights: torch.Tensor
    latent: torch.Tensor | None = None
    _estimated: torch.Tensor | None = None

    @functools.cached_property
    def _estimator(self) -> LinearEstimator:
        # With one weight for each exposure it takes fewer steps.
        used = self.weights > 0
        typical = masked_medians(self.weights, used, 0.0)
        return LinearEstimator(self.model, used * typical[:, None, None])

    def residual(self, background: BackgroundDifferences) -> tuple[torch.Tensor, torch.Tensor]:
        """Return residuals of a linear estimate, and its prediction.

        Parameters
        ----------
        background
            Backgrounds to be subtracted first.

        Returns
        -------
        residual, prediction : `torch.Tensor`
            Shape (m, h, w).
        """
        within, estimator, images = background.within(self.tile, self.exposures), self._estimator, self.images
        if bool(within.coefficients.any()):
            images = images - within.evaluate(self.model)
        solve = functools.partial(estimator.solve, penalty_weights=(_PENALTY_WEIGHT,), precision=_PRECISION)
        if self.latent is None or self._estimated is None:
            self.latent = solve(estimator.right_side(images), start=self.latent)[0]
        else:
            # Adding to the last solution keeps its error the same, so that it
            # does not pass for a background difference.
            self.latent = self.latent + solve(estimator.right_side(images - self._estimated))[0]
        self._estimated = images
        prediction = self.model.predict(self.latent)
        return images - prediction, prediction


def fit_backgrounds(
    tiles: Iterable[BackgroundTile], shape: tuple[int, int], num_exposures: int, *, order: int = 1
) -> BackgroundDifferences:
    """Fit differences between backgrounds.

    Residuals of a linear estimate of the sky from all exposures are averaged
    robustly in blocks.  On such scales the estimate follows the weighted mean
    of the backgrounds, so that the average of exposure t in block k is

        d(t, k) = b(t, k) - sum_s w(s, k) b(s, k) / sum_s w(s, k)

    with the weights w(t, k) of the exposures.  Planes b over the whole patch
    follow by robust least squares, in which blocks count less where an error
    of a percent of their light would matter.  Subtraction and fit are
    repeated until they converge.

    Parameters
    ----------
    tiles
        Tiles covering the patch; they are iterated over several times.
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
        If the order is neither 0 nor 1.
    """
    if order not in (0, 1):
        raise InputError(f"order={order} of backgrounds is not known: give 0 (constants) or 1 (planes).")
    grid = _BlockGrid.cover(shape, 3 if order else 1)
    coefficients = torch.zeros(num_exposures, 3, dtype=torch.float64)
    found = dataclasses.replace(BackgroundDifferences.unknown(num_exposures), center=grid.center)
    for number in range(1, _MAX_ROUNDS + 1):
        averages = _BlockAverages.empty(grid, num_exposures)
        for data in tiles:
            averages.add(data, *data.residual(found))
        change, sigma = averages.solve()
        coefficients = coefficients + change
        found = BackgroundDifferences(coefficients.float(), sigma.float(), grid.center)
        residual = averages.significance(change) / _TOLERANCE
        if residual <= 1.0 or number == _MAX_ROUNDS:
            break
    record_solve("background", steps=number, residual=residual)
    return found


@dataclasses.dataclass(frozen=True)
class _BlockGrid:
    """Blocks of a patch, with plane terms (K, p) scaled to -1..1."""

    shape: tuple[int, int]
    rows: int
    columns: int
    terms: torch.Tensor
    units: torch.Tensor
    center: tuple[float, float]

    @classmethod
    def cover(cls, shape: tuple[int, int], num_terms: int) -> _BlockGrid:
        """Divide a patch into blocks of nearly equal size."""
        height, width = shape
        block = max(_BLOCK, math.ceil(math.sqrt(height * width / _MAX_BLOCKS)))
        rows, columns = (max(1, round(size / block)) for size in shape)
        v, u = ((2.0 * torch.arange(m, dtype=torch.float64) + 1.0) / m - 1.0 for m in (rows, columns))
        v, u = v[:, None].expand(rows, columns), u.expand(rows, columns)
        terms = torch.stack([torch.ones_like(u), v, u], dim=-1).flatten(0, 1)[:, :num_terms]
        units = torch.tensor([1.0, 2.0 / height, 2.0 / width], dtype=torch.float64)
        return cls(shape, rows, columns, terms, units, (0.5 * (height - 1), 0.5 * (width - 1)))

    @property
    def num_blocks(self) -> int:
        """Number K of blocks (`int`)."""
        return self.rows * self.columns

    def find(self, data: BackgroundTile, used: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the flat index of (exposure, block) of used pixels, (N,)."""
        y, x = (position[used] for position in data.model.sampling.positions())
        origin = (data.tile.rows.start, data.tile.columns.start)
        index = [
            ((c + (start + 0.5)) * number / size).long().clamp(0, number - 1)
            for c, start, number, size in zip(
                (y, x), origin, (self.rows, self.columns), self.shape, strict=True
            )
        ]
        return used[0] * self.num_blocks + index[0] * self.columns + index[1]

    def owned(self, tile: Tile) -> torch.Tensor:
        """Return which blocks, (K,), have centres that a tile owns."""
        inside = []
        for number, size, own in zip(
            (self.rows, self.columns), self.shape, (tile.inner_rows, tile.inner_columns), strict=True
        ):
            center = (torch.arange(number) + 0.5) * size / number
            inside.append((center >= own.start) & (center < own.stop))
        return (inside[0][:, None] & inside[1]).flatten()


@dataclasses.dataclass
class _BlockAverages:
    """Residuals per patch pixel averaged in blocks, (n, K), double."""

    grid: _BlockGrid
    information: torch.Tensor
    averages: torch.Tensor
    light: torch.Tensor
    num_used: torch.Tensor

    @classmethod
    def empty(cls, grid: _BlockGrid, num_exposures: int) -> _BlockAverages:
        """Return averages without data."""
        maps = torch.zeros(3, num_exposures, grid.num_blocks, dtype=torch.float64)
        return cls(grid, maps[0], maps[1], maps[2], torch.zeros(num_exposures, dtype=torch.float64))

    def add(self, data: BackgroundTile, residual: torch.Tensor, prediction: torch.Tensor) -> None:
        """Add the blocks that a tile owns."""
        grid = self.grid
        # Cut-outs of detectors that are rotated, or end, are mostly empty.
        pixels = (data.weights > 0).nonzero(as_tuple=True)
        weights, area = data.weights[pixels], data.model.sampling.area[pixels].to(data.weights)
        shape = len(data.weights), grid.num_blocks
        block = grid.find(data, pixels)
        information = _sum(weights * area**2, block, shape)
        averages = _robust_averages(residual[pixels], weights, area, block, information)
        light = _sum(weights * area * prediction[pixels], block, shape) / information.clamp(min=1e-300)
        used = _sum(torch.ones_like(weights), block, shape)
        owned = grid.owned(data.tile)
        place = data.exposures[:, None], owned.nonzero()[:, 0]
        self.information[place] = information.cpu()[:, owned]
        self.averages[place] = averages.cpu()[:, owned]
        self.light[place] = light.cpu()[:, owned]
        self.num_used[data.exposures] += used.cpu()[:, owned].sum(dim=1)

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit planes robustly; return coefficients and sigmas, (n, 3)."""
        grid, number = self.grid, len(self.information)
        share = self.information / self.information.sum(dim=0).clamp(min=1e-300)
        # Whatever the estimate of the sky weighted, and missed.
        averages = self.averages - (share * self.averages).sum(dim=0)
        # With the error of the model as a further variance, on average.
        excess = _MODEL_ERROR**2 * (share * self.information * self.light**2).sum(dim=0)
        robust_weight = base = 1.0 / (1.0 + excess)
        independent = ((self.information > 0).sum(dim=0) - 1.0).clamp(min=1.0)
        previous = torch.full((number, 1), math.inf, dtype=robust_weight.dtype)
        for steps in range(1, _CLIP_STEPS + 1):
            values, covariance, known = self._least_squares(averages, share, robust_weight)
            noise = covariance.diagonal().clamp(min=1e-300).sqrt().reshape(number, -1)
            change = torch.where(known, (values - previous).abs() / noise, 0.0)
            largest = float(change.max()) / _CLIP_TOLERANCE
            if largest <= 1.0 or steps == _CLIP_STEPS:
                break
            previous = values
            planes = values @ grid.terms.T
            residual = averages - planes + (share * planes).sum(dim=0)
            chi_square = base * (self.information * residual**2).sum(dim=0) / independent
            robust_weight = base * (_CLIP / chi_square.sqrt().clamp(min=_CLIP)) ** 2
        record_solve("background_fit", steps=steps, residual=largest)
        coefficients = torch.zeros(number, 3, dtype=values.dtype)
        sigma = torch.full_like(coefficients, math.inf)
        p = grid.terms.shape[1]
        coefficients[:, :p] = torch.where(known, values, 0.0)
        sigma[:, :p] = torch.where(
            known, covariance.diagonal().clamp(min=0).sqrt().reshape(number, p), math.inf
        )
        return coefficients * grid.units, sigma * grid.units

    def significance(self, change: torch.Tensor) -> float:
        """Return the largest change where an exposure has data, in sigma of a
        pixel.
        """
        terms = self.grid.terms
        planes = (change / self.grid.units)[:, : terms.shape[1]] @ terms.T
        # A plane of the corner of a detector means nothing elsewhere.
        size = (planes.abs() * (self.information > 0)).amax(dim=1)
        typical = self.information.sum(dim=1) / self.num_used.clamp(min=1.0)
        return float((size * typical.sqrt()).max())

    def _least_squares(
        self, averages: torch.Tensor, share: torch.Tensor, robust_weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return values (n, p), their covariance, and which are known."""
        terms = self.grid.terms
        number, p = len(share), terms.shape[1]
        weighted = robust_weight * self.information
        moments = (terms[:, :, None] * terms[:, None]).flatten(1)
        pairs = torch.stack([(weighted * moment) @ share.T for moment in moments.T], dim=-1)
        pairs = pairs.unflatten(-1, (p, p))
        normal = -pairs
        index = torch.arange(number)
        # What all exposures share has no information, exactly.
        normal[index, index] += pairs.sum(dim=1)
        normal = normal.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        right = (weighted * averages) @ terms
        scale = normal.diagonal().clamp(min=1e-300).rsqrt()
        scale = torch.where(normal.diagonal() > 0, scale, 0.0)
        inverse = torch.linalg.pinv(scale[:, None] * normal * scale, rtol=_NULL, hermitian=True)
        inverse = scale[:, None] * inverse * scale
        project = torch.eye(len(normal), dtype=normal.dtype)
        project = project - self._group_means(pairs[..., 0, 0] > 0)
        values = (project @ inverse @ right.flatten()).reshape(number, p)
        covariance = project @ inverse @ project.T
        # Of a known difference the data show all.
        resolved = project @ inverse @ normal
        known = ((resolved - project).abs().sum(dim=1) < _UNKNOWN).reshape(number, p)
        return values, covariance, known & (pairs[..., 0, 0].sum(dim=1) > pairs[index, index, 0, 0])[:, None]

    def _group_means(self, overlaps: torch.Tensor) -> torch.Tensor:
        """Return the projection of planes on the mean of their group."""
        terms = self.grid.terms
        number, p = len(overlaps), terms.shape[1]
        moments = (terms[:, :, None] * terms[:, None]).flatten(1)
        own = (self.information @ moments).unflatten(-1, (p, p))
        means = torch.zeros(number, p, number, p, dtype=own.dtype)
        for group in _connected(overlaps):
            total = own[group].sum(dim=0)
            mean = torch.linalg.pinv(total, rtol=_NULL, hermitian=True) @ own[group]
            means[group[:, None], :, group] = mean[None].expand(len(group), -1, -1, -1)
        return means.flatten(2).flatten(0, 1)


def _robust_averages(
    residual: torch.Tensor,
    weights: torch.Tensor,
    area: torch.Tensor,
    block: torch.Tensor,
    information: torch.Tensor,
) -> torch.Tensor:
    """Return Huber means of blocks, (m, K), of used pixels, (N,), by
    safeguarded Newton steps.
    """
    shape = tuple(information.shape)
    averages = torch.zeros_like(information)
    levels = (residual / area).double()
    lowest, highest = (
        averages.flatten().scatter_reduce(0, block, levels, end).view_as(averages) for end in ("amin", "amax")
    )
    # Huber 1964, Ann. Math. Statist. 35, 73.
    root, moment = weights.sqrt(), weights * area**2
    for steps in range(1, _CLIP_STEPS + 1):
        rest = residual - averages.flatten()[block].to(residual) * area
        deviation = (rest * root).abs()
        clipped = weights * (_CLIP / deviation.clamp(min=_CLIP))
        pull = _sum(clipped * area * rest, block, shape)
        slope = _sum(moment * (deviation <= _CLIP), block, shape)
        lowest = torch.where(pull > 0, averages, lowest)
        highest = torch.where(pull < 0, averages, highest)
        previous, averages = averages, averages + pull / slope.clamp(min=1e-300)
        inside = (averages >= lowest) & (averages <= highest)
        averages = torch.where(inside, averages, 0.5 * (lowest + highest))
        change = float(((averages - previous).abs() * information.sqrt()).max()) / _CLIP_TOLERANCE
        if change <= 1.0 or steps == _CLIP_STEPS:
            break
    record_solve("block_average", steps=steps, residual=change)
    return averages


def _connected(overlaps: torch.Tensor) -> list[torch.Tensor]:
    """Return groups of exposures connected by overlaps."""
    number, labels = connected_components(overlaps.numpy(), directed=False)
    return [torch.from_numpy((labels == label).nonzero()[0]) for label in range(number)]


def _sum(values: torch.Tensor, block: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return sums over the pixels of blocks, (n, K), double."""
    sums = torch.zeros(math.prod(shape), dtype=torch.float64, device=values.device)
    return sums.index_add(0, block, values.double()).reshape(shape)
