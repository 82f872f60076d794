# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is injected besides stars: lensed arcs, and real galaxies.

Nothing of this may be trained on.
"""

from __future__ import annotations

__all__ = ("STRUCTURE_RADIUS", "lensed_arc", "real_galaxies")

import functools
import math
from pathlib import Path

import galsim
import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.stats import mad_std
from scipy.ndimage import gaussian_filter, label

from lsst.astroclearnet.simulation import PIXEL_SCALE

type Array = npt.NDArray[np.float64]

STRUCTURE_RADIUS = 14
"""Radius in pixels that holds an arc or a galaxy."""

_OVERSAMPLING = 4
_EINSTEIN_RADII = (4.0, 7.0)
"""In pixels: 0.7 to 1.2 arcsec, galaxies as lenses."""

_OFFSETS = (0.15, 0.55)
"""Of the source from the lens in Einstein radii: from nearly a ring to an arc
and a counter-image."""

_SOURCE_SIZES = (0.5, 1.0)
"""Standard deviations of Gaussian sources in pixels."""

_HST_SCALE = 0.03
"""Arcsec per pixel of the image of the galaxies."""

_HST_SMOOTHING = 1.5
"""Standard deviation in its pixels of what its noise is smoothed with, far
below that of any target PSF."""

_HST_WINDOW = (slice(85, 165), slice(20, 165))
"""Where its galaxies with structure are."""

_MIN_AREA = 100
"""Pixels of a galaxy: less is noise."""


def lensed_arc(rng: np.random.Generator) -> galsim.GSObject:
    """Draw the image of a small source behind a singular isothermal sphere.

    Parameters
    ----------
    rng
        Random numbers.

    Returns
    -------
    profile : `galsim.GSObject`
        The arc and its counter-image without the lens, of unit flux, in
        pixels, around the place of the lens.
    """
    radius, size = rng.uniform(*_EINSTEIN_RADII), rng.uniform(*_SOURCE_SIZES)
    offset, angle = rng.uniform(*_OFFSETS) * radius, rng.uniform(0.0, 2.0 * math.pi)
    count = STRUCTURE_RADIUS * _OVERSAMPLING
    grid = np.arange(-count, count + 1) / _OVERSAMPLING
    y, x = np.meshgrid(grid, grid, indexing="ij")
    distance = np.maximum(np.hypot(x, y), 1e-6)
    source_x = x * (1.0 - radius / distance) - offset * math.cos(angle)
    source_y = y * (1.0 - radius / distance) - offset * math.sin(angle)
    light = np.exp(-0.5 * (source_x**2 + source_y**2) / size**2)
    light[(distance > STRUCTURE_RADIUS) | (distance < 0.5 / _OVERSAMPLING)] = 0.0
    return _as_profile(light, 1.0 / _OVERSAMPLING)


def real_galaxies(path: Path, rng: np.random.Generator) -> galsim.GSObject:
    """Return three galaxies that interact, turned at random.

    Parameters
    ----------
    path
        Image of the Hubble Space Telescope, ``Cut_HST.fits`` of the scarlet
        project.
    rng
        Random numbers.

    Returns
    -------
    profile : `galsim.GSObject`
        The galaxies, of unit flux, in pixels of the scenes.
    """
    profile = _as_profile(_read_galaxies(path), _HST_SCALE / PIXEL_SCALE)
    if rng.random() < 0.5:
        profile = profile.transform(-1.0, 0.0, 0.0, 1.0)
    return profile.rotate(rng.uniform(0.0, 360.0) * galsim.degrees)


@functools.cache
def _read_galaxies(path: Path) -> Array:
    """Return the light of the galaxies, with nothing around them."""
    image = np.asarray(fits.getdata(path), dtype=float)
    image -= np.median(image)
    light = gaussian_filter(image, _HST_SMOOTHING)
    # The isophote is that of an image in which faint halos stand out.
    broad = gaussian_filter(image, 3.0 * _HST_SMOOTHING)
    labels, _ = label(broad > 2.0 * mad_std(broad))
    areas = np.bincount(labels.ravel())
    kept = (areas[labels] >= _MIN_AREA) & (labels > 0)
    return np.asarray(np.where(kept, light.clip(0.0), 0.0)[_HST_WINDOW])


def _as_profile(light: Array, scale: float) -> galsim.GSObject:
    """Return an image of light as a profile of unit flux."""
    return galsim.InterpolatedImage(
        galsim.Image(light, scale=scale), x_interpolant="linear", flux=1.0, normalization="sb"
    )
