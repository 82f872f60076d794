# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Least squares with errors that are alike in groups of pixels."""

from __future__ import annotations

import dataclasses

import torch


@dataclasses.dataclass(frozen=True)
class SolvedStar:
    """A weighted least-squares fit.

    Attributes
    ----------
    values
        Shape (p,), double, the parameters.
    covariance
        Shape (p, p), double.
    chi_square
        Reduced chi-square.
    """

    values: torch.Tensor
    covariance: torch.Tensor
    chi_square: float


def solve_star(
    columns: torch.Tensor, images: torch.Tensor, weights: torch.Tensor, sectors: torch.Tensor
) -> SolvedStar:
    """Fit exposures by weighted least squares.

    Errors are those that the residuals show, and not those of the weights: of
    single pixels, and what they have in common in an exposure (errors of its
    PSF) and in a sector around the star (other light), with clusters in both
    ways (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29, 238).

    Parameters
    ----------
    columns
        Shape (p, n, h, w), images of the parameters.
    images
        Shape (n, h, w), the exposures.
    weights
        Shape (n, h, w), 0 where a pixel is not used.
    sectors
        Shape (n, h, w), int64, number of the sector of each pixel.
    """
    used = weights > 0
    roots = weights[used].double().sqrt()
    design = columns[:, used].double() * roots
    data = images[used].double() * roots
    normal = design @ design.T
    scale = normal.diagonal().clamp(min=1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, None] * normal * scale, hermitian=True, rtol=1e-10)
    values = scale * (inverse @ (scale * (design @ data)))
    residuals = data - values @ design
    scores = scale[:, None] * design * residuals
    pixels = scores @ scores.T
    total = pixels.clone()
    exposures = torch.arange(len(used))[:, None, None].expand_as(used)
    for groups in (exposures[used], sectors[used]):
        # Beyond what single pixels explain.
        common = _clustered(scores, groups) - pixels
        eigenvalues, vectors = torch.linalg.eigh(common)
        total += (vectors * eigenvalues.clamp(min=0.0)) @ vectors.T
    covariance = scale[:, None] * (inverse @ total @ inverse) * scale
    chi_square = float(residuals.square().sum()) / max(len(data) - len(values), 1)
    return SolvedStar(values, covariance, chi_square)


def _clustered(scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of the scores of groups, (p, p)."""
    sums = scores.new_zeros(len(scores), int(groups.max()) + 1).index_add_(1, groups, scores)
    number = len(groups.unique())
    return number / max(number - 1, 1) * sums @ sums.T
