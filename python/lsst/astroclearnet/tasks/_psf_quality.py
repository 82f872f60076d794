# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Limits on the quality of the PSF model of a visit image."""

from __future__ import annotations

__all__ = ("QUALITY_LIMITS", "QualityLimit", "check_psf_quality")

import dataclasses
import math
from collections.abc import Callable

from lsst.images import ObservationSummaryStats
from lsst.pex.config import Config

from ..adapters import UnusableExposureError


@dataclasses.dataclass(frozen=True)
class QualityLimit:
    """A limit on a figure of `lsst.images.ObservationSummaryStats`.

    Attributes
    ----------
    field
        Name of the configuration field; those that begin with ``min`` are
        lower limits.
    words
        What the figure is.
    value
        Function that takes the figure from the statistics.
    """

    field: str
    words: str
    value: Callable[[ObservationSummaryStats], float]

    @property
    def is_minimum(self) -> bool:
        """Whether the limit is a lower one (`bool`)."""
        return self.field.startswith("min")

    @property
    def name(self) -> str:
        """Name of the figure (`str`)."""
        return self.field[4:]


QUALITY_LIMITS = (
    QualityLimit(
        "max_ellipticity_residual",
        "median ellipticity residual of the PSF stars",
        lambda stats: math.hypot(stats.psfStarDeltaE1Median, stats.psfStarDeltaE2Median),
    ),
    QualityLimit(
        "max_scaled_size_scatter",
        "scaled scatter of the size residuals of the PSF stars",
        lambda stats: stats.psfStarScaledDeltaSizeScatter,
    ),
    QualityLimit(
        "max_psf_trace_radius_delta",
        "range of the trace radius of the PSF model",
        lambda stats: stats.psfTraceRadiusDelta,
    ),
    QualityLimit(
        "max_psf_ap_flux_delta",
        "range of the aperture flux of the PSF model",
        lambda stats: stats.psfApFluxDelta,
    ),
    QualityLimit(
        "max_psf_ap_corr_sigma_scaled_delta",
        "scaled range of the aperture correction of the PSF model",
        lambda stats: stats.psfApCorrSigmaScaledDelta,
    ),
    QualityLimit(
        "max_star_ellipticity", "median ellipticity of the PSF stars", lambda stats: stats.starEMedian
    ),
    QualityLimit(
        "max_star_unnormalized_ellipticity",
        "median unnormalized ellipticity of the PSF stars",
        lambda stats: stats.starUnNormalizedEMedian,
    ),
    # No model is made of no star: the default 0 means that none was counted.
    QualityLimit("min_psf_stars", "number of PSF stars", lambda stats: stats.nPsfStar or math.nan),
)
"""Limits as in ``lsst.pipe.tasks.selectImages.PsfWcsSelectImagesTask``."""


def check_psf_quality(
    stats: ObservationSummaryStats | None, config: Config, summary: dict[str, float]
) -> None:
    """Compare summary statistics with limits.

    Parameters
    ----------
    stats
        The statistics, if there are any.
    config
        Configuration with the fields of `QUALITY_LIMITS`; one that is `None`
        is no limit.
    summary
        Dictionary that takes the figures, NaN where one is not known.

    Raises
    ------
    UnusableExposureError
        If a figure does not keep its limit; one that is not known, NaN, keeps
        all.
    """
    if stats is None:
        return
    for quality in QUALITY_LIMITS:
        limit = getattr(config, quality.field)
        if limit is None:
            continue
        value = summary[quality.name] = float(quality.value(stats))
        if value < limit if quality.is_minimum else value > limit:
            raise UnusableExposureError(
                quality.name,
                f"The {quality.words} is {value:.4g}, {'less' if quality.is_minimum else 'more'} than "
                f"{quality.field}={limit:g}.",
            )
