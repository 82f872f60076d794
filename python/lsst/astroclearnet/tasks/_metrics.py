# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Metrics of a restoration that need no truth, and warnings."""

from __future__ import annotations

__all__ = (
    "describe_offsets",
    "describe_shared_psf_error",
    "list_warnings",
    "make_metrics",
    "psf_changed",
    "variances_fit",
    "variances_kept",
)

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..adapters import ExposureId, crop_to_patch
from ..core import MaskBit, RestorationResult, kernel_fwhm
from ..metrics import seeing_of_kernel
from ._products import RestorationInputs, describe_tile
from ._used_network import list_network_warnings, network_metrics

_MIN_EXPOSURES = 3
"""With two exposures the faulty one cannot be identified."""

_SIGNIFICANCE = 5.0
"""Significance, in sigma, of an offset that is reported."""

# In half of the exposures these errors change the fluxes of stars by about one
# per cent.
_PSF_TOLERANCE = 0.015  # relative error of the PSF width
_SHARED_TOLERANCE = 0.005  # the same, shared by all exposures
_FLUX_TOLERANCE = 0.02  # relative error of the flux scale
_SHIFT_TOLERANCE = 0.05  # arcsec

_MAX_CHI_SQUARE = 2.0
"""Reduced chi-square from which, or one over which, variances are wrong."""

_ROUNDING = 1e-3
"""Relative excess over a limit that is rounding."""

_OFFSETS = (
    ("flux_error", "flux_sigma", _FLUX_TOLERANCE, "in flux scale by {:+.3f}"),
    ("shift", "shift_sigma", _SHIFT_TOLERANCE, "in position by {:.3f} arcsec"),
)
"""Metrics of an exposure that may be offset from the others, with the names of
their standard deviations, the tolerance, and words."""


def make_metrics(result: RestorationResult, inputs: RestorationInputs) -> dict[str, Any]:
    """Return the metrics of a restoration.

    Parameters
    ----------
    result
        The restoration.
    inputs
        What it was made from.

    Returns
    -------
    metrics : `dict`
        Plain Python values: ``exposures``, a list with the identity, PSF
        FWHM (arcsec), share of the information about point sources
        (``weight_share``), reduced chi-square and rejected fraction of each;
        its offsets from the others in flux scale (``flux_error``, relative),
        position (``shift``, arcsec) and PSF width (``psf_width_error``,
        relative), with standard deviations (``flux_sigma`` and so on);
        ``psf_consistent``, false if the last is more than 1.5 % and 5 sigma
        (NaN for a single exposure); ``psf_change`` and ``psf_change_sigma``,
        errors of the PSF given; what differs in it from star to star
        (``light_scatter``, ``position_scatter`` in arcsec,
        ``psf_width_scatter``, ``psf_ellipticity_scatter``);
        ``suspect_reason``; and
        ``sky_noise``, ``weight_bias``, ``variance_smoothed``,
        ``background`` (nJy a pixel of the patch) and so on, as in
        `~lsst.astroclearnet.core.RestorationResult`.
        Further ``stars``, those that were fitted as point sources: ``x`` and
        ``y`` (tract pixels), ``flux`` (nJy), their standard deviations,
        ``chi_square`` and ``misfit``; ``failed_tiles``, places and reasons;
        ``dropped`` and ``not_selected``, reasons by exposure; ``solves``,
        the attributes of `~lsst.astroclearnet.core.SolveStatus` by the kind
        of solve; ``network``, ``image`` and ``patch``, flat dictionaries.
    """
    geometry = inputs.geometry
    return {
        "patch": {
            "skymap": geometry.skymap,
            "tract": geometry.tract,
            "patch": geometry.definition.id,
            "band": inputs.band,
            "num_exposures": inputs.source.num_exposures,
            "num_dropped": inputs.num_dropped,
            "num_not_selected": len(inputs.not_selected),
            "num_tiles": result.num_tiles,
            "num_failed_tiles": len(result.failed_tiles),
        },
        "exposures": _exposures(result, inputs),
        "stars": _stars(result, inputs),
        "failed_tiles": [f"{describe_tile(t, inputs)}: {t.reason}" for t in result.failed_tiles],
        "dropped": dict(inputs.dropped),
        "not_selected": dict(inputs.not_selected),
        "network": network_metrics(result, inputs.model_source, inputs.seed),
        "solves": {kind: dataclasses.asdict(status) for kind, status in result.solves.items()},
        "image": _image(result, inputs),
    }


def list_warnings(metrics: Mapping[str, Any], max_psf_residual: float) -> list[str]:
    """List what a user of the coadds should know.

    Parameters
    ----------
    metrics
        What `make_metrics` returned.
    max_psf_residual
        Largest residual of the linear image of a star from the target PSF
        that was allowed, relative to the peak.

    Returns
    -------
    warnings : `list` [`str`]
        Sentences; none if all is well.
    """
    warnings = []
    for title, describe in _EXPOSURE_WARNINGS.items():
        found = [
            f"{_name(e)}{words.removesuffix('.')}"
            for e in metrics["exposures"]
            if (words := describe(e)) is not None
        ]
        if found:
            warnings.append(f"{title}: {'; '.join(found)}.")
    residual = metrics["image"]["linear_psf_residual"]
    if residual > max_psf_residual * (1.0 + _ROUNDING):
        warnings.append(
            f"The target PSF is too sharp for these exposures: stars in the linear coadd differ from it by "
            f"{100.0 * residual:.1f} % of their peak, more than {100.0 * max_psf_residual:.1f} %."
        )
    warnings += filter(None, [describe_shared_psf_error(metrics["image"])])
    unconverged = [
        f"{status['num_unconverged']} of {status['num_solves']} ({kind}), the worst with "
        f"{status['max_residual']:.3g} times the tolerance"
        for kind, status in metrics["solves"].items()
        if status["num_unconverged"]
    ]
    if unconverged:
        warnings.append(f"Iterative solves did not converge: {'; '.join(unconverged)}.")
    warnings += list_network_warnings(metrics["network"])
    if metrics["failed_tiles"]:
        warnings.append(f"Some tiles could not be restored: {'; '.join(metrics['failed_tiles'])}.")
    number = sum(e["used_fraction"] > 0 for e in metrics["exposures"])
    if number < _MIN_EXPOSURES:
        warnings.append(f"With {number} exposure(s) no pixel can be rejected as an outlier.")
    return warnings


def variances_fit(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the variances of an exposure fit its residuals.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    fits : `bool`
        Whether its reduced chi-square is within a factor of 2 of one, or not
        known.
    """
    chi_square = exposure["chi_square"]
    return not (chi_square > _MAX_CHI_SQUARE or chi_square < 1.0 / _MAX_CHI_SQUARE)


def variances_kept(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the variances of an exposure were not rescaled.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    kept : `bool`
        Whether blank sky agrees with them.
    """
    return bool(exposure["variance_factor_min"] == exposure["variance_factor_max"] == 1.0)


def _wider_by(error: float) -> str:
    """Say how much wider or narrower a PSF is, from the relative error."""
    return f"{'wider' if error > 0 else 'narrower'} by {100.0 * abs(error):.1f} %"


def psf_changed(exposure: Mapping[str, Any]) -> bool:
    """Tell whether the PSF given for an exposure is noticeably wrong in width.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    changed : `bool`
        Whether its ``psf_change`` in width exceeds 1.5 % and 5 sigma.
    """
    width, sigma = exposure["psf_change"][0], exposure["psf_change_sigma"][0]
    return bool(abs(width) > max(_PSF_TOLERANCE, _SIGNIFICANCE * sigma))


def describe_shared_psf_error(image: Mapping[str, Any]) -> str:
    """Describe an error that the PSFs of all exposures share.

    Parameters
    ----------
    image
        The ``image`` of `make_metrics`.

    Returns
    -------
    words : `str`
        Its size and what it does to fluxes; empty if it is not significant.
    """
    width, sigma = image["psf_shared_width"], image["psf_shared_width_sigma"]
    if not abs(width) > max(_SHARED_TOLERANCE, _SIGNIFICANCE * sigma):
        return ""
    return (
        f"The PSFs of all exposures share an error: stars are {_wider_by(width)} than they say, by "
        f"{image['psf_shared_stars']} stars; fluxes fitted with the declared PSF are wrong by "
        f"{100.0 * image['psf_flux_error']:+.1f} %. Correct the PSFs, or set psf_refinement to 'stars'."
    )


def describe_offsets(exposure: Mapping[str, Any]) -> list[str]:
    """Describe the significant offsets of an exposure from the others.

    Parameters
    ----------
    exposure
        One of the ``exposures`` of `make_metrics`.

    Returns
    -------
    differences : `list` [`str`]
        Size of each, in words.
    """
    return [
        words.format(exposure[key])
        for key, sigma, least, words in _OFFSETS
        if abs(exposure[key]) > max(least, _SIGNIFICANCE * exposure[sigma])
    ]


def _name(exposure: Mapping[str, Any]) -> str:
    """Return the name of one of the ``exposures`` of `make_metrics`."""
    return str(ExposureId(exposure["visit"], exposure["detector"], exposure["instrument"]))


_EXPOSURE_WARNINGS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "Some exposures are offset from the others": lambda e: (
        f" {' and '.join(offsets)}" if (offsets := describe_offsets(e)) else None
    ),
    "Some exposures are suspected outliers, but were used": lambda e: (
        f": {e['suspect_reason']}" if e["suspect_reason"] else None
    ),
    "The PSFs of some exposures do not fit their stars": lambda e: (
        None if e["psf_consistent"] else f": {_wider_by(e['psf_width_error'])}"
    ),
    "The PSFs of some exposures were corrected": lambda e: (
        f": {_wider_by(e['psf_change'][0])}" if e["psf_refined"] and psf_changed(e) else None
    ),
    "The variances of some exposures do not fit their residuals, by chi-square": lambda e: (
        None if variances_fit(e) else f": {e['chi_square']:.3g} with {e['weight_share']:.1%} of the weight"
    ),
    "The variances of some exposures do not fit their blank sky": lambda e: (
        None
        if variances_kept(e)
        else f": multiplied by {e['variance_factor_min']:.2f} to {e['variance_factor_max']:.2f}"
    ),
    "The variances of some exposures follow the noise of their pixels and were smoothed": lambda e: (
        "" if e["variance_smoothed"] else None
    ),
}
"""Warnings, with a function that describes what is wrong with an exposure."""


def _exposures(result: RestorationResult, inputs: RestorationInputs) -> list[dict[str, Any]]:
    scale, summary = inputs.geometry.pixel_scale, inputs.summary
    information = summary.contributions.information.sum(axis=(1, 2))
    total = information.sum()
    num_used, num_rejected = summary.num_used, summary.num_rejected
    num_pixels = inputs.geometry.bbox.area
    # With a single exposure there is nothing to compare its PSF with.
    is_comparable = int((num_used > 0).sum()) > 1
    exposures = []
    for n, cutout in enumerate(inputs.source.cutouts):
        identity = cutout.identity
        exposures.append(
            {
                "instrument": identity.instrument,
                "visit": identity.visit,
                "detector": identity.detector,
                "psf_fwhm": seeing_of_kernel(cutout.mean_psf) * scale,
                "psf_effective_fwhm": kernel_fwhm(cutout.mean_psf) * scale,
                **_offsets(result, n, scale, is_comparable),
                "suspect_reason": result.suspect.get(n, ""),
                "weight_share": float(information[n] / total) if total else math.nan,
                "chi_square": float(result.chi_square[n]),
                **_noise(result, n),
                "used_fraction": float(num_used[n] / num_pixels),
                "rejected_fraction": float(num_rejected[n] / max(1, int(num_used[n] + num_rejected[n]))),
                "num_not_finite": cutout.num_not_finite,
                "left_out_in_part": inputs.source.problems.get(n, ""),
            }
        )
    return exposures


def _offsets(result: RestorationResult, n: int, scale: float, is_comparable: bool) -> dict[str, Any]:
    """Return the offsets of an exposure from the others."""
    error, sigma = math.nan, math.inf
    if is_comparable:
        error, sigma = float(result.psf_width_error[n]), float(result.psf_width_sigma[n])
    return {
        "flux_error": float(result.flux_error[n]),
        "flux_sigma": float(result.flux_sigma[n]),
        "shift": float(np.hypot(*result.shift[n])) * scale,
        "shift_sigma": float(result.shift_sigma[n].max()) * scale,
        "psf_width_error": error,
        "psf_width_sigma": sigma,
        "psf_consistent": not abs(error) > max(_PSF_TOLERANCE, _SIGNIFICANCE * sigma),
        "light_scatter": float(result.psf_residual_scatter[n, 0]),
        "position_scatter": float(result.psf_residual_scatter[n, 1]) * scale,
        "psf_width_scatter": float(result.psf_residual_scatter[n, 2]),
        "psf_ellipticity_scatter": float(result.psf_residual_scatter[n, 3]),
        "psf_change": [float(value) for value in result.psf_change[n]],
        "psf_change_sigma": [float(value) for value in result.psf_change_sigma[n]],
        "psf_refined": result.psf_refined,
        "background": [float(value) for value in result.background[n]],
        "background_sigma": [float(value) for value in result.background_sigma[n]],
    }


def _noise(result: RestorationResult, n: int) -> dict[str, Any]:
    """Return the metrics of the variances of an exposure."""
    return {
        "sky_noise": float(result.sky_noise[n]),
        "sky_noise_sigma": float(result.sky_noise_sigma[n]),
        "variance_factor_min": float(result.variance_factor[n, 0]),
        "variance_factor_max": float(result.variance_factor[n, 1]),
        "weight_bias": float(result.weight_bias[n]),
        "variance_smoothed": bool(result.variance_smoothed[n]),
    }


def _stars(result: RestorationResult, inputs: RestorationInputs) -> list[dict[str, Any]]:
    """Return the bright stars that were taken out and put back."""
    box = inputs.source.bbox
    return [
        {
            "x": box.x.start + float(position[1]),
            "y": box.y.start + float(position[0]),
            "x_sigma": float(sigma[1]),
            "y_sigma": float(sigma[0]),
            "flux": float(flux),
            "flux_sigma": float(flux_sigma),
            "chi_square": float(chi_square),
            "misfit": float(misfit),
        }
        for position, sigma, flux, flux_sigma, chi_square, misfit in zip(
            result.star_position,
            result.star_position_sigma,
            result.star_flux,
            result.star_flux_sigma,
            result.star_chi_square,
            result.star_misfit,
            strict=True,
        )
    ]


def _image(result: RestorationResult, inputs: RestorationInputs) -> dict[str, Any]:
    geometry = inputs.geometry
    image = crop_to_patch(result.image, geometry)
    mask = crop_to_patch(result.mask, geometry)
    return {
        "target_fwhm": result.target_fwhm * geometry.pixel_scale,
        "median_sigma": _median_sigma(crop_to_patch(result.variance, geometry)),
        "linear_median_sigma": _median_sigma(crop_to_patch(result.linear_variance, geometry)),
        "median": float(np.nanmedian(image)) if np.isfinite(image).any() else math.nan,
        "linear_psf_residual": result.linear_psf_residual,
        "psf_scatter": [float(value) for value in result.psf_scatter],
        "psf_shared_width": result.psf_shared_width,
        "psf_shared_width_sigma": result.psf_shared_width_sigma,
        "psf_shared_stars": result.psf_shared_stars,
        "psf_flux_error": result.psf_flux_error,
        "psf_flux_systematic": result.psf_flux_systematic,
        "sky_level": result.sky_level,
        "faintest_flux": result.faintest_flux,
        "no_data_fraction": float(((mask & MaskBit.NO_DATA) > 0).mean()),
        "inpainted_fraction": float(((mask & MaskBit.INPAINTED) > 0).mean()),
        "clipped_fraction": float(((mask & MaskBit.CLIPPED) > 0).mean()),
        "demanded_fraction": _demanded_fraction(image, crop_to_patch(result.demanded_share, geometry)),
        "supplied_fraction": float(((mask & MaskBit.SUPPLIED) > 0).mean()),
        "withheld_fraction": float(((mask & MaskBit.WITHHELD) > 0).mean()),
        "chi_square": _pooled_chi_square(result, inputs),
    }


def _demanded_fraction(image: np.ndarray, share: np.ndarray) -> float:
    """Return the share that exposures demand of all light that stands out."""
    light = np.where(np.isfinite(share), image, 0.0).clip(min=0.0)
    total = light.sum(dtype=float)
    return (
        float((light * np.nan_to_num(share).clip(0.0, 1.0)).sum(dtype=float) / total) if total else math.nan
    )


def _median_sigma(variance: np.ndarray) -> float:
    return float(np.sqrt(np.nanmedian(variance))) if np.isfinite(variance).any() else math.nan


def _pooled_chi_square(result: RestorationResult, inputs: RestorationInputs) -> float:
    number = inputs.summary.num_used
    return float(np.nansum(result.chi_square * number) / max(1, int(number.sum())))
