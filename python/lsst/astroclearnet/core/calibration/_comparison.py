# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Scales, widths and positions that make the sources of exposures agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ._comparison_equations import (
    Equations,
    Scatter,
    bilinear_form,
    excess_variance,
    invert_symmetric,
    leave_one_out,
    masked_median,
    symmetric_matrices,
    tukey_weight,
)
from ._matched_sources import MatchedSources

_SCATTER = 0.01
"""Relative scatter of the light of a source between exposures, from PSFs and
stars that vary, so that no bright source counts for many: what is assumed
before sources show it."""

_COMMON = 0.75
"""Correlation of that of the two fluxes: a star that varies has one of 1."""

_JITTER = 0.01
"""The same of positions, in pixels."""

_WIDTH_PRIOR = 0.03
"""Standard deviation of the relative error of the width of PSFs, as of fitted
ones on real exposures: flux scales are freed of it as far as sources tell."""

_FIRST_SCATTER = 0.05
"""Relative scatter that is allowed for at first."""

_FIRST_SHIFT = 0.2
"""The same of positions, in pixels."""

_DISTRUST = 1e-6
"""Weight that is left to what deviates, so that sources have a level."""

_ITERATIONS = 40
"""Number of times that weights follow what sources show; twenty do."""

_DAMPING = 0.5
"""Part of a change that is made at a time: weights follow what they make."""

_TRUSTED = 0.1
"""Weight from which on a source counts as one."""

_LEAST_EXPOSURES = 2
"""Of one there is nothing to compare."""

_LEAST_GAIN = 0.01
_LARGEST_LOG = 5.0
"""Bounds of the light that an exposure shows of a source, over the light."""

_UNBOUND = 1e-6
"""Factor that makes a prior, or a bound, one that does not count."""

MIN_SOURCES = 3
"""From fewer one cannot tell an exposure that is off from a source that is."""


def gather_sources(
    tables: Sequence[tuple[torch.Tensor, MatchedSources]], num_exposures: int
) -> MatchedSources | None:
    """Put the sources of all tiles into one table.

    Parameters
    ----------
    tables
        Which exposures of the patch those of a tile are, and its sources.
    num_exposures
        Number of exposures of the patch.

    Returns
    -------
    sources : `MatchedSources` or `None`
        Those of the patch; ``psf_variances`` is of shape (n, N).  `None` if
        there are none.
    """
    tables = [(exposures, table) for exposures, table in tables if table.valid.shape[1]]
    if not tables:
        return None
    gathered: dict[str, torch.Tensor] = {}
    for field in dataclasses.fields(MatchedSources):
        tiles = []
        for exposures, table in tables:
            part, number = getattr(table, field.name), table.valid.shape[1]
            if field.name in ("offsets", "psf_variances"):
                part = part[..., None].expand(*part.shape, number)
            if field.name not in ("curvatures", "hessians", "crowding", "is_star"):
                full = torch.zeros(*part.shape[:-2], num_exposures, number, dtype=part.dtype)
                full[..., exposures.cpu(), :] = part
                part = full
            tiles.append(part)
        gathered[field.name] = torch.cat(tiles, dim=-1)
    # Not the rings around bright sources, nor what is gone in most exposures.
    level = torch.stack([masked_median(one, gathered["valid"], 0) for one in gathered["fluxes"]])
    kept = (level > 0).all(dim=0)
    if not bool(kept.any()):
        return None
    return MatchedSources(**{name: values[..., kept] for name, values in gathered.items()})


@dataclasses.dataclass(frozen=True)
class Scales:
    """Flux scales and PSF widths of exposures beside the others.

    Attributes
    ----------
    scale, scale_sigma
        Shape (n,), relative departure of the flux scale, and its standard
        deviation, which is infinite where nothing is known.
    width, width_sigma
        Shape (n,), relative error of the width of the PSF.
    fluxes
        Shape (N,), narrow flux of sources in the scale of all.
    """

    scale: torch.Tensor
    scale_sigma: torch.Tensor
    width: torch.Tensor
    width_sigma: torch.Tensor
    fluxes: torch.Tensor

    @classmethod
    def unknown(cls, num_exposures: int, fluxes: torch.Tensor) -> Scales:
        """Return that nothing is known.

        Parameters
        ----------
        num_exposures
            Number n of exposures.
        fluxes
            Shape (N,), narrow flux of sources.

        Returns
        -------
        scales : `Scales`
            Zeros with infinite standard deviations.
        """
        zero = torch.zeros(num_exposures, dtype=fluxes.dtype)
        return cls(zero, torch.full_like(zero, torch.inf), zero, torch.full_like(zero, torch.inf), fluxes)


def compare_scales(sources: MatchedSources) -> Scales:
    """Find the flux scales and PSF widths with which exposures agree.

    The fluxes f of exposure t are modelled as F exp(e + d c), with the light
    F of the source, the scale e, the curvature c of the light over the light,
    and d the relative error of the width of the PSF times its variance: what
    it adds is d times the Laplacian of the image.  Both are fitted together
    with all F.  The best F of given weights is not correlated with what is
    left of any exposure, so that scales are not biased by noise, whatever the
    share of an exposure; a prior keeps d where noise does not tell it from e.
    What all exposures share goes into F: most are taken to be right.

    Parameters
    ----------
    sources
        The sources of the patch, as `gather_sources` returns them.

    Returns
    -------
    scales : `Scales`
        Medians over exposures are 0.
    """
    flux, valid = sources.fluxes, sources.valid
    response = sources.curvatures[:, None].expand_as(flux)
    psf = masked_median(sources.psf_variances, valid, 1).clamp(min=1e-12)
    level = torch.stack([masked_median(one, valid, 0) for one in flux])
    scale = torch.zeros(len(valid), dtype=flux.dtype)
    for _ in range(2):
        scale = masked_median(flux[0] / level[0], valid, 1) - 1.0
        scale = scale - scale[valid.any(dim=1)].quantile(0.5)
        level = torch.stack([masked_median(one / (1.0 + scale[:, None]), valid, 0) for one in flux])
    state = torch.stack([scale.clamp(min=_LEAST_GAIN - 1.0).log1p(), torch.zeros_like(scale)])
    scatter = Scatter(_SCATTER, valid, level[0].abs() / sources.covariances[0].sqrt())
    # Beside medians, which no exposure leads astray.
    spread = sources.covariances[0] + (_FIRST_SCATTER * level[0]) ** 2
    trust = valid * tukey_weight((flux[0] - level[0] * state[0, :, None].exp()) ** 2 / spread)
    prior = torch.stack([torch.zeros_like(psf), (_WIDTH_PRIOR * psf) ** -2])
    for _ in range(_ITERATIONS):
        systematic = (scatter.value * sources.crowding * level.abs()) ** 2
        common = _COMMON * systematic.prod(dim=0).sqrt()
        variances, cross = sources.covariances[:2] + systematic[:, None], sources.covariances[2] + common
        gain = (state[0, :, None] + state[1, :, None] * response).clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()
        weights = valid * trust.clamp(min=_DISTRUST) / variances
        left_out = leave_one_out(flux, gain, weights)
        inverse = invert_symmetric(
            variances + gain**2 * left_out.variances, cross + gain.prod(dim=0) * left_out.crossed(cross)
        )
        residual = flux - gain * left_out.values
        distance = bilinear_form(residual, inverse, residual)
        scatter.learn(distance, left_out.known)
        trust = trust + _DAMPING * (valid * left_out.known * tukey_weight(distance) - trust)
        count = (trust > _TRUSTED).sum(dim=1)
        known = count >= MIN_SOURCES
        level = (weights * gain * flux).sum(dim=1) / (weights * gain**2).sum(dim=1).clamp(min=1e-300)
        if int(known.sum()) < _LEAST_EXPOSURES:
            return Scales.unknown(len(valid), level[0])
        light = gain * level[:, None]
        design = torch.stack([light, light * response], dim=-1)
        weight = (
            symmetric_matrices(invert_symmetric(variances, cross)) * (trust * known[:, None])[..., None, None]
        )
        equations = Equations.reduce(
            design.permute(1, 2, 0, 3),
            torch.diag_embed(gain.permute(1, 2, 0)),
            weight,
            (flux - light).permute(1, 2, 0),
        )
        step, with_prior = equations.solve(prior.T, state.T)
        state = state + _DAMPING * torch.where(known, step.T, 0.0)
        state = state - state[:, known].quantile(0.5, dim=1, keepdim=True)
        state[1] = torch.where(known, state[1], 0.0)
    excess = excess_variance(distance, valid, count)
    step, alone = equations.solve(_UNBOUND * prior.T, state.T)
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
    """Find the shifts with which exposures agree.

    Parameters
    ----------
    sources
        The sources of the patch, as `gather_sources` returns them.
    scales
        Their flux scales.

    Returns
    -------
    shifts, sigmas : `torch.Tensor`
        Shape (2, n), along rows and columns in pixels, medians over exposures
        0, and standard deviations, infinite where nothing is known.
    """
    yy, yx, xx = sources.hessians
    nothing = torch.zeros_like(sources.offsets[..., 0]), torch.full_like(sources.offsets[..., 0], torch.inf)
    # A source that is no maximum has no place.
    valid = sources.valid & ((yy < 0) & (yy * xx > yx**2)) & torch.isfinite(scales.scale_sigma)[:, None]
    if not bool(valid.any()):
        return nothing
    light = scales.fluxes * (1.0 + scales.scale)[:, None]
    pure = sources.covariances[3] / light**2
    size = 0.5 * (yy.abs() + xx.abs())
    design = -torch.stack([torch.stack([yy, yx]), torch.stack([yx, xx])])
    # As if all had been measured without an offset.
    slopes = sources.gradients / light + torch.einsum("abi,bti->ati", design, sources.offsets)
    places = torch.linalg.solve(design.permute(2, 0, 1), slopes.permute(2, 0, 1)).permute(1, 2, 0)
    center = torch.stack([masked_median(one, valid, 0) for one in places])
    shift = masked_median(places - center[:, None], valid.expand_as(places), 2)
    scatter = Scatter(_JITTER, valid, size / pure.clamp(min=1e-300).sqrt())
    distance = ((places - center[:, None] - shift[:, :, None]) ** 2).sum(dim=0)
    trust = valid * tukey_weight(distance / (pure / size**2 + _FIRST_SHIFT**2))
    for _ in range(_ITERATIONS):
        noise = pure + (scatter.value * sources.crowding * size) ** 2
        moved = slopes - torch.einsum("abi,bti->ati", design, shift[:, :, None].expand_as(slopes))
        one = torch.ones_like(slopes)
        left_out = leave_one_out(moved, one, (trust.clamp(min=_DISTRUST) * valid / noise).expand_as(slopes))
        distance = ((moved - left_out.values) ** 2).sum(dim=0) / (noise + left_out.variances[0])
        scatter.learn(distance, left_out.known)
        trust = trust + _DAMPING * (valid * left_out.known * tukey_weight(distance) - trust)
        count = (trust > _TRUSTED).sum(dim=1)
        known = count >= MIN_SOURCES
        if int(known.sum()) < _LEAST_EXPOSURES:
            return nothing
        weight = (trust * known[:, None] / noise)[..., None, None] * torch.eye(2, dtype=noise.dtype)
        shared = design.permute(2, 0, 1).expand(len(valid), -1, -1, -1)
        unit = torch.eye(2, dtype=noise.dtype).expand_as(shared)
        equations = Equations.reduce(shared, unit, weight, moved.permute(1, 2, 0))
        step, variances = equations.solve(torch.zeros_like(shift.T), shift.T)
        shift = shift + _DAMPING * torch.where(known, step.T, 0.0)
        shift = shift - shift[:, known].quantile(0.5, dim=1, keepdim=True)
    sigma = (variances.T * excess_variance(distance, valid, count)).sqrt()
    return torch.where(known, shift, 0.0), torch.where(known, sigma, torch.inf)
