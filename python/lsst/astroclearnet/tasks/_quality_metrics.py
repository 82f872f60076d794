# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quality metrics of a restored coadd that need no truth."""

from __future__ import annotations

__all__ = ("CoaddImages", "exposure_metrics", "image_metrics")

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from ..adapters import CoaddArrays
from ..core import kernel_fwhm
from ..metrics import (
    blank_sky,
    depth_of_error,
    detect_sources,
    find_stars,
    flux_ratio,
    fwhm_of_kernel,
    measured_depth,
    noise_correlation,
    point_source_depth,
    psf_flux,
    psf_flux_error,
    stellar_fwhms,
)
from ._used_network import is_doubted, is_unconverged
from ._warnings import (
    describe_offsets,
    describe_shared_psf_error,
    psf_changed,
    variances_fit,
    variances_kept,
)

_MAX_CELLS = 16
"""Number of cells whose correlation is measured, for speed."""

_MIN_SIGNIFICANCE = 3.0
"""Significance below which a difference of fluxes is taken for none."""

_LEAST_WEIGHT = 0.01
"""Share of the weight from which the chi-square of an exposure is judged by
itself: of one that has less, an error of the PSF of a single bright star is
most of it, and the coadd hardly follows."""

_MARGIN_FWHMS = 2.0
"""Distance from detected pixels, in FWHM, that is not blank sky."""


@dataclasses.dataclass(frozen=True)
class CoaddImages:
    """Coadds of one patch on one grid.

    Attributes
    ----------
    restored
        The denoised coadd.
    linear
        The one to measure on, if there is one.
    direct
        One made without restoration, if there is one.
    pixel_scale
        Size of a pixel in arcsec.
    """

    restored: CoaddArrays
    linear: CoaddArrays | None
    direct: CoaddArrays | None
    pixel_scale: float

    @property
    def measured(self) -> CoaddArrays:
        """The coadd to measure on
        (`~lsst.astroclearnet.adapters.CoaddArrays`).
        """
        return self.restored if self.linear is None else self.linear


def exposure_metrics(metrics: Mapping[str, Any], min_exposures: int) -> dict[str, float]:
    """Summarize the metrics of the exposures and of the network.

    Parameters
    ----------
    metrics
        The dataset ``restored_coadd_metrics``.
    min_exposures
        Number of exposures that are wanted.

    Returns
    -------
    quality : `dict` [`str`, `float`]
        ``num_exposures``; ``depth_in_exposures``, how many of them a pixel
        with data has in the mean; ``fwhm_in``, median PSF FWHM of the
        exposures, and ``fwhm_in_best``, that of the sharpest, in arcsec;
        ``chi_square``, reduced, of all pixels; ``held_out_chi_square``, twice
        the mean Huber loss of exposures that the network does not see (0.5 for
        each sigma^2 of a small deviation, the error of the prediction
        included); ``rejected_fraction`` of the pixels; ``faintest_flux``,
        believable in the denoised coadd, in nJy; ``psf_shared_width``,
        ``psf_flux_error`` (0 if not significant) and ``psf_flux_systematic``,
        errors of PSFs and of fluxes; the shares of the weight of exposures
        that do not fit, and what else `judge` knows.
    """
    patch, network, image = metrics["patch"], metrics["network"], metrics["image"]
    exposures: Sequence[Mapping[str, Any]] = metrics["exposures"]
    used = [exposure for exposure in exposures if exposure["used_fraction"] > 0]
    widths = [float(exposure["psf_fwhm"]) for exposure in used]
    total = patch["num_exposures"] + patch["num_dropped"]
    area = sum(float(exposure["used_fraction"]) for exposure in used)
    rejected = sum(float(e["rejected_fraction"]) * float(e["used_fraction"]) for e in used)
    # Several detectors of a visit share a patch.
    with_data = 1.0 - float(image["no_data_fraction"])
    depth = area / with_data if with_data > 0 else 0.0
    return {
        "num_exposures": float(len(used)),
        "depth_in_exposures": depth,
        "dropped_fraction": patch["num_dropped"] / total if total else math.nan,
        "missing_exposures": max(0.0, min_exposures - depth),
        "fwhm_in": float(np.median(widths)) if widths else math.nan,
        "fwhm_in_best": min(widths, default=math.nan),
        "chi_square": float(image["chi_square"]),
        "held_out_chi_square": 2.0 * float(network["held_out_loss"]),
        "chi_square_weight": _weight(e for e in used if not variances_fit(e)),
        "variance_error_weight": _weight(e for e in used if not variances_kept(e)),
        "psf_error_weight": _weight(e for e in used if not e["psf_consistent"]),
        "calibration_error_weight": _weight(e for e in used if describe_offsets(e)),
        "suspect_exposures": float(sum(bool(e["suspect_reason"]) for e in used)),
        "exposure_chi_square": max(
            (float(e["chi_square"]) for e in used if e["weight_share"] >= _LEAST_WEIGHT), default=math.nan
        ),
        "background_offset": _largest_background(used, float(image["linear_median_sigma"])),
        "rejected_fraction": rejected / area if area else math.nan,
        "failed_fraction": patch["num_failed_tiles"] / max(1, patch["num_tiles"]),
        "network_doubt": float(is_doubted(network)),
        "unconverged": float(is_unconverged(network)),
        "unconverged_solves": _unconverged_share(metrics.get("solves", {})),
        "no_data_fraction": float(image["no_data_fraction"]),
        "clipped_fraction": float(image["clipped_fraction"]),
        "demanded_fraction": float(image.get("demanded_fraction", math.nan)),
        "supplied_fraction": float(image.get("supplied_fraction", math.nan)),
        "withheld_fraction": float(image.get("withheld_fraction", math.nan)),
        "linear_psf_residual": float(image["linear_psf_residual"]),
        "psf_shared_width": float(image["psf_shared_width"]),
        "psf_flux_error": float(image["psf_flux_error"]) if _psf_errors_matter(used, image) else 0.0,
        "psf_flux_systematic": float(image["psf_flux_systematic"]),
        "faintest_flux": float(image["faintest_flux"]),
    }


def _psf_errors_matter(exposures: Sequence[Mapping[str, Any]], image: Mapping[str, Any]) -> bool:
    """Return whether errors of PSFs that are not corrected are significant."""
    return bool(describe_shared_psf_error(image)) or any(
        psf_changed(e) and not e["psf_refined"] for e in exposures
    )


def image_metrics(images: CoaddImages, min_signal_to_noise: float) -> dict[str, float]:
    """Measure the coadds of a patch.

    Parameters
    ----------
    images
        The coadds.
    min_signal_to_noise
        Signal-to-noise ratio from which on stars are compared.

    Returns
    -------
    quality : `dict` [`str`, `float`]
        Depths are AB magnitudes of 5 sigma point sources: ``depth_direct``
        (white noise of its variance plane), ``depth_linear`` (covariance of
        its noise) and ``depth_restored`` (its noise realisations, in which
        light that it holds back is no error); ``fwhm_out``, that of the
        declared PSF, ``star_fwhm`` and ``star_fwhm_direct`` of the stars in
        arcsec, ``star_width_error``; ``noise_correlation`` of adjacent
        pixels, ``noise_correlation_direct``; ``flux_offset`` of the coadd to
        measure on from the direct one and ``denoised_flux_offset`` of the
        denoised from the one to measure on, for bright stars, 0 where they
        are within three standard deviations of that; the same as measured,
        with their errors, scatters and numbers of stars.
    """
    measured = images.measured
    sources, footprint = detect_sources(measured.image, measured.variance, measured.psf)
    stars = find_stars(
        sources, np.isfinite(measured.image), measured.psf, min_signal_to_noise=min_signal_to_noise
    )
    fwhm = fwhm_of_kernel(measured.psf)
    blank = blank_sky(measured.image, footprint, _MARGIN_FWHMS * fwhm)
    width = _star_width(measured, stars)
    quality = {
        "num_sources": float(len(sources)),
        "fwhm_out": kernel_fwhm(measured.psf) * images.pixel_scale,
        "star_fwhm": width * images.pixel_scale,
        "star_width_error": width / fwhm - 1.0,
        "depth_restored": _realized_depth(images.restored),
        "depth_linear": math.nan,
        "depth_direct": math.nan,
        "noise_correlation": noise_correlation(measured.image, ~blank),
        "noise_correlation_direct": math.nan,
        "star_fwhm_direct": math.nan,
    }
    if images.linear is not None and images.linear.correlation is not None:
        quality["depth_linear"] = _correlated_depth(images.linear)
    fluxes = _star_fluxes(measured, stars, sources)
    if images.direct is not None:
        direct = images.direct
        quality["depth_direct"] = point_source_depth(direct.variance, direct.psf)
        quality["star_fwhm_direct"] = _star_width(direct, stars) * images.pixel_scale
        quality["noise_correlation_direct"] = noise_correlation(direct.image, ~blank)
        quality |= _compare("flux", fluxes, _star_fluxes(direct, stars, sources))
    if images.linear is not None:
        quality |= _compare("denoised_flux", _star_fluxes(images.restored, stars, sources), fluxes)
    return quality


def _weight(exposures: Any) -> float:
    return float(sum(np.nan_to_num(exposure["weight_share"]) for exposure in exposures))


def _unconverged_share(solves: Mapping[str, Mapping[str, Any]]) -> float:
    total = sum(status["num_solves"] for status in solves.values())
    return sum(status["num_unconverged"] for status in solves.values()) / max(1, total)


def _largest_background(exposures: Sequence[Mapping[str, Any]], sigma: float) -> float:
    levels = [abs(float(e["background"][0])) for e in exposures if math.isfinite(e["background_sigma"][0])]
    return max(levels) / sigma if levels and sigma > 0 else math.nan


def _star_width(arrays: CoaddArrays, stars: Table) -> float:
    widths = stellar_fwhms(arrays.image, arrays.variance, stars["x"], stars["y"], stars["flux"])
    return float(np.nanmedian(widths)) if np.isfinite(widths).any() else math.nan


def _star_fluxes(arrays: CoaddArrays, stars: Table, sources: Table) -> np.ndarray:
    """Fit the PSFs of their cells to stars, and to all sources around."""
    x, y = np.asarray(stars["x"], dtype=float), np.asarray(stars["y"], dtype=float)
    all_x, all_y = np.asarray(sources["x"], dtype=float), np.asarray(sources["y"], dtype=float)
    rows, columns = arrays.cells_of(x, y)
    reach = arrays.psfs.shape[-1]
    fluxes = np.full(x.size, np.nan)
    for i, j in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
        chosen = np.flatnonzero((rows == i) & (columns == j))
        top, left = (max(0, int(values[chosen].min()) - reach) for values in (y, x))
        bottom, right = (int(values[chosen].max()) + reach + 1 for values in (y, x))
        others = (all_y > top) & (all_y < bottom) & (all_x > left) & (all_x < right)
        for star in chosen:
            others &= (all_x != x[star]) | (all_y != y[star])
        flux, _ = psf_flux(
            arrays.image[top:bottom, left:right],
            arrays.variance[top:bottom, left:right],
            arrays.psfs[i, j],
            np.concatenate([x[chosen], all_x[others]]) - left,
            np.concatenate([y[chosen], all_y[others]]) - top,
        )
        fluxes[chosen] = flux[: chosen.size]
    return fluxes


def _compare(name: str, flux: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare fluxes; the difference that is judged is 0 within its error."""
    ratio = flux_ratio(flux, reference)
    is_significant = ratio.significance > _MIN_SIGNIFICANCE
    return {
        f"{name}_offset": ratio.offset if is_significant or math.isnan(ratio.offset) else 0.0,
        f"{name}_offset_measured": ratio.offset,
        f"{name}_offset_error": ratio.error,
        f"{name}_scatter": ratio.scatter,
        f"{name}_num_stars": float(ratio.num_stars),
    }


def _realized_depth(arrays: CoaddArrays) -> float:
    blank = np.zeros(arrays.image.shape, dtype=bool)
    depths = [measured_depth(draw, arrays.psf, blank) for draw in arrays.noise]
    depths = [depth for depth in depths if math.isfinite(depth)]
    return float(np.median(depths)) if depths else math.nan


def _correlated_depth(arrays: CoaddArrays) -> float:
    """Return the median depth of some cells by the covariance of the noise."""
    correlation = arrays.correlation
    if correlation is None:
        return math.nan
    spreads = {
        (i, j): np.nanmedian(part)
        for i, j in np.ndindex(correlation.shape[:2])
        if np.isfinite(part := arrays.cell_of(arrays.variance, i, j)).any()
    }
    depths = [
        depth_of_error(psf_flux_error(float(spread), correlation[cell], arrays.psfs[cell]))
        for cell, spread in list(spreads.items())[:: max(1, len(spreads) // _MAX_CELLS)]
    ]
    return float(np.median(depths)) if depths else math.nan
