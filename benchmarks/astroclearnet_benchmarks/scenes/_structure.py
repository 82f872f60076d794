# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Light with structure: galaxies with arms and clumps, and nebulae.

Both are made of Gaussian random fields, a recipe that serves tests only.
"""

from __future__ import annotations

__all__ = ()

import math

import galsim
import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2, rfftfreq
from scipy.ndimage import gaussian_filter, map_coordinates

type Array = npt.NDArray[np.float64]

_OVERSAMPLING = 3
_HALF = 14
"""Half-size in pixels of a galaxy, which its neighbours leave free."""

_SCALE_RADII = (1.8, 3.0)
"""Scale lengths of discs in pixels."""

_CONTRAST = 0.7
"""Standard deviation of the logarithm of the light of a disc around its mean
profile: the brightest clumps are four times as bright as the disc."""

_CLUMP_SIZE = 0.25
"""Standard deviation of the kernel of the random field in scale lengths."""

_SHEARS = (0.0, 0.45)
_NEBULA_SLOPE = -3.0
"""Of the power spectrum, as of the interstellar medium in projection."""

_NEBULA_CONTRAST = 0.8


def structured_galaxy(rng: np.random.Generator) -> tuple[galsim.GSObject, float, float]:
    """Draw a disc galaxy with flocculent arms, a bar and a ring.

    Arms are a lognormal random field that differential rotation has wound up.

    Parameters
    ----------
    rng
        Random numbers.

    Returns
    -------
    profile : `galsim.GSObject`
        The galaxy, of unit flux, in pixels.
    extent : `float`
        Radius in pixels that holds it.
    half_light_radius : `float`
        Radius in pixels that holds half of its light, seen face-on.
    """
    scale = rng.uniform(*_SCALE_RADII)
    # The shear reaches further out, so that the disc must end earlier.
    shear = rng.uniform(*_SHEARS)
    edge = _HALF / math.sqrt((1.0 + shear) / (1.0 - shear))
    count = math.ceil(edge * _OVERSAMPLING)
    offset = np.arange(-count, count + 1) / _OVERSAMPLING
    y, x = np.meshgrid(offset, offset, indexing="ij")
    radius = np.hypot(x, y)
    disc = np.exp(-radius / scale) * np.exp(_CONTRAST * _wound_field(x, y, scale, rng))
    ring_radius, ring = rng.uniform(1.0, 2.5) * scale, rng.uniform(0.0, 0.3)
    disc += ring * np.exp(-0.5 * ((radius - ring_radius) / (0.25 * scale)) ** 2 - 1.0)
    angle = rng.uniform(0.0, math.pi)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    bar = np.exp(-0.5 * ((along / (0.8 * scale)) ** 2 + (across / (0.25 * scale)) ** 2))
    light = disc + rng.uniform(0.0, 2.0) * bar
    light *= np.clip((edge - radius) / (0.2 * edge), 0.0, 1.0)
    order = np.argsort(radius, axis=None)
    growth = np.cumsum(light.flat[order])
    half_light = float(radius.flat[order][np.searchsorted(growth, 0.5 * growth[-1])])
    profile = _interpolated(light, 1.0 / _OVERSAMPLING)
    return profile.shear(g=shear, beta=rng.uniform(0.0, 180.0) * galsim.degrees), float(_HALF), half_light


def _wound_field(x: Array, y: Array, scale: float, rng: np.random.Generator) -> Array:
    """Return a Gaussian field of unit variance, wound up around the centre."""
    field = gaussian_filter(rng.normal(size=x.shape), _CLUMP_SIZE * scale * _OVERSAMPLING, mode="wrap")
    field /= field.std()
    turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.5) * np.log1p(np.hypot(x, y) / scale)
    rows, columns = (
        c * _OVERSAMPLING + len(x) // 2
        for c in (x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn))
    )
    return np.asarray(map_coordinates(field, [rows, columns], order=1, mode="grid-wrap"))


def nebula(side: int, rng: np.random.Generator) -> galsim.GSObject:
    """Draw a nebula: the exponential of a scale-free random field.

    Parameters
    ----------
    side
        Side of its square in pixels.
    rng
        Random numbers.

    Returns
    -------
    profile : `galsim.GSObject`
        The nebula, of unit flux, in pixels.
    """
    # Nothing is periodic in the part that is used.
    size = 2 * side
    frequency = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = rfft2(rng.normal(size=(size, size))) * frequency ** (0.5 * _NEBULA_SLOPE)
    field = irfft2(spectrum, s=(size, size))[:side, :side]
    field = (field - field.mean()) / field.std()
    return _interpolated(np.exp(_NEBULA_CONTRAST * field), 1.0)


def _interpolated(light: Array, scale: float) -> galsim.GSObject:
    """Return an image as a profile of unit flux."""
    # Pixels of the scene are coarser and the PSF broader than the samples.
    image = galsim.Image(light, scale=scale)
    return galsim.InterpolatedImage(image, x_interpolant="linear", flux=1.0, normalization="sb")
