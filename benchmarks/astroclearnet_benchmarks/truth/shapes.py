# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Asymmetry and smoothness of bright galaxies beside the truth's."""

from __future__ import annotations

__all__ = ("measure_shapes",)

import math
import warnings

import numpy as np
import numpy.typing as npt
from astropy.utils.exceptions import AstropyUserWarning
from scipy.ndimage import label
from statmorph import SourceMorphology

from ..scenes import Scene
from .halos import bright_galaxies
from .pixels import far_from_saturated

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_LEVEL = 1.0
"""Isophote in sky sigmas that bounds a galaxy."""

_MAX_GALAXIES = 8
"""Galaxies of a scene that are measured; each takes a second."""

_HALF = 48
"""Half-size in pixels of what is cut out around a galaxy."""


def measure_shapes(image: Array, truth: Array, scene: Scene, target_fwhm: float) -> dict[str, list[float]]:
    """Measure asymmetry and smoothness, and those of the truth.

    Those of Conselice (2003, ApJS 147, 1) as implemented in statmorph
    (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140).  All other sources are
    subtracted as they truly are, and both images have the same isophote, that
    of the truth.

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
        For the first 8 galaxies brighter than magnitude 23, far from
        saturated stars, that both images allow to be measured: ``asymmetry``
        and ``smoothness``, those of the image less those of the truth.
    """
    seen = np.isfinite(image) & (scene.depth > 0.0)
    far = far_from_saturated(scene)
    error = np.where(seen, image - truth, 0.0)
    record: dict[str, list[float]] = {"asymmetry": [], "smoothness": []}
    for index in bright_galaxies(scene):
        if len(record["asymmetry"]) == _MAX_GALAXIES:
            break
        galaxy = scene.catalogue[index]
        row, column = round(float(galaxy["y"])), round(float(galaxy["x"]))
        window = tuple(
            slice(max(0, c - _HALF), min(size, c + _HALF + 1))
            for c, size in zip((row, column), truth.shape, strict=True)
        )
        alone = scene.source_image(index, target_fwhm)[window]
        area = label(alone > _LEVEL * scene.sky_sigma)[0]
        area = area == area[row - window[0].start, column - window[1].start]
        area &= alone > _LEVEL * scene.sky_sigma
        if not (far[window][area].all() and _is_whole(area) and area.any()):
            continue
        true, measured = (
            _measure(light, area, ~seen[window], scene.sky_sigma) for light in (alone, alone + error[window])
        )
        for name, one, two in zip(record, measured, true, strict=True):
            if math.isfinite(one) and math.isfinite(two):
                record[name].append(one - two)
    return record


def _is_whole(area: Mask) -> bool:
    """Return whether an area does not reach the border."""
    return not (area[0].any() or area[-1].any() or area[:, 0].any() or area[:, -1].any())


def _measure(light: Array, area: Mask, mask: Mask, sigma: float) -> tuple[float, float]:
    """Return asymmetry and smoothness; NaN if they cannot be measured."""
    with warnings.catch_warnings():
        # What cannot be measured is told by its flag.
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        shape = SourceMorphology(
            light,
            area.astype(int),
            1,
            mask=mask,
            weightmap=np.full(light.shape, sigma),
        )
    if shape.flag > 1:
        return math.nan, math.nan
    return float(shape.asymmetry), float(shape.smoothness)
