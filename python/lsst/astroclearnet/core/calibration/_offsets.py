# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Offsets of exposures from the others, and outlier exposures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import torch

from .._options import CalibrationOptions
from ..exposures import Tile
from ..forward import CleanTile
from ._matched_sources import MatchedSources, gather_sources, measure_sources
from ._offset_fit import MIN_SOURCES, compare_positions, compare_scales

_LEAST_CONSISTENT = 3
"""Number of consistent exposures that it takes to call another one wrong."""

_LEAST_STARS = 3
"""Number of stars that can confirm an offset: the median of fewer is that of a
variable star."""

_SIGNIFICANCE = 5.0
"""Significance in sigma of an offset that counts."""


@dataclasses.dataclass(frozen=True)
class ExposureOffsets:
    """Offsets of exposures from the others.

    Attributes
    ----------
    values
        Shape (4, n): relative flux scale, shifts along rows and columns in
        pixels of the patch, and relative error of the PSF width; 0 where
        unknown.
    sigmas
        Shape (4, n), standard deviations; infinite where unknown.
    sources
        The sources compared; `None` if there are none.
    """

    values: torch.Tensor
    sigmas: torch.Tensor
    sources: MatchedSources | None = None

    @classmethod
    def unknown(cls, num_exposures: int) -> ExposureOffsets:
        """Return zeros with infinite standard deviations.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.

        Returns
        -------
        offsets : `ExposureOffsets`
            The offsets.
        """
        return cls(torch.zeros(4, num_exposures), torch.full((4, num_exposures), torch.inf))


@dataclasses.dataclass(frozen=True)
class OutlierExposures:
    """Exposures with offsets beyond the limits.

    Attributes
    ----------
    dropped
        Reasons to drop exposures, a slug and a sentence with value and limit,
        by index.
    suspect
        Reasons to suspect others, by index.
    """

    dropped: dict[int, str]
    suspect: dict[int, str]


def measure_offsets(
    tiles: Iterable[CleanTile], num_exposures: int, latents: Mapping[Tile, torch.Tensor] | None = None
) -> ExposureOffsets:
    """Compare the sources of each exposure with those of the others.

    Parameters
    ----------
    tiles
        Tiles covering the patch.
    num_exposures
        Number of exposures of the patch.
    latents
        Estimates of the sky of tiles; those that are missing are made.

    Returns
    -------
    offsets : `ExposureOffsets`
        The offsets.
    """
    known = {} if latents is None else latents
    tables = [
        (clean.tile_data.exposures, measure_sources(clean, known.get(clean.tile_data.tile)))
        for clean in tiles
    ]
    sources = gather_sources(tables, num_exposures)
    if sources is None:
        return ExposureOffsets.unknown(num_exposures)
    scales = compare_scales(sources)
    shifts, shift_sigmas = compare_positions(sources, scales)
    values = torch.stack([scales.scale, *shifts, scales.width])
    sigmas = torch.stack([scales.scale_sigma, *shift_sigmas, scales.width_sigma])
    return ExposureOffsets(values.float(), sigmas.float(), sources)


def find_outlier_exposures(offsets: ExposureOffsets, options: CalibrationOptions) -> OutlierExposures:
    """Find exposures with offsets beyond the limits.

    An exposure is wrong if its offset exceeds the limit and five standard
    deviations, if at least three others (and more than exceed the limit) are
    consistent within half of it, and if plain photometry or astrometry of
    stars confirms it.  Otherwise it is suspect.

    Parameters
    ----------
    offsets
        Offsets of the exposures.
    options
        The limits.

    Returns
    -------
    outlier_exposures : `OutlierExposures`
        Wrong and suspect exposures.
    """
    dropped: dict[int, str] = {}
    suspect: dict[int, str] = {}
    sources = offsets.sources
    if sources is None:
        return OutlierExposures(dropped, suspect)
    values, sigmas = offsets.values, offsets.sigmas
    flux, flux_sigma = values[0], sigmas[0]
    shift, shift_sigma = values[1:3].norm(dim=0), sigmas[1:3].amax(dim=0)
    overlapping = sources.valid.double() @ sources.valid.double().T >= MIN_SOURCES
    for t in range(flux.numel()):
        for slug, size, sigma, limit in (
            ("flux_scale", flux, flux_sigma, options.max_flux_error),
            ("astrometry", shift, shift_sigma, options.max_shift),
        ):
            beyond = size.abs() > torch.maximum(torch.full_like(sigma, limit), _SIGNIFICANCE * sigma)
            if not bool(beyond[t]) or t in dropped:
                continue
            consistent = (size.abs() < 0.5 * limit) & (sigma < 0.5 * limit) & overlapping[t]
            reason = _REASONS[slug](float(size[t]), float(sigma[t]), limit)
            if int(consistent.sum()) < max(_LEAST_CONSISTENT, int(beyond.sum()) + 1):
                suspect[t] = f"{reason} Too few exposures agree to say which are wrong."
                continue
            found, stars = _CONFIRM[slug](sources, t, consistent, values[:, t])
            if found < limit:
                suspect[t] = f"{reason} The photometry of {stars} stars does not confirm it."
                continue
            dropped[t] = reason
            suspect.pop(t, None)
    return OutlierExposures(dropped, suspect)


def _flux_reason(value: float, sigma: float, limit: float) -> str:
    return (
        f"flux_scale: Its sources differ in brightness by {100.0 * value:+.1f} +- {100.0 * sigma:.1f} % from "
        f"the others, more than max_flux_error={100.0 * limit:g} %."
    )


def _shift_reason(value: float, sigma: float, limit: float) -> str:
    return (
        f"astrometry: Its sources are {value:.2f} +- {sigma:.2f} pixels from where the others have them, "
        f"more than max_shift={limit:g}."
    )


_REASONS = {"flux_scale": _flux_reason, "astrometry": _shift_reason}


def _flux_of_stars(
    sources: MatchedSources, t: int, others: torch.Tensor, offset: torch.Tensor
) -> tuple[float, int]:
    """Return the relative offset of stars in wide flux, and their number."""
    stars, reference = _common_stars(sources, t, others)
    if len(stars) < _LEAST_STARS:
        return 0.0, len(stars)
    ratio = sources.fluxes[1, t, stars] / reference
    return float((ratio.quantile(0.5) - 1.0) * offset[0].sign()), len(stars)


def _shift_of_stars(
    sources: MatchedSources, t: int, others: torch.Tensor, offset: torch.Tensor
) -> tuple[float, int]:
    """Return the same for positions, in pixels."""
    stars, _ = _common_stars(sources, t, others)
    if len(stars) < _LEAST_STARS:
        return 0.0, len(stars)
    slopes = sources.gradients[..., stars] / sources.fluxes[0][..., stars].clamp(min=1e-300)
    reference = torch.where(sources.valid[:, stars] & others[:, None], slopes, torch.nan).nanquantile(
        0.5, dim=1
    )
    yy, yx, xx = sources.hessians[:, stars]
    change = reference - slopes[:, t]
    relative = torch.stack([xx * change[0] - yx * change[1], yy * change[1] - yx * change[0]])
    shifts = sources.offsets[:, t, stars] + relative / (yy * xx - yx**2)
    direction = offset[1:3].double() / offset[1:3].norm()
    return float(shifts.quantile(0.5, dim=1) @ direction), len(stars)


_CONFIRM = {"flux_scale": _flux_of_stars, "astrometry": _shift_of_stars}


def _common_stars(sources: MatchedSources, t: int, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return common stars, and their wide fluxes in the other exposures."""
    seen = sources.valid & others[:, None]
    stars = (sources.is_star & sources.valid[t] & seen.any(dim=0)).nonzero()[:, 0]
    values = torch.where(seen[:, stars], sources.fluxes[1][:, stars], torch.nan)
    return stars, values.nanquantile(0.5, dim=0) if len(stars) else stars.double()
