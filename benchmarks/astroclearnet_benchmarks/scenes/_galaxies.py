# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Smooth galaxies: sizes, shapes and profiles by magnitude."""

from __future__ import annotations

__all__ = ()

import math
from collections.abc import Mapping
from types import MappingProxyType

import galsim
import numpy as np

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, PIXEL_SCALE

SERSIC_FRACTIONS: Mapping[float, float] = MappingProxyType({1.0: 0.45, 1.5: 0.25, 2.5: 0.15, 4.0: 0.15})
"""Shares of the Sersic indices of galaxies."""

_SERSIC_TRUNCATION = 5.0


def flux_of(magnitude: float) -> float:
    """Return the flux of an AB magnitude.

    Parameters
    ----------
    magnitude
        AB magnitude.

    Returns
    -------
    flux : `float`
        Flux in nJy.
    """
    return float(10.0 ** (-0.4 * (magnitude - AB_ZERO_POINT_NJY)))


def draw_galaxy(
    rng: np.random.Generator, magnitude: float, indices: Mapping[float, float] = SERSIC_FRACTIONS
) -> tuple[galsim.GSObject, float, float]:
    """Draw a Sersic profile.

    Parameters
    ----------
    rng
        Random numbers.
    magnitude
        Magnitude, which the size follows.
    indices
        Sersic indices and their shares.

    Returns
    -------
    profile : `galsim.GSObject`
        The galaxy, of unit flux, in pixels.
    extent : `float`
        Radius in pixels that holds it.
    half_light_radius : `float`
        Radius in pixels that holds half of its light, seen face-on.
    """
    size = 0.28 * 10.0 ** (-0.1 * (magnitude - 25.0) + rng.normal(0.0, 0.18))
    radius = float(np.clip(size, 0.08, 1.6)) / PIXEL_SCALE
    shear = float(np.clip(rng.rayleigh(0.25), 0.0, 0.7))
    index = float(rng.choice(tuple(indices), p=tuple(indices.values())))
    unit = galsim.Sersic(index, half_light_radius=1.0, trunc=_SERSIC_TRUNCATION, flux_untruncated=False)
    angle = rng.uniform(0.0, 180.0) * galsim.degrees
    stretch = math.sqrt((1.0 + shear) / (1.0 - shear))
    profile = unit.dilate(radius).shear(g=shear, beta=angle)
    return profile, _SERSIC_TRUNCATION * radius * stretch, radius
