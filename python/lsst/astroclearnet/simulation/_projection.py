# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Local linear approximations of a sky projection, for GalSim."""

from __future__ import annotations

__all__ = ("local_wcs",)

from typing import Any

import galsim
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord

from lsst.images import YX, SkyProjection


def local_wcs(
    projection: SkyProjection[Any], *, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> list[galsim.JacobianWCS]:
    """Return the linear map from pixels to the tangent plane at positions.

    Parameters
    ----------
    projection
        Mapping from pixels to the sky.
    x, y
        Positions in pixels, each of shape (n,).

    Returns
    -------
    maps : `list` [`galsim.JacobianWCS`]
        Maps from pixels to arcsec towards west and north.
    """
    return [
        galsim.JacobianWCS(*(float(value) for value in jacobian.ravel()))
        for jacobian in _jacobians(projection, x, y)
    ]


def _jacobians(
    projection: SkyProjection[Any], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the matrices of `local_wcs`, shape (n, 2, 2)."""
    if not len(x):
        return np.zeros((0, 2, 2))
    offsets = ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
    sky = projection.pixel_to_sky(
        YX(
            y=np.concatenate([y + dy for _, dy in offsets]),
            x=np.concatenate([x + dx for dx, _ in offsets]),
        )
    )
    ra = np.unwrap(sky.ra.rad.reshape(4, -1), axis=0)
    dec = sky.dec.rad.reshape(4, -1)
    to_arcsec = np.degrees(1.0) * 3600.0
    west = -np.cos(dec.mean(axis=0)) * (ra[0::2] - ra[1::2]) * to_arcsec
    north = (dec[0::2] - dec[1::2]) * to_arcsec
    return np.moveaxis(np.array([west, north]), -1, 0)


def _sky_to_pixels(
    projection: SkyProjection[Any], sky: SkyCoord
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the pixels of positions, also of an empty array."""
    if not len(sky):
        return np.zeros(0), np.zeros(0)
    pixels = projection.sky_to_pixel(sky)
    return np.asarray(pixels.x), np.asarray(pixels.y)
