# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A sky on a grid of half pixels, and what PSFs make of it."""

from __future__ import annotations

__all__ = ()

import dataclasses
import math
from functools import cached_property

import galsim
import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma
from scipy import fft
from scipy.ndimage import map_coordinates, spline_filter

from ..scenes._exposures import draw_source
from ..scenes._sources import SceneSource

type Array = npt.NDArray[np.float64]

RIM = 32
"""Pixels of sky beyond each side of the patch."""

_OVERSAMPLING = 2
_SMOOTHED_FWHM = 2.0
"""FWHM in pixels that the sky is drawn with: half pixels sample it to 1e-6,
and every PSF is wider."""

_SMALLEST_TRANSFER = 1e-5
"""Transform of the smoothing below which the sky is not known."""

_POINT_REACH = 6.0
"""Radius in standard deviations out to which Gaussians are drawn."""

_SPLINE_ORDER = 5


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Moffat profile, before it is integrated over a pixel.

    Attributes
    ----------
    fwhm
        FWHM in pixels of the patch.
    beta
        Exponent.
    g1, g2
        Reduced shear.
    radius
        Radius in pixels where it ends, before it is sheared.
    """

    fwhm: float
    beta: float
    g1: float
    g2: float
    radius: float

    @cached_property
    def profile(self) -> galsim.GSObject:
        """The profile with unit flux (`galsim.GSObject`)."""
        moffat = galsim.Moffat(beta=self.beta, fwhm=self.fwhm, trunc=self.radius)
        return moffat.shear(g1=self.g1, g2=self.g2)


class SkyGrid:
    """The sky of a patch and a rim around it, periodic.

    All positions are in pixels of the patch, brightness is light per pixel of
    the patch.

    Parameters
    ----------
    shape
        Height and width of the patch in pixels.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        height, width = (_OVERSAMPLING * (size + 2 * RIM) for size in shape)
        self._smooth = np.zeros((height, width))
        self._bare = np.zeros((height, width))
        ky, kx = fft.fftfreq(height) * _OVERSAMPLING, fft.rfftfreq(width) * _OVERSAMPLING
        self._ky, self._kx = ky[:, np.newaxis], kx[np.newaxis, :]
        self._transfer = self._gaussian(_SMOOTHED_FWHM)

    @property
    def y(self) -> Array:
        """Rows of the grid, shape (h, 1) (`numpy.ndarray`)."""
        return (np.arange(self._bare.shape[0]) / _OVERSAMPLING - RIM)[:, np.newaxis]

    @property
    def x(self) -> Array:
        """Columns of the grid, shape (1, w) (`numpy.ndarray`)."""
        return (np.arange(self._bare.shape[1]) / _OVERSAMPLING - RIM)[np.newaxis, :]

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """Return the part of the grid around a position.

        Parameters
        ----------
        x, y
            Column and row.
        radius
            Half of its side.

        Returns
        -------
        rows, columns : `slice`
            Cells of the grid, none for a position far outside.
        """
        rows, columns = (
            slice(
                min(max(math.floor((c - radius + RIM) * _OVERSAMPLING), 0), size),
                min(max(math.ceil((c + radius + RIM) * _OVERSAMPLING) + 1, 0), size),
            )
            for c, size in zip((y, x), self._bare.shape, strict=True)
        )
        return rows, columns

    def add_light(self, light: Array, window: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Add light on the grid, without any PSF.

        Parameters
        ----------
        light
            Brightness.
        window
            Cells to add it to, by default all.
        """
        self._bare[window] += light

    def add_points(
        self, x: npt.ArrayLike, y: npt.ArrayLike, flux: npt.ArrayLike, sigma: npt.ArrayLike = 0.0
    ) -> None:
        """Add round Gaussians; those of no size are points.

        Parameters
        ----------
        x, y
            Columns and rows.
        flux
            Their fluxes.
        sigma
            Their standard deviations.
        """
        smoothing = gaussian_fwhm_to_sigma * _SMOOTHED_FWHM
        rows, columns = self.y[:, 0], self.x[0]
        for x0, y0, f, s in zip(*(a.ravel() for a in np.broadcast_arrays(x, y, flux, sigma)), strict=True):
            width = math.hypot(s, smoothing)
            window = self.window(x0, y0, _POINT_REACH * width)
            profiles = (
                np.exp(-0.5 * ((c - c0) / width) ** 2)
                for c, c0 in ((rows[window[0]], y0), (columns[window[1]], x0))
            )
            self._smooth[window] += np.outer(*profiles) * (f / (2.0 * math.pi * width**2))

    def add_source(self, source: SceneSource) -> None:
        """Add a source of known flux.

        Parameters
        ----------
        source
            The source.
        """
        if source.profile is None:
            self.add_points(source.x, source.y, source.flux)
            return
        scale = float(_OVERSAMPLING)
        magnified = dataclasses.replace(
            source,
            x=(source.x + RIM) * scale,
            y=(source.y + RIM) * scale,
            profile=source.profile.dilate(scale),
        )
        smoothing = galsim.Gaussian(fwhm=_SMOOTHED_FWHM * scale)
        stamp = draw_source(magnified, smoothing, math.ceil(scale * (source.extent + 2.6 * _SMOOTHED_FWHM)))
        height, width = self._smooth.shape
        cut = stamp.bounds & galsim.BoundsI(0, width - 1, 0, height - 1)
        if cut.isDefined():
            window = slice(cut.ymin, cut.ymax + 1), slice(cut.xmin, cut.xmax + 1)
            self._smooth[window] += stamp[cut].array * (source.flux * scale**2)

    def freeze(self) -> Array:
        """Return the sky at the smoothing that it is drawn with.

        Returns
        -------
        smooth : `numpy.ndarray`
            Brightness on the grid.
        """
        return self._smooth + self._inverse(fft.rfft2(self._bare) * self._transfer)

    def spectrum(self, smooth: Array) -> Array:
        """Return the transform of a sky without its smoothing.

        Parameters
        ----------
        smooth
            Brightness at the smoothing of `freeze`.

        Returns
        -------
        spectrum : `numpy.ndarray`
            Of the real transform, complex128.
        """
        known = self._transfer > _SMALLEST_TRANSFER
        return np.where(known, fft.rfft2(smooth) / np.where(known, self._transfer, 1.0), 0.0)

    def gaussian_image(self, spectrum: Array, fwhm: float) -> Array:
        """Return the patch seen with a Gaussian, shape (H, W).

        Parameters
        ----------
        spectrum
            The sky, as of `spectrum`.
        fwhm
            FWHM of the Gaussian in pixels.

        Returns
        -------
        image : `numpy.ndarray`
            Light in the pixels of the patch, shape (H, W).
        """
        return self._patch(self._inverse(spectrum * self._gaussian(fwhm)))

    def kernel_transform(self, kernel: Kernel, angle: float = 0.0, scale: float = 1.0) -> Array:
        """Return the transform of a PSF, the pixel of an exposure included.

        Parameters
        ----------
        kernel
            The profile.
        angle
            Angle of the rows of the exposure to those of the patch, in
            radians.
        scale
            Side of its pixels in pixels of the patch.

        Returns
        -------
        transform : `numpy.ndarray`
            Real, 1 where the wave number is 0.
        """
        size = min(self._bare.shape)
        size = min(2 * math.ceil(_OVERSAMPLING * 1.2 * kernel.radius) + 1, size - 1 + size % 2)
        stamp = kernel.profile.drawImage(nx=size, ny=size, scale=1.0 / _OVERSAMPLING, method="no_pixel").array
        field = np.zeros(self._bare.shape)
        field[:size, :size] = stamp
        # The profile is symmetric, so that its transform is real.
        transform = fft.rfft2(np.roll(field, (-(size // 2),) * 2, axis=(0, 1))).real
        along, across = math.cos(angle) * scale, math.sin(angle) * scale
        transform *= np.sinc(along * self._kx + across * self._ky)
        transform *= np.sinc(along * self._ky - across * self._kx)
        return np.asarray(transform / transform[0, 0])

    def stamp(self, transform: Array, size: int) -> Array:
        """Return a PSF on the pixels of the patch, shape (size, size).

        Parameters
        ----------
        transform
            Its transform.
        size
            Odd side of the stamp in pixels.

        Returns
        -------
        stamp : `numpy.ndarray`
            Shape (size, size).
        """
        image = self._inverse(transform) * _OVERSAMPLING**2
        reach = np.arange(-(size // 2), size // 2 + 1) * _OVERSAMPLING
        return np.asarray(image[np.ix_(reach, reach)])

    def observe(self, transform: Array, y: Array | None = None, x: Array | None = None) -> Array:
        """Return the sky at the pixels of the patch, or at given positions.

        Parameters
        ----------
        transform
            Transform of the sky as a PSF blurs it.
        y, x
            Rows and columns; by default those of the pixels of the patch.

        Returns
        -------
        light : `numpy.ndarray`
            Light per pixel of the patch.
        """
        image = self._inverse(transform)
        if y is None or x is None:
            return self._patch(image)
        places = [(c + RIM) * _OVERSAMPLING for c in (y, x)]
        filtered = spline_filter(image, _SPLINE_ORDER, mode="grid-wrap")
        return np.asarray(
            map_coordinates(filtered, places, order=_SPLINE_ORDER, mode="grid-wrap", prefilter=False)
        )

    def _patch(self, image: Array) -> Array:
        start = RIM * _OVERSAMPLING
        return image[start:-start:_OVERSAMPLING, start:-start:_OVERSAMPLING]

    def _inverse(self, transform: Array) -> Array:
        return np.asarray(fft.irfft2(transform, s=self._bare.shape))

    def _gaussian(self, fwhm: float) -> Array:
        """Return the transform of a Gaussian."""
        sigma = 2.0 * math.pi * gaussian_fwhm_to_sigma * fwhm
        return np.asarray(np.exp(-0.5 * sigma**2 * (self._ky**2 + self._kx**2)))
