# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Select the visit images that a patch is restored from."""

from __future__ import annotations

__all__ = ("SelectExposuresConfig", "SelectExposuresTask", "VisitSelections")

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import astropy.units as u
import numpy as np

from lsst.images import ObservationSummaryStats
from lsst.pex.config import Config, ListField, RangeField
from lsst.pipe.base import Struct, Task
from lsst.sphgeom import ConvexPolygon

from ..adapters import (
    ExposureId,
    PatchGeometry,
    UnusableExposureError,
    VisitComponents,
    VisitFootprint,
    VisitImageSource,
    box_region,
    source_id,
)
from ..metrics import seeing_of_kernel

type VisitSelections = Mapping[str, frozenset[int]]
"""Selected visits by the name of their instrument."""

_SIGNIFICANCE = 5.0
"""Signal-to-noise ratio of a point source at the depth of an exposure."""


def _upper_limit(doc: str) -> RangeField:
    """Return a field of a limit that is off by default."""
    return RangeField(doc=doc, dtype=float, default=None, optional=True, min=0.0, inclusiveMin=False)


class _StatsLimit(RangeField):
    """A limit on a number in `lsst.images.ObservationSummaryStats`.

    Parameters
    ----------
    words
        What is limited.
    rubin
        The limit of Rubin's coadds, as in
        ``lsst.pipe.tasks.selectImages.PsfWcsSelectImagesTask``.
    value
        Function that returns the number.
    is_minimum
        Whether this is a lower limit.
    """

    def __init__(
        self,
        words: str,
        rubin: float,
        value: Callable[[ObservationSummaryStats], float],
        is_minimum: bool = False,
    ) -> None:
        self.words, self.value, self.is_minimum = words, value, is_minimum
        super().__init__(
            doc=f"{'Smallest' if is_minimum else 'Largest'} {words}; Rubin's coadds: {rubin:g}.",
            dtype=int if is_minimum else float,
            default=None,
            optional=True,
            min=int(is_minimum),
            inclusiveMin=is_minimum,
        )

    def enforce(
        self, name: str, stats: ObservationSummaryStats, limit: float, summary: dict[str, float]
    ) -> None:
        """Record the number, and refuse an exposure beyond the limit."""
        key = name[4:]  # without max_ or min_
        value = summary[key] = float(self.value(stats))
        if value < limit if self.is_minimum else value > limit:
            raise UnusableExposureError(
                key,
                f"The {self.words} is {value:.4g}, {'less' if self.is_minimum else 'more'} than "
                f"{name}={limit:g}.",
            )


class SelectExposuresConfig(Config):
    """Configuration of `SelectExposuresTask`.

    By default there is no limit, and nothing is read.  A summary
    statistic that is missing or NaN rejects nothing.
    """

    exclude_detectors = ListField[int](
        doc="Detectors whose exposures are excluded in every visit, whatever the instrument.", default=[]
    )
    max_psf_fwhm = _upper_limit(
        "Largest FWHM (arcsec) of the PSF in the middle of the overlap with the patch: its full width at "
        "half maximum, as in the metrics and in 'astroclearnet plan'."
    )
    min_overlap = RangeField(
        doc="Smallest fraction of the outer box of the patch that an exposure must cover.",
        dtype=float,
        default=0.0,
        min=0.0,
        max=1.0,
        inclusiveMax=True,
    )
    min_depth = RangeField(
        doc="Smallest depth: AB magnitude of a point source of signal to noise 5, limited by the noise of "
        "the sky where the exposure overlaps the patch.",
        dtype=float,
        default=None,
        optional=True,
        min=0.0,
    )
    max_ellipticity_residual = _StatsLimit(
        "median ellipticity residual of the PSF stars",
        0.007,
        lambda stats: math.hypot(stats.psfStarDeltaE1Median, stats.psfStarDeltaE2Median),
    )
    max_scaled_size_scatter = _StatsLimit(
        "scaled scatter of the size residuals of the PSF stars",
        0.019,
        lambda stats: stats.psfStarScaledDeltaSizeScatter,
    )
    max_psf_trace_radius_delta = _StatsLimit(
        "range (pixels) of the trace radius of the PSF model", 0.7, lambda stats: stats.psfTraceRadiusDelta
    )
    max_psf_ap_flux_delta = _StatsLimit(
        "range of the aperture flux of the PSF model", 0.24, lambda stats: stats.psfApFluxDelta
    )
    max_psf_ap_corr_sigma_scaled_delta = _StatsLimit(
        "range of the aperture correction of the PSF model over the PSF size",
        0.22,
        lambda stats: stats.psfApCorrSigmaScaledDelta,
    )
    max_star_ellipticity = _StatsLimit(
        "median ellipticity of the PSF stars", 0.4, lambda stats: stats.starEMedian
    )
    max_star_unnormalized_ellipticity = _StatsLimit(
        "median unnormalized ellipticity (pixel^2) of the PSF stars",
        2.8,
        lambda stats: stats.starUnNormalizedEMedian,
    )
    # No model is made of no star: the default 0 means that none was counted.
    min_psf_stars = _StatsLimit(
        "number of PSF stars", 6, lambda stats: stats.nPsfStar or math.nan, is_minimum=True
    )
    max_visits = RangeField(
        doc="Largest number of visits, those with the most information about point sources on the patch.",
        dtype=int,
        default=None,
        optional=True,
        min=1,
    )
    max_exposures = RangeField(
        doc="Largest number of exposures, those with the most information about point sources on the patch; "
        "it counts after max_visits.",
        dtype=int,
        default=None,
        optional=True,
        min=1,
    )

    @property
    def needs_depth(self) -> bool:
        """Whether the noise of exposures must be known (`bool`)."""
        return any(limit is not None for limit in (self.min_depth, self.max_visits, self.max_exposures))

    @property
    def needs_psf(self) -> bool:
        """Whether the PSF of exposures must be known (`bool`)."""
        return self.needs_depth or self.max_psf_fwhm is not None

    @property
    def stats_limits(self) -> dict[str, _StatsLimit]:
        """Limits on summary statistics that are set (`dict`)."""
        return {
            name: field
            for name, field in self._fields.items()
            if isinstance(field, _StatsLimit) and getattr(self, name) is not None
        }

    @property
    def needs_reading(self) -> bool:
        """Whether anything must be known beside the identity (`bool`)."""
        return self.min_overlap > 0 or self.needs_psf or bool(self.stats_limits)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """An exposure that keeps all limits, with its place among the inputs."""

    index: int
    identity: ExposureId
    information: float  # about point-source fluxes, nJy^-2; 0 if not needed


class SelectExposuresTask(Task):
    """Select the visit images that a patch is restored from.

    Limits are on quantities that need no image pixels: projection, PSF,
    summary statistics and, for the depth, variance and mask of the overlap.
    They are read only where a limit needs them, and not at all by default: an
    exposure without overlap is then left out by the task that reads it.

    The best exposures are those with the most information about the flux of
    point sources limited by the noise of the sky: sum f^2 / v, with the PSF f
    and the variance v of the blank sky on pixels of the patch, times the
    fraction of the patch that has usable pixels.
    """

    ConfigClass = SelectExposuresConfig
    _DefaultName = "selectExposures"
    config: SelectExposuresConfig

    def run(
        self,
        *,
        visit_images: Sequence[VisitImageSource],
        geometry: PatchGeometry,
        selections: VisitSelections | None = None,
    ) -> Struct:
        """Select visit images.

        Parameters
        ----------
        visit_images
            Visit images, or deferred handles of them, in any order.
        geometry
            Geometry of the patch.
        selections
            Visits selected elsewhere, by instrument, from
            `parse_visit_selections`; the others are left out.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            ``selected`` (`list`), the sources to use in the order of the
            input; ``rejected`` (`dict` [`str`, `str`]), the reason for each
            other one, a slug and words with value and limit, by the name of
            the exposure; and ``summaries`` (`dict` [`str`, `dict`]), what was
            found of each exposure of which something was read: ``overlap``
            (fraction of the patch), ``psf_fwhm`` (arcsec), ``depth`` (AB
            mag), ``information`` (1 / nJy^2), and summary statistics
            under the name of their limit.
        """
        region = box_region(geometry.projection, geometry.bbox)
        candidates: list[_Candidate] = []
        rejected: dict[str, str] = {}
        summaries: dict[str, dict[str, float]] = {}
        for index, source in enumerate(visit_images):
            identity = source_id(source)
            summary: dict[str, float] = {}
            try:
                if selections is not None:
                    _require_selected(identity, selections)
                if identity.detector in self.config.exclude_detectors:
                    raise UnusableExposureError(
                        "excluded_detector", f"Detector {identity.detector} is in exclude_detectors."
                    )
                if self.config.needs_reading:
                    self._examine(source, region, geometry.pixel_scale, summary)
                candidates.append(_Candidate(index, identity, summary.get("information", 0.0)))
            except UnusableExposureError as exc:
                rejected[str(identity)] = f"{exc.reason}: {exc}"
            if summary:
                summaries[str(identity)] = summary
        for limit, groups in (
            ("max_visits", lambda candidate: candidate.identity.visit_key),
            ("max_exposures", lambda candidate: candidate.index),
        ):
            candidates = self._keep_best(candidates, limit, groups, rejected)
        for name, reason in rejected.items():
            self.log.verbose("Not selected: %s (%s)", name, reason)
        self.log.info("Selected %d of %d visit images.", len(candidates), len(visit_images))
        selected = [visit_images[index] for index in sorted(candidate.index for candidate in candidates)]
        return Struct(selected=selected, rejected=rejected, summaries=summaries)

    def _examine(
        self,
        source: VisitImageSource,
        region: ConvexPolygon,
        pixel_scale: float,
        summary: dict[str, float],
    ) -> None:
        """Compare an exposure with the limits, and enter what is found."""
        config = self.config
        components = VisitComponents(source)
        limits = config.stats_limits
        names = ["psf"] * config.needs_psf + ["summary_stats"] * bool(limits)
        parts = components.read("sky_projection", "bbox", *names)
        footprint = VisitFootprint(parts["sky_projection"], parts["bbox"])
        overlap = footprint.overlap(region)
        if overlap is None:
            raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
        summary["overlap"] = overlap.fraction
        if overlap.fraction < config.min_overlap:
            raise UnusableExposureError(
                "small_overlap",
                f"It covers {overlap.fraction:.4f} of the patch, less than "
                f"min_overlap={config.min_overlap:g}.",
            )
        for name, field in limits.items():
            if parts["summary_stats"] is not None:
                field.enforce(name, parts["summary_stats"], getattr(config, name), summary)
        if not config.needs_psf:
            return
        stamp = footprint.psf_stamp(parts["psf"], y=overlap.y, x=overlap.x, pixel_scale=pixel_scale)
        fwhm = summary["psf_fwhm"] = seeing_of_kernel(stamp) * pixel_scale
        if config.max_psf_fwhm is not None and fwhm > config.max_psf_fwhm:
            raise UnusableExposureError(
                "psf_fwhm",
                f"Its PSF has a FWHM of {fwhm:.3f} arcsec, more than max_psf_fwhm={config.max_psf_fwhm:g}.",
            )
        if not config.needs_depth:
            return
        variance, usable = components.sky_variance(overlap.bbox)
        information = float(np.sum(stamp**2)) / footprint.resize_variance(variance, pixel_scale)
        summary["information"] = information * overlap.fraction * usable
        depth = summary["depth"] = _depth(information)
        if config.min_depth is not None and depth < config.min_depth:
            raise UnusableExposureError(
                "depth", f"Its depth is {depth:.2f} mag, less than min_depth={config.min_depth:g}."
            )

    def _keep_best(
        self,
        candidates: Sequence[_Candidate],
        field: str,
        group: Callable[[_Candidate], object],
        rejected: dict[str, str],
    ) -> list[_Candidate]:
        """Keep the groups of exposures with the most information."""
        limit: int | None = getattr(self.config, field)
        if limit is None:
            return list(candidates)
        ranks = _rank(candidates, group)
        kept = []
        for candidate in candidates:
            rank = ranks[group(candidate)]
            if rank <= limit:
                kept.append(candidate)
            else:
                rejected[str(candidate.identity)] = (
                    f"not_among_best: It is number {rank} of {len(ranks)} by its information about point "
                    f"sources, beyond {field}={limit}."
                )
        return kept


def _require_selected(identity: ExposureId, selections: VisitSelections) -> None:
    """Refuse an exposure whose visit is not selected."""
    if identity.instrument not in selections:
        names = ", ".join(sorted(selections)) or "none"
        raise UnusableExposureError(
            "visit_not_selected",
            f"There is no visit selection of instrument {identity.instrument!r}; there are: {names}.",
        )
    visits = selections[identity.instrument]
    if identity.visit not in visits:
        raise UnusableExposureError(
            "visit_not_selected",
            f"Visit {identity.visit} is not among the {len(visits)} of the visit selection.",
        )


def _rank(candidates: Sequence[_Candidate], group: Callable[[_Candidate], object]) -> Mapping[object, int]:
    """Return the ranks, from 1, of groups of exposures by information."""
    total: dict[object, float] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.identity):
        key = group(candidate)
        total[key] = total.get(key, 0.0) + candidate.information
    best_first = sorted(total, key=lambda key: -total[key])
    return {key: rank for rank, key in enumerate(best_first, start=1)}


def _depth(information: float) -> float:
    """Return the 5-sigma point-source depth, an AB magnitude."""
    flux = _SIGNIFICANCE / math.sqrt(information) * u.nJy
    return float(flux.to_value(u.ABmag))
