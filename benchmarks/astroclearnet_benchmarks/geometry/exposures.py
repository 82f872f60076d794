# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images of stars behind any projection, with their true PSFs."""

from __future__ import annotations

__all__ = ("Conditions", "Sky", "TruePsf", "expose", "local_stamps")

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import galsim
import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.adapters import PatchGeometry
from lsst.astroclearnet.simulation import MOFFAT_BETA, READ_NOISE, local_wcs
from lsst.astroclearnet.tests import make_visit_image
from lsst.images import Bounds, Box, DetectorFrame, Image, SkyProjection, VisitImage
from lsst.images.psfs import PointSpreadFunction

type Array = npt.NDArray[np.float64]
type Profile = Callable[[float, float], galsim.GSObject]

TRUNCATION = 3.4
"""Radius at which every profile ends, in FWHM."""

_GSPARAMS = galsim.GSParams(folding_threshold=5e-4)
_UNIT_MOFFAT = galsim.Moffat(beta=MOFFAT_BETA, fwhm=1.0, trunc=TRUNCATION, gsparams=_GSPARAMS)


def moffat(fwhm: float, g1: float, g2: float) -> galsim.GSObject:
    """Return a profile that ends within a stamp.

    Stars whose light leaves the stamp of the PSF have less flux by that than
    they truly have, which is not what is measured here.
    """
    return _UNIT_MOFFAT.dilate(fwhm).shear(g1=g1, g2=g2)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What one exposure is taken through.

    Attributes
    ----------
    projection
        From pixels to the sky; its frame has the box of the detector.
    profile
        Function of x and y on the detector that returns the PSF there, in
        arcsec towards west and north, before integration over the pixel.
    largest_fwhm
        Upper limit of its FWHM in arcsec.
    per_njy
        Electrons per nJy.
    sky
        Electrons per pixel from the sky.
    """

    projection: SkyProjection[DetectorFrame]
    profile: Profile
    largest_fwhm: float
    per_njy: float
    sky: float

    @property
    def bbox(self) -> Box:
        """Pixels of the detector (`lsst.images.Box`)."""
        return self.projection.pixel_frame.bbox

    @cached_property
    def stamp_size(self) -> int:
        """Odd number of pixels that holds all light of a star (`int`)."""
        center = np.array([self.bbox.x.center]), np.array([self.bbox.y.center])
        (local,) = local_wcs(self.projection, x=center[0], y=center[1])
        radius = TRUNCATION * self.largest_fwhm / math.sqrt(local.pixelArea())
        # The shear and the pixel reach further out.
        return 2 * math.ceil(1.05 * radius + 1.5) + 1


class TruePsf(PointSpreadFunction):
    """The PSF that an exposure was simulated with.

    Parameters
    ----------
    conditions
        The exposure.
    """

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    @property
    def bounds(self) -> Bounds:
        return self._conditions.bbox

    @property
    def kernel_bbox(self) -> Box:
        half = self._conditions.stamp_size // 2
        return Box.factory[-half : half + 1, -half : half + 1]

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        stamp = draw_star(self._conditions, x, y, center=(0.0, 0.0))
        return Image(stamp.array / stamp.array.sum(), bbox=self.kernel_bbox)

    def compute_stellar_image(self, *, x: float, y: float) -> Image:
        stamp = draw_star(self._conditions, x, y, center=(x, y))
        return Image(stamp.array / stamp.array.sum(), bbox=self.compute_stellar_bbox(x=x, y=y))

    def compute_stellar_bbox(self, *, x: float, y: float) -> Box:
        half = self._conditions.stamp_size // 2
        row, column = round(y), round(x)
        return Box.factory[row - half : row + half + 1, column - half : column + half + 1]


def draw_star(conditions: Conditions, x: float, y: float, *, center: tuple[float, float]) -> galsim.Image:
    """Draw a star of unit flux."""
    stamp = galsim.ImageD(conditions.stamp_size, conditions.stamp_size)
    stamp.setCenter(round(center[0]), round(center[1]))
    (local,) = local_wcs(conditions.projection, x=np.array([x]), y=np.array([y]))
    conditions.profile(x, y).drawImage(stamp, center=galsim.PositionD(*center), wcs=local)
    return stamp


@dataclasses.dataclass(frozen=True)
class Sky:
    """Stars on a patch.

    Attributes
    ----------
    geometry
        The patch.
    x, y
        Positions in pixels from the first row and column of its outer box.
    signal_to_noise
        Ratio that the stars shall have in all exposures together, in the
        noise of sky and read-out alone.
    pair
        Number of the pair that a star belongs to, -1 for single stars.
    """

    geometry: PatchGeometry
    x: Array
    y: Array
    signal_to_noise: Array
    pair: npt.NDArray[np.int64]


def local_stamps(sky: Sky, conditions: Conditions) -> list[galsim.Image]:
    """Draw all stars of unit flux on one exposure."""
    bbox = sky.geometry.bbox
    position = conditions.projection.sky_to_pixel(
        sky.geometry.projection.pixel_to_sky(x=sky.x + bbox.x.min, y=sky.y + bbox.y.min)
    )
    columns, rows = np.atleast_1d(position.x), np.atleast_1d(position.y)
    return [
        draw_star(conditions, float(x), float(y), center=(float(x), float(y)))
        for x, y in zip(columns, rows, strict=True)
    ]


def expose(
    conditions: Conditions,
    stamps: list[galsim.Image],
    flux: Array,
    rng: np.random.Generator | None,
    *,
    cosmic_rays: Callable[[Array, np.random.Generator], npt.NDArray[np.bool_]] | None = None,
    psf: PointSpreadFunction | None = None,
) -> VisitImage:
    """Expose a detector.

    The variance plane is made of the recorded electrons, as pipelines do;
    without ``rng`` there is no noise, and it is the expected one.  By default
    the PSF of the image is the true one.
    """
    bbox = conditions.bbox
    image = galsim.ImageD(
        galsim.BoundsI(bbox.x.min, bbox.x.max, bbox.y.min, bbox.y.max), init_value=conditions.sky
    )
    for stamp, value in zip(stamps, flux, strict=True):
        overlap = stamp.bounds & image.bounds
        if overlap.isDefined():
            image[overlap] += stamp[overlap] * float(value * conditions.per_njy)
    electrons = np.clip(image.array, 0.0, None)
    planes: dict[str, Any] = {}
    if rng is not None:
        electrons = rng.poisson(electrons).astype(float)
        if cosmic_rays is not None:
            planes["COSMIC_RAY"] = cosmic_rays(electrons, rng)
        electrons += rng.normal(0.0, READ_NOISE, size=electrons.shape)
    variance = (np.clip(electrons, 1.0, None) + READ_NOISE**2) / conditions.per_njy**2
    return make_visit_image(
        (electrons - conditions.sky) / conditions.per_njy,
        conditions.projection,
        variance=variance,
        planes=planes,
        psf=TruePsf(conditions) if psf is None else psf,
    )
