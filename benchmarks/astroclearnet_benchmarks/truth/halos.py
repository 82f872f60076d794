# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Relative errors in the halos of bright galaxies, and their mottle."""

from __future__ import annotations

__all__ = ("bright_galaxies", "measure_halos")

import math

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY

from ..scenes import Scene
from .pixels import far_from_saturated

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_MAGNITUDE = 23.0
_LEVELS = (3.0, 30.0)
"""Limits of the halo in sky sigmas."""

_NUM_RADII = 3.0
_COARSE_FWHM = 10.0
"""FWHM in pixels of what is smooth, so that the rest is mottle."""

_MIN_PIXELS = 20


def bright_galaxies(scene: Scene) -> list[int]:
    """Return the galaxies brighter than magnitude 23 with their centres on it.

    Parameters
    ----------
    scene
        The scene.

    Returns
    -------
    indices : `list` [`int`]
        Their rows in the catalogue of the scene.
    """
    catalogue = scene.catalogue
    height, width = scene.options.shape
    limit = 10.0 ** (-0.4 * (_MAGNITUDE - AB_ZERO_POINT_NJY))
    inside = (np.abs(catalogue["x"] - 0.5 * (width - 1)) < 0.5 * width) & (
        np.abs(catalogue["y"] - 0.5 * (height - 1)) < 0.5 * height
    )
    chosen = inside & (catalogue["kind"] == "galaxy") & (catalogue["flux"] > limit)
    return [int(index) for index in np.flatnonzero(chosen)]


def measure_halos(image: Array, truth: Array, scene: Scene, target_fwhm: float) -> dict[str, list[float]]:
    """Measure the relative errors where galaxies fade into the sky.

    Parameters
    ----------
    image
        Shape (H, W), in nJy, NaN where there is no data.
    truth
        Shape (H, W), the truth at the target PSF.
    scene
        The scene.
    target_fwhm
        FWHM of the target PSF in pixels.

    Returns
    -------
    record : `dict` [`str`, `list` [`float`]]
        For each galaxy brighter than magnitude 23, of the pixels where the
        truth is 3 to 30 sky sigmas within 3 half-light radii plus the target
        FWHM: ``halo``, the rms of the error over the truth; ``mottle``, the
        same for what is left of the error without its part that is smooth
        over a FWHM of 10 pixels.  Pixels within 30 of a saturated star, or
        that no exposure has, do not count; galaxies of fewer than 20 pixels
        are left out.
    """
    level = truth / scene.sky_sigma
    seen = np.isfinite(image) & (scene.depth > 0.0)
    halo = seen & (level >= _LEVELS[0]) & (level <= _LEVELS[1]) & far_from_saturated(scene)
    error = np.where(seen, image - truth, 0.0)
    fine = error - _smooth(error, seen)
    rows, columns = np.indices(truth.shape)
    record: dict[str, list[float]] = {"halo": [], "mottle": []}
    for index in bright_galaxies(scene):
        galaxy = scene.catalogue[index]
        radius = _NUM_RADII * float(galaxy["half_light_radius"]) + target_fwhm
        pixels = halo & (np.hypot(columns - galaxy["x"], rows - galaxy["y"]) <= radius)
        if np.count_nonzero(pixels) < _MIN_PIXELS:
            continue
        for name, deviation in (("halo", error), ("mottle", fine)):
            record[name].append(math.sqrt(float(np.mean((deviation[pixels] / truth[pixels]) ** 2))))
    return record


def _smooth(error: Array, seen: Mask) -> Array:
    """Smooth an error, normalised by the pixels that are seen."""
    sigma = _COARSE_FWHM * gaussian_fwhm_to_sigma
    weight = gaussian_filter(seen.astype(float), sigma, mode="constant")
    return np.asarray(gaussian_filter(error, sigma, mode="constant") / np.maximum(weight, 1e-6))
