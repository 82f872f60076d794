# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Two images of the same data, and one of more data."""

from __future__ import annotations

__all__ = ("measure_difference", "measure_harm")

import math

import numpy as np
import numpy.typing as npt

from ..quality.product import Product
from ..scenes import Scene
from .pixels import far_from_saturated, measure_pixels

type Array = npt.NDArray[np.float64]


def measure_difference(one: Product, two: Product, scene: Scene) -> float:
    """Return how much two images of the same data differ.

    Parameters
    ----------
    one, two
        The images, of two seeds or two models.
    scene
        The scene.

    Returns
    -------
    difference : `float`
        Rms difference in units of the sigma that the first declares, of the
        pixels that both measure, more than 30 pixels from saturated stars;
        NaN if it declares none.
    """
    if one.variance is None:
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (np.asarray(two.image) - np.asarray(one.image)) / np.sqrt(np.asarray(one.variance))
    used = np.isfinite(pull) & far_from_saturated(scene)
    for product in (one, two):
        used &= product.flagged is None or ~product.flagged
    return math.sqrt(float(np.mean(np.square(pull[used], dtype=float)))) if used.any() else math.nan


def measure_harm(without: Product, with_exposure: Product, truth: Array, scene: Scene) -> float:
    """Return what one exposure more does to the total error.

    Parameters
    ----------
    without, with_exposure
        What a method made of a scene, and of the same with one exposure more.
    truth
        Shape (H, W), the truth at the target PSF.
    scene
        The scene without that exposure.

    Returns
    -------
    harm : `float`
        Relative change of the rms error of all pixels that are more than 30
        from saturated stars and have a value in both images.
    """
    seen = np.isfinite(without.image) & np.isfinite(with_exposure.image)
    before, after = (
        measure_pixels(np.where(seen, product.image, np.nan), truth, scene)["far"]["all"]
        for product in (without, with_exposure)
    )
    return after / before - 1.0
