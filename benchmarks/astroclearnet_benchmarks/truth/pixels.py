# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of an image by brightness, near and far from saturated stars."""

from __future__ import annotations

__all__ = ("FAR", "far_from_saturated", "measure_pixels")

import math

import numpy as np
import numpy.typing as npt

from ..scenes import Scene

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

FAR = 30.0
"""Pixels from the centres of saturated stars that count as far."""

_SKY = 0.3
_FAINT = (1.0, 20.0)
_SOURCES = 3.0
"""Limits in sky sigmas."""


def far_from_saturated(scene: Scene) -> Mask:
    """Return the pixels that are far from saturated stars.

    Parameters
    ----------
    scene
        The scene.

    Returns
    -------
    far : `numpy.ndarray`
        Shape (H, W), bool.
    """
    rows, columns = np.indices(scene.options.shape)
    far = np.ones(scene.options.shape, dtype=bool)
    for star in scene.catalogue[scene.catalogue["is_saturated"]]:
        far &= np.hypot(columns - float(star["x"]), rows - float(star["y"])) > FAR
    return far


def measure_pixels(image: Array, truth: Array, scene: Scene) -> dict[str, dict[str, float]]:
    """Measure rms errors in sky sigmas of the inverse-variance coadd.

    Parameters
    ----------
    image
        Shape (H, W), in nJy, NaN where there is no data.
    truth
        Shape (H, W), the truth at the target PSF.
    scene
        The scene.

    Returns
    -------
    record : `dict` [`str`, `dict` [`str`, `float`]]
        By ``far`` (more than `FAR` pixels from saturated stars) and
        ``everywhere``: rms errors where the truth is below 0.3 (``sky``), 1
        to 20 (``faint``) and above 3 sigma (``sources``), and of ``all``
        pixels; NaN where there are none.  Pixels that no exposure has are
        left out.
    """
    level = truth / scene.sky_sigma
    bins = {
        "sky": level < _SKY,
        "faint": (level >= _FAINT[0]) & (level < _FAINT[1]),
        "sources": level >= _SOURCES,
        "all": np.ones_like(level, dtype=bool),
    }
    seen = np.isfinite(image) & (scene.depth > 0.0)
    square = np.where(seen, (image - truth) / scene.sky_sigma, 0.0) ** 2
    regions = {"far": seen & far_from_saturated(scene), "everywhere": seen}
    return {
        region: {name: _root_mean(square[inside & pixels]) for name, pixels in bins.items()}
        for region, inside in regions.items()
    }


def _root_mean(squares: Array) -> float:
    return math.sqrt(float(np.mean(squares))) if squares.size else math.nan
