# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Limits on the figures of a restored coadd, and the verdict they make."""

from __future__ import annotations

__all__ = ("QualityLimitsConfig", "Verdict", "judge")

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Any

from lsst.pex.config import Config, ListField


class Verdict(enum.StrEnum):
    """What is to be thought of a coadd, or of one of its figures."""

    GOOD = "good"
    """Within all limits."""

    CHECK = "check"
    """Beyond a first limit: look at it before it is used."""

    BAD = "bad"
    """Beyond a second limit: do not use it without knowing why."""


@dataclasses.dataclass(frozen=True)
class _Check:
    """A figure with its limits.

    Attributes
    ----------
    name
        Name of the figure and of the configuration field.
    words
        What it means when a limit is passed, with ``{value}`` and
        ``{limit}`` to be filled in; ``%`` formats want fractions.
    size
        Function that makes of a figure what is held against the limits, if
        that is not the figure itself.
    """

    name: str
    words: str
    size: Callable[[float], float] = float


def _factor(value: float) -> float:
    """Return by what factor a positive value is from one."""
    return max(value, 1.0 / value) if value > 0 else math.inf


_CHECKS = (
    _Check(
        "dropped_fraction",
        "{value:.0%} of the exposures were left out for faults, more than {limit:.0%}: see their reasons.",
    ),
    _Check(
        "missing_exposures",
        "In the mean {value:.1f} exposures are missing in a pixel to the number at which artefacts can be "
        "told from sources.",
    ),
    _Check(
        "chi_square",
        "The exposures have a reduced chi-square of {value:.2f} under the model, beyond a factor of "
        "{limit:g}: variances, PSFs or masks of some do not fit the pixels.",
        _factor,
    ),
    _Check(
        "chi_square_weight",
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have a chi-square beyond a factor "
        "of 2.",
    ),
    _Check(
        "exposure_chi_square",
        "An exposure has a reduced chi-square of {value:.1f}, more than {limit:g}: its variances or its PSF "
        "do not fit its pixels.",
    ),
    _Check(
        "variance_error_weight",
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have variances that blank sky "
        "contradicts.",
    ),
    _Check(
        "psf_error_weight",
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have a PSF that does not fit their "
        "stars.",
    ),
    _Check(
        "calibration_error_weight",
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, differ from the others in flux "
        "scale or position.",
    ),
    _Check(
        "suspect_exposures",
        "{value:.0f} exposure(s) depart from the others by more than would drop them, which is not certain "
        "enough to be done: see the details.",
    ),
    _Check(
        "background_offset",
        "A background of up to {value:.1f} sigma of a pixel of the coadd, more than {limit:g}, had to be "
        "removed from an exposure.",
    ),
    _Check(
        "rejected_fraction",
        "{value:.1%} of the pixels, more than {limit:.1%}, were rejected as artefacts: look for stars among "
        "them.",
    ),
    _Check(
        "failed_fraction",
        "{value:.0%} of the tiles could not be restored, more than {limit:.0%}.",
    ),
    _Check("unconverged", "The fit reached its largest number of epochs and was still gaining."),
    _Check(
        "unconverged_solves",
        "{value:.1%} of the iterative solves, more than {limit:.0%}, ended before they converged.",
    ),
    _Check(
        "no_data_fraction",
        "{value:.0%} of the patch, more than {limit:.0%}, has no data.",
    ),
    _Check(
        "linear_psf_residual",
        "Stars of the linear coadd depart from the declared PSF by {value:.1%} of their peak, more than "
        "{limit:.1%}: the target PSF is too sharp for these exposures.",
    ),
    _Check(
        "star_width_error",
        "Stars of the coadd to measure on are {wider} by {size:.1%} than the declared PSF, beyond "
        "{limit:.1%}.",
        abs,
    ),
    _Check(
        "flux_offset",
        "Bright stars of the coadd to measure on differ in flux by {value:+.2%} from the direct coadd, "
        "beyond {limit:.1%} and three standard deviations.",
        abs,
    ),
    _Check(
        "denoised_flux_offset",
        "Bright stars of the denoised coadd differ in flux by {value:+.2%} from the coadd to measure on, "
        "beyond {limit:.1%} and three standard deviations.",
        abs,
    ),
)
"""Checks, by their names in the dataset of the quality."""


def _limits(doc: str, check: float, bad: float) -> ListField[float]:
    """Return a field for two limits."""
    return ListField[float](
        doc=f"{doc}: beyond the first the verdict is 'check', beyond the second 'bad'.",
        default=[check, bad],
        length=2,
        listCheck=lambda limits: limits[0] <= limits[1],
    )


class QualityLimitsConfig(Config):
    """Limits on the figures of a restored coadd.

    Defaults are for campaigns on ground-based exposures whose PSFs are
    fitted; a large number is no limit.
    """

    dropped_fraction = _limits("Share of the exposures that were left out for faults", 0.1, 0.5)
    missing_exposures = _limits("Exposures that a pixel has less than min_exposures, in the mean", 0.5, 1.5)
    chi_square = _limits("Factor by which the reduced chi-square of all pixels is from 1", 1.5, 3.0)
    chi_square_weight = _limits("Weight of exposures whose chi-square is beyond a factor of 2", 0.1, 0.5)
    exposure_chi_square = _limits(
        "Largest chi-square of an exposure with a hundredth of the weight", 4.0, 1e3
    )
    variance_error_weight = _limits("Weight of exposures whose variances were rescaled", 0.1, 1.0)
    psf_error_weight = _limits("Weight of exposures whose PSF does not fit their stars", 0.1, 0.5)
    calibration_error_weight = _limits(
        "Weight of exposures that differ from the others in flux scale or position", 0.1, 0.5
    )
    suspect_exposures = _limits(
        "Number of exposures beyond the limits of agreement that could not be proved wrong", 0.0, 1e3
    )
    background_offset = _limits(
        "Largest background removed from an exposure, in sigma of a pixel of the linear coadd", 2.0, 10.0
    )
    rejected_fraction = _limits("Share of the pixels of the exposures rejected as artefacts", 0.03, 0.15)
    failed_fraction = _limits("Share of the tiles that could not be restored", 0.0, 0.25)
    unconverged = _limits("1 if the fit was still gaining when it was ended, else 0", 0.0, 1.0)
    unconverged_solves = _limits("Share of the iterative solves that ended before they converged", 0.0, 0.5)
    no_data_fraction = _limits("Share of the patch without data", 0.5, 0.95)
    linear_psf_residual = _limits(
        "Departure of stars from the declared PSF, relative to the peak", 0.01, 0.03
    )
    star_width_error = _limits("Relative error of the width of stars from the declared PSF", 0.03, 0.1)
    flux_offset = _limits("Relative difference of star fluxes from the direct coadd", 0.01, 0.03)
    denoised_flux_offset = _limits(
        "Relative difference of fluxes of bright stars on the denoised and on the linear coadd", 0.02, 0.05
    )


def judge(figures: Mapping[str, float], limits: QualityLimitsConfig) -> tuple[Verdict, list[dict[str, Any]]]:
    """Hold figures against their limits.

    Parameters
    ----------
    figures
        Figures by name; those that are NaN or absent are unknown, and keep
        all limits.
    limits
        The limits.

    Returns
    -------
    verdict : `Verdict`
        The worst of all.
    checks : `list` [`dict`]
        For each check ``name``, ``value``, ``limits`` (two numbers),
        ``verdict`` and ``words``, which are empty if it is good.
    """
    checks = []
    worst = Verdict.GOOD
    order = list(Verdict)
    for check in _CHECKS:
        value = float(figures.get(check.name, math.nan))
        first, second = (float(limit) for limit in getattr(limits, check.name))
        size = math.nan if math.isnan(value) else check.size(value)
        verdict, words = Verdict.GOOD, ""
        if size > first:
            verdict = Verdict.BAD if size > second else Verdict.CHECK
            passed = second if verdict is Verdict.BAD else first
            wider = "wider" if value > 0 else "narrower"
            words = check.words.format(value=value, size=abs(value), limit=passed, wider=wider)
        worst = max(worst, verdict, key=order.index)
        checks.append(
            {
                "name": check.name,
                "value": value,
                "limits": [first, second],
                "verdict": str(verdict),
                "words": words,
            }
        )
    return worst, checks
