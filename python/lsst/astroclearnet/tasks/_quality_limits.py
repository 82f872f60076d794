# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Limits on the quality metrics of a restored coadd, and its verdict."""

from __future__ import annotations

__all__ = ("QualityLimitsConfig", "Verdict", "judge")

import enum
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from lsst.pex.config import Config, ListField


class Verdict(enum.StrEnum):
    """Quality verdict on a coadd, or on one of its metrics."""

    GOOD = "good"
    """Within all limits."""

    CHECK = "check"
    """Beyond a first limit: look at it before it is used."""

    BAD = "bad"
    """Beyond a second limit: do not use it without knowing why."""


class _Limits(ListField[float]):
    """The limits of a metric, beyond which the verdict is check or bad.

    Parameters
    ----------
    doc
        What the metric is.
    default
        Both limits.
    words
        What it means when a limit is passed, with ``{value}``, ``{size}``,
        its modulus, ``{limit}`` and ``{wider}``, wider or narrower.
    size
        Function that makes of the metric what is compared with the limits.
    """

    def __init__(
        self, doc: str, default: tuple[float, float], words: str, size: Callable[[float], float] = float
    ) -> None:
        self.words, self.size = words, size
        super().__init__(
            doc=f"{doc}: beyond the first the verdict is 'check', beyond the second 'bad'.",
            dtype=float,
            default=list(default),
            length=2,
            listCheck=lambda limits: limits[0] <= limits[1],
        )

    def judge(self, name: str, value: float, limits: list[float]) -> dict[str, Any]:
        """Return the check of a metric."""
        first, second = (float(limit) for limit in limits)
        size = math.nan if math.isnan(value) else self.size(value)
        verdict, words = Verdict.GOOD, ""
        if size > first:
            verdict = Verdict.BAD if size > second else Verdict.CHECK
            words = self.words.format(
                value=value,
                size=abs(value),
                limit=second if verdict is Verdict.BAD else first,
                wider="wider" if value > 0 else "narrower",
            )
        return {
            "name": name,
            "value": value,
            "limits": [first, second],
            "verdict": str(verdict),
            "words": words,
        }


def _factor(value: float) -> float:
    """Return by what factor a positive value is from one."""
    return max(value, 1.0 / value) if value > 0 else math.inf


class QualityLimitsConfig(Config):
    """Limits on the quality metrics of a restored coadd.

    Defaults are for campaigns on ground-based exposures whose PSFs are
    fitted; a large number is no limit.
    """

    dropped_fraction = _Limits(
        "Fraction of the exposures dropped for faults",
        (0.1, 0.5),
        "{value:.0%} of the exposures were dropped for faults, more than {limit:.0%}: see their reasons.",
    )
    missing_exposures = _Limits(
        "Exposures that a pixel lacks of min_exposures, on average",
        (0.5, 1.5),
        "On average a pixel lacks {value:.1f} of the exposures from which artefacts can be told from "
        "sources.",
    )
    chi_square = _Limits(
        "Factor by which the reduced chi-square of all pixels is from 1",
        (1.5, 3.0),
        "The exposures have a reduced chi-square of {value:.2f} under the model, beyond a factor of "
        "{limit:g}: variances, PSFs or masks of some do not fit the pixels.",
        _factor,
    )
    chi_square_weight = _Limits(
        "Weight of exposures whose chi-square is beyond a factor of 2",
        (0.1, 0.5),
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have a chi-square beyond a "
        "factor of 2.",
    )
    exposure_chi_square = _Limits(
        "Largest chi-square of an exposure with a hundredth of the weight",
        (4.0, 1e3),
        "An exposure has a reduced chi-square of {value:.1f}, more than {limit:g}: its variances or "
        "its PSF do not fit its pixels.",
    )
    variance_error_weight = _Limits(
        "Weight of exposures whose variances were rescaled",
        (0.1, 1.0),
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have variances that "
        "disagree with their blank sky.",
    )
    psf_error_weight = _Limits(
        "Weight of exposures whose PSF does not fit their stars",
        (0.1, 0.5),
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, have a PSF that does not "
        "fit their stars.",
    )
    calibration_error_weight = _Limits(
        "Weight of exposures that are offset from the others in flux scale or position",
        (0.1, 0.5),
        "Exposures with {value:.0%} of the weight, more than {limit:.0%}, are offset from the others in "
        "flux scale or position.",
    )
    suspect_exposures = _Limits(
        "Number of exposures that may be outliers, without proof",
        (0.0, 1e3),
        "{value:.0f} exposure(s) are offset from the others beyond the limits, but not certainly "
        "enough to be dropped: see the details.",
    )
    background_offset = _Limits(
        "Largest background removed from an exposure, in sigma of a pixel of the linear coadd",
        (2.0, 10.0),
        "A background of up to {value:.1f} sigma of a pixel of the coadd, more than {limit:g}, was "
        "subtracted from an exposure.",
    )
    rejected_fraction = _Limits(
        "Fraction of the pixels of the exposures rejected as artefacts",
        (0.03, 0.15),
        "{value:.1%} of the pixels, more than {limit:.1%}, were rejected as artefacts: look for "
        "stars among them.",
    )
    failed_fraction = _Limits(
        "Fraction of the tiles that could not be restored",
        (0.0, 0.25),
        "{value:.0%} of the tiles could not be restored, more than {limit:.0%}.",
    )
    network_doubt = _Limits(
        "1 if the trained network that was used may not suit the exposures, else 0",
        (0.0, 1.0),
        "The trained network may not suit these exposures: see the details.",
    )
    unconverged = _Limits(
        "1 if the fit reached its largest number of epochs, else 0",
        (0.0, 1.0),
        "The fit reached its largest number of epochs before it converged.",
    )
    unconverged_solves = _Limits(
        "Fraction of the iterative solves that did not converge",
        (0.0, 0.5),
        "{value:.1%} of the iterative solves, more than {limit:.0%}, did not converge.",
    )
    no_data_fraction = _Limits(
        "Fraction of the patch without data",
        (0.5, 0.95),
        "{value:.0%} of the patch, more than {limit:.0%}, has no data.",
    )
    linear_psf_residual = _Limits(
        "Residual of stars from the declared PSF, relative to the peak",
        (0.01, 0.03),
        "Stars of the linear coadd differ from the declared PSF by {value:.1%} of their peak, more "
        "than {limit:.1%}: the target PSF is too sharp for these exposures.",
    )
    psf_flux_error = _Limits(
        "Relative error of PSF fluxes from errors of PSFs that were measured and not corrected",
        (0.01, 0.03),
        "PSF fluxes are wrong by {value:+.1%}, beyond {limit:.0%}, from errors of PSFs that were measured "
        "and not corrected: see the details.",
        abs,
    )
    star_width_error = _Limits(
        "Relative error of the width of stars from the declared PSF",
        (0.03, 0.1),
        "Stars of the coadd to measure on are {wider} by {size:.1%} than the declared PSF, beyond "
        "{limit:.1%}.",
        abs,
    )
    flux_offset = _Limits(
        "Relative difference of star fluxes from the direct coadd",
        (0.01, 0.03),
        "Bright stars of the coadd to measure on differ in flux by {value:+.2%} from the direct "
        "coadd, beyond {limit:.1%} and three standard deviations.",
        abs,
    )
    denoised_flux_offset = _Limits(
        "Relative difference of fluxes of bright stars on the denoised and on the linear coadd",
        (0.02, 0.05),
        "Bright stars of the denoised coadd differ in flux by {value:+.2%} from the coadd to measure "
        "on, beyond {limit:.1%} and three standard deviations.",
        abs,
    )


def judge(metrics: Mapping[str, float], limits: QualityLimitsConfig) -> tuple[Verdict, list[dict[str, Any]]]:
    """Compare quality metrics with their limits.

    Parameters
    ----------
    metrics
        Metrics by name; those that are NaN or absent are unknown, and keep
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
    checks = [
        cast(_Limits, field).judge(name, float(metrics.get(name, math.nan)), getattr(limits, name))
        for name, field in limits._fields.items()
    ]
    return max((Verdict(check["verdict"]) for check in checks), key=list(Verdict).index), checks
