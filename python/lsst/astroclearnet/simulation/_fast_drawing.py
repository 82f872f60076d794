# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw many sources without Fourier transforms."""

from __future__ import annotations

__all__ = ("PsfShapes", "add_stars", "count_photons")

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.special import gammainc

from ._psf import MOFFAT_BETA
from ._rendering import _BULGE_TRUNCATION, _UNIT_BULGE, _UNIT_DISC

type Array = npt.NDArray[np.float64]

_NODES = np.array([-0.5, 0.0, 0.5]) * math.sqrt(0.6)
_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
"""Gauss-Legendre rule on a pixel, exact up to the fifth order."""

_TABLE_SIZE = 4096
"""Steps of the radii of bulges: 1e-4 half-light radii where most light is."""

_BATCH = 1 << 20
"""Photons that are drawn at a time: about 100 MB of random numbers."""


@dataclasses.dataclass(frozen=True)
class PsfShapes:
    """Moffat PSFs of sources, and the maps from pixels to the sky there.

    Attributes
    ----------
    fwhm
        FWHM before shear in arcsec, shape (n,).
    g1, g2
        Reduced shear on the axes west and north, shape (n,).
    jacobians
        Maps from pixels (x, y) to arcsec (west, north), shape (n, 2, 2).
    """

    fwhm: Array
    g1: Array
    g2: Array
    jacobians: Array

    @property
    def radius(self) -> Array:
        """Scale radius of the Moffat profile in arcsec, shape (n,)."""
        return self.fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / MOFFAT_BETA) - 1.0))

    def part(self, which: npt.NDArray[np.bool_]) -> PsfShapes:
        """Return those of some of the sources.

        Parameters
        ----------
        which
            The sources, shape (n,).
        """
        return PsfShapes(self.fwhm[which], self.g1[which], self.g2[which], self.jacobians[which])


def add_stars(image: Array, *, x: Array, y: Array, flux: Array, radius: Array, psfs: PsfShapes) -> None:
    """Add stars to an image, integrated over its pixels.

    Parameters
    ----------
    image
        Image of shape (H, W) to add to.
    x, y
        Positions in pixels, shape (n,).
    flux
        Fluxes, shape (n,).
    radius
        Radii in pixels out to which stars are drawn, shape (n,).
    psfs
        Their PSFs.
    """
    # Pixels to units in which the profile is round and of scale radius one.
    maps = _shear_matrices(-psfs.g1, -psfs.g2) @ psfs.jacobians / psfs.radius[:, None, None]
    peaks = flux * (MOFFAT_BETA - 1.0) / math.pi * np.abs(np.linalg.det(maps))
    for n, half in enumerate(np.ceil(radius).astype(int)):
        spans = []
        for position, size in ((y[n], image.shape[0]), (x[n], image.shape[1])):
            middle = round(float(position))
            spans.append(slice(max(0, middle - half), max(0, min(size, middle + half + 1))))
        rows, columns = spans
        dy = (np.arange(rows.start, rows.stop)[:, None] + _NODES - y[n]).ravel()
        dx = (np.arange(columns.start, columns.stop)[:, None] + _NODES - x[n]).ravel()
        if not (dy.size and dx.size):
            continue
        (a, b), (c, d) = maps[n]
        square = (a * a + c * c) * dx**2 + (1.0 + (b * b + d * d) * dy**2)[:, None]
        square += np.outer(2.0 * (a * b + c * d) * dy, dx)
        profile = (square**-MOFFAT_BETA).reshape(-1, 3) @ _WEIGHTS
        image[rows, columns] += peaks[n] * (_WEIGHTS @ profile.reshape(dy.size // 3, 3, dx.size // 3))


def count_photons(
    shape: tuple[int, int], galaxies: Table, *, flux: Array, psfs: PsfShapes, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw galaxies photon by photon, a Poisson number of each.

    Parameters
    ----------
    shape
        Height and width of the image.
    galaxies
        Rows of the truth catalogue, ``x`` and ``y`` in pixels of the image.
    flux
        Expected photons, shape (n,).
    psfs
        PSFs at the galaxies.
    rng
        Random numbers.

    Returns
    -------
    photons : `numpy.ndarray`
        Photons in each pixel, of shape ``shape``.
    """
    photons = np.zeros(math.prod(shape), dtype=np.int64)
    height, width = shape
    angle = np.radians(90.0 + np.asarray(galaxies["position_angle"], dtype=float))
    to_pixels = np.linalg.inv(psfs.jacobians)
    blurs = to_pixels @ _shear_matrices(psfs.g1, psfs.g2) * psfs.radius[:, None, None]
    shapes = []
    for part in ("bulge", "disc"):
        shear = np.asarray(galaxies[f"{part}_g"], dtype=float)
        size = np.asarray(galaxies[f"{part}_radius"], dtype=float)
        matrices = _shear_matrices(shear * np.cos(2.0 * angle), shear * np.sin(2.0 * angle))
        shapes.append(to_pixels @ matrices * size[:, None, None])
    fraction = np.asarray(galaxies["bulge_fraction"], dtype=float)
    x, y = (np.asarray(galaxies[name], dtype=float) for name in ("x", "y"))
    for matrices, expected, draw in zip(
        shapes, (fraction * flux, (1.0 - fraction) * flux), (_bulge_radii, _disc_radii), strict=True
    ):
        source = np.repeat(np.arange(len(flux)), rng.poisson(expected))
        for start in range(0, len(source), _BATCH):
            batch = source[start : start + _BATCH]
            wings = rng.uniform(size=len(batch)) ** (1.0 / (1.0 - MOFFAT_BETA))
            column, row = x[batch], y[batch]
            for radii, maps in ((draw(len(batch), rng), matrices), (np.sqrt(wings - 1.0), blurs)):
                turn = rng.uniform(0.0, 2.0 * math.pi, size=len(batch))
                one, other = radii * np.cos(turn), radii * np.sin(turn)
                column += maps[batch, 0, 0] * one + maps[batch, 0, 1] * other
                row += maps[batch, 1, 0] * one + maps[batch, 1, 1] * other
            column, row = np.rint(column), np.rint(row)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixels = (row[inside] * width + column[inside]).astype(np.int64)
            photons += np.bincount(pixels, minlength=len(photons))
    return photons.reshape(shape)


def _shear_matrices(g1: Array, g2: Array) -> Array:
    """Return the matrices of reduced shears, shape (n, 2, 2)."""
    matrices = np.array([[1.0 + g1, g2], [g2, 1.0 - g1]]) / np.sqrt(1.0 - g1**2 - g2**2)
    return np.moveaxis(matrices, -1, 0)


def _disc_radii(number: int, rng: np.random.Generator) -> Array:
    """Draw radii of photons of a disc, in half-light radii."""
    return rng.standard_gamma(2.0, size=number) * float(_UNIT_DISC.scale_radius)


def _bulge_radii(number: int, rng: np.random.Generator) -> Array:
    """Draw radii of photons of a bulge, in half-light radii."""
    # The light inside r grows as the incomplete gamma function of r^(1/4).
    scale = float(_UNIT_BULGE.scale_radius)
    root = np.linspace(0.0, (_BULGE_TRUNCATION / scale) ** 0.25, _TABLE_SIZE)
    light = gammainc(8.0, root)
    return np.asarray(scale * np.interp(rng.uniform(0.0, light[-1], size=number), light, root) ** 4)
