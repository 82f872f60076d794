# This file is part of lsst.astroclearnet.
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
import math

import torch

from ._errors import InputError
from ._exposure_stack import ExposureStack
from ._forward_model import ForwardModel
from ._linear import LinearEstimator

_BLOCK = 16
"""Side in pixels of the blocks in which residuals are averaged."""

_STRENGTH = 1e-3
"""Strength of the linear estimate that residuals are taken from."""

_RESIDUAL = 0.01
"""Residual of its normal equations, in units of the noise of a pixel: what a
bright galaxy leaves must be small beside the noise of an average over
thousands of pixels."""

_MAX_ROUNDS = 3
"""Bound on estimates; each follows the backgrounds found with the last."""

_TOLERANCE = 0.01
"""Change of a background, in units of the noise of a pixel, that is enough."""

_CLIP = 2.0
"""Deviation in units of the noise beyond which a residual counts less."""

_CLIP_STEPS = 5
"""Iterations of a robust mean or fit."""

_MODEL_ERROR = 0.01
"""Error of the predicted light of a block, relative to it."""

_NULL = 1e-8
"""Share of the largest eigenvalue below which a difference is unknown."""

_UNKNOWN = 1e-3
"""Part of a coefficient that is unknown from which it counts as unknown."""


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
        level, slope_y, slope_x = self.coefficients[:, :, None, None].unbind(dim=1)
        y, x = model.sampling.positions()
        plane = level + slope_y * (y - self.center[0]) + slope_x * (x - self.center[1])
        return (torch.nan_to_num(plane) * model.sampling.area).to(self.coefficients.dtype)


def fit_background_differences(
    stack: ExposureStack, model: ForwardModel, weights: torch.Tensor, *, order: int = 1
) -> BackgroundDifferences:
    """Fit what the backgrounds of exposures differ by.

    Residuals of a linear estimate of the sky from all exposures are averaged
    in blocks of the patch, robustly.  On such scales the estimate follows the
    weighted mean of the backgrounds in each block, so that the average in
    block k and exposure t is

        d(t, k) = b(t, k) - sum over s of w(s, k) b(s, k) / sum of w(s, k),

    with the weights w(t, k) of the exposure in the block.  This is solved for
    planes b by least squares.  Light does not enter: a source that is the
    same in all exposures is in the estimate, and blocks in which exposures
    disagree, or in which an error of a percent of the light would matter,
    count less.  The planes are subtracted and the fit is repeated until it
    does not change.

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
        The differences.

    Raises
    ------
    InputError
        If there is no such order.
    """
    if order not in (0, 1):
        raise InputError(f"order={order} of backgrounds is not known: give 0 (constants) or 1 (planes).")
    fit = _BlockFit.build(model, weights, 3 if order else 1)
    estimator = LinearEstimator(model, weights)
    images, latent = stack.images, None
    signal_to_noise_squared = float((weights * images**2).sum(dtype=torch.float64)) / math.prod(model.shape)
    tolerance = _RESIDUAL / math.sqrt(max(1.0, signal_to_noise_squared))
    coefficients = torch.zeros(stack.num_exposures, 3, dtype=torch.float64, device=images.device)
    for _ in range(_MAX_ROUNDS):
        latent = estimator.solve(images, _STRENGTH, start=latent, tolerance=tolerance)
        prediction = model.predict(latent)
        change, sigma = fit.solve(images - prediction, prediction)
        coefficients = coefficients + change
        found = BackgroundDifferences(coefficients.to(images), sigma.to(images), fit.center)
        images = stack.images - found.evaluate(model)
        if fit.significance(change) < _TOLERANCE:
            break
    return found


@dataclasses.dataclass(frozen=True)
class _BlockFit:
    """Least-squares fit of planes to averages in blocks.

    Attributes
    ----------
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    area
        Shape (n, h, w), or what broadcasts to it.
    block
        Shape (n, h, w), number of the block of a pixel, counted over all
        exposures.
    information
        Shape (n, K), double, inverse variances of the averages.
    terms
        Shape (K, p), double, terms of the planes at the centres of blocks, in
        units of the extent of the patch.
    units
        Shape (3,), what makes coefficients of those of the terms.
    center
        Row and column of the centre of the patch.
    """

    weights: torch.Tensor
    area: torch.Tensor
    block: torch.Tensor
    information: torch.Tensor
    terms: torch.Tensor
    units: torch.Tensor
    center: tuple[float, float]

    @classmethod
    def build(cls, model: ForwardModel, weights: torch.Tensor, num_terms: int) -> _BlockFit:
        """Prepare the fit.

        Parameters
        ----------
        model
            Forward model of the exposures.
        weights
            Shape (n, h, w), inverse variances, 0 where a pixel is not used.
        num_terms
            Number p of terms: 1 or 3.

        Returns
        -------
        fit : `_BlockFit`
            The fit.
        """
        height, width = model.shape
        center = (0.5 * (height - 1), 0.5 * (width - 1))
        rows, columns = (max(1, round(size / _BLOCK)) for size in (height, width))
        y, x = (torch.nan_to_num(c) + 0.5 for c in model.sampling.positions())
        row = (y * rows / height).long().clamp(0, rows - 1)
        column = (x * columns / width).long().clamp(0, columns - 1)
        exposure = torch.arange(len(weights), device=weights.device)[:, None, None]
        block = (exposure * (rows * columns) + row * columns + column).expand_as(weights)
        area = model.sampling.area.to(weights)
        information = _sum(weights * area**2, block, rows * columns)
        # From -1 to 1 over the patch.
        v, u = ((2.0 * torch.arange(m, device=weights.device) + 1.0) / m - 1.0 for m in (rows, columns))
        v, u = v[:, None].expand(rows, columns), u.expand(rows, columns)
        terms = torch.stack([torch.ones_like(u), v, u], dim=-1).flatten(0, 1).double()[:, :num_terms]
        units = torch.tensor([1.0, 2.0 / height, 2.0 / width], dtype=torch.float64, device=weights.device)
        return cls(weights, area, block, information, terms, units, center)

    def solve(self, residual: torch.Tensor, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit planes to residuals.

        Parameters
        ----------
        residual
            Shape (n, h, w), what an estimate left of the exposures.
        prediction
            Shape (n, h, w), what it predicted.

        Returns
        -------
        coefficients : `torch.Tensor`
            Shape (n, 3), double; 0 where unknown.
        sigma : `torch.Tensor`
            Shape (n, 3), double; infinite where unknown.
        """
        number, num_blocks = self.information.shape
        averages = self._robust_averages(residual)
        light = _sum(self.weights * self.area * prediction, self.block, num_blocks)
        light = light / self.information.clamp(min=1e-300)
        share = self.information / self.information.sum(dim=0).clamp(min=1e-300)
        # With the error of the model as a further variance, on average.
        excess = _MODEL_ERROR**2 * (share * self.information * light**2).sum(dim=0)
        trust = base = 1.0 / (1.0 + excess)
        independent = ((self.information > 0).sum(dim=0) - 1.0).clamp(min=1.0)
        for _ in range(_CLIP_STEPS):
            values, covariance, known = self._least_squares(averages, share, trust)
            planes = values @ self.terms.T
            left = averages - planes + (share * planes).sum(dim=0)
            chi_square = base * (self.information * left**2).sum(dim=0) / independent
            trust = base * (_CLIP / chi_square.sqrt().clamp(min=_CLIP)) ** 2
        coefficients = torch.zeros(number, 3, dtype=values.dtype, device=values.device)
        sigma = torch.full_like(coefficients, math.inf)
        p = self.terms.shape[1]
        coefficients[:, :p] = torch.where(known, values, 0.0)
        sigma[:, :p] = torch.where(
            known, covariance.diagonal().clamp(min=0).sqrt().reshape(number, p), math.inf
        )
        return coefficients * self.units, sigma * self.units

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
        size = (change.abs() / self.units).sum(dim=1)
        used = (self.weights > 0).sum(dim=(1, 2)).clamp(min=1)
        typical = (self.weights * self.area**2).double().sum(dim=(1, 2)) / used
        return float((size * typical.sqrt()).max())

    def _robust_averages(self, residual: torch.Tensor) -> torch.Tensor:
        """Return averages in which single pixels do not count, (n, K)."""
        number, num_blocks = self.information.shape
        averages = torch.zeros_like(self.information)
        root = self.weights.sqrt()
        for _ in range(_CLIP_STEPS):
            level = averages.flatten()[self.block].to(residual) * self.area
            deviation = ((residual - level) * root).abs()
            clipped = self.weights * (_CLIP / deviation.clamp(min=_CLIP))
            total = _sum(clipped * self.area * residual, self.block, num_blocks)
            averages = total / _sum(clipped * self.area**2, self.block, num_blocks).clamp(min=1e-300)
        return averages

    def _least_squares(
        self, averages: torch.Tensor, share: torch.Tensor, trust: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return values (n, p), their covariance, and which are known."""
        (number, _), p = averages.shape, self.terms.shape[1]
        trusted = trust * self.information
        moments = (self.terms[:, :, None] * self.terms[:, None]).flatten(1)
        pairs = torch.einsum("tk,kp,sk->tsp", trusted, moments, share).unflatten(-1, (p, p))
        normal = -pairs
        index = torch.arange(number, device=normal.device)
        # What all exposures share has no information, exactly.
        normal[index, index] += pairs.sum(dim=1)
        normal = normal.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        right = (trusted * averages) @ self.terms
        scale = normal.diagonal().clamp(min=1e-300).rsqrt()
        scale = torch.where(normal.diagonal() > 0, scale, 0.0)
        inverse = torch.linalg.pinv(scale[:, None] * normal * scale, rtol=_NULL, hermitian=True)
        inverse = scale[:, None] * inverse * scale
        free = torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        free = free - self._group_means(pairs[..., 0, 0] > 0)
        values = (free @ inverse @ right.flatten()).reshape(number, p)
        covariance = free @ inverse @ free.T
        # Of a known difference the data show all.
        shown = free @ inverse @ normal
        known = ((shown - free).abs().sum(dim=1) < _UNKNOWN).reshape(number, p)
        return values, covariance, known & (pairs[..., 0, 0].sum(dim=1) > pairs[index, index, 0, 0])[:, None]

    def _group_means(self, overlaps: torch.Tensor) -> torch.Tensor:
        """Return what takes planes to the mean plane of their group."""
        number, p = len(overlaps), self.terms.shape[1]
        moments = (self.terms[:, :, None] * self.terms[:, None]).flatten(1)
        own = (self.information @ moments).unflatten(-1, (p, p))
        means = torch.zeros(number, p, number, p, dtype=own.dtype, device=own.device)
        for group in _connected(overlaps):
            total = own[group].sum(dim=0)
            mean = torch.linalg.pinv(total, rtol=_NULL, hermitian=True) @ own[group]
            means[group[:, None], :, group] = mean[None].expand(len(group), -1, -1, -1)
        return means.flatten(2).flatten(0, 1)


def _connected(overlaps: torch.Tensor) -> list[torch.Tensor]:
    """Return groups of exposures that overlap, directly or by others."""
    number = len(overlaps)
    reached = overlaps | torch.eye(number, dtype=torch.bool, device=overlaps.device)
    for _ in range(number.bit_length()):
        reached = (reached.double() @ reached.double()) > 0
    first = reached.double().argmax(dim=1)
    return [(first == index).nonzero()[:, 0] for index in first.unique()]


def _sum(values: torch.Tensor, block: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """Return sums over the pixels of each block, (n, K), double."""
    number = len(block)
    sums = torch.zeros(number * num_blocks, dtype=torch.float64, device=values.device)
    return sums.index_add(0, block.flatten(), values.flatten().double()).reshape(number, num_blocks)
