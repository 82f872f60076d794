# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Numbers of restorations with and without injected sources."""

from __future__ import annotations

__all__ = (
    "CoaddPair",
    "find_injections",
    "injection_bins",
    "injection_metrics",
    "measure_injections",
    "median_error_factor",
)

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lsst.images import Box
from lsst.images.cells import CellCoadd

from ..adapters import CoaddArrays
from ..core import kernel_fwhm
from ..metrics import (
    blank_sky,
    count_recovered,
    detect_sources,
    flux_error_factor,
    has_counterpart,
    matched_fluxes,
    surface_brightness,
)

if TYPE_CHECKING:
    from ..simulation import SourceStamp

_MAX_WIDTH_DIFFERENCE = 1e-3
"""Relative difference of the FWHM of two PSFs that counts as none: it changes
fluxes by less than two parts in a thousand."""


@dataclasses.dataclass(frozen=True)
class CoaddPair:
    """A coadd without and with injected sources.

    Attributes
    ----------
    plain, injected
        The coadds on one grid, with the same blank pixels.
    error_factor
        Error of a PSF flux over that for white noise.

    Raises
    ------
    ValueError
        If their PSFs differ.
    """

    plain: CoaddArrays
    injected: CoaddArrays
    error_factor: float = 1.0

    def __post_init__(self) -> None:
        one, other = (kernel_fwhm(coadd.psf) for coadd in (self.plain, self.injected))
        if not abs(one - other) <= _MAX_WIDTH_DIFFERENCE * one:
            raise ValueError(
                f"The PSFs of the coadds without and with injected sources differ: {one:.4f} and {other:.4f} "
                "pixels.  Set the target_fwhm of both restorations."
            )


def median_error_factor(coadd: CoaddArrays) -> float:
    """Return the median error of a PSF flux over that for white noise.

    Parameters
    ----------
    coadd
        The coadd; without a correlation of the noise the factor is 1.
    """
    if coadd.correlation is None:
        return 1.0
    stamps = coadd.correlation.reshape(-1, *coadd.correlation.shape[-2:])
    return float(np.nanmedian(flux_error_factor(stamps, coadd.psf)))


def find_injections(catalogue: Table, coadd: CellCoadd, pair: CoaddPair) -> tuple[Table, list[SourceStamp]]:
    """Return the injected sources on a patch, and how they look on it.

    Parameters
    ----------
    catalogue
        The injection catalogue.
    coadd
        A coadd of the patch.
    pair
        The same as arrays.

    Returns
    -------
    sources : `astropy.table.Table`
        Rows of the catalogue whose light touches the coadd, with ``x`` and
        ``y`` in tract pixels, true ``flux`` in nJy, ``surface_brightness``
        (NaN for stars), and ``is_measured``: whether the source lies in the
        inner region of the patch, on a pixel with a value.
    templates : `list` [`~lsst.astroclearnet.simulation.SourceStamp`]
        Their light at the PSF of the coadd.
    """
    from ..simulation import draw_injections

    bbox, arrays = coadd.bbox, pair.plain

    def psf(x: float, y: float) -> np.ndarray:
        rows, columns = arrays.cells_of(np.array([x - bbox.x.min]), np.array([y - bbox.y.min]))
        return np.asarray(arrays.psfs[rows[0], columns[0]])

    templates = list(draw_injections(catalogue, coadd.sky_projection, bbox, psf))
    sources = catalogue[[template.index for template in templates]]
    x, y = (np.array([getattr(template, axis) for template in templates]) for axis in ("x", "y"))
    sources["x"], sources["y"] = x * u.pix, y * u.pix
    sources["flux"] = np.array([template.flux for template in templates]) * u.nJy
    is_galaxy = np.asarray(sources["source_type"], dtype=str) == "Sersic"
    radius = np.asarray(sources["half_light_radius"], dtype=float) if is_galaxy.any() else 0.0
    sources["surface_brightness"] = surface_brightness(sources["mag"], np.where(is_galaxy, radius, 0.0))
    inner = coadd.patch.inner_bbox
    is_inside = (np.rint(x) >= inner.x.min) & (np.rint(x) <= inner.x.max)
    is_inside &= (np.rint(y) >= inner.y.min) & (np.rint(y) <= inner.y.max)
    value = arrays.image[_nearest_pixels(x - bbox.x.min, y - bbox.y.min, arrays.image.shape)]
    sources["is_measured"] = is_inside & np.isfinite(value)
    return sources, templates


def measure_injections(
    sources: Table,
    templates: Sequence[SourceStamp],
    pairs: Mapping[str, CoaddPair],
    bbox: Box,
    *,
    threshold: float,
    match_radius: float,
) -> dict[str, dict[str, int]]:
    """Measure and look for the injected sources in each pair of coadds.

    Parameters
    ----------
    sources
        Table of `find_injections`, which gets the columns ``is_on_source``,
        whether something is detected there without the injection, in any of
        the coadds; and for each pair ``<name>_flux_ratio``, fitted over true
        flux, and ``<name>_is_detected``.
    templates
        Light of the sources.
    pairs
        Coadds by name.
    bbox
        Box of the coadds.
    threshold
        Detection threshold in sigma of a PSF flux.
    match_radius
        Distance in FWHM up to which a detection is that of a source.

    Returns
    -------
    counts : `dict` [`str`, `dict` [`str`, `int`]]
        For each pair ``num_appeared`` and ``num_vanished``: detections away
        from injected sources in the coadd with them and not in that without,
        and the reverse.
    """
    first = next(iter(pairs.values())).plain
    x, y = (np.asarray(sources[axis], dtype=float) for axis in ("x", "y"))
    x, y = x - bbox.x.min, y - bbox.y.min
    nearest = _nearest_pixels(x, y, first.image.shape)
    radius = match_radius * kernel_fwhm(first.psf)
    light = [(stamp.rows, stamp.columns, stamp.light) for stamp in templates]
    on_source = np.zeros(len(sources), dtype=bool)
    counts = {}
    for name, pair in pairs.items():
        limit = threshold * pair.error_factor
        before, footprint = detect_sources(
            pair.plain.image, pair.plain.variance, pair.plain.psf, threshold=limit
        )
        after, _ = detect_sources(
            pair.injected.image, pair.injected.variance, pair.injected.psf, threshold=limit
        )
        on_source |= ~blank_sky(pair.plain.image, footprint, radius)[nearest]
        sources[f"{name}_flux_ratio"] = matched_fluxes(pair.injected.image - pair.plain.image, light)
        sources[f"{name}_is_detected"] = has_counterpart(x, y, after["x"], after["y"], radius=radius)
        counts[name] = {
            "num_appeared": _count_new(after, before, x, y, radius),
            "num_vanished": _count_new(before, after, x, y, radius),
        }
    sources["is_on_source"] = on_source
    return counts


def _nearest_pixels(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the nearest pixels in an image."""
    rows, columns = (
        np.clip(np.rint(values).astype(int), 0, size - 1) for values, size in zip((y, x), shape, strict=True)
    )
    return rows, columns


def _count_new(some: Table, others: Table, x: np.ndarray, y: np.ndarray, radius: float) -> int:
    """Count detections that are not among others, nor at positions."""
    known = np.concatenate([others["x"], x]), np.concatenate([others["y"], y])
    return int((~has_counterpart(some["x"], some["y"], *known, radius=radius)).sum())


def injection_bins(sources: Table, names: Sequence[str], *, step: float) -> list[dict[str, Any]]:
    """Return completeness and fluxes by magnitude and surface brightness.

    Only sources count that lie where nothing is detected without them.

    Parameters
    ----------
    sources
        Table of `measure_injections`.
    names
        Names of the coadds.
    step
        Width of the bins.

    Returns
    -------
    bins : `list` [`dict`]
        Those of `~lsst.astroclearnet.metrics.count_recovered`, with the
        ``image``, the ``kind`` of the sources (``star`` or ``galaxy``) and the
        ``property`` (``magnitude`` or, for galaxies, ``surface_brightness``).
    """
    alone = sources[~np.asarray(sources["is_on_source"])]
    galaxy = np.isfinite(np.asarray(alone["surface_brightness"], dtype=float))
    bins: list[dict[str, Any]] = []
    for name in names:
        for kind, chosen, columns in (
            ("star", ~galaxy, {"magnitude": "mag"}),
            ("galaxy", galaxy, {"magnitude": "mag", "surface_brightness": "surface_brightness"}),
        ):
            part = alone[chosen]
            for quantity, column in columns.items():
                counted = count_recovered(
                    np.asarray(part[column], dtype=float),
                    part[f"{name}_is_detected"],
                    part[f"{name}_flux_ratio"],
                    step=step,
                )
                bins += [{"image": name, "kind": kind, "property": quantity, **each} for each in counted]
    return bins


def injection_metrics(sources: Table, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the numbers of a patch that have no bins.

    Parameters
    ----------
    sources
        Table of `measure_injections`.
    counts
        What it returned.

    Returns
    -------
    metrics : `dict`
        ``num_sources``, ``num_on_source``, and ``images``: for each coadd
        ``num_appeared``, ``num_vanished`` and the median
        ``flux_ratio_on_source`` of sources on others, NaN without any.
    """
    on_source = np.asarray(sources["is_on_source"])
    images = {}
    for name, numbers in counts.items():
        ratio = np.asarray(sources[f"{name}_flux_ratio"], dtype=float)[on_source]
        ratio = ratio[np.isfinite(ratio)]
        images[name] = {
            **numbers,
            "flux_ratio_on_source": float(np.median(ratio)) if ratio.size else math.nan,
        }
    return {"num_sources": len(sources), "num_on_source": int(on_source.sum()), "images": images}
