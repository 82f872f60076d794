# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Metrics of a restoration that need no truth."""

from __future__ import annotations

__all__ = ("make_metrics",)

import dataclasses
import math
from typing import Any

import numpy as np

from ..adapters import crop_to_patch
from ..core import MaskBit, RestorationResult, kernel_fwhm
from ..metrics import seeing_of_kernel
from ._products import RestorationInputs, describe_tile
from ._used_network import network_metrics
from ._warnings import PSF_TOLERANCE, SIGNIFICANCE


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
        "network": network_metrics(result, inputs.model_source, inputs.seed, inputs.joint),
        "solves": {kind: dataclasses.asdict(status) for kind, status in result.solves.items()},
        "image": _image(result, inputs),
    }


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
        "psf_consistent": not abs(error) > max(PSF_TOLERANCE, SIGNIFICANCE * sigma),
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
