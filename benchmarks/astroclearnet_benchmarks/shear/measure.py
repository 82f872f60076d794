# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Moments of galaxies on fields of opposite shear."""

from __future__ import annotations

__all__ = ("Shapes", "measure_moments")

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import fwhm_to_sigma

from ..scenes import SceneSource
from .fields import IMAGES, TARGET_FWHM, TRUTH, RestoredField, window

_WEIGHT = 1.5
"""Width of the Gaussian weight of moments over that of the target PSF."""


class Shapes(NamedTuple):
    """Moments of galaxies at either shear, summed over two orientations.

    Moments are linear functions of the image, of shape (2, n, 3): the shear,
    + and -, the galaxy, and the moment, along the shear (xx - yy or 2 xy),
    across it (the other one), and xx + yy.
    """

    recovered: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]


def measure_moments(field: RestoredField) -> dict[str, Shapes]:
    """Measure the moments of galaxies on the restored images of a field.

    Parameters
    ----------
    field
        The field.

    Returns
    -------
    shapes : `dict` [`str`, `Shapes`]
        For each of `IMAGES`.
    """
    order = [field.component, 1 - field.component, 2]
    sums = {
        name: np.stack([sum(_moments(image, field.galaxies) for image in pair) for pair in images])[
            ..., order
        ]
        for name, images in field.images.items()
    }
    return {name: Shapes(sums[name], sums[TRUTH]) for name in IMAGES}


def _moments(image: npt.NDArray[np.floating], sources: Sequence[SceneSource]) -> npt.NDArray[np.float64]:
    """Return the moments of each source under a round Gaussian weight."""
    sigma = _WEIGHT * fwhm_to_sigma(TARGET_FWHM)
    height, width = image.shape
    rows, columns = np.mgrid[:height, :width]
    moments = []
    for source in sources:
        pixels = window(source)
        y, x = rows[pixels] - source.y, columns[pixels] - source.x
        light = image[pixels] * np.exp(-0.5 * (x**2 + y**2) / sigma**2)
        moments.append([np.sum(light * m) for m in (x**2 - y**2, 2.0 * x * y, x**2 + y**2)])
    return np.array(moments)
