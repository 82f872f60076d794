# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Least squares for a star whose PSFs are not exact."""

from __future__ import annotations

__all__ = ("SolvedStar", "StarEquations")

import dataclasses

import torch

_NUM_VALUES, _NUM_ERRORS = 6, 6
"""Numbers of parameters, and of errors of the PSF of an exposure."""

_GROUPS = (1, 2, 1, 2)
"""Numbers of errors that have the same amplitude: brightness, position, width
and ellipticity."""

_AMPLITUDES = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
"""Amplitudes of errors that are compared, relative or in pixels."""

_NUM_SWEEPS = 2
"""How often each of them is chosen, given the others."""


@dataclasses.dataclass(frozen=True)
class SolvedStar:
    """Best parameters of a star.

    Attributes
    ----------
    values
        Shape (6,), double: flux, change of row and column, and coefficients
        of the plane around.
    covariance
        Shape (6, 6), double.
    chi_square
        Sum of squared residuals over their variances.
    evidence
        Logarithm of the marginal likelihood, up to a constant.
    """

    values: torch.Tensor
    covariance: torch.Tensor
    chi_square: float
    evidence: float


@dataclasses.dataclass(frozen=True)
class StarEquations:
    """Normal equations of a star in exposures.

    The data of an exposure are linear in the parameters, which all exposures
    share, and in errors of its own PSF, independent and normal: of brightness
    (relative), position (pixels), width and ellipticity (relative).  These are
    marginalised.  Their amplitudes, the same for all exposures, are those of
    the largest marginal likelihood (empirical Bayes, type II maximum
    likelihood; Gelman et al. 2013, Bayesian Data Analysis, section 5.1): no
    amplitude is assumed that the star does not show.

    Attributes
    ----------
    products
        Shape (n, 13, 13), double, scalar products in an exposure, over the
        variances, of the images of parameters (6), the data, and errors of
        amplitude one (6).
    """

    products: torch.Tensor

    def solve(self, amplitudes: torch.Tensor | None = None) -> tuple[SolvedStar, torch.Tensor]:
        """Solve for the parameters.

        Parameters
        ----------
        amplitudes
            Shape (4,), where to start the search for the amplitudes.

        Returns
        -------
        solved : `SolvedStar`
            The star.
        amplitudes : `torch.Tensor`
            Shape (4,), the best amplitudes.
        """
        best = torch.zeros(len(_GROUPS), dtype=torch.float64) if amplitudes is None else amplitudes
        solved = self._solve(best)
        for _ in range(_NUM_SWEEPS):
            for group in range(len(_GROUPS)):
                for value in _AMPLITUDES:
                    tried = best.clone()
                    tried[group] = value
                    found = self._solve(tried)
                    if found.evidence > solved.evidence:
                        best, solved = tried, found
        return solved, best

    def _solve(self, amplitudes: torch.Tensor) -> SolvedStar:
        """Solve for the parameters with errors of some amplitudes."""
        sizes = amplitudes.repeat_interleave(torch.tensor(_GROUPS))
        known, errors = slice(0, _NUM_VALUES + 1), slice(_NUM_VALUES + 1, None)
        own = self.products[:, errors, errors] * sizes[:, None] * sizes
        factor = torch.linalg.cholesky(own + torch.eye(_NUM_ERRORS, dtype=torch.float64))
        mixed = self.products[:, errors, known] * sizes[:, None]
        # Woodbury's identity.
        reduced = torch.linalg.solve_triangular(factor, mixed, upper=False)
        products = (self.products[:, known, known] - reduced.transpose(1, 2) @ reduced).sum(dim=0)
        normal, right = products[:_NUM_VALUES, :_NUM_VALUES], products[:_NUM_VALUES, _NUM_VALUES]
        scale = normal.diagonal().clamp(min=1e-300).rsqrt()
        inverse = torch.linalg.pinv(scale[:, None] * normal * scale, hermitian=True, rtol=1e-10)
        covariance = scale[:, None] * inverse * scale
        values = covariance @ right
        chi_square = float(products[_NUM_VALUES, _NUM_VALUES] - values @ right)
        determinant = 2.0 * float(factor.diagonal(dim1=1, dim2=2).log().sum())
        return SolvedStar(values, covariance, chi_square, -0.5 * (chi_square + determinant))
