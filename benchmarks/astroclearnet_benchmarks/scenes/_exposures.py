# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Expose the sources of a scene under changing conditions."""

from __future__ import annotations

__all__ = ()

import dataclasses
import math
import warnings
from collections.abc import Sequence

import galsim
import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_sigma_to_fwhm

from lsst.astroclearnet.simulation import (
    AB_ZERO_POINT_NJY,
    BANDS,
    EXPOSURE_TIME,
    FULL_WELL,
    MOFFAT_BETA,
    PIXEL_SCALE,
    READ_NOISE,
)

from ._sources import SceneSource

type Array = npt.NDArray[np.float64]

_GSPARAMS = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-4)
PIXEL_FWHM_SQUARED = gaussian_sigma_to_fwhm**2 / 12.0
_ELLIPTICITY = 0.02


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What the noise and the artefacts of one exposure follow from.

    Attributes
    ----------
    fwhm
        FWHM of the PSF in pixels.
    per_njy
        Electrons per nJy.
    sky
        Electrons of the sky per pixel.
    """

    fwhm: float
    per_njy: float
    sky: float

    @property
    def sky_variance(self) -> float:
        """Variance of a pixel of blank sky in nJy^2 (`float`)."""
        return (self.sky + READ_NOISE**2) / self.per_njy**2


@dataclasses.dataclass(frozen=True)
class SceneConditions(Conditions):
    """Conditions of one exposure of a scene.

    Attributes
    ----------
    psf
        PSF of unit flux in pixels, the pixel included.
    offset
        Row and column of the first pixel on the grid of the scene.
    """

    psf: galsim.GSObject
    offset: tuple[float, float] = (0.0, 0.0)


def draw_conditions(
    seeing_arcsec: tuple[float, float], stamp_size: int, rng: np.random.Generator
) -> SceneConditions:
    """Draw the conditions of an exposure.

    Parameters
    ----------
    seeing_arcsec
        Limits of the FWHM of the PSF, pixel included.
    stamp_size
        Side in pixels of the stamp that the PSF must fit in.
    rng
        Random numbers.

    Returns
    -------
    conditions : `SceneConditions`
        The conditions; sensitivity and sky vary as in `plan_visits`.
    """
    fwhm = rng.uniform(*seeing_arcsec) / PIXEL_SCALE
    g1, g2 = rng.normal(0.0, _ELLIPTICITY, size=2)
    before_pixel = math.sqrt(fwhm**2 - PIXEL_FWHM_SQUARED)
    # The shear and the pixel reach one pixel further out.
    moffat = galsim.Moffat(
        beta=MOFFAT_BETA, fwhm=before_pixel, trunc=stamp_size // 2 - 1.5, gsparams=_GSPARAMS
    ).shear(g1=g1, g2=g2)
    with warnings.catch_warnings():
        # That two hard edges might better be convolved in real space: the one
        # of the Moffat profile is where it has nearly faded.
        warnings.simplefilter("ignore", galsim.GalSimWarning)
        psf = galsim.Convolve(moffat, galsim.Pixel(1.0), real_space=False, gsparams=_GSPARAMS)
    zero_point = BANDS["i"].zero_point + rng.normal(0.0, 0.03)
    sky_brightness = BANDS["i"].sky_brightness + rng.normal(0.0, 0.1)
    return SceneConditions(
        psf=psf,
        fwhm=fwhm,
        per_njy=EXPOSURE_TIME * 10.0 ** (0.4 * (zero_point - AB_ZERO_POINT_NJY)),
        sky=EXPOSURE_TIME * PIXEL_SCALE**2 * 10.0 ** (-0.4 * (sky_brightness - zero_point)),
    )


def draw_source(source: SceneSource, kernel: galsim.GSObject, half: int) -> galsim.Image:
    """Draw a source of unit flux.

    Parameters
    ----------
    source
        The source.
    kernel
        What to convolve it with, the pixel included.
    half
        Half-size of the stamp in pixels.

    Returns
    -------
    stamp : `galsim.Image`
        The stamp in the pixels of the scene.
    """
    ix, iy = round(source.x), round(source.y)
    stamp = galsim.ImageD(galsim.BoundsI(ix - half, ix + half, iy - half, iy + half))
    drawn = kernel if source.profile is None else galsim.Convolve(source.profile, kernel, gsparams=_GSPARAMS)
    center = galsim.PositionD(source.x, source.y)
    drawn.drawImage(stamp, center=center, scale=1.0, method="no_pixel")
    return stamp


def expose_source(source: SceneSource, conditions: SceneConditions, half: int) -> galsim.Image:
    """Draw a source of unit flux on the pixels of an exposure.

    Parameters
    ----------
    source
        The source.
    conditions
        SceneConditions of the exposure.
    half
        Half-size of the stamp of a point in pixels.

    Returns
    -------
    stamp : `galsim.Image`
        The stamp.
    """
    dy, dx = conditions.offset
    shifted = dataclasses.replace(source, x=source.x - dx, y=source.y - dy)
    return draw_source(shifted, conditions.psf, half + math.ceil(source.extent))


def gaussian(fwhm: float) -> galsim.GSObject:
    """Return a circular Gaussian PSF of unit flux.

    Parameters
    ----------
    fwhm
        FWHM in pixels.

    Returns
    -------
    psf : `galsim.GSObject`
        The PSF.
    """
    return galsim.Gaussian(fwhm=fwhm, gsparams=_GSPARAMS)


def add_stamps(shape: tuple[int, int], stamps: Sequence[galsim.Image], flux: npt.ArrayLike) -> Array:
    """Add stamps up.

    Parameters
    ----------
    shape
        Height and width of the image.
    stamps
        Stamps of unit flux.
    flux
        Their fluxes.

    Returns
    -------
    image : `numpy.ndarray`
        Shape ``shape``, in the unit of ``flux``.
    """
    height, width = shape
    image = galsim.ImageD(galsim.BoundsI(0, width - 1, 0, height - 1), init_value=0.0)
    for stamp, factor in zip(stamps, np.asarray(flux, dtype=float), strict=True):
        overlap = stamp.bounds & image.bounds
        if overlap.isDefined():
            image[overlap] += stamp[overlap] * factor
    return np.asarray(image.array)


def resolve_flux(
    source: SceneSource, stamps: Sequence[galsim.Image], conditions: Sequence[SceneConditions]
) -> float:
    """Return the flux that gives a source its signal-to-noise ratio.

    Parameters
    ----------
    source
        The source.
    stamps
        Its stamps of unit flux in the exposures.
    conditions
        SceneConditions of the exposures.

    Returns
    -------
    flux : `float`
        Flux in nJy, for sky, read and its own photon noise.
    """
    if not math.isnan(source.flux):
        return source.flux
    flux = 0.0
    # A fixed point: the map is a contraction by at least one half.
    for _ in range(40):
        information = sum(
            float(np.sum(stamp.array**2 / (c.sky_variance + flux * stamp.array.clip(0.0) / c.per_njy)))
            for stamp, c in zip(stamps, conditions, strict=True)
        )
        flux = source.signal_to_noise / math.sqrt(information)
    return flux


def signal_to_noise(flux: float, stamps: Sequence[galsim.Image], inverse_variances: Array) -> float:
    """Return the flux of a source over its Cramer-Rao bound.

    Parameters
    ----------
    flux
        Flux of the source.
    stamps
        Its stamps of unit flux in the exposures.
    inverse_variances
        True inverse variances, 0 on bad pixels, shape (n, H, W).

    Returns
    -------
    ratio : `float`
        Ratio; 0 where no exposure constrains the source.
    """
    height, width = inverse_variances.shape[1:]
    box = galsim.BoundsI(0, width - 1, 0, height - 1)
    information = 0.0
    for stamp, weight in zip(stamps, inverse_variances, strict=True):
        cut = stamp.bounds & box
        if cut.isDefined():
            weights = weight[cut.ymin : cut.ymax + 1, cut.xmin : cut.xmax + 1]
            information += float(np.sum(stamp[cut].array ** 2 * weights))
    return flux * math.sqrt(information)


def saturates(flux: float, stamps: Sequence[galsim.Image], conditions: Sequence[SceneConditions]) -> bool:
    """Return whether a source fills a pixel in any exposure.

    Parameters
    ----------
    flux
        Flux of the source in nJy.
    stamps
        Its stamps of unit flux in the exposures.
    conditions
        SceneConditions of the exposures.

    Returns
    -------
    saturates : `bool`
        Whether its expected electrons and the sky exceed the full well.
    """
    return any(
        flux * stamp.array.max() * c.per_njy + c.sky > FULL_WELL
        for stamp, c in zip(stamps, conditions, strict=True)
    )
