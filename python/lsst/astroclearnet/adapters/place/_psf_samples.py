# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Samples of a PSF model that are dense enough to interpolate between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from scipy.ndimage import map_coordinates

from lsst.images import Box, Image
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction, PSFExWrapper

from ...core import InputError

_ORDER = 5
"""Degree of the splines through samples of a PSF.  Those of a Gaussian of 3
samples FWHM are met to 8e-4 of the peak, of 4 samples to 2e-4."""

_WELL_SAMPLED = 3.0
"""FWHM in pixels below which a PSF is drawn between them."""

_PHASES = 3
"""Number of samples per pixel then, along each side; odd, so that one is in
the middle."""

_LEAST_FWHM = 2.0
"""FWHM in pixels below which pixels do not determine what is between them: a
Gaussian of this width has 3 % of its amplitude at half the sampling
frequency, and one of 1.5 pixels 14 %."""

_FINE_STEP = 0.75
"""Step of the grid of a model, in pixels, up to which it is finer than they
are."""

_WINDOW, _SUBPIXELS = 3, 8
"""Radius in pixels within which a FWHM is looked for, and points per pixel."""


@dataclasses.dataclass(frozen=True)
class PsfSamples:
    """A PSF around a position, sampled at pixels or between them.

    Attributes
    ----------
    kernel
        The PSF at the pixels.
    samples
        Shape (k S, k S), float64, at ``per_pixel`` samples a pixel, the
        middle one in its centre.
    per_pixel
        The number k of samples along the side of a pixel, odd.
    """

    kernel: Image
    samples: np.ndarray
    per_pixel: int

    @classmethod
    def draw(cls, psf: PointSpreadFunction, *, y: float, x: float, is_finer: bool) -> Self:
        """Draw a PSF, between pixels where these are too few.

        Parameters
        ----------
        psf
            PSF of the visit image, on its own pixels.
        y, x
            Row and column in pixels of the visit image.
        is_finer
            Whether it is wanted on a grid with smaller pixels.

        Raises
        ------
        InputError
            If pixels do not determine it, and it is wanted between them.
        """
        kernel = psf.compute_kernel_image(y=y, x=x)
        array = np.asarray(kernel.array, dtype=float)
        fwhm = _small_fwhm(array)
        if fwhm >= _WELL_SAMPLED:
            return cls(kernel, array, 1)
        failure = None
        if _is_known_between_pixels(psf):
            try:
                return cls(kernel, _interleave(psf, kernel, y, x), _PHASES)
            except Exception as exc:
                # Models raise anything; their pixels are known all the same.
                failure = exc
        if is_finer and fwhm < _LEAST_FWHM:
            raise InputError(
                f"The PSF is known only at pixels and has a FWHM of {fwhm:.2f} of them at (x={x:.1f}, "
                f"y={y:.1f}), fewer than {_LEAST_FWHM:g}: between pixels it is undetermined. Restore the "
                "exposure on a grid of its own pixel scale, or give it a PSF model that is finer than pixels "
                "(Piff with a profile or with a grid of a smaller scale, PSFEx with a smaller sampling step)."
            ) from failure
        return cls(kernel, array, 1)

    def at(self, offsets: np.ndarray) -> np.ndarray:
        """Return the PSF at offsets from its middle, by splines.

        Parameters
        ----------
        offsets
            Shape (2, m), (y, x) in pixels.
        """
        # The spline needs room to fade beyond the outermost samples.
        padded = np.pad(self.samples, _ORDER)
        return np.asarray(map_coordinates(padded, self.per_pixel * offsets + len(padded) // 2, order=_ORDER))


def _interleave(psf: PointSpreadFunction, kernel: Image, y: float, x: float) -> np.ndarray:
    """Draw stars in several phases of their pixel; return what all show."""
    radius, reach = kernel.bbox.y.max, _PHASES // 2
    row, column = math.floor(y + 0.5), math.floor(x + 0.5)
    side = 2 * radius + 1
    box = Box.from_shape((side, side), start=(row - radius, column - radius))
    samples = np.zeros((_PHASES * side, _PHASES * side))
    for j, i in np.ndindex(_PHASES, _PHASES):
        # Pixels lie on the other side of a star.
        star = psf.compute_stellar_image(y=row - (j - reach) / _PHASES, x=column - (i - reach) / _PHASES)
        common = star.bbox.intersection(
            type(star.bbox).from_shape((side, side), start=(row - radius, column - radius))
        )
        samples[j::_PHASES, i::_PHASES][common.slice_within(box)] = star[common].array
    return samples


def _small_fwhm(kernel: np.ndarray) -> float:
    """Return the FWHM in pixels, of a circle above half of the peak; infinity
    where it clearly is not small.
    """
    middle = len(kernel) // 2
    peak = kernel.max()
    if not (np.isfinite(kernel).all() and peak > 0) or (kernel > 0.5 * peak).sum() > _WELL_SAMPLED**2:
        return math.inf
    points = np.arange(-_WINDOW * _SUBPIXELS, _WINDOW * _SUBPIXELS + 1) / _SUBPIXELS + middle
    fine = map_coordinates(kernel, np.meshgrid(points, points, indexing="ij"), order=_ORDER)
    return 2.0 * math.sqrt((fine > 0.5 * fine.max()).sum() / math.pi) / _SUBPIXELS


def _is_known_between_pixels(psf: PointSpreadFunction) -> bool:
    """Tell whether a model is drawn, and not interpolated between pixels."""
    if isinstance(psf, PiffWrapper):
        models = list(_piff_models(psf.piff_psf))
        return bool(models) and all(_is_fine(model, psf.piff_psf) for model in models)
    if isinstance(psf, PSFExWrapper):
        return bool(psf.legacy_psf.getSerializationData().pixel_step <= _FINE_STEP)
    return isinstance(psf, GaussianPointSpreadFunction)


def _piff_models(psf: Any) -> Iterator[Any]:
    """Yield the models of a Piff PSF and its components."""
    parts = [*getattr(psf, "components", ()), *getattr(psf, "psf_by_chip", {}).values()]
    for part in parts:
        yield from _piff_models(part)
    if hasattr(psf, "model"):
        yield psf.model


def _is_fine(model: Any, psf: Any) -> bool:
    """Tell whether a Piff model has no grid, or one finer than pixels."""
    if type(model).__name__ != "PixelGrid":
        return True
    wcs = next(iter(psf.wcs.values()))
    # The scale of a grid is that of the sky.
    return bool(wcs.isUniform() and model.scale <= _FINE_STEP * math.sqrt(wcs.pixelArea()))
