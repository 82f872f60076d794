# This file is tile_data of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""By how much exposures depart from the others, and which are wrong."""

from __future__ import annotations

__all__ = ("ExposureOffsets", "OutlierExposures", "find_outlier_exposures", "measure_offsets")

import dataclasses
from collections.abc import Iterable

import torch

from .._options import CalibrationOptions
from ..forward import CleanTile
from ._comparison import MIN_SOURCES, compare_positions, compare_scales, gather_sources
from ._matched_sources import MatchedSources, measure_sources

_LEAST_AGREEING = 3
"""Exposures that must agree with each other for another one to be wrong."""

_LEAST_STARS = 3
"""Stars whose photometry can confirm that an exposure is wrong: the median of
fewer is that of a single one that varies."""

_SIGNIFICANCE = 5.0
"""Departure, in its standard deviations, from which one is believed."""


@dataclasses.dataclass(frozen=True)
class ExposureOffsets:
    """By how much exposures depart from the others.

    Attributes
    ----------
    values
        Shape (4, n): relative flux scale, shifts along rows and columns in
        pixels of the patch, and relative error of the width of the PSF; 0
        where nothing is known.
    sigmas
        Shape (4, n), their standard deviations; infinite where nothing is
        known.
    sources
        What was compared; `None` if there is nothing to compare.
    """

    values: torch.Tensor
    sigmas: torch.Tensor
    sources: MatchedSources | None = None

    @classmethod
    def nothing(cls, num_exposures: int) -> ExposureOffsets:
        """Return that nothing is known.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.

        Returns
        -------
        offsets : `ExposureOffsets`
            Zeros with infinite standard deviations.
        """
        return cls(torch.zeros(4, num_exposures), torch.full((4, num_exposures), torch.inf))


@dataclasses.dataclass(frozen=True)
class OutlierExposures:
    """Exposures that contradict others by more than is allowed.

    Attributes
    ----------
    wrong
        Why exposures are wrong, a slug and words with value and limit, by
        their index.
    suspect
        Why others may be, which are not proved to be.
    """

    wrong: dict[int, str]
    suspect: dict[int, str]


def measure_offsets(tiles: Iterable[CleanTile], num_exposures: int) -> ExposureOffsets:
    """Compare the sources of each exposure with those of the others.

    Parameters
    ----------
    parts
        Tiles that cover the patch.
    num_exposures
        Number of exposures of the patch.

    Returns
    -------
    offsets : `ExposureOffsets`
        By how much each departs.
    """
    tables = [(clean.tile_data.exposures, measure_sources(clean)) for clean in tiles]
    sources = gather_sources(tables, num_exposures)
    if sources is None:
        return ExposureOffsets.nothing(num_exposures)
    scales = compare_scales(sources)
    shifts, shift_sigmas = compare_positions(sources, scales)
    values = torch.stack([scales.scale, *shifts, scales.width])
    sigmas = torch.stack([scales.scale_sigma, *shift_sigmas, scales.width_sigma])
    return ExposureOffsets(values.float(), sigmas.float(), sources)


def find_outlier_exposures(offsets: ExposureOffsets, options: CalibrationOptions) -> OutlierExposures:
    """Say which exposures are off by more than is allowed.

    One is wrong only if three others at least, and more than contradict
    them, agree with each other within half of the limit, if it departs from
    them by more than the limit and five standard deviations, and if the
    plain photometry of stars, or their positions, say so too.

    Parameters
    ----------
    offsets
        By how much exposures depart.
    options
        Limits.

    Returns
    -------
    outlier_exposures : `OutlierExposures`
        Which are wrong, and which may be.
    """
    wrong: dict[int, str] = {}
    suspect: dict[int, str] = {}
    sources = offsets.sources
    if sources is None:
        return OutlierExposures(wrong, suspect)
    values, sigmas = offsets.values, offsets.sigmas
    flux, flux_sigma = values[0], sigmas[0]
    shift, shift_sigma = values[1:3].norm(dim=0), sigmas[1:3].amax(dim=0)
    meeting = sources.valid.double() @ sources.valid.double().T >= MIN_SOURCES
    for t in range(flux.numel()):
        for slug, size, sigma, limit in (
            ("flux_scale", flux, flux_sigma, options.max_flux_error),
            ("astrometry", shift, shift_sigma, options.max_shift),
        ):
            beyond = size.abs() > torch.maximum(torch.full_like(sigma, limit), _SIGNIFICANCE * sigma)
            if not bool(beyond[t]) or t in wrong:
                continue
            agree = (size.abs() < 0.5 * limit) & (sigma < 0.5 * limit) & meeting[t]
            words = _WORDS[slug](float(size[t]), float(sigma[t]), limit)
            if int(agree.sum()) < max(_LEAST_AGREEING, int(beyond.sum()) + 1):
                suspect[t] = f"{words} Too few exposures agree to say which are wrong."
                continue
            found, stars = _STARS[slug](sources, t, agree, values[:, t])
            if found < limit:
                suspect[t] = f"{words} The photometry of {stars} stars does not confirm it."
                continue
            wrong[t] = words
            suspect.pop(t, None)
    return OutlierExposures(wrong, suspect)


def _say_flux(value: float, sigma: float, limit: float) -> str:
    return (
        f"flux_scale: Its sources differ in brightness by {100.0 * value:+.1f} +- {100.0 * sigma:.1f} % from "
        f"the others, more than max_flux_error={100.0 * limit:g} %."
    )


def _say_shift(value: float, sigma: float, limit: float) -> str:
    return (
        f"astrometry: Its sources are {value:.2f} +- {sigma:.2f} pixels from where the others have them, "
        f"more than max_shift={limit:g}."
    )


_WORDS = {"flux_scale": _say_flux, "astrometry": _say_shift}


def _flux_of_stars(
    sources: MatchedSources, t: int, others: torch.Tensor, departure: torch.Tensor
) -> tuple[float, int]:
    """Return the relative departure of the wide flux of stars, and how many
    there are; that in the direction of what is to be confirmed is positive.
    """
    stars, reference = _common_stars(sources, t, others)
    if len(stars) < _LEAST_STARS:
        return 0.0, len(stars)
    ratio = sources.fluxes[1, t, stars] / reference
    return float((ratio.quantile(0.5) - 1.0) * departure[0].sign()), len(stars)


def _shift_of_stars(
    sources: MatchedSources, t: int, others: torch.Tensor, departure: torch.Tensor
) -> tuple[float, int]:
    """Return the same of the position, in pixels."""
    stars, _ = _common_stars(sources, t, others)
    if len(stars) < _LEAST_STARS:
        return 0.0, len(stars)
    slopes = sources.gradients[..., stars] / sources.fluxes[0][..., stars].clamp(min=1e-300)
    reference = torch.where(sources.valid[:, stars] & others[:, None], slopes, torch.nan).nanquantile(
        0.5, dim=1
    )
    yy, yx, xx = sources.hessians[:, stars]
    change = reference - slopes[:, t]
    places = torch.stack([xx * change[0] - yx * change[1], yy * change[1] - yx * change[0]])
    shifts = sources.offsets[:, t, stars] + places / (yy * xx - yx**2)
    direction = departure[1:3].double() / departure[1:3].norm()
    return float(shifts.quantile(0.5, dim=1) @ direction), len(stars)


_STARS = {"flux_scale": _flux_of_stars, "astrometry": _shift_of_stars}


def _common_stars(sources: MatchedSources, t: int, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return stars that an exposure and others show, with wide fluxes."""
    seen = sources.valid & others[:, None]
    stars = (sources.is_star & sources.valid[t] & seen.any(dim=0)).nonzero()[:, 0]
    values = torch.where(seen[:, stars], sources.fluxes[1][:, stars], torch.nan)
    return stars, values.nanquantile(0.5, dim=0) if len(stars) else stars.double()
