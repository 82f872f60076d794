# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Real HSC pixels, restored on two grids, against those of HST."""

from __future__ import annotations

__all__ = ("HubbleField",)

import dataclasses
import functools
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import center_of_mass, map_coordinates

from lsst.astroclearnet.core import PixelPositions, gaussian_kernel, restore

from .scene import Array

_BAND = 2
"""Index of the band i, that of the filter F814W of HST."""

_EDGE = 4
"""Pixels of HSC at the edge that are not compared."""


@dataclasses.dataclass(frozen=True)
class HubbleField:
    """A field in pixels of HSC and of HST.

    Attributes
    ----------
    folder
        Folder of the images and PSFs.
    target_arcsec
        FWHM of the target PSF.
    """

    folder: Path
    target_arcsec: float = 0.5

    @functools.cached_property
    def coadd(self) -> Array:
        """The coadd of HSC."""
        return np.asarray(fits.getdata(self.folder / "Cut_HSC.fits")[_BAND], dtype=float)

    def restored(self, factor: int) -> Array:
        """Return the linear image of the coadd of HSC on a finer grid.

        Parameters
        ----------
        factor
            Pixels of the grid along the side of one of HSC.
        """
        image = self.coadd
        psf = fits.getdata(self.folder / "PSF_HSC.fits")[_BAND].astype(float)
        # White noise of the coadd, from second differences.
        second = image[1:-1, 1:-1] - 0.25 * (
            image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
        )
        sigma = 1.4826 * np.median(np.abs(second - np.median(second))) / np.sqrt(1.25)
        height, width = image.shape
        index = np.arange(height), np.arange(width)
        y, x = ((axis + 0.5) * factor - 0.5 for axis in index)
        half = len(psf) // 2
        points = np.arange(-half * factor, half * factor + 1) / factor
        # It is a fraction of a pixel off the middle of its stamp.
        row, column = center_of_mass(np.where(psf > 0.1 * psf.max(), psf, 0.0))
        fine = map_coordinates(psf, np.meshgrid(points + row, points + column, indexing="ij"), order=5)
        result = restore(
            image[None],
            np.full((1, height, width), sigma**2),
            np.ones((1, height, width), dtype=bool),
            fine[None] / fine.sum(),
            target_fwhm=self.target_arcsec / self._scale * factor,
            positions=PixelPositions.from_arrays(
                (height * factor, width * factor),
                y=np.broadcast_to(y[:, None], (1, height, width)),
                x=np.broadcast_to(x, (1, height, width)),
                area=np.full((1, height, width), float(factor) ** 2),
            ),
        )
        return np.asarray(result.linear_image, dtype=float)

    def hubble(self, factor: int) -> Array:
        """Return the image of HST at the target PSF, on the same grid.

        Parameters
        ----------
        factor
            As of `restored`.
        """
        image, psf = (fits.getdata(self.folder / f"{name}_HST.fits").astype(float) for name in ("Cut", "PSF"))
        wcs = WCS(fits.getheader(self.folder / "Cut_HST.fits"))
        scale = float(np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600.0
        target = gaussian_kernel(self.target_arcsec / scale, len(psf))
        shape = [2 * side for side in image.shape]
        otf, wanted = (np.fft.rfft2(_centered(stamp / stamp.sum(), shape)) for stamp in (psf, target))
        # The target has no power where the PSF has none.
        matched = np.fft.irfft2(
            np.fft.rfft2(image, shape) * wanted * otf.conj() / (np.abs(otf) ** 2 + 1e-6), shape
        )
        side = self._shape[0] * factor
        grid = (np.arange(side) + 0.5) / factor - 0.5
        x, y = np.meshgrid(grid, grid)
        sky = self._wcs.pixel_to_world(x, y)
        column, row = wcs.world_to_pixel(sky)
        sampled = map_coordinates(
            matched[: image.shape[0], : image.shape[1]], [row, column], order=3, cval=np.nan
        )
        return np.asarray(sampled * (self._scale / factor / scale) ** 2)

    def compare(self, image: Array, factor: int) -> tuple[float, float]:
        """Return what differs from HST over its light, and the correlation.

        Flux scale, level and shift are fitted.

        Parameters
        ----------
        image, factor
            An image on a finer grid.
        """
        truth = self.hubble(factor)
        slopes = np.gradient(truth)
        inner = slice(_EDGE * factor, -_EDGE * factor)
        use = np.isfinite(truth + slopes[0] + slopes[1])[inner, inner]
        columns = [plane[inner, inner][use] for plane in (truth, *slopes)]
        matrix = np.stack([*columns, np.ones(len(columns[0]))], axis=1)
        values = image[inner, inner][use]
        coefficients = np.linalg.lstsq(matrix, values, rcond=None)[0]
        model = matrix @ coefficients
        light = model - coefficients[-1]
        left = float(np.sqrt(np.mean((values - model) ** 2) / np.mean(light**2)))
        return left, float(np.corrcoef(values, model)[0, 1])

    @functools.cached_property
    def _wcs(self) -> WCS:
        return WCS(fits.getheader(self.folder / "Cut_HSC.fits"), naxis=2)

    @functools.cached_property
    def _shape(self) -> tuple[int, int]:
        height, width = self.coadd.shape
        return height, width

    @functools.cached_property
    def _scale(self) -> float:
        """Pixel scale of HSC in arcsec."""
        return float(np.sqrt(np.abs(np.linalg.det(self._wcs.pixel_scale_matrix)))) * 3600.0


def _centered(stamp: Array, shape: list[int]) -> Array:
    """Place a stamp with its middle on the first pixel of an array."""
    full = np.zeros(shape)
    full[: stamp.shape[0], : stamp.shape[1]] = stamp
    return np.roll(full, (-(stamp.shape[0] // 2), -(stamp.shape[1] // 2)), (0, 1))
