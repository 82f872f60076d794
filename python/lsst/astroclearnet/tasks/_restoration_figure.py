# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of a restoration."""

from __future__ import annotations

__all__ = ("make_figure",)

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..adapters import crop_to_patch, pad_to_common_size
from ..core import MaskBit, RestorationResult, kernel_fwhm
from ..metrics import curve_of_growth, detect_sources, find_stars
from ._products import RestorationInputs, target_psf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..plots import GrowthCurve

_MIN_SIGNAL_TO_NOISE = 100.0
"""That of stars whose light is followed outwards."""

_NUM_RADII = 16
_GROWTH_FWHMS = 2.0
"""Largest radius of the curves of growth in FWHM of the widest PSF."""


def make_figure(
    result: RestorationResult, inputs: RestorationInputs, exposures: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw the restoration beside the plain coadd.

    Parameters
    ----------
    result
        The restoration.
    inputs
        What it was made from.
    exposures
        Those of `make_metrics`.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Coadd, restored and linear image with one stretch, the demanded share
        of the light, residual, profiles of the PSFs, curves of growth of
        bright stars, the course of the fit, or without one chi-square and
        seeing of the exposures, demanded shares by signal-to-noise ratio, and
        the uncertainty.
    """
    from ..plots import restoration_figure

    geometry, cutouts = inputs.geometry, inputs.source.cutouts
    stamps = pad_to_common_size([cutout.mean_psf for cutout in cutouts])
    best = min(stamps, key=kernel_fwhm)
    psfs = {
        "coadd": np.average(stamps, axis=0, weights=inputs.summary.total_weight),
        "best exposure": best,
        "restored": target_psf(result.target_fwhm),
    }
    coadd, restored, linear, linear_variance = (
        crop_to_patch(plane, geometry)
        for plane in (result.coadd, result.image, result.linear_image, result.linear_variance)
    )
    history, mask = result.history, crop_to_patch(result.mask, geometry)
    return restoration_figure(
        images={"Coadd": coadd, "Restored": restored, "Linear": linear},
        variance=crop_to_patch(result.variance, geometry),
        # Supplied and withheld light has its own panel.
        mask=mask & ~np.uint8(MaskBit.SUPPLIED | MaskBit.WITHHELD),
        residual=crop_to_patch(result.residual, geometry),
        demanded={
            "share": crop_to_patch(result.demanded_share, geometry),
            "sigma": crop_to_patch(result.demanded_share_sigma, geometry),
            "supplied": (mask & MaskBit.SUPPLIED) > 0,
            "withheld": (mask & MaskBit.WITHHELD) > 0,
        },
        psfs=psfs,
        growth=_growth_curves(coadd, restored, linear, linear_variance, psfs, geometry.pixel_scale),
        history={
            "epoch": list(range(len(history.loss))),
            "loss": history.loss,
            "held_out_loss": history.validation_loss,
        },
        exposures={
            name: [exposure[name] for exposure in exposures if exposure["used_fraction"] > 0]
            for name in ("psf_fwhm", "chi_square", "weight_share")
        },
        title=f"{inputs.patch_name}: {len(cutouts)} exposures",
        pixel_scale=geometry.pixel_scale,
    )


def _growth_curves(
    coadd: np.ndarray,
    restored: np.ndarray,
    linear: np.ndarray,
    variance: np.ndarray,
    psfs: dict[str, np.ndarray],
    pixel_scale: float,
) -> list[GrowthCurve]:
    """Follow the light of bright isolated stars outwards in all images."""
    from ..plots import GrowthCurve

    target = psfs["restored"]
    sources, _ = detect_sources(linear, variance, target)
    good = np.isfinite(linear) & np.isfinite(coadd)
    stars = find_stars(sources, good, target, min_signal_to_noise=_MIN_SIGNAL_TO_NOISE)
    radius = np.linspace(0.0, _GROWTH_FWHMS * kernel_fwhm(psfs["coadd"]), _NUM_RADII + 1)[1:]
    curves = []
    for label, image in (("coadd", coadd), ("restored", restored), ("linear", linear)):
        light, error = curve_of_growth(image, stars["x"], stars["y"], radius)
        curves.append(GrowthCurve(label, radius * pixel_scale, light, error))
    if len(stars):
        stamp = np.pad(target, int(np.ceil(radius[-1])))
        middle = [0.5 * (stamp.shape[0] - 1)]
        light, _ = curve_of_growth(stamp, middle, middle, radius)
        curves.append(GrowthCurve("declared PSF", radius * pixel_scale, light))
    return curves
