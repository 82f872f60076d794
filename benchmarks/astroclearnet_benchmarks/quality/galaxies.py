# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Isolated galaxies: aperture fluxes and shapes."""

from __future__ import annotations

__all__ = ("measure_galaxies",)

import math
from typing import Any

import galsim
import numpy as np
import numpy.typing as npt

from ..scenes import Scene
from .product import Product

type Array = npt.NDArray[np.float64]

_APERTURE = 9.0
"""Radius of the aperture in pixels: 1.5 arcsec."""

_SHAPE_RADIUS = 15
_MIN_SHAPE_SIGNAL_TO_NOISE = 50.0
_MIN_ELLIPTICITY = 0.05


def measure_galaxies(product: Product, scene: Scene, truth: Array) -> dict[str, Any]:
    """Measure the clean isolated galaxies of a scene.

    Returns
    -------
    record : `dict`
        ``galaxies``: rows of signal-to-noise ratio, error of the flux in an
        aperture of 1.5 arcsec over the true one, and, from adaptive moments
        (Hirata & Seljak 2003, MNRAS 343, 459) above a ratio of 50, the error
        of the ellipticity along its true direction and the fractional error
        of the size; NaN where not measured.  Galaxies without data in the
        aperture are left out.
    """
    image = np.asarray(product.image, dtype=float)
    rows, columns = np.indices(image.shape)
    table = []
    for index in np.flatnonzero(scene.catalogue["is_clean"]):
        x, y = float(scene.catalogue["x"][index]), float(scene.catalogue["y"][index])
        snr = float(scene.catalogue["signal_to_noise"][index])
        inside = np.hypot(columns - x, rows - y) <= _APERTURE
        if not np.isfinite(image[inside]).all():
            continue
        true = scene.source_image(int(index), product.fwhm)
        ellipticity, size = math.nan, math.nan
        if snr > _MIN_SHAPE_SIGNAL_TO_NOISE:
            ellipticity, size = _shape_error(true, true + np.nan_to_num(image - truth), x, y)
        table.append([snr, float((image - truth)[inside].sum() / true[inside].sum()), ellipticity, size])
    return {"galaxies": table}


def _shape_error(true: Array, measured: Array, x: float, y: float) -> tuple[float, float]:
    """Return the errors of ellipticity and size; NaN if moments fail."""
    box = tuple(
        slice(max(0, round(c) - _SHAPE_RADIUS), min(size, round(c) + _SHAPE_RADIUS + 1))
        for c, size in zip((y, x), true.shape, strict=True)
    )
    guess = galsim.PositionD(x - box[1].start + 1.0, y - box[0].start + 1.0)
    one, two = (
        galsim.hsm.FindAdaptiveMom(galsim.ImageD(image[box].copy()), guess_centroid=guess, strict=False)
        for image in (true, measured)
    )
    if one.error_message or two.error_message:
        return math.nan, math.nan
    e1, e2 = one.observed_shape.e1, one.observed_shape.e2
    e = math.hypot(e1, e2)
    along = (
        ((two.observed_shape.e1 - e1) * e1 + (two.observed_shape.e2 - e2) * e2) / e
        if e > _MIN_ELLIPTICITY
        else math.nan
    )
    return along, two.moments_sigma / one.moments_sigma - 1.0
