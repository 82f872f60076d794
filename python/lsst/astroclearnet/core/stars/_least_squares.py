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
class SolvedStars:
    """A weighted least-squares fit.

    Attributes
    ----------
    values
        Shape (p,), double, the parameters.
    scale
        Shape (p,), double, factors of the parameters with which all are about
        as well known.
    design
        Shape (p, N), double, images of the scaled parameters in the pixels
        that are used, over their sigmas.
    residuals
        Shape (N,), double, over their sigmas.
    used
        Shape (n, h, w), bool, which pixels are used.
    """

    values: torch.Tensor
    scale: torch.Tensor
    design: torch.Tensor
    residuals: torch.Tensor
    used: torch.Tensor

    @property
    def chi_square(self) -> float:
        """Reduced chi-square (`float`)."""
        freedom = len(self.residuals) - len(self.values)
        return float(self.residuals.square().sum()) / max(freedom, 1)

    def covariance(self, sectors: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the parameters, (p, p), double.

        Errors are those that the residuals show, and not those of the weights:
        of single pixels, and what they have in common in an exposure (errors
        of its PSF) and in a sector around the star (other light), with
        clusters in both ways (Cameron, Gelbach & Miller 2011, J. Bus. Econ.
        Stat. 29, 238).  A fit follows what the pixels of a cluster have in
        common, the more so the fewer clusters there are; therefore each is
        left out in turn (MacKinnon, Nielsen & Webb 2023, J. Appl. Econom. 38,
        671).

        Parameters
        ----------
        sectors
            Shape (n, h, w), int64, number of the sector of each pixel.
        """
        inverse = _inverse(self.design @ self.design.T)
        scores = self.design * self.residuals
        pixels = inverse @ (scores @ scores.T) @ inverse
        total = pixels.clone()
        exposures = torch.arange(len(self.used))[:, None, None].expand_as(self.used)
        for groups in (exposures, sectors):
            # Beyond what single pixels explain.
            common = self._jackknife(groups[self.used]) - pixels
            eigenvalues, vectors = torch.linalg.eigh(common)
            total += (vectors * eigenvalues.clamp(min=0.0)) @ vectors.T
        return self.scale[:, None] * total * self.scale

    def _jackknife(self, groups: torch.Tensor) -> torch.Tensor:
        """Return the covariance by leaving out each group, (p, p)."""
        normal = self.design @ self.design.T
        changes = []
        for group in groups.unique():
            left_out = groups == group
            part = self.design[:, left_out]
            changes.append(_inverse(normal - part @ part.T) @ (part @ self.residuals[left_out]))
        change = torch.stack(changes)
        return (1.0 - 1.0 / len(change)) * change.T @ change


def solve_stars(columns: torch.Tensor, images: torch.Tensor, weights: torch.Tensor) -> SolvedStars:
    """Fit exposures by weighted least squares.

    Parameters
    ----------
    columns
        Shape (p, n, h, w), images of the parameters.
    images
        Shape (n, h, w), the exposures.
    weights
        Shape (n, h, w), 0 where a pixel is not used.
    """
    used = weights > 0
    roots = weights[used].double().sqrt()
    design = columns[:, used].double() * roots
    data = images[used].double() * roots
    scale = design.square().sum(dim=1).clamp(min=1e-300).rsqrt()
    design *= scale[:, None]
    values = _inverse(design @ design.T) @ (design @ data)
    return SolvedStars(scale * values, scale, design, data - values @ design, used)


def _inverse(normal: torch.Tensor) -> torch.Tensor:
    """Invert a normal matrix as far as its parameters are known."""
    return torch.linalg.pinv(normal, hermitian=True, rtol=1e-10)
