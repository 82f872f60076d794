# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Dithered exposures of stars, and the same on grids of any fineness."""

from __future__ import annotations

__all__ = ("TARGET_FWHM", "Array", "Scene", "gaussian")

import dataclasses
import functools
from collections.abc import Mapping

import galsim
import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from lsst.astroclearnet.core import PixelPositions, fwhm_to_sigma

TARGET_FWHM = 1.5
"""FWHM of the target PSF in pixels of the exposures: 3 pixels of a grid that
is finer by 2."""

_BETA = 3.5
"""Exponent of the Moffat profiles."""

_SPREAD = 0.1
"""Largest relative deviation of a width from that of the scene."""

_MARGIN = 5.0
"""Least distance of a star from the edge of the field, in pixels."""

_STAMP = 25
"""Side of the PSFs in pixels of the exposures."""

type Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Exposures of isolated stars that are shifted by fractions of a pixel.

    Coordinates are in pixels of the exposures; each has the field and a pixel
    around it, and white noise of sigma 1.

    Attributes
    ----------
    fwhm
        FWHM of the PSFs in pixels, that of the pixel included.
    num_exposures
        Number of exposures.
    size
        Side of the field in pixels.
    signal_to_noise
        That of each star, of all exposures together.
    seed
        Of everything random.
    """

    fwhm: float
    num_exposures: int = 12
    size: int = 78
    signal_to_noise: float = 250.0
    seed: int = 1

    @functools.cached_property
    def stars(self) -> Array:
        """Positions (y, x) of the stars, shape (k, 2)."""
        rng = np.random.default_rng((self.seed, 0))
        number = int((self.size - 2.0 * _MARGIN) // 12)
        first = 0.5 * (self.size - 12.0 * (number - 1) - 1.0)
        grid = np.stack(np.meshgrid(*2 * [first + 12.0 * np.arange(number)], indexing="ij"), axis=-1)
        return grid.reshape(-1, 2) + rng.uniform(-1.0, 1.0, (number**2, 2))

    @functools.cached_property
    def dithers(self) -> Array:
        """Offsets (y, x) of the exposures, shape (n, 2)."""
        return np.random.default_rng((self.seed, 1)).uniform(-0.5, 0.5, (self.num_exposures, 2))

    @functools.cached_property
    def profiles(self) -> list[galsim.GSObject]:
        """PSFs, with the pixel of the exposures."""
        rng = np.random.default_rng((self.seed, 2))
        widths = self.fwhm * (1.0 + _SPREAD * rng.uniform(-1.0, 1.0, self.num_exposures))
        shears = rng.uniform(-0.03, 0.03, (self.num_exposures, 2))
        return [
            galsim.Convolve(
                galsim.Moffat(beta=_BETA, fwhm=_optical_fwhm(float(width))).shear(g1=g1, g2=g2),
                galsim.Pixel(1.0),
            )
            for width, (g1, g2) in zip(widths, shears, strict=True)
        ]

    @functools.cached_property
    def flux(self) -> float:
        """Flux of each star, in sigma of the noise of a pixel."""
        return self.signal_to_noise * self.flux_sigma

    @functools.cached_property
    def flux_sigma(self) -> float:
        """Cramer-Rao bound of the flux of a star."""
        power = 0.0
        for profile, (y, x) in zip(self.profiles, self.dithers, strict=True):
            power += float((_draw(profile, _STAMP, 1.0, y=y, x=x) ** 2).sum())
        return power**-0.5

    @functools.cached_property
    def images(self) -> Array:
        """Exposures, shape (n, size + 2, size + 2)."""
        rng = np.random.default_rng((self.seed, 3))
        side = self.size + 2
        images = rng.standard_normal((self.num_exposures, side, side))
        for image, profile, dither in zip(images, self.profiles, self.dithers, strict=True):
            for y, x in self.stars - dither + 1.0:
                row, column = round(y), round(x)
                stamp = _draw(profile, _STAMP, 1.0, y=y - row, x=x - column)
                half = _STAMP // 2
                rows, columns = (np.arange(max(0, c - half), min(side, c + half + 1)) for c in (row, column))
                image[np.ix_(rows, columns)] += (
                    self.flux * stamp[np.ix_(rows - row + half, columns - column + half)]
                )
        return images

    def positions(self, factor: int) -> tuple[Array, Array]:
        """Return rows and columns of the pixels, shape (n, h, w), on a grid.

        The grid begins at the outer edge of the field.

        Parameters
        ----------
        factor
            Pixels of the grid along the side of one of the exposures.
        """
        index = np.arange(self.size + 2) - 1.0
        y, x = (
            (index + dither[:, None] + 0.5) * factor - 0.5
            for dither in (self.dithers[:, 0], self.dithers[:, 1])
        )
        shape = (self.num_exposures, len(index), len(index))
        return np.broadcast_to(y[:, :, None], shape), np.broadcast_to(x[:, None, :], shape)

    def star_positions(self, factor: int) -> Array:
        """Return positions (y, x) of the stars on a grid, shape (k, 2).

        Parameters
        ----------
        factor
            As of `positions`.
        """
        return (self.stars + 0.5) * factor - 0.5

    def psfs(self, factor: int) -> Array:
        """Return PSFs on a grid, shape (n, P, P), sum 1.

        Parameters
        ----------
        factor
            As of `positions`.
        """
        size = (_STAMP * factor) // 2 * 2 + 1
        stamps = np.stack([_draw(profile, size, 1.0 / factor) for profile in self.profiles])
        return stamps / stamps.sum(axis=(1, 2), keepdims=True)

    def arguments(self, factor: int, target_fwhm: float = TARGET_FWHM) -> Mapping[str, object]:
        """Return arguments of `lsst.astroclearnet.core.restore` for a grid.

        Parameters
        ----------
        factor
            As of `positions`.
        target_fwhm
            FWHM of the target PSF in pixels of the exposures.
        """
        y, x = self.positions(factor)
        return {
            "images": self.images,
            "variances": np.ones(self.images.shape),
            "good": np.ones(self.images.shape, dtype=bool),
            "psfs": self.psfs(factor),
            "target_fwhm": target_fwhm * factor,
            "positions": PixelPositions.from_arrays(
                (self.size * factor, self.size * factor),
                y=y,
                x=x,
                area=np.full(y.shape, float(factor) ** 2),
            ),
        }


def gaussian(shape: tuple[int, int], fwhm: float, *, y: float, x: float) -> Array:
    """Return a round Gaussian of sum 1, sampled at the pixels.

    Parameters
    ----------
    shape
        Height and width in pixels.
    fwhm
        Its FWHM in pixels.
    y, x
        Row and column of its centre.
    """
    sigma = fwhm_to_sigma(fwhm)
    rows, columns = (
        np.exp(-0.5 * ((np.arange(size) - center) / sigma) ** 2)
        for size, center in zip(shape, (y, x), strict=True)
    )
    return np.asarray(rows[:, None] * columns / (2.0 * np.pi * sigma**2))


@functools.cache
def _optical_fwhm(fwhm: float) -> float:
    """Return the FWHM of a Moffat profile whose image has another."""

    def excess(optical: float) -> float:
        profile = galsim.Convolve(galsim.Moffat(beta=_BETA, fwhm=optical), galsim.Pixel(1.0))
        return float(profile.drawImage(nx=161, ny=161, scale=0.05, method="no_pixel").calculateFWHM()) - fwhm

    return float(scipy.optimize.brentq(excess, 0.2, fwhm, xtol=1e-3))


def _draw(profile: galsim.GSObject, size: int, scale: float, *, y: float = 0.0, x: float = 0.0) -> Array:
    """Draw a profile that includes its pixel, off the middle."""
    image = profile.shift(x, y).drawImage(nx=size, ny=size, scale=scale, method="no_pixel")
    return np.asarray(image.array, dtype=float)
