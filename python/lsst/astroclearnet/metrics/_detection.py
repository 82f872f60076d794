# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detection of sources and selection of stars."""

from __future__ import annotations

__all__ = ("blank_sky", "detect_sources", "find_stars")

from typing import Any

import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from ._widths import fwhm_of_kernel

_NUM_PIXELS = 5
"""Least number of connected pixels of a detection."""

_MIN_PIXEL_STACK = 300_000
_MAX_SUB_OBJECTS = 100_000
"""Limits of ``sep`` on pixels and blended components."""

# Selection of stars: lengths in FWHM of the PSF, fluxes relative to the star.
_APERTURE_FWHMS = 2.0
_RADIUS_TOLERANCE = 0.12
_NEIGHBOR_FWHMS = 5.0
_MAX_NEIGHBOR_FLUX = 0.05
_MARGIN_FWHMS = 3.0


def detect_sources(
    image: NDArray[Any], variance: NDArray[Any], psf: NDArray[Any], *, threshold: float = 5.0
) -> tuple[Table, NDArray[np.bool_]]:
    """Detect the sources of an image.

    Source Extractor (Bertin & Arnouts 1996, A&AS 117, 393) as implemented in
    ``sep``, with the PSF as matched filter.

    Parameters
    ----------
    image, variance
        Background-subtracted image and its variance, shape (H, W).
    psf
        PSF stamp, shape (P, P) with P odd, centred on its middle pixel, unit
        sum.
    threshold
        Detection threshold in sigma of the filtered image, for white noise.

    Returns
    -------
    sources : `astropy.table.Table`
        A row for each source whose aperture has a good pixel, the brightest
        first: ``x``, ``y`` (pixels), ``flux`` within two FWHM and its
        half-light ``radius`` in pixels, ``signal_to_noise`` of an optimal
        point-source flux of this size for white noise, and ``flag`` of
        ``sep``, not 0 for a source that is blended or truncated.
    footprint : `numpy.ndarray`
        Shape (H, W), bool, pixels of all detections.
    """
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    data = np.ascontiguousarray(np.where(good, image, 0.0), dtype=float)
    sigma = np.ascontiguousarray(np.sqrt(np.where(good, variance, 1.0)), dtype=float)
    bad = np.ascontiguousarray(~good)
    # Process-wide limits that crowded patches of full size would exceed.
    sep.set_extract_pixstack(max(_MIN_PIXEL_STACK, 2 * data.size))
    sep.set_sub_object_limit(_MAX_SUB_OBJECTS)
    found, segments = sep.extract(
        data,
        threshold,
        err=sigma,
        mask=bad,
        minarea=_NUM_PIXELS,
        filter_kernel=np.ascontiguousarray(psf, dtype=float),
        filter_type="matched",
        segmentation_map=True,
        # It takes faint sources for the wings of bright ones tens of pixels
        # away: half of those of the demonstration.
        clean=False,
    )
    x, y = np.asarray(found["x"], dtype=float), np.asarray(found["y"], dtype=float)
    aperture = _APERTURE_FWHMS * fwhm_of_kernel(psf)
    flux = np.empty(0)
    radius = np.empty(0)
    if x.size:
        flux, _, _ = sep.sum_circle(data, x, y, aperture, mask=bad)
        radius, _ = sep.flux_radius(data, x, y, np.full(x.size, aperture), 0.5, normflux=flux, mask=bad)
    white = np.sqrt(np.median(variance[good]) / np.sum(np.square(psf, dtype=float))) if good.any() else np.nan
    table = Table(
        {
            "x": x,
            "y": y,
            "flux": flux,
            "radius": radius,
            "signal_to_noise": flux / white,
            "flag": np.asarray(found["flag"], dtype=np.int64),
        }
    )
    table = table[np.isfinite(table["flux"])]
    return table[np.argsort(-table["flux"], kind="stable")], segments > 0


def blank_sky(image: NDArray[Any], footprint: NDArray[np.bool_], margin: float) -> NDArray[np.bool_]:
    """Return the pixels without a detected source.

    Parameters
    ----------
    image
        Image, shape (H, W).
    footprint
        Pixels of sources as of `detect_sources`, shape (H, W).
    margin
        Distance in pixels to keep from them.

    Returns
    -------
    blank : `numpy.ndarray`
        Shape (H, W), bool.
    """
    blank = np.isfinite(image)
    if footprint.any():
        blank &= distance_transform_edt(~footprint) > margin
    return blank


def find_stars(
    sources: Table, good: NDArray[np.bool_], psf: NDArray[Any], *, min_signal_to_noise: float
) -> Table:
    """Choose bright isolated stars among detected sources.

    Parameters
    ----------
    sources
        Table of `detect_sources`.
    good
        Pixels with data, shape (H, W).
    psf
        PSF stamp, shape (P, P) with P odd.
    min_signal_to_noise
        Minimum signal-to-noise ratio.

    Returns
    -------
    stars : `astropy.table.Table`
        Rows of ``sources``: unblended, with the half-light radius of the PSF
        to 12 percent, without a neighbour of more than 5 percent of their flux
        within five FWHM, and three FWHM away from the border and from bad
        pixels.
    """
    fwhm = fwhm_of_kernel(psf)
    x, y, flux = (np.asarray(sources[name], dtype=float) for name in ("x", "y", "flux"))
    ratio = np.asarray(sources["radius"], dtype=float) / _half_light_radius(psf, _APERTURE_FWHMS * fwhm)
    chosen = (
        (np.asarray(sources["signal_to_noise"]) >= min_signal_to_noise)
        & (np.asarray(sources["flag"]) == 0)
        & (np.abs(ratio - 1.0) < _RADIUS_TOLERANCE)
    )
    distance = distance_transform_edt(np.pad(good, 1))[1:-1, 1:-1]
    row, column = (
        np.clip(np.rint(values).astype(int), 0, size - 1)
        for values, size in zip((y, x), good.shape, strict=True)
    )
    chosen &= distance[row, column] > _MARGIN_FWHMS * fwhm
    if x.size > 1:
        for one, other in cKDTree(np.column_stack([x, y])).query_pairs(_NEIGHBOR_FWHMS * fwhm):
            chosen[one] &= not flux[other] > _MAX_NEIGHBOR_FLUX * flux[one]
            chosen[other] &= not flux[one] > _MAX_NEIGHBOR_FLUX * flux[other]
    return sources[chosen]


def _half_light_radius(psf: NDArray[Any], aperture: float) -> float:
    """Return the half-light radius of a PSF within an aperture."""
    padded = np.ascontiguousarray(np.pad(psf, int(np.ceil(aperture))), dtype=float)
    middle = [0.5 * (padded.shape[0] - 1)]
    flux, _, _ = sep.sum_circle(padded, middle, middle, aperture)
    radius, _ = sep.flux_radius(padded, middle, middle, [aperture], 0.5, normflux=flux)
    return float(radius[0])
