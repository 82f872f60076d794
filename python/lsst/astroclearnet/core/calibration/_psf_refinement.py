# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs of exposures refined against those of the others."""

from __future__ import annotations

__all__ = ("PsfRefinement",)

import dataclasses
import math
from collections.abc import Sequence

import torch

from ..outliers import PsfErrors
from ._psf_residuals import PsfResiduals
from ._psf_response import PsfResponse
from ._psf_shapes import NUM_SHAPES, reshape_psfs
from ._star_widths import StarWidth

_WIDTH, _WINGS = 0, 3
"""Places of two of the changes."""

_ASSUMED = (1.0, 1.0, 1.0, 0.35)
"""Errors of the changes that are assumed, over that of the width: one of 1 %
in the width of a Gaussian moves 0.35 % of its light beyond a radius of one
FWHM."""

_DEGREES = 4.0
"""Degrees of freedom of the distribution of errors (Student's t): an exposure
that is far off does not move the others, nor widens the prior of all."""

_PRIOR_EXPOSURES = 1.0
"""Number of exposures that the assumed error counts for, beside the measured
ones."""

_ROUNDS, _CONVERGED = 200, 1e-3
"""Largest number of rounds of expectation and maximisation for the scatter of
the errors, and its relative change that ends them."""

_LARGEST = 0.1
"""Largest change: a PSF that is further off is wrong in other ways as well,
and what is left of its offset is reported."""

_LINEAR = 3e-3
"""Change up to which PSFs are linear in it: what is quadratic is 1e-5."""

_LINEARISATIONS = 3
"""Rounds in which changes are linearised anew: errors of 5 % are then found to
a hundredth."""

_CLIP = 4.0
"""Deviation of a block in sigma beyond which it loses weight."""

_BLOCK_ERROR = 0.005
"""Error of what a block shows, beside noise: with exact PSFs a single star of
S/N above 10,000 shows changes of up to 3 %, at 25 sigma, which are errors of
the prediction."""

_BLOCK_ROUNDS = 10
"""Rounds of that weighting."""

_LITTLE = 1e-6
"""What a tile counts that tells nothing: where none does, errors of PSFs
change fluxes nevertheless."""

_RIDGE = 1e-9
"""Regularisation of a normal matrix relative to the prior."""


@dataclasses.dataclass(frozen=True)
class PsfRefinement:
    """Errors of the PSFs of exposures, and what they do to fluxes.

    Attributes
    ----------
    changes
        Shape (n, 4), double, by which the PSFs given differ from those of the
        sky, as of `reshape_psfs`; 0 where nothing is known.  What all share is
        not in it, unless it was measured on stars.
    sigmas
        Shape (n, 4), their standard deviations, with what all share.
    scatter
        Shape (4,), double, scatter of the errors between exposures.
    shared
        Excess of the width that all share over the PSFs given, from stars.
    flux_error
        Relative error of fluxes of stars, fitted with the target PSF, from
        the errors that were measured and are not corrected.
    flux_systematic
        Its standard deviation, from what all exposures share and cannot be
        told by comparing them.
    is_applied
        Whether the PSFs are corrected.
    """

    changes: torch.Tensor
    sigmas: torch.Tensor
    scatter: torch.Tensor
    shared: StarWidth
    flux_error: float
    flux_systematic: float
    is_applied: bool

    @classmethod
    def unknown(cls, num_exposures: int) -> PsfRefinement:
        """Return no changes, of which nothing is known.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.
        """
        zeros = torch.zeros(num_exposures, NUM_SHAPES, dtype=torch.float64)
        return cls(
            changes=zeros,
            sigmas=torch.full_like(zeros, math.inf),
            scatter=torch.full((NUM_SHAPES,), math.nan, dtype=torch.float64),
            shared=StarWidth(0.0, math.inf, 0),
            flux_error=0.0,
            flux_systematic=math.nan,
            is_applied=False,
        )

    @classmethod
    def solve(
        cls, tables: Sequence[PsfResiduals], num_exposures: int, assumed: float, mode: str
    ) -> PsfRefinement:
        """Solve for the errors of the PSFs.

        Parameters
        ----------
        tables
            Sums of the tiles of the patch.
        num_exposures
            Number n of exposures of the patch.
        assumed
            Standard deviation of the errors of the PSFs before they are
            compared, relative.
        mode
            What to do, as of `CalibrationOptions.psf_refinement`.
        """
        if not tables:
            return cls.unknown(num_exposures)
        found, information = _combine_blocks(tables, num_exposures, assumed)
        response, fluxes, shares = _mean_responses(tables, num_exposures)
        known = information.diagonal(dim1=1, dim2=2).amax(dim=1) > assumed**-2
        stars = StarWidth.of_sources(torch.cat([table.stars for table in tables], dim=1))
        datum = (shares, stars) if mode == "stars" and math.isfinite(stars.sigma) else None
        places = [_most_informed(tables, t) for t in range(num_exposures)]
        linear = found
        for _ in range(_LINEARISATIONS):
            posterior = _Posterior.fit(linear, information, response, known, assumed, datum)
            changes = posterior.mean.clamp(-_LARGEST, _LARGEST)
            linear = found.clone()
            for one, change, place in zip(linear, changes, places, strict=True):
                if place is not None and float(change.abs().max()) > _LINEAR:
                    one -= place[0].curvature(place[1], change)
        relative = float(shares @ changes[:, _WIDTH])
        shared = dataclasses.replace(stars, value=stars.value - relative * math.isfinite(stars.sigma))
        left = changes if mode == "report" else torch.zeros_like(changes)
        flux_error = -float((fluxes * left).sum())
        if math.isfinite(shared.sigma):
            flux_error -= float(fluxes[:, _WIDTH].sum()) * shared.value
        return cls(
            changes=changes,
            sigmas=posterior.sigmas(),
            scatter=posterior.scatter,
            shared=shared,
            flux_error=flux_error,
            flux_systematic=posterior.systematic(fluxes),
            is_applied=mode in ("apply", "stars"),
        )

    def corrected_errors(self) -> PsfErrors:
        """Return what is corrected, as errors of width and ellipticity."""
        errors = PsfErrors.unknown(len(self.changes))
        if self.is_applied:
            errors.amplitudes[:, 2] = self.changes[:, _WIDTH].abs()
            errors.amplitudes[:, 3] = self.changes[:, 1:3].square().mean(dim=1).sqrt()
        return errors

    def correct(self, psfs: torch.Tensor, exposures: torch.Tensor) -> torch.Tensor:
        """Return corrected PSFs.

        Parameters
        ----------
        psfs
            Shape (m, n_cells_y, n_cells_x, P, P), as given.
        exposures
            Shape (m,), which exposures of the patch these are.
        """
        return reshape_psfs(psfs, self.changes[exposures.cpu()][:, None, None])


def _most_informed(tables: Sequence[PsfResiduals], exposure: int) -> tuple[PsfResponse, int] | None:
    """Return the responses of the tile that tells most of an exposure, and its
    index there.
    """
    places = [
        (float(table.normal[k, :, _WIDTH, _WIDTH].sum()), table.response, k)
        for table in tables
        for k in (table.exposures == exposure).nonzero()[:, 0].tolist()
    ]
    if not places:
        return None
    _, response, k = max(places, key=lambda place: place[0])
    return response, k


def _combine_blocks(
    tables: Sequence[PsfResiduals], num_exposures: int, assumed: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what PSFs have more than those of the others, (n, 4), and the
    inverse of its covariance, (n, 4, 4), by the scatter of blocks.
    """
    found = torch.zeros(num_exposures, NUM_SHAPES, dtype=torch.float64)
    information = torch.zeros(num_exposures, NUM_SHAPES, NUM_SHAPES, dtype=torch.float64)
    one = torch.eye(NUM_SHAPES, dtype=torch.float64)
    ridge = _RIDGE * assumed**-2 * one
    for t in range(num_exposures):
        parts = [
            (table.normal[k], table.right[k])
            for table in tables
            for k in (table.exposures == t).nonzero()[:, 0].tolist()
        ]
        if not parts:
            continue
        normal, right = (torch.cat(part) for part in zip(*parts, strict=True))
        tells = normal.diagonal(dim1=1, dim2=2).amax(dim=1) > 0
        normal, right = normal[tells], right[tells]
        if not len(normal):
            continue
        weights = torch.ones(len(normal), dtype=torch.float64)
        excess = torch.ones((), dtype=torch.float64)
        for _ in range(_BLOCK_ROUNDS):
            total = (weights[:, None, None] * normal).sum(dim=0) + ridge
            found[t] = torch.linalg.solve(total, (weights[:, None] * right).sum(dim=0))
            # Of the width alone, of which blocks tell most.
            rest = right[:, _WIDTH] - normal[:, _WIDTH] @ found[t]
            distance = rest.square() / normal[:, _WIDTH, _WIDTH].clamp(min=1e-300)
            if len(normal) > 1:
                freedom = len(normal) / (len(normal) - 1.0)
                excess = (freedom * (weights * distance).sum() / weights.sum()).clamp(min=1.0)
            weights = (_CLIP * excess.sqrt() / distance.sqrt().clamp(min=1e-12)).clamp(max=1.0)
        told = normal[:, _WIDTH, _WIDTH]
        floor = _BLOCK_ERROR**2 * told.square().sum() / told.sum() ** 2
        information[t] = torch.linalg.solve(excess * one + floor * total, total)
    return found, information


def _mean_responses(
    tables: Sequence[PsfResiduals], number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the responses of the patch, (n, 4, n, 4), (n, 4) and (n,), by
    what tiles tell.
    """
    shared = torch.zeros(number, NUM_SHAPES, number, NUM_SHAPES, dtype=torch.float64)
    fluxes = torch.zeros(number, NUM_SHAPES, dtype=torch.float64)
    stars, total = (torch.zeros(number, dtype=torch.float64) for _ in range(2))
    for table in tables:
        here, response = table.exposures, table.response
        weight = table.normal[..., _WIDTH, _WIDTH].sum(dim=1) + _LITTLE
        # Exposures of a tile only predict each other.
        # One at a time: all are a large matrix where exposures are many.
        for exposure, own, row in zip(here.tolist(), weight, response.shared, strict=True):
            shared[exposure][:, here] += own * row
        fluxes[here] += weight.sum() * response.fluxes
        stars[here] += weight.sum() * response.star_shares
        total[here] += weight
    every = total.sum().clamp(min=1e-300)
    shared /= total.clamp(min=1e-300)[:, None, None, None]
    return shared, fluxes / every, stars / every


@dataclasses.dataclass(frozen=True)
class _Posterior:
    """Errors of PSFs given their comparison: mean (n, 4), covariance, (4n,
    4n), and scatter (4,).
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    scatter: torch.Tensor

    @classmethod
    def fit(
        cls,
        found: torch.Tensor,
        information: torch.Tensor,
        shared: torch.Tensor,
        known: torch.Tensor,
        assumed: float,
        datum: tuple[torch.Tensor, StarWidth] | None,
    ) -> _Posterior:
        """Maximise the posterior of a t-distributed prior of unknown scatter
        (Lange, Little & Taylor 1989, J. Am. Stat. Assoc. 84, 881).
        """
        number = len(found)
        size = number * NUM_SHAPES
        design = -shared.reshape(size, size)
        design.diagonal().add_(1.0)
        weighted = (information @ design.reshape(number, NUM_SHAPES, size)).reshape(size, size)
        normal, right = design.T @ weighted, weighted.T @ found.flatten()
        del design, weighted
        if datum is not None:
            shares, stars = datum
            row = torch.zeros(number, NUM_SHAPES, dtype=torch.float64)
            row[:, _WIDTH] = shares
            normal += torch.outer(row.flatten(), row.flatten()) / stars.sigma**2
            right = right + row.flatten() * stars.value / stars.sigma**2
        assumed_squares = (assumed * torch.tensor(_ASSUMED, dtype=torch.float64)) ** 2
        squares = assumed_squares
        weights = torch.ones_like(found)
        count = float(known.sum())
        for _ in range(_ROUNDS):
            prior = weights / squares
            inverse = _inverse(normal, prior)
            mean = (inverse @ right).reshape(number, NUM_SHAPES)
            moments = mean**2 + inverse.diagonal().reshape(number, NUM_SHAPES)
            del inverse
            weights = (_DEGREES + 1.0) / (_DEGREES + moments / squares)
            total = (weights * moments * known[:, None]).sum(dim=0)
            before = squares
            squares = (total + _PRIOR_EXPOSURES * assumed_squares) / (count + _PRIOR_EXPOSURES)
            if torch.allclose(squares, before, rtol=_CONVERGED, atol=0.0):
                break
        # The variance of a t-distribution is larger than its squared scale.
        squares = squares * _DEGREES / (_DEGREES - 2.0)
        return cls(mean, _inverse(normal, weights / squares), squares.sqrt())

    def sigmas(self) -> torch.Tensor:
        """Return standard deviations, (n, 4)."""
        return self.covariance.diagonal().reshape(self.mean.shape).clamp(min=0.0).sqrt()

    def systematic(self, fluxes: torch.Tensor) -> float:
        """Return the standard deviation of fluxes of responses (n, 4)."""
        return math.sqrt(float(fluxes.flatten() @ self.covariance @ fluxes.flatten()))


def _inverse(normal: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a matrix with a prior on its diagonal."""
    total = normal.clone()
    total.diagonal().add_(prior.flatten())
    return torch.linalg.inv(total)
