# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Numbers of restorations with and without injected sources."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table, vstack

from lsst.images import Box
from lsst.images.cells import CellCoadd

from ..adapters import CoaddArrays
from ..core import kernel_fwhm
from ..metrics import (
    find_peaks,
    has_counterpart,
    matched_fluxes,
    significance_map,
    surface_brightness,
)

if TYPE_CHECKING:
    from ..simulation import SourceStamp

_LEAST_LIGHT = 1.0
"""Signal-to-noise ratio of injected light in a pixel up to which that pixel is
away from injected sources."""

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

    Raises
    ------
    ValueError
        If their PSFs differ.
    """

    plain: CoaddArrays
    injected: CoaddArrays

    def __post_init__(self) -> None:
        one, other = (kernel_fwhm(coadd.psf) for coadd in (self.plain, self.injected))
        if not abs(one - other) <= _MAX_WIDTH_DIFFERENCE * one:
            raise ValueError(
                f"The PSFs of the coadds without and with injected sources differ: {one:.4f} and {other:.4f} "
                "pixels.  Set the target_fwhm of both restorations."
            )

    @cached_property
    def error_factor(self) -> float:
        """Error of a point-source flux over that for white noise (`float`).

        It is the rms of the matched filter on the noise realisations without
        injected sources; 1 if there are none.
        """
        plain = self.plain
        draws = [significance_map(draw, plain.variance, plain.psf)[np.isfinite(draw)] for draw in plain.noise]
        return math.sqrt(float(np.mean(np.square(draws)))) if draws else 1.0

    def significances(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the signal-to-noise ratios of points, without and with."""
        plain, injected = (
            significance_map(coadd.image, coadd.variance, coadd.psf) / self.error_factor
            for coadd in (self.plain, self.injected)
        )
        return plain, injected


def combine_catalogues(catalogues: Sequence[Table]) -> Table:
    """Return the sources of several injection catalogues.

    Parameters
    ----------
    catalogues
        The catalogues, maybe none.

    Returns
    -------
    catalogue : `astropy.table.Table`
        All their rows, with the columns that every source has at least.
    """
    if not catalogues:
        return Table({"ra": [], "dec": [], "source_type": np.zeros(0, dtype="U6"), "mag": []})
    return vstack(list(catalogues), metadata_conflicts="silent")


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
    rows = np.where(is_inside, np.rint(y) - bbox.y.min, 0).astype(int)
    columns = np.where(is_inside, np.rint(x) - bbox.x.min, 0).astype(int)
    sources["is_measured"] = is_inside & np.isfinite(arrays.image[rows, columns])
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
        whether any of the coadds has light above the threshold there without
        the injection; and for each pair ``<name>_flux_ratio``, fitted over
        true flux, and ``<name>_is_detected``, whether the matched filter has a
        peak there.
    templates
        Light of the sources.
    pairs
        Coadds by name.
    bbox
        Box of the coadds.
    threshold
        Detection threshold, a signal-to-noise ratio of point sources.
    match_radius
        Distance in FWHM up to which a detection is that of a source.

    Returns
    -------
    counts : `dict` [`str`, `dict` [`str`, `int`]]
        For each pair ``num_appeared`` and ``num_vanished``: peaks away from
        injected light in the coadd with it and not in that without, and the
        reverse.
    """
    first = next(iter(pairs.values())).plain
    x, y = (np.asarray(sources[axis], dtype=float) for axis in ("x", "y"))
    x, y = x - bbox.x.min, y - bbox.y.min
    radius = match_radius * kernel_fwhm(first.psf)
    light = np.zeros(first.image.shape)
    for stamp in templates:
        light[stamp.rows, stamp.columns] += stamp.light
    is_on_source = np.zeros(len(sources), dtype=bool)
    counts = {}
    for name, pair in pairs.items():
        before, after = pair.significances()
        bright = np.nonzero(before >= threshold)
        is_on_source |= has_counterpart(x, y, bright[1], bright[0], radius=radius)
        found = find_peaks(after, threshold)
        sources[f"{name}_is_detected"] = has_counterpart(x, y, *found, radius=radius)
        sources[f"{name}_flux_ratio"] = matched_fluxes(
            pair.injected.image - pair.plain.image,
            [(stamp.rows, stamp.columns, stamp.light) for stamp in templates],
        )
        away = significance_map(light, pair.plain.variance, pair.plain.psf) < _LEAST_LIGHT * pair.error_factor
        counts[name] = {
            "num_appeared": _count_new(found, find_peaks(before, threshold), away, radius),
            "num_vanished": _count_new(find_peaks(before, threshold), found, away, radius),
        }
    sources["is_on_source"] = is_on_source
    return counts


def _count_new(
    some: tuple[np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray],
    away: np.ndarray,
    radius: float,
) -> int:
    """Count detections, in chosen pixels, that are not among others."""
    return int((away[some[1], some[0]] & ~has_counterpart(*some, *others, radius=radius)).sum())


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
