# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Photometry of the sources of a tile in each exposure, at a common PSF."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from ..exposures import largest_around
from ..forward import CleanTile
from ._psf_matching import PsfMatcher

_FAINTEST = 1e-6
"""Relative transform of a filter that counts as zero."""

_SIGNIFICANCE = 10.0
"""Least signal-to-noise ratio, of all exposures together: the selection bias
is then below 1 %."""

_MOST_SOURCES = 500
"""Limit on the number of sources of a tile."""

_SEARCH = 12
"""Search radius for shifts in pixels."""

_REFINEMENTS = 4
"""Limit on the refinements of a shift."""

_REFINED = 0.05
"""Step in pixels below which a shift has converged: the rest is linear."""

_CLEARLY = 1.1
"""Cross-correlation, over that at zero shift, above which a shift is
accepted."""

_LEAST_EXPOSURES = 2
"""Number of exposures that must show a source."""

_ROWS = 64
"""Rows per chunk of a median."""

_STAR_TOLERANCE = 0.1
"""Tolerance of the flux ratio of stars."""

_SHARPEST = 1.6
"""Factor by which a source may be sharper than a star."""

_CROWDED = 4.0
"""Surrounding flux, over that of the source, above which it is too blended."""

_ISOLATION = 1.5
"""The same for a star, in units of the flux around an isolated star."""


@dataclasses.dataclass(frozen=True)
class MatchedSources:
    """Sources measured in all exposures at a common PSF.

    Every quantity is the same linear functional of the sky in all exposures,
    so that expectations agree whatever the shape or selection of the source.

    Attributes
    ----------
    fluxes
        Shape (2, n, N), double, fluxes in a narrow and a wide Gaussian less
        the local background.
    gradients
        Shape (2, n, N), derivatives of the narrow flux along rows and columns.
    covariances
        Shape (4, n, N), variances of the two fluxes, their covariance, and
        the variance of a gradient.
    offsets
        Shape (2, n), shifts in pixels at which exposures were measured.
    valid
        Shape (n, N), bool, whether an exposure shows a source completely.
    curvatures
        Shape (2, N), relative Laplacians of the fluxes.
    hessians
        Shape (3, N), relative second derivatives of the narrow flux (along
        rows, mixed, along columns).
    crowding
        Shape (N,), surrounding flux over that of the source, at least 1.
    is_star
        Shape (N,), bool, whether a source is point-like and isolated.
    psf_variances
        Shape (n,), variances of the PSFs along an axis, in square pixels.
    """

    fluxes: torch.Tensor
    gradients: torch.Tensor
    covariances: torch.Tensor
    offsets: torch.Tensor
    valid: torch.Tensor
    curvatures: torch.Tensor
    hessians: torch.Tensor
    crowding: torch.Tensor
    is_star: torch.Tensor
    psf_variances: torch.Tensor

    def select(self, chosen: torch.Tensor) -> MatchedSources:
        """Select sources of a tile.

        Parameters
        ----------
        chosen
            Shape (N,), bool.

        Returns
        -------
        sources : `MatchedSources`
            The selected ones.
        """
        whole = ("offsets", "psf_variances")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return MatchedSources(**{k: v if k in whole else v[..., chosen] for k, v in values.items()})


@torch.no_grad()
def measure_sources(clean: CleanTile, latent: torch.Tensor | None = None) -> MatchedSources:
    """Measure the sources that a tile owns in all exposures.

    Parameters
    ----------
    clean
        The tile.
    latent
        Shape latent_shape, an estimate of its sky; made by default.

    Returns
    -------
    sources : `MatchedSources`
        The sources, if any, on the CPU.
    """
    matcher = PsfMatcher(clean, latent)
    number = matcher.stack.num_exposures
    spectra = [matcher.spectrum(t) for t in range(number)]
    maps = [matcher.image(spectrum, matcher.filters[0]) for spectrum in spectra]
    variances, valid, ratios = zip(*(matcher.noise(t) for t in range(number)), strict=True)
    reference, information = _combine(maps, variances, valid)
    significance = reference * information.sqrt()
    positions = _find(matcher, clean, significance, valid)
    scene = _Scene._build(matcher, reference, positions)
    known = torch.stack([one[positions] for one in valid])
    measured = []
    reference_transform = _clipped_transform(significance)
    for t, spectrum in enumerate(spectra):
        start = _coarse_shift(maps[t] * variances[t].rsqrt() * valid[t], reference_transform)
        measured.append(scene._measure(spectrum, start, known[t]))
    offsets, fluxes, gradients = zip(*measured, strict=True)
    noise = [ratio[:, None] * one[positions].double() for one, ratio in zip(variances, ratios, strict=True)]
    crowding = (matcher.surroundings(reference)[positions].double() / scene.flux).clamp(min=1.0)
    ratio, curvature = _star_shape(matcher)
    width = scene.wide / scene.flux / ratio
    # Drop peaks on the flank of a brighter source.
    peaked = (scene.curvatures < 0).all(dim=0) & (scene.curvatures[0] > _SHARPEST * curvature)
    peaked &= (scene.hessians[[0, 2]] < 0).all(dim=0) & (width > 1.0 / _SHARPEST) & (crowding < _CROWDED)
    sources = MatchedSources(
        fluxes=torch.stack(fluxes, dim=1).cpu(),
        gradients=torch.stack(gradients, dim=1).cpu(),
        covariances=torch.stack(noise, dim=1).cpu(),
        offsets=torch.stack(offsets, dim=1).cpu(),
        valid=known.cpu(),
        curvatures=scene.curvatures.cpu(),
        hessians=scene.hessians.cpu(),
        crowding=crowding.cpu(),
        is_star=(((width - 1.0).abs() < _STAR_TOLERANCE) & (crowding < _ISOLATION)).cpu(),
        psf_variances=matcher.psf_sigma.double().cpu() ** 2,
    )
    return sources.select(peaked.cpu())


def gather_sources(
    tables: Sequence[tuple[torch.Tensor, MatchedSources]], num_exposures: int
) -> MatchedSources | None:
    """Merge the sources of all tiles.

    Parameters
    ----------
    tables
        Indices of the exposures of each tile, and its sources.
    num_exposures
        Number of exposures of the patch.

    Returns
    -------
    sources : `MatchedSources` or `None`
        Sources of the patch, with ``psf_variances`` of shape (n, N); `None`
        without sources.
    """
    tables = [(exposures, table) for exposures, table in tables if table.valid.shape[1]]
    if not tables:
        return None
    gathered: dict[str, torch.Tensor] = {}
    for field in dataclasses.fields(MatchedSources):
        merged = []
        for exposures, table in tables:
            values, number = getattr(table, field.name), table.valid.shape[1]
            if field.name in ("offsets", "psf_variances"):
                values = values[..., None].expand(*values.shape, number)
            if field.name not in ("curvatures", "hessians", "crowding", "is_star"):
                full = torch.zeros(*values.shape[:-2], num_exposures, number, dtype=values.dtype)
                full[..., exposures.cpu(), :] = values
                values = full
            merged.append(values)
        gathered[field.name] = torch.cat(merged, dim=-1)
    # Drop rings around bright sources, and what most exposures do not show.
    level = torch.where(gathered["valid"], gathered["fluxes"], torch.nan).nanquantile(0.5, dim=1)
    kept = (level > 0).all(dim=0)
    if not bool(kept.any()):
        return None
    return MatchedSources(**{name: values[..., kept] for name, values in gathered.items()})


@dataclasses.dataclass(frozen=True)
class _Scene:
    """The sources in the median of all exposures."""

    matcher: PsfMatcher
    positions: tuple[torch.Tensor, torch.Tensor]
    flux: torch.Tensor
    wide: torch.Tensor
    slopes: torch.Tensor
    curvatures: torch.Tensor
    hessians: torch.Tensor

    @classmethod
    def _build(
        cls, matcher: PsfMatcher, reference: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]
    ) -> _Scene:
        """Measure the reference image, (Hl, Wl), and its derivatives."""
        narrow = matcher.model.transform(reference)
        first, second = matcher.filters
        seen = first.abs() > _FAINTEST * first.abs().max()
        wide = narrow * torch.where(seen, second / torch.where(seen, first, 1.0), 1.0)
        ky, kx, square = matcher.ky, matcher.kx, -4.0 * math.pi**2

        def at(spectrum: torch.Tensor, factor: torch.Tensor | float = 1.0) -> torch.Tensor:
            return matcher.image(spectrum, factor)[positions].double()

        flux, wide_flux = at(narrow), at(wide)
        return cls(
            matcher=matcher,
            positions=positions,
            flux=flux,
            wide=wide_flux,
            slopes=torch.stack([at(narrow, 2j * math.pi * k) for k in (ky, kx)]) / flux,
            curvatures=torch.stack(
                [at(narrow, square * matcher.power) / flux, at(wide, square * matcher.power) / wide_flux]
            ),
            hessians=torch.stack([at(narrow, square * a * b) for a, b in ((ky, ky), (ky, kx), (kx, kx))])
            / flux,
        )

    def _measure(
        self, spectrum: torch.Tensor, start: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return shift (2,), fluxes and gradients (2, N) of an exposure."""
        matcher, shift = self.matcher, start
        for remaining in reversed(range(_REFINEMENTS)):
            angle = 2.0 * math.pi * (shift[0] * matcher.ky + shift[1] * matcher.kx)
            moved = spectrum * torch.polar(torch.ones_like(angle), angle)
            fluxes = self._at(moved, matcher.filters)
            slopes = [2j * math.pi * k * matcher.filters[0] for k in (matcher.ky, matcher.kx)]
            gradients = self._at(moved, slopes)
            step = self._step(gradients / fluxes[0], valid & (fluxes[0] > 0))
            if float(step.norm()) < _REFINED or not remaining:
                break
            shift = (shift + step.to(shift)).clamp(-_SEARCH - 1, _SEARCH + 1)
        return shift.double(), fluxes, gradients

    def _at(self, spectrum: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(
            [self.matcher.image(spectrum, factor)[self.positions].double() for factor in factors]
        )

    def _step(self, slopes: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the median shift of sources from relative gradients."""
        yy, yx, xx = self.hessians
        determinant = yy * xx - yx**2
        change = self.slopes - slopes
        shifts = torch.stack([xx * change[0] - yx * change[1], yy * change[1] - yx * change[0]]) / determinant
        # Only maxima have positions; others are on flanks of brighter ones.
        use = valid & (yy < 0) & (determinant > 0)
        if not bool(use.any()):
            return torch.zeros(2, dtype=slopes.dtype, device=slopes.device)
        return shifts[:, use].median(dim=1).values.clamp(-2.0, 2.0)


def _combine(
    maps: Sequence[torch.Tensor], variances: Sequence[torch.Tensor], valid: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the median of maps, and the sum of their inverse variances."""
    median, information = torch.zeros_like(maps[0]), torch.zeros_like(maps[0])
    for variance, here in zip(variances, valid, strict=True):
        information += here / variance
    for rows in torch.arange(len(median), device=median.device).split(_ROWS):
        here = torch.stack([one[rows] for one in valid])
        values = torch.stack([one[rows] for one in maps]).masked_fill_(~here, torch.inf).sort(dim=0).values
        count = here.sum(dim=0, keepdim=True)
        low, high = ((count - 1).clamp(min=0) // 2), count // 2
        high = torch.minimum(high, (count - 1).clamp(min=0))
        middle = 0.5 * (values.gather(0, low) + values.gather(0, high))
        median[rows] = torch.where(count > 0, middle, 0.0)[0]
    return median, information


def _find(
    matcher: PsfMatcher, clean: CleanTile, significance: torch.Tensor, valid: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the sources on the latent grid."""
    radius = max(1, round(matcher.sigma))
    highest = largest_around(significance, 2 * radius + 1)
    inside = torch.zeros(clean.tile_data.tile.shape, device=significance.device)
    inside[clean.tile_data.tile.within] = 1.0
    owned = matcher.model.embed(inside) > 0
    number = sum(one.to(torch.int16) for one in valid)
    peaks = (significance == highest) & (significance > _SIGNIFICANCE) & owned & (number >= _LEAST_EXPOSURES)
    rows, columns = peaks.nonzero(as_tuple=True)
    brightest = significance[rows, columns].argsort(descending=True)[:_MOST_SOURCES]
    return rows[brightest], columns[brightest]


def _clipped_transform(image: torch.Tensor) -> torch.Tensor:
    """Return the transform of an image in noise units, clipped so that no
    bright source dominates.
    """
    return torch.fft.rfft2(image.clamp(0.0, _SIGNIFICANCE))


def _coarse_shift(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the shift of an image in noise units, in whole pixels, from one
    whose `_clipped_transform` is given.
    """
    similarity = torch.fft.irfft2(_clipped_transform(image) * reference.conj(), s=image.shape)
    reach = min(_SEARCH, (min(image.shape) - 1) // 2)
    lags = torch.arange(-reach, reach + 1, device=image.device)
    near = similarity[lags[:, None], lags]
    best = int(near.argmax())
    if float(near.flatten()[best]) < _CLEARLY * float(near[reach, reach]):
        return torch.zeros(2, device=image.device)
    return torch.stack([lags[best // len(lags)], lags[best % len(lags)]]).float()


def _star_shape(matcher: PsfMatcher) -> tuple[float, float]:
    """Return the flux ratio (wide over narrow) and curvature of a star."""
    star, fold = matcher.star, matcher.model.fold_transform
    narrow, wide = (float(fold(psi * star)) for psi in matcher.filters)
    bent = float(fold(-4.0 * math.pi**2 * matcher.power * matcher.filters[0] * star))
    return wide / narrow, bent / narrow
