# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Scales, widths and positions that make the sources of exposures agree."""

from __future__ import annotations

__all__ = ("LEAST_SOURCES", "Scales", "compare_positions", "compare_scales", "gather_sources")

import dataclasses
from collections.abc import Sequence

import torch

from ._matched_sources import MatchedSources

_SCATTER = 0.01
"""Relative scatter of the light of a source between exposures, from PSFs and
stars that vary, so that no bright source counts for many: what is assumed
before sources show it."""

_COMMON = 0.75
"""Correlation of that of the two fluxes: a star that varies has one of 1."""

_JITTER = 0.01
"""The same of positions, in pixels."""

_PRIOR_SOURCES = 1.0
"""Number of sources that the assumption counts for."""

_LARGEST_GROWTH = 2.0
"""Factor by which the square of a scatter changes at most at a time."""

_LEAST_SCATTER = 1e-3
_MOST_SCATTER = 0.3
"""Bounds of what sources can show."""

_WIDTH_PRIOR = 0.03
"""Standard deviation of the relative error of the width of PSFs, as of fitted
ones on real exposures: flux scales are freed of it as far as sources tell."""

_REACH = 6.0
"""Deviation of a source, in standard deviations, from which it is ignored."""

_ITERATIONS = 60
"""An exposure with nine tenths of the weight is then right within 0.2 %."""

LEAST_SOURCES = 3
"""From fewer one cannot tell an exposure that is off from a source that is."""

_MEDIAN_OF_CHI_SQUARE = 1.386
"""For two degrees of freedom."""


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
        parts = []
        for exposures, table in tables:
            part, number = getattr(table, field.name), table.valid.shape[1]
            if field.name in ("offsets", "psf_variances"):
                part = part[..., None].expand(*part.shape, number)
            if field.name not in ("curvatures", "hessians", "crowding", "is_star"):
                full = torch.zeros(*part.shape[:-2], num_exposures, number, dtype=part.dtype)
                full[..., exposures.cpu(), :] = part
                part = full
            parts.append(part)
        gathered[field.name] = torch.cat(parts, dim=-1)
    # Not the rings around bright sources, nor what is gone in most exposures.
    level = torch.stack([_masked_median(one, gathered["valid"], 0) for one in gathered["fluxes"]])
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


def compare_scales(sources: MatchedSources) -> Scales:
    """Find the flux scales and PSF widths with which exposures agree.

    The fluxes f of exposure t are modelled as F (1 + e + w c), with the light
    F of the source, the scale e, the error w of the width, and c the variance
    of the PSF times the curvature of the light: a PSF that is wider by w adds
    w times the variance times the Laplacian of the image.  Both are fitted
    together with all F.  The best F of given weights is not correlated with
    what is left of any exposure, so that scales are not biased by noise,
    whatever the share of an exposure; a prior keeps w where noise does not
    tell it from e.

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
    response = sources.psf_variances * sources.curvatures[:, None]
    level = torch.stack([_masked_median(one, valid, 0) for one in flux])
    scale = torch.zeros(len(valid), dtype=flux.dtype)
    for _ in range(2):
        scale = _masked_median(flux[0] / level[0], valid, 1) - 1.0
        scale = scale - scale[valid.any(dim=1)].quantile(0.5)
        level = torch.stack([_masked_median(one / (1.0 + scale[:, None]), valid, 0) for one in flux])
    width = torch.zeros_like(scale)
    scatter = _Scatter(_SCATTER, valid, level[0].abs() / sources.covariances[0].sqrt())
    prior = torch.diag(torch.tensor([1e-12, _WIDTH_PRIOR**-2], dtype=flux.dtype))
    for _ in range(_ITERATIONS):
        systematic = (scatter.value * sources.crowding * level.abs()) ** 2
        variances = sources.covariances[:2] + systematic[:, None]
        gain = (1.0 + scale[:, None] + width[:, None] * response).clamp(min=0.05)
        left_out = _leave_one_out(flux, gain, valid / variances)
        residual = flux - gain * left_out.values
        common = _COMMON * systematic.prod(dim=0).sqrt()
        cross = (
            sources.covariances[2]
            + common
            + gain.prod(dim=0) * left_out.crossed(sources.covariances[2] + common)
        )
        inverse = _invert(variances + gain**2 * left_out.variances, cross)
        distance = _form(residual, inverse, residual)
        scatter.learn(distance, left_out.known)
        trust = valid * left_out.known * (1.0 - distance / _REACH**2).clamp(min=0.0) ** 2
        level = _mean(flux, gain, (valid * trust.clamp(min=1e-6)) / variances)
        template = torch.stack([level[:, None].expand_as(flux), level[:, None] * response])
        normal = torch.stack(
            [torch.stack([(trust * _form(a, inverse, b)).sum(dim=1) for b in template]) for a in template]
        ).permute(2, 0, 1)
        data = flux - level[:, None]
        right = torch.stack([(trust * _form(a, inverse, data)).sum(dim=1) for a in template], dim=1)
        solution = torch.linalg.solve(normal + prior, right)
        scale, width = solution[:, 0], solution[:, 1]
        count = (trust > 0.1).sum(dim=1)
        known = count >= LEAST_SOURCES
        if int(known.sum()) < 2:
            known[:] = False
            break
        scale = (1.0 + scale) / (1.0 + scale[known].quantile(0.5)) - 1.0
        width = width - width[known].quantile(0.5)
        scale, width = torch.where(known, scale, 0.0), torch.where(known, width, 0.0)
    excess = _excess(distance, trust, valid, count)
    with_prior = torch.linalg.inv(normal + prior) * excess[:, None, None]
    weak = torch.eye(2, dtype=normal.dtype) * 1e-8
    alone = torch.linalg.inv(normal + weak) * excess[:, None, None]
    width_alone = torch.linalg.solve(normal + weak, right)[:, 1]
    if bool(known.any()):
        width_alone = width_alone - width_alone[known].quantile(0.5)
    return Scales(
        scale=scale,
        scale_sigma=torch.where(known, with_prior[:, 0, 0].sqrt(), torch.inf),
        width=torch.where(known, width_alone, 0.0),
        width_sigma=torch.where(known, alone[:, 1, 1].sqrt(), torch.inf),
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
    maximum = (yy < 0) & (yy * xx > yx**2)
    known = torch.isfinite(scales.scale_sigma)
    valid = sources.valid & maximum & known[:, None]
    slopes = sources.gradients / (scales.fluxes * (1.0 + scales.scale)[:, None])
    noise = sources.covariances[3] / (scales.fluxes * (1.0 + scales.scale)[:, None]) ** 2
    size = 0.5 * (yy.abs() + xx.abs())
    scatter = _Scatter(_JITTER, valid, size / noise.clamp(min=1e-300).sqrt())
    pure = noise
    design = -torch.stack([torch.stack([yy, yx]), torch.stack([yx, xx])])
    offset = sources.offsets
    shift = _masked_median(offset, valid.expand_as(offset), 2)
    trust = valid.to(slopes.dtype)
    for _ in range(_ITERATIONS):
        noise = pure + (scatter.value * sources.crowding * size) ** 2
        moved = torch.einsum("abi,bti->ati", design, shift[:, :, None] - offset)
        left_out = _leave_one_out(
            slopes - moved, torch.ones_like(slopes), (trust.clamp(min=1e-6) * valid / noise).expand_as(slopes)
        )
        residual = slopes - moved - left_out.values
        total = noise + left_out.variances[0]
        distance = (residual**2).sum(dim=0) / total
        scatter.learn(distance, left_out.known)
        trust = valid * left_out.known * (1.0 - distance / _REACH**2).clamp(min=0.0) ** 2
        level = _mean(
            slopes - moved, torch.ones_like(slopes), (valid * trust.clamp(min=1e-6) / noise).expand_as(slopes)
        )
        data = slopes - level[:, None] + torch.einsum("abi,bti->ati", design, offset)
        weight = trust / total
        normal = torch.einsum("ti,abi,aci->tbc", weight, design, design)
        normal = normal + 1e-12 * torch.eye(2, dtype=normal.dtype)
        right = torch.einsum("ti,abi,ati->tb", weight, design, data)
        shift = torch.linalg.solve(normal, right).T
        count = (trust > 0.1).sum(dim=1)
        known = count >= LEAST_SOURCES
        if int(known.sum()) < 2:
            known[:] = False
            break
        shift = torch.where(known, shift - shift[:, known].quantile(0.5, dim=1, keepdim=True), 0.0)
    excess = _excess(distance, trust, valid, count)
    sigma = (torch.linalg.inv(normal).diagonal(dim1=1, dim2=2).T * excess).sqrt()
    return torch.where(known, shift, 0.0), torch.where(known, sigma, torch.inf)


class _Scatter:
    """How much sources differ between exposures beyond their noise."""

    def __init__(self, assumed: float, valid: torch.Tensor, signal: torch.Tensor) -> None:
        self.value = assumed
        self._assumed, self._shown = assumed, assumed**2
        self._number = max(1, int(valid.any(dim=0).sum()))
        # The brighter half shows it best.
        self._use = valid & (signal >= _masked_median(signal.flatten(), valid.flatten(), 0))

    def learn(self, distance: torch.Tensor, known: torch.Tensor) -> None:
        """Correct it by squared deviations, (n, N), in units of their error."""
        use = self._use & known
        if not bool(use.any()):
            return
        excess = float(distance[use].median()) / _MEDIAN_OF_CHI_SQUARE
        shown = self._shown * min(max(excess, 1.0 / _LARGEST_GROWTH), _LARGEST_GROWTH)
        self._shown = min(max(shown, _LEAST_SCATTER**2), _MOST_SCATTER**2)
        total = self._number * self._shown + _PRIOR_SOURCES * self._assumed**2
        self.value = (total / (self._number + _PRIOR_SOURCES)) ** 0.5


@dataclasses.dataclass(frozen=True)
class _LeftOut:
    """Levels of sources from the other exposures, and their noise."""

    values: torch.Tensor
    variances: torch.Tensor
    known: torch.Tensor
    shares: torch.Tensor

    def crossed(self, covariances: torch.Tensor) -> torch.Tensor:
        """Return the covariance of two levels from that of the exposures."""
        product = self.shares.prod(dim=0)
        return (covariances * product).sum(dim=0) - covariances * product


def _leave_one_out(data: torch.Tensor, gain: torch.Tensor, weights: torch.Tensor) -> _LeftOut:
    """Return levels from the other exposures, all of shape (2, n, N)."""
    total = (weights * gain**2).sum(dim=1, keepdim=True)
    others = (total - weights * gain**2).clamp(min=0.0)
    known = (others > 1e-6 * total).all(dim=0)
    variances = torch.where(known, 1.0 / others.clamp(min=1e-300), 0.0)
    values = ((weights * gain * data).sum(dim=1, keepdim=True) - weights * gain * data) * variances
    return _LeftOut(values, variances, known, weights * gain / total.clamp(min=1e-300))


def _mean(data: torch.Tensor, gain: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights * gain * data).sum(dim=1) / (weights * gain**2).sum(dim=1).clamp(min=1e-300)


def _invert(variances: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    """Return inverses of symmetric matrices: two diagonals and the rest."""
    determinant = (variances[0] * variances[1] - cross**2).clamp(min=1e-300)
    return torch.stack([variances[1], variances[0], -cross]) / determinant


def _form(a: torch.Tensor, inverse: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return inverse[0] * a[0] * b[0] + inverse[1] * a[1] * b[1] + inverse[2] * (a[0] * b[1] + a[1] * b[0])


def _excess(
    distance: torch.Tensor, trust: torch.Tensor, valid: torch.Tensor, count: torch.Tensor
) -> torch.Tensor:
    """Return by what variances must be scaled for what sources show, (n,).

    At least one, and more for few sources, whose scatter is hardly known.
    """
    usable = valid & (distance < torch.inf)
    typical = _masked_median(distance, usable, 1) / _MEDIAN_OF_CHI_SQUARE
    return typical.clamp(min=1.0) * (1.0 + 3.0 / count.clamp(min=1))


def _masked_median(data: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Return medians of what is not masked, 0 where nothing is."""
    return torch.where(mask, data, torch.nan).nanquantile(0.5, dim=dim).nan_to_num()
