# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Averages of residuals in blocks of the patch, and planes through them."""

from __future__ import annotations

import dataclasses
import math

import torch
from scipy.sparse.csgraph import connected_components

from ..estimate import record_solve
from ..exposures import Tile
from ..forward import ForwardModel

_BLOCK = 16
"""Least side in pixels of the blocks in which residuals are averaged."""

_MAX_BLOCKS = 4096
"""Number of blocks above which they are made larger."""

_CLIP = 2.0
"""Deviation in units of the noise beyond which a residual counts less."""

_CLIP_STEPS = 50
"""Bound on iterations of a robust mean or fit."""

_CLIP_TOLERANCE = 0.01
"""Change of a robust mean or fit, in units of its noise, that is enough."""

_MODEL_ERROR = 0.01
"""Error of the predicted light of a block, relative to it."""

_NULL = 1e-8
"""Share of the largest eigenvalue below which a difference is unknown."""

_UNKNOWN = 1e-3
"""Part of a coefficient that is unknown from which it counts as unknown."""


@dataclasses.dataclass(frozen=True)
class BlockGrid:
    """Blocks of a patch, and the terms of planes over it.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    rows, columns
        Number of blocks along the sides.
    terms
        Shape (K, p), double, terms of the planes at the centres of blocks, in
        units of the extent of the patch.
    units
        Shape (3,), what makes coefficients of those of the terms.
    center
        Row and column of the centre of the patch.
    """

    shape: tuple[int, int]
    rows: int
    columns: int
    terms: torch.Tensor
    units: torch.Tensor
    center: tuple[float, float]

    @classmethod
    def cover(cls, shape: tuple[int, int], num_terms: int) -> BlockGrid:
        """Divide a patch into blocks.

        Parameters
        ----------
        shape
            Height and width of the patch in pixels.
        num_terms
            Number p of terms: 1 or 3.

        Returns
        -------
        grid : `BlockGrid`
            Blocks of nearly equal size.
        """
        height, width = shape
        block = max(_BLOCK, math.ceil(math.sqrt(height * width / _MAX_BLOCKS)))
        rows, columns = (max(1, round(size / block)) for size in shape)
        # From -1 to 1 over the patch.
        v, u = ((2.0 * torch.arange(m, dtype=torch.float64) + 1.0) / m - 1.0 for m in (rows, columns))
        v, u = v[:, None].expand(rows, columns), u.expand(rows, columns)
        terms = torch.stack([torch.ones_like(u), v, u], dim=-1).flatten(0, 1)[:, :num_terms]
        units = torch.tensor([1.0, 2.0 / height, 2.0 / width], dtype=torch.float64)
        return cls(shape, rows, columns, terms, units, (0.5 * (height - 1), 0.5 * (width - 1)))

    @property
    def num_blocks(self) -> int:
        """Number K of blocks (`int`)."""
        return self.rows * self.columns

    def find(self, tile: Tile, model: ForwardModel, weights: torch.Tensor) -> torch.Tensor:
        """Return the blocks of the pixels of a tile.

        Parameters
        ----------
        tile
            The tile.
        model
            Forward model of its exposures.
        weights
            Shape (m, h, w), their weights.

        Returns
        -------
        block : `torch.Tensor`
            Shape (m, h, w), int64, number of the block, counted over all
            exposures of the tile.
        """
        y, x = model.sampling.positions()
        origin = (tile.rows.start, tile.columns.start)
        index = [
            ((torch.nan_to_num(c) + (start + 0.5)) * number / size).long().clamp(0, number - 1)
            for c, start, number, size in zip(
                (y, x), origin, (self.rows, self.columns), self.shape, strict=True
            )
        ]
        exposure = torch.arange(len(weights), device=weights.device)[:, None, None]
        block = exposure * self.num_blocks + index[0] * self.columns + index[1]
        return block.expand_as(weights)

    def owned(self, tile: Tile) -> torch.Tensor:
        """Return the blocks with their centre in pixels that a tile owns.

        Parameters
        ----------
        tile
            The tile.

        Returns
        -------
        owned : `torch.Tensor`
            Shape (K,), bool.
        """
        inside = []
        for number, size, own in zip(
            (self.rows, self.columns), self.shape, (tile.own_rows, tile.own_columns), strict=True
        ):
            center = (torch.arange(number) + 0.5) * size / number
            inside.append((center >= own.start) & (center < own.stop))
        return (inside[0][:, None] & inside[1]).flatten()


@dataclasses.dataclass
class BlockAverages:
    """Averages of residuals in blocks, and the planes that make them.

    Attributes
    ----------
    grid
        The blocks.
    information
        Shape (n, K), double, inverse variances of the averages.
    averages
        Shape (n, K), double, residuals for the area of a pixel of the patch.
    light
        Shape (n, K), double, the same of the predicted light.
    num_used
        Shape (n,), double, number of pixels.
    """

    grid: BlockGrid
    information: torch.Tensor
    averages: torch.Tensor
    light: torch.Tensor
    num_used: torch.Tensor

    @classmethod
    def empty(cls, grid: BlockGrid, num_exposures: int) -> BlockAverages:
        """Return averages of nothing.

        Parameters
        ----------
        grid
            The blocks.
        num_exposures
            Number of exposures of the patch.

        Returns
        -------
        averages : `BlockAverages`
            Without information.
        """
        maps = torch.zeros(3, num_exposures, grid.num_blocks, dtype=torch.float64)
        return cls(grid, maps[0], maps[1], maps[2], torch.zeros(num_exposures, dtype=torch.float64))

    def add(
        self,
        tile: Tile,
        exposures: torch.Tensor,
        model: ForwardModel,
        weights: torch.Tensor,
        residual: torch.Tensor,
        prediction: torch.Tensor,
    ) -> None:
        """Enter the blocks that a tile owns.

        Parameters
        ----------
        tile
            The tile.
        exposures
            Shape (m,), which of the exposures of the patch it has.
        model
            Their forward model.
        weights
            Shape (m, h, w), inverse variances, 0 where a pixel is not used.
        residual
            Shape (m, h, w), what an estimate left of the exposures.
        prediction
            Shape (m, h, w), what it predicted.
        """
        grid = self.grid
        block, number = grid.find(tile, model, weights), grid.num_blocks
        area = model.sampling.area.to(weights)
        information = _sum(weights * area**2, block, number)
        averages = _robust_averages(residual, weights, area, block, information)
        light = _sum(weights * area * prediction, block, number) / information.clamp(min=1e-300)
        used = _sum((weights > 0).to(weights.dtype), block, number)
        owned = grid.owned(tile)
        place = exposures[:, None], owned.nonzero()[:, 0]
        self.information[place] = information.cpu()[:, owned]
        self.averages[place] = averages.cpu()[:, owned]
        self.light[place] = light.cpu()[:, owned]
        self.num_used[exposures] += used.cpu()[:, owned].sum(dim=1)

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit planes to the averages.

        Returns
        -------
        coefficients : `torch.Tensor`
            Shape (n, 3), double; 0 where unknown.
        sigma : `torch.Tensor`
            Shape (n, 3), double; infinite where unknown.
        """
        grid, number = self.grid, len(self.information)
        share = self.information / self.information.sum(dim=0).clamp(min=1e-300)
        # With the error of the model as a further variance, on average.
        excess = _MODEL_ERROR**2 * (share * self.information * self.light**2).sum(dim=0)
        trust = base = 1.0 / (1.0 + excess)
        independent = ((self.information > 0).sum(dim=0) - 1.0).clamp(min=1.0)
        previous = torch.full((number, 1), math.inf, dtype=trust.dtype)
        for steps in range(1, _CLIP_STEPS + 1):
            values, covariance, known = self._least_squares(share, trust)
            noise = covariance.diagonal().clamp(min=1e-300).sqrt().reshape(number, -1)
            change = torch.where(known, (values - previous).abs() / noise, 0.0)
            residual = float(change.max()) / _CLIP_TOLERANCE
            if residual <= 1.0 or steps == _CLIP_STEPS:
                break
            previous = values
            planes = values @ grid.terms.T
            left = self.averages - planes + (share * planes).sum(dim=0)
            chi_square = base * (self.information * left**2).sum(dim=0) / independent
            trust = base * (_CLIP / chi_square.sqrt().clamp(min=_CLIP)) ** 2
        record_solve("background_fit", steps=steps, residual=residual)
        coefficients = torch.zeros(number, 3, dtype=values.dtype)
        sigma = torch.full_like(coefficients, math.inf)
        p = grid.terms.shape[1]
        coefficients[:, :p] = torch.where(known, values, 0.0)
        sigma[:, :p] = torch.where(
            known, covariance.diagonal().clamp(min=0).sqrt().reshape(number, p), math.inf
        )
        return coefficients * grid.units, sigma * grid.units

    def significance(self, change: torch.Tensor) -> float:
        """Return how much a change matters.

        Parameters
        ----------
        change
            Shape (n, 3), change of the coefficients.

        Returns
        -------
        significance : `float`
            The largest change on the patch in units of the noise of a pixel.
        """
        size = (change.abs() / self.grid.units).sum(dim=1)
        typical = self.information.sum(dim=1) / self.num_used.clamp(min=1.0)
        return float((size * typical.sqrt()).max())

    def _least_squares(
        self, share: torch.Tensor, trust: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return values (n, p), their covariance, and which are known."""
        terms = self.grid.terms
        number, p = len(share), terms.shape[1]
        trusted = trust * self.information
        moments = (terms[:, :, None] * terms[:, None]).flatten(1)
        pairs = torch.stack([(trusted * moment) @ share.T for moment in moments.T], dim=-1)
        pairs = pairs.unflatten(-1, (p, p))
        normal = -pairs
        index = torch.arange(number)
        # What all exposures share has no information, exactly.
        normal[index, index] += pairs.sum(dim=1)
        normal = normal.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        right = (trusted * self.averages) @ terms
        scale = normal.diagonal().clamp(min=1e-300).rsqrt()
        scale = torch.where(normal.diagonal() > 0, scale, 0.0)
        inverse = torch.linalg.pinv(scale[:, None] * normal * scale, rtol=_NULL, hermitian=True)
        inverse = scale[:, None] * inverse * scale
        free = torch.eye(len(normal), dtype=normal.dtype)
        free = free - self._group_means(pairs[..., 0, 0] > 0)
        values = (free @ inverse @ right.flatten()).reshape(number, p)
        covariance = free @ inverse @ free.T
        # Of a known difference the data show all.
        shown = free @ inverse @ normal
        known = ((shown - free).abs().sum(dim=1) < _UNKNOWN).reshape(number, p)
        return values, covariance, known & (pairs[..., 0, 0].sum(dim=1) > pairs[index, index, 0, 0])[:, None]

    def _group_means(self, overlaps: torch.Tensor) -> torch.Tensor:
        """Return what takes planes to the mean plane of their group."""
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
    """Return averages in which single pixels do not count, (m, K).

    Newton's steps to where the clipped residuals (Huber 1964, Ann. Math.
    Statist. 35, 73) of a block cancel, and bisection where they lead astray.
    """
    num_blocks = information.shape[1]
    averages = torch.zeros_like(information)
    levels = torch.where(weights > 0, residual / area, 0.0).double().flatten()
    lowest, highest = (
        averages.flatten().scatter_reduce(0, block.flatten(), levels, end).view_as(averages)
        for end in ("amin", "amax")
    )
    root, moment = weights.sqrt(), weights * area**2
    for steps in range(1, _CLIP_STEPS + 1):
        left = residual - averages.flatten()[block].to(residual) * area
        deviation = (left * root).abs()
        clipped = weights * (_CLIP / deviation.clamp(min=_CLIP))
        pull = _sum(clipped * area * left, block, num_blocks)
        slope = _sum(moment * (deviation <= _CLIP), block, num_blocks)
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
    """Return groups of exposures that overlap, directly or by others."""
    number, labels = connected_components(overlaps.numpy(), directed=False)
    return [torch.from_numpy((labels == label).nonzero()[0]) for label in range(number)]


def _sum(values: torch.Tensor, block: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """Return sums over the pixels of each block, (n, K), double."""
    number = len(block)
    sums = torch.zeros(number * num_blocks, dtype=torch.float64, device=values.device)
    return sums.index_add(0, block.flatten(), values.flatten().double()).reshape(number, num_blocks)
