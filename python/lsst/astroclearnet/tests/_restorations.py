# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One small scene and its restoration, for tests of `restore`."""

from __future__ import annotations

__all__ = (
    "FWHMS",
    "QUICK",
    "SHAPE",
    "SIGMAS",
    "STARS",
    "TARGET",
    "make_scene",
    "psf_flux",
    "restore_on_cpu",
)

from typing import Any

import numpy as np

from ..core import FitOptions, NetworkOptions, NoiseOptions, RestoreOptions, StackResult, restore
from ._exposures import ExposureArrays, gaussian_stars, make_exposure_arrays

SHAPE = (66, 80)
"""Height and width of the scene in pixels."""

FWHMS = (3.2, 4.0, 4.8, 3.6)
"""FWHM of the PSF of each exposure in pixels."""

SIGMAS = (1.0, 1.5, 0.8, 1.2)
"""Standard deviation of the noise of each exposure."""

STARS = ((22.3, 27.6, 1500.0), (47.8, 58.1, 600.0))
"""Row, column and flux of each star."""

TARGET = 3.6
"""FWHM of the target PSF in pixels."""

QUICK = RestoreOptions(
    network=NetworkOptions(penalty_weights=(1e-5, 1e-3, 1e-1), hidden_channels=8),
    fit=FitOptions(num_folds=2, max_epochs=3, patience=1),
    noise=NoiseOptions(num_draws=2, num_realizations=1),
)
"""Options of a restoration that takes a second."""


def make_scene(**changes: Any) -> ExposureArrays:
    """Return four exposures of two stars.

    Parameters
    ----------
    **changes
        Further arguments of `make_exposure_arrays`, which win.

    Returns
    -------
    exposures : `ExposureArrays`
        Exposures of shape `SHAPE`.
    """
    return make_exposure_arrays(SHAPE, FWHMS, **{"stars": STARS, "sigmas": SIGMAS, "seed": 5, **changes})


def restore_on_cpu(
    arrays: ExposureArrays, options: RestoreOptions | None = None, **changes: Any
) -> StackResult:
    """Restore exposures at the PSF `TARGET` on the CPU.

    Parameters
    ----------
    arrays
        The exposures.
    options
        Options of the restoration; by default those of `RestoreOptions`.
    **changes
        Further arguments of `restore`, which win.

    Returns
    -------
    result : `lsst.astroclearnet.core.StackResult`
        The restoration.
    """
    return restore(*arrays, options=options, **{"target_fwhm": TARGET, "device": "cpu", **changes})


def psf_flux(image: np.ndarray, y: float, x: float, fwhm: float = TARGET) -> float:
    """Return the flux of an isolated star of known position.

    Parameters
    ----------
    image
        Shape (H, W), without background.
    y
        Row of the star.
    x
        Column of the star.
    fwhm
        FWHM of its Gaussian PSF in pixels.

    Returns
    -------
    flux : `float`
        Linear fit of the PSF to 13x13 pixels.
    """
    rows, columns = (slice(round(c) - 6, round(c) + 7) for c in (y, x))
    template = gaussian_stars(image.shape, [(y, x, 1.0)], fwhm)[rows, columns]
    return float((image[rows, columns] * template).sum() / (template**2).sum())
