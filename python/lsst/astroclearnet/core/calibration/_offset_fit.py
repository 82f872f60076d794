# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Robust fit of flux scales, PSF widths and positions to matched sources."""

from __future__ import annotations

import dataclasses

import torch

from ._matched_sources import MatchedSources

_FLUX_SCATTER = 0.01
"""Relative scatter of the flux of a source between exposures before it is
measured, from variable PSFs and stars; it limits the weight of bright ones."""

_FLUX_CORRELATION = 0.75
"""Correlation of this scatter between the two fluxes; 1 if all stars
varied."""

_POSITION_SCATTER = 0.01
"""The same scatter of positions, in pixels."""

_WIDTH_PRIOR = 0.03
"""Prior standard deviation of the relative error of PSF widths, as of fitted
PSFs of real exposures."""

_FIRST_SCATTER = 0.05
"""Relative scatter allowed for in the first weights."""

_FIRST_SHIFT = 0.2
"""The same for positions, in pixels."""

_LEAST_TRUST = 1e-6
"""Weight that outliers keep, so that every source has a flux."""

_ITERATIONS = 25
"""Iterations of the weights; twenty are enough."""

_DAMPING = 0.5
"""Share of an update that is applied."""

_TRUSTED = 0.1
"""Weight above which a source is counted."""

_LEAST_EXPOSURES = 2
"""Exposures needed for a comparison."""

_LEAST_GAIN = 0.01
_LARGEST_LOG = 5.0
"""Limits of the flux ratio of an exposure to the reference."""

_RELAXED = 1e-6
"""Factor that makes a prior negligible."""

MIN_SOURCES = 3
"""With fewer, an offset exposure cannot be told from a variable source."""

_PRIOR_SOURCES = 1.0
"""Number of sources that the assumed scatter counts for."""

_LARGEST_GROWTH = 2.0
"""Largest factor between successive estimates of a squared scatter."""

_LEAST_SCATTER = 1e-3
_LARGEST_SCATTER = 0.3
"""Limits of the scatter."""

_REACH = 6.0
"""Deviation in sigma above which a source is ignored."""

_NULL = 1e-9
"""Relative eigenvalue below which a combination is degenerate."""

_MEDIAN_OF_CHI_SQUARE = 1.386
"""For two degrees of freedom."""

_SINGULAR = 1e-6
"""Relative regularisation of the normal matrix of a source."""


@dataclasses.dataclass(frozen=True)
class Scales:
    """Flux scales and PSF widths relative to the other exposures.

    Attributes
    ----------
    scale, scale_sigma
        Shape (n,), relative offset of the flux scale, and its standard
        deviation, infinite where unknown.
    width, width_sigma
        Shape (n,), relative error of the PSF width.
    fluxes
        Shape (N,), narrow fluxes on the common scale.
    """

    scale: torch.Tensor
    scale_sigma: torch.Tensor
    width: torch.Tensor
    width_sigma: torch.Tensor
    fluxes: torch.Tensor

    @classmethod
    def unknown(cls, num_exposures: int, fluxes: torch.Tensor) -> Scales:
        """Return zeros with infinite standard deviations.

        Parameters
        ----------
        num_exposures
            Number n of exposures.
        fluxes
            Shape (N,), narrow fluxes.

        Returns
        -------
        scales : `Scales`
            The scales.
        """
        zero = torch.zeros(num_exposures, dtype=fluxes.dtype)
        return cls(zero, torch.full_like(zero, torch.inf), zero, torch.full_like(zero, torch.inf), fluxes)


def compare_scales(sources: MatchedSources) -> Scales:
    """Fit flux scales and errors of PSF widths.

    The flux of exposure t is modelled as F exp(e + d c), with the flux F of
    the source, the scale e, the relative curvature c of the source, and d the
    relative width error times the PSF variance, which adds d times the
    Laplacian of the image.  All F are fitted along, which keeps e unbiased by
    noise whatever the weight of an exposure; a prior constrains d where it is
    degenerate with e.  Common offsets go into F.

    Parameters
    ----------
    sources
        Sources of the patch from `gather_sources`.

    Returns
    -------
    scales : `Scales`
        With medians of 0 over exposures.
    """
    flux, valid = sources.fluxes, sources.valid
    response = sources.curvatures[:, None].expand_as(flux)
    psf = _masked_median(sources.psf_variances, valid, 1).clamp(min=1e-12)
    level = torch.stack([_masked_median(one, valid, 0) for one in flux])
    scale = torch.zeros(len(valid), dtype=flux.dtype)
    for _ in range(2):
        scale = _masked_median(flux[0] / level[0], valid, 1) - 1.0
        scale = scale - scale[valid.any(dim=1)].quantile(0.5)
        level = torch.stack([_masked_median(one / (1.0 + scale[:, None]), valid, 0) for one in flux])
    state = torch.stack([scale.clamp(min=_LEAST_GAIN - 1.0).log1p(), torch.zeros_like(scale)])
    scatter = _Scatter(_FLUX_SCATTER, valid, level[0].abs() / sources.covariances[0].sqrt())
    # First weights by residuals from medians, which no exposure dominates.
    spread = sources.covariances[0] + (_FIRST_SCATTER * level[0]) ** 2
    trust = valid * _tukey_weight((flux[0] - level[0] * state[0, :, None].exp()) ** 2 / spread)
    prior = torch.stack([torch.zeros_like(psf), (_WIDTH_PRIOR * psf) ** -2])
    for _ in range(_ITERATIONS):
        systematic = (scatter.value * sources.crowding * level.abs()) ** 2
        common = _FLUX_CORRELATION * systematic.prod(dim=0).sqrt()
        variances, cross = sources.covariances[:2] + systematic[:, None], sources.covariances[2] + common
        gain = (state[0, :, None] + state[1, :, None] * response).clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()
        weights = valid * trust.clamp(min=_LEAST_TRUST) / variances
        left_out = _leave_one_out(flux, gain, weights)
        inverse = _invert_symmetric(
            variances + gain**2 * left_out.variances, cross + gain.prod(dim=0) * left_out.crossed(cross)
        )
        residual = flux - gain * left_out.values
        distance = _quadratic_form(residual, inverse)
        scatter.learn(distance, left_out.known)
        trust = trust + _DAMPING * (valid * left_out.known * _tukey_weight(distance) - trust)
        count = (trust > _TRUSTED).sum(dim=1)
        known = count >= MIN_SOURCES
        level = (weights * gain * flux).sum(dim=1) / (weights * gain**2).sum(dim=1).clamp(min=1e-300)
        if int(known.sum()) < _LEAST_EXPOSURES:
            return Scales.unknown(len(valid), level[0])
        light = gain * level[:, None]
        design = torch.stack([light, light * response], dim=-1)
        weight = _symmetric_matrices(_invert_symmetric(variances, cross))
        weight = weight * (trust * known[:, None])[..., None, None]
        equations = _Equations.reduce(
            design.permute(1, 2, 0, 3),
            torch.diag_embed(gain.permute(1, 2, 0)),
            weight,
            (flux - light).permute(1, 2, 0),
        )
        step, with_prior = equations.solve(prior.T, state.T)
        state = state + _DAMPING * torch.where(known, step.T, 0.0)
        state = state - state[:, known].quantile(0.5, dim=1, keepdim=True)
        state[1] = torch.where(known, state[1], 0.0)
    excess = _excess_variance(distance, valid, count)
    step, alone = equations.solve(_RELAXED * prior.T, state.T)
    width = state[1] + step[:, 1]
    width = (width - width[known].quantile(0.5)) / psf
    return Scales(
        scale=torch.where(known, state[0].expm1(), 0.0),
        scale_sigma=torch.where(known, state[0].exp() * (with_prior[:, 0] * excess).sqrt(), torch.inf),
        width=torch.where(known, width, 0.0),
        width_sigma=torch.where(known, (alone[:, 1] * excess).sqrt() / psf, torch.inf),
        fluxes=level[0],
    )


def compare_positions(sources: MatchedSources, scales: Scales) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit shifts between exposures.

    Parameters
    ----------
    sources
        Sources of the patch from `gather_sources`.
    scales
        Their flux scales.

    Returns
    -------
    shifts, sigmas : `torch.Tensor`
        Shape (2, n), along rows and columns in pixels, with medians of 0, and
        standard deviations, infinite where unknown.
    """
    yy, yx, xx = sources.hessians
    nothing = torch.zeros_like(sources.offsets[..., 0]), torch.full_like(sources.offsets[..., 0], torch.inf)
    # Only maxima have positions.
    valid = sources.valid & ((yy < 0) & (yy * xx > yx**2)) & torch.isfinite(scales.scale_sigma)[:, None]
    if not bool(valid.any()):
        return nothing
    light = scales.fluxes * (1.0 + scales.scale)[:, None]
    pure = sources.covariances[3] / light**2
    size = 0.5 * (yy.abs() + xx.abs())
    design = -torch.stack([torch.stack([yy, yx]), torch.stack([yx, xx])])
    # Bring all measurements to zero offset.
    slopes = sources.gradients / light + torch.einsum("abi,bti->ati", design, sources.offsets)
    positions = torch.linalg.solve(design.permute(2, 0, 1), slopes.permute(2, 0, 1)).permute(1, 2, 0)
    center = torch.stack([_masked_median(one, valid, 0) for one in positions])
    shift = _masked_median(positions - center[:, None], valid.expand_as(positions), 2)
    scatter = _Scatter(_POSITION_SCATTER, valid, size / pure.clamp(min=1e-300).sqrt())
    distance = ((positions - center[:, None] - shift[:, :, None]) ** 2).sum(dim=0)
    trust = valid * _tukey_weight(distance / (pure / size**2 + _FIRST_SHIFT**2))
    for _ in range(_ITERATIONS):
        noise = pure + (scatter.value * sources.crowding * size) ** 2
        moved = slopes - torch.einsum("abi,bti->ati", design, shift[:, :, None].expand_as(slopes))
        one = torch.ones_like(slopes)
        left_out = _leave_one_out(
            moved, one, (trust.clamp(min=_LEAST_TRUST) * valid / noise).expand_as(slopes)
        )
        distance = ((moved - left_out.values) ** 2).sum(dim=0) / (noise + left_out.variances[0])
        scatter.learn(distance, left_out.known)
        trust = trust + _DAMPING * (valid * left_out.known * _tukey_weight(distance) - trust)
        count = (trust > _TRUSTED).sum(dim=1)
        known = count >= MIN_SOURCES
        if int(known.sum()) < _LEAST_EXPOSURES:
            return nothing
        weight = (trust * known[:, None] / noise)[..., None, None] * torch.eye(2, dtype=noise.dtype)
        shared = design.permute(2, 0, 1).expand(len(valid), -1, -1, -1)
        unit = torch.eye(2, dtype=noise.dtype).expand_as(shared)
        equations = _Equations.reduce(shared, unit, weight, moved.permute(1, 2, 0))
        step, variances = equations.solve(torch.zeros_like(shift.T), shift.T)
        shift = shift + _DAMPING * torch.where(known, step.T, 0.0)
        shift = shift - shift[:, known].quantile(0.5, dim=1, keepdim=True)
    sigma = (variances.T * _excess_variance(distance, valid, count)).sqrt()
    return torch.where(known, shift, 0.0), torch.where(known, sigma, torch.inf)


@dataclasses.dataclass(frozen=True)
class _Equations:
    """Normal equations, (2n, 2n), of two parameters of each exposure."""

    matrix: torch.Tensor
    right: torch.Tensor

    @classmethod
    def reduce(
        cls, design: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor
    ) -> _Equations:
        """Eliminate the two unknowns of each source.

        Design, gain and weight are (n, N, 2, 2), the residual (n, N, 2).
        """
        number = len(design)
        weighted = weight @ design
        to_unknowns = gain.mT @ weighted
        own = (gain.mT @ weight @ gain).sum(dim=0)
        largest = own.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp(min=1e-300)
        own = own + _SINGULAR * largest[:, None, None] * torch.eye(2, dtype=own.dtype)
        inverse = torch.linalg.inv(own)
        unknown = (inverse @ (gain.mT @ (weight @ residual[..., None])).sum(dim=0))[None]
        right = (weighted.mT @ (residual[..., None] - gain @ unknown)).sum(dim=1).reshape(2 * number)
        flat = to_unknowns.permute(0, 3, 1, 2).reshape(2 * number, -1)
        shared = (inverse @ to_unknowns).permute(0, 3, 1, 2).reshape(2 * number, -1)
        blocks = (design.mT @ weighted).sum(dim=1)
        return cls(torch.block_diag(*blocks) - flat @ shared.T, right)

    def solve(self, prior: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the step and variances, (n, 2), free of a common change."""
        number = len(state)
        every = prior.flatten()
        scale = (self.matrix.diagonal() + every).clamp(min=1e-300).rsqrt()
        normal = scale[:, None] * (self.matrix + torch.diag(every)) * scale
        inverse = scale[:, None] * torch.linalg.pinv(normal, rtol=_NULL, hermitian=True) * scale
        step = inverse @ (self.right - every * state.flatten())
        compared = (self.matrix.diagonal().reshape(number, 2) > 0).all(dim=1).to(state.dtype)
        mean = compared.expand(number, -1) / compared.sum().clamp(min=1.0)
        project = torch.kron(torch.eye(number, dtype=state.dtype) - mean, torch.eye(2, dtype=state.dtype))
        variances = (project @ inverse @ project.T).diagonal().clamp(min=0.0)
        return step.reshape(number, 2), variances.reshape(number, 2)


class _Scatter:
    """Scatter of sources between exposures beyond their noise."""

    def __init__(self, assumed: float, valid: torch.Tensor, signal: torch.Tensor) -> None:
        self.value = assumed
        self._assumed, self._measured = assumed, assumed**2
        self._number = max(1, int(valid.any(dim=0).sum()))
        # The brighter half measures it best.
        self._use = valid & (signal >= _masked_median(signal.flatten(), valid.flatten(), 0))

    def learn(self, distance: torch.Tensor, known: torch.Tensor) -> None:
        """Update the scatter from squared deviations in two components."""
        use = self._use & known
        if not bool(use.any()):
            return
        excess = float(distance[use].median()) / _MEDIAN_OF_CHI_SQUARE
        measured = self._measured * min(max(excess, 1.0 / _LARGEST_GROWTH), _LARGEST_GROWTH)
        self._measured = min(max(measured, _LEAST_SCATTER**2), _LARGEST_SCATTER**2)
        total = self._number * self._measured + _PRIOR_SOURCES * self._assumed**2
        self.value = (total / (self._number + _PRIOR_SOURCES)) ** 0.5


@dataclasses.dataclass(frozen=True)
class _LeftOut:
    """Fluxes (or positions) of sources from all other exposures, (2, n, N)."""

    values: torch.Tensor
    variances: torch.Tensor
    known: torch.Tensor
    shares: torch.Tensor

    def crossed(self, covariances: torch.Tensor) -> torch.Tensor:
        """Return the covariance, (n, N), of the two values."""
        product = self.shares.prod(dim=0)
        return (covariances * product).sum(dim=0) - covariances * product


def _tukey_weight(distance: torch.Tensor) -> torch.Tensor:
    """Return biweights of squared deviations in units of their variance."""
    # Beaton & Tukey 1974, Technometrics 16, 147.
    return (1.0 - distance / _REACH**2).clamp(min=0.0) ** 2


def _leave_one_out(data: torch.Tensor, gain: torch.Tensor, weights: torch.Tensor) -> _LeftOut:
    """Return values of sources from all other exposures."""
    total = (weights * gain**2).sum(dim=1, keepdim=True)
    others = (total - weights * gain**2).clamp(min=0.0)
    known = (others > 1e-6 * total).all(dim=0)
    variances = torch.where(known, 1.0 / others.clamp(min=1e-300), 0.0)
    values = ((weights * gain * data).sum(dim=1, keepdim=True) - weights * gain * data) * variances
    return _LeftOut(values, variances, known, weights * gain / total.clamp(min=1e-300))


def _invert_symmetric(variances: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    """Invert 2x2 matrices; return diagonals and off-diagonal, (3, ...)."""
    determinant = (variances[0] * variances[1] - cross**2).clamp(min=1e-300)
    return torch.stack([variances[1], variances[0], -cross]) / determinant


def _symmetric_matrices(inverse: torch.Tensor) -> torch.Tensor:
    """Return matrices, (..., 2, 2), from the form of `_invert_symmetric`."""
    first, second, cross = inverse
    return torch.stack([torch.stack([first, cross], dim=-1), torch.stack([cross, second], dim=-1)], dim=-1)


def _quadratic_form(vector: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Return v^T M v for vectors (2, ...) and matrices (3, ...)."""
    a, b = vector
    return inverse[0] * a * a + inverse[1] * b * b + inverse[2] * (2.0 * a * b)


def _excess_variance(distance: torch.Tensor, valid: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return by which factors, (n,) and at least 1, variances grow."""
    usable = valid & (distance < torch.inf)
    typical = _masked_median(distance, usable, 1) / _MEDIAN_OF_CHI_SQUARE
    return typical.clamp(min=1.0) * (1.0 + 3.0 / count.clamp(min=1))


def _masked_median(data: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Return medians of masked data, 0 where none is left."""
    return torch.where(mask, data, torch.nan).nanquantile(0.5, dim=dim).nan_to_num()
