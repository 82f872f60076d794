# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""What a restored patch of a survey is worth, against the truth."""

from __future__ import annotations

__all__ = ("judge_patch",)

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.stats import mad_std

from lsst.astroclearnet.adapters import unusable_pixels
from lsst.astroclearnet.core import fwhm_to_sigma
from lsst.astroclearnet.metrics import SIGNAL_TO_NOISE_BINS
from lsst.daf.butler import Butler
from lsst.images.cells import CellCoadd

from .consistency import DISTANCES, distance_to_borders
from .survey import BAND, SurveyPatch
from .whole_restoration import RESTORED

_NAMES = {"image": "restored_coadd", "linear_image": "restored_coadd_linear"}

_BLANK = 0.05
"""Light, in sigma of the linear image, below which a pixel is blank."""

_FAINT = (3.0, 30.0)
"""Light of faint sources: brighter ones show the errors of their PSFs."""

_EDGE = 24
"""Pixels at the edges of the patch that are not counted."""

_HALF = 8
"""Half width in pixels of the stamps that stars are measured on."""


def judge_patch(patch: SurveyPatch, target_fwhm: float, tiles: list[list[int]]) -> dict[str, Any]:
    """Compare the coadds with the truth, and read what the tasks say.

    Parameters
    ----------
    patch
        The patch.
    target_fwhm
        FWHM of the target PSF in pixels.
    tiles
        First and one after last row and column of the patch that each tile
        owns.

    Returns
    -------
    figures : `dict`
        ``seams`` and ``stars``, rows of tables; ``facts``, of the metrics and
        the quality, in words.
    """
    butler = Butler.from_config(str(patch.root), collections=RESTORED)
    data_id = {"skymap": patch.options.skymap, "tract": patch.options.tract, "patch": 0, "band": BAND}
    with np.load(patch.truth) as content:
        truth = content["image"]
        stars = {name: content[name] for name in ("y", "x", "flux")}
        single = ~(content["saturated"] | content["paired"])
    stars = {name: values[single] for name, values in stars.items()}
    distance = distance_to_borders(
        truth.shape, {rows for rows, *_ in tiles} - {0}, {columns for _, _, columns, _ in tiles} - {0}
    )
    linear: CellCoadd = butler.get(_NAMES["linear_image"], data_id)
    sigma = float(np.sqrt(np.nanmedian(linear.variance.array[~unusable_pixels(linear)])))
    del linear
    figures: dict[str, Any] = {"seams": [], "stars": []}
    for product, name in _NAMES.items():
        coadd: CellCoadd = butler.get(name, data_id)
        bad = unusable_pixels(coadd)
        error = np.where(bad, np.nan, coadd.image.array - truth)
        noise = np.where(bad, np.nan, coadd.noise_realizations[0].array)
        variance = coadd.variance.array
        del coadd
        for row in _seams(truth / sigma, error, noise, variance, distance, sigma):
            figures["seams"].append({"product": product, **row})
        for row in _stars(error, noise, stars, fwhm_to_sigma(target_fwhm), sigma):
            figures["stars"].append({"product": product, **row})
    metrics = butler.get("restored_coadd_metrics", data_id)
    quality = butler.get("restored_coadd_quality", data_id)
    solves = metrics["solves"].values()
    figures["facts"] = {
        "verdict": quality["verdict"],
        "warnings of the verdict": "; ".join(quality["warnings"]) or "none",
        "warnings of the restoration": str(len(metrics["warnings"])),
        "reduced chi-square": f"{metrics['image']['chi_square']:.3f}",
        "detector images": str(metrics["patch"]["num_exposures"]),
        "dropped": ", ".join(
            f"{number} {reason}" for reason, number in Counter(metrics["dropped"].values()).items()
        )
        or "none",
        "tiles": f"{metrics['patch']['num_tiles']}, {metrics['patch']['num_failed_tiles']} failed",
        "solves": f"{sum(s['num_solves'] for s in solves)}, "
        f"{sum(s['num_unconverged'] for s in solves)} not converged",
        "pixels without data (%)": f"{100.0 * metrics['image']['no_data_fraction']:.2f}",
    }
    return figures


def _seams(
    truth: np.ndarray,
    error: np.ndarray,
    noise: np.ndarray,
    variance: np.ndarray,
    distance: np.ndarray,
    sigma: float,
) -> Iterator[dict[str, str]]:
    """Yield errors by the distance from borders of tiles; truth in sigma."""
    inside = np.isfinite(error)
    inside[:_EDGE] = inside[-_EDGE:] = inside[:, :_EDGE] = inside[:, -_EDGE:] = False
    for low, high in DISTANCES:
        there = inside & (distance >= low) & (distance < high)
        blank = there & (truth < _BLANK)
        faint = there & (truth > _FAINT[0]) & (truth < _FAINT[1])
        if not (blank.any() and faint.any()):
            continue
        yield {
            "distance (pixels)": f"{low} to {high}" if high < truth.shape[0] else f"beyond {low}",
            "pixels": str(int(there.sum())),
            "rms error on blank sky": f"{np.std(error[blank], dtype=float) / sigma:.3f}",
            "mean": f"{np.mean(error[blank], dtype=float) / sigma:+.3f}",
            "rms error on faint sources": f"{np.std(error[faint], dtype=float) / sigma:.2f}",
            "error / declared": f"{np.sqrt(np.mean(error[blank] ** 2 / variance[blank])):.3f}",
            "realisation / declared": f"{np.sqrt(np.mean(noise[there] ** 2 / variance[there])):.3f}",
        }


def _stars(
    error: np.ndarray, noise: np.ndarray, stars: dict[str, np.ndarray], width: float, sigma: float
) -> Iterator[dict[str, str]]:
    """Yield errors of PSF fluxes, the truth of all else subtracted."""
    offsets = np.arange(-_HALF, _HALF + 1)
    column, row = np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int)
    margin = _HALF + _EDGE
    height, shape_x = error.shape
    near = (row >= margin) & (row < height - margin) & (column >= margin) & (column < shape_x - margin)
    flux, deviation, realized, snr = [], [], [], []
    for n in np.flatnonzero(near):
        window = np.s_[row[n] - _HALF : row[n] + _HALF + 1, column[n] - _HALF : column[n] + _HALF + 1]
        if not np.isfinite(error[window]).all():
            continue
        profiles = (
            np.exp(-0.5 * ((offsets + middle - position) / width) ** 2)
            for middle, position in ((row[n], stars["y"][n]), (column[n], stars["x"][n]))
        )
        psf = np.outer(*profiles) / (2.0 * np.pi * width**2)
        power = np.sum(psf**2)
        flux.append(stars["flux"][n])
        deviation.append(np.sum(psf * error[window]) / power)
        realized.append(np.sum(psf * noise[window]) / power)
        snr.append(stars["flux"][n] * np.sqrt(power) / sigma)
    measured = (np.array(values, dtype=float) for values in (flux, deviation, realized, snr))
    true_flux, error_flux, noise_flux, ratio = measured
    for low, high in SIGNAL_TO_NOISE_BINS:
        chosen = (ratio >= low) & (ratio < high)
        if np.count_nonzero(chosen) < 3:
            continue
        percent = 100.0 * error_flux[chosen] / true_flux[chosen]
        scatter = float(mad_std(percent))
        yield {
            "signal-to-noise ratio": f"{low:.0f} to {high:.0f}" if np.isfinite(high) else f"above {low:.0f}",
            "stars": str(int(chosen.sum())),
            "bias (%)": f"{np.median(percent):+.2f} ± {1.25 * scatter / np.sqrt(chosen.sum()):.2f}",
            "scatter (%)": f"{scatter:.2f}",
            "scatter / realisation": f"{mad_std(error_flux[chosen]) / mad_std(noise_flux[chosen]):.2f}",
        }
