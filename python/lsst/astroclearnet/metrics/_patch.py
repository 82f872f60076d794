# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One row of a quality table: an image of a patch against its truth."""

from __future__ import annotations

__all__ = ("measure_patch",)

from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from ._correlated_noise import psf_flux_correlated
from ._noise import measured_depth, noise_correlation, point_source_depth
from ._photometry import point_source_image, psf_flux
from ._star_statistics import star_statistics
from ._widths import fwhm_of_kernel, stellar_fwhms

_SOURCE_LEVEL = 0.5
"""True surface brightness in sky sigmas above which sky is not blank."""


def measure_patch(
    image: NDArray[Any],
    variance: NDArray[Any],
    psf: NDArray[Any],
    stars: Table,
    *,
    model: NDArray[Any] | None = None,
    correlation: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Measure one image of a patch against its truth.

    Parameters
    ----------
    image, variance, psf
        As for `psf_flux`, in nJy and nJy^2.
    stars
        True stars, columns ``x`` and ``y`` (pixels) and ``flux`` (nJy), and
        ``signal_to_noise`` where several images share their bins; without it
        the ratio is that of an optimal flux on this image.
    model
        Noise-free image in nJy, at the PSF of the image, of everything that is
        not a star, shape (H, W).
    correlation
        Noise correlation for `psf_flux_correlated`; without it stars are
        measured by `psf_flux`.

    Returns
    -------
    row : `dict` [`str`, `float`]
        ``psf_fwhm`` and ``star_fwhm`` (median of ``num_fwhm_stars`` isolated
        bright stars) in pixels, ``depth_claimed`` (from the variance plane)
        and ``depth_measured`` (from blank sky, residuals of the truth
        included) in AB magnitudes, ``noise_correlation``, the numbers of stars
        used (``num_stars``) and left out because they lie within two FWHM of
        the border or off the image (``num_border``) or have a bad pixel within
        one FWHM (``num_masked``), and for each bin of signal-to-noise ratio
        (suffixes ``_snr_5_20``, ``_snr_20_100`` and ``_snr_100_inf``) the
        columns of `star_statistics`.  What cannot be measured is NaN.
    """
    x, y, flux = (np.asarray(stars[name], dtype=float) for name in ("x", "y", "flux"))
    fwhm = fwhm_of_kernel(psf)
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    used, num_border, num_masked = _usable_stars(good, x, y, fwhm)
    widths = stellar_fwhms(np.where(good, image, np.nan), variance, x, y, flux, model=model)
    truth = point_source_image(image.shape, psf, x, y, flux)
    truth += 0.0 if model is None else np.asarray(model, dtype=float)
    sigma = float(np.sqrt(np.median(variance[good]))) if good.any() else float("nan")
    sources = ~(truth < _SOURCE_LEVEL * sigma)
    residual = np.where(good, image - truth, np.nan)
    row = {
        "psf_fwhm": fwhm,
        "star_fwhm": float(np.nanmedian(widths)) if np.isfinite(widths).any() else float("nan"),
        "num_fwhm_stars": float(np.count_nonzero(np.isfinite(widths))),
        "depth_claimed": point_source_depth(variance[good], psf),
        "depth_measured": measured_depth(residual, psf, sources),
        "noise_correlation": noise_correlation(residual, sources),
        "num_stars": float(np.count_nonzero(used)),
        "num_border": float(num_border),
        "num_masked": float(num_masked),
    }
    if correlation is None:
        measured, error = psf_flux(image, variance, psf, x, y, model=model)
    else:
        measured, error = psf_flux_correlated(image, variance, correlation, psf, x, y, model=model)
    if "signal_to_noise" in stars.colnames:
        snr = np.asarray(stars["signal_to_noise"], dtype=float)
    else:
        snr = flux * np.sqrt(np.sum(np.square(psf, dtype=float))) / sigma
    row.update(_flat(star_statistics(measured[used], error[used], flux[used], snr[used])))
    return row


def _usable_stars(
    good: NDArray[np.bool_], x: NDArray[np.float64], y: NDArray[np.float64], fwhm: float
) -> tuple[NDArray[np.bool_], int, int]:
    """Return the stars to use, and how many are near border or bad pixels."""
    margin = 2.0 * fwhm
    height, width = good.shape
    inside = (x >= margin) & (x <= width - 1 - margin) & (y >= margin) & (y <= height - 1 - margin)
    reach = int(np.ceil(fwhm)) if np.isfinite(fwhm) else 0
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near_bad = binary_dilation(~good, structure=np.hypot(dx, dy) <= max(fwhm, 0.5)) if reach else ~good
    masked = np.zeros_like(inside)
    masked[inside] = near_bad[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)]
    return inside & ~masked, int(np.count_nonzero(~inside)), int(np.count_nonzero(masked))


def _flat(table: Table) -> dict[str, float]:
    """Flatten a table of star statistics, with the bin as suffix."""
    return {
        f"{name}_snr_{line['snr_min']:.0f}_{line['snr_max']:.0f}": float(line[name])
        for line in table
        for name in table.colnames
        if name not in ("snr_min", "snr_max")
    }
