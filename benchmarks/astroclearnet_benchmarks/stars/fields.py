# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fields with stars that saturate, and stars that nearly do."""

from __future__ import annotations

__all__ = ("BRIGHT", "SATURATED", "BrightStar", "StarField", "make_field")

import dataclasses
import math

import galsim
import numpy as np
import numpy.typing as npt
import piff

from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, FULL_WELL, MOFFAT_BETA, ArtefactOptions

from ..scenes._exposures import (
    SceneConditions,
    add_stamps,
    draw_conditions,
    draw_source,
    expose_source,
    gaussian,
)
from ..scenes._recording import record
from ..scenes._sources import SceneSource, draw_field

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

SHAPE = (200, 200)
NUM_EXPOSURES = 12
_STAMP_SIZE = 41
_SEEING = (0.5, 0.95)
SATURATED = ((14.0, 16.0), (16.0, 18.0))
BRIGHT = (18.7, 20.0)
"""Magnitudes of stars with a signal-to-noise ratio above 1000 that do not
saturate, or in the sharpest exposures alone."""

_PLACES = ((66.0, 66.0), (134.0, 134.0), (50.0, 150.0), (150.0, 50.0))
"""Rows and columns around which the stars lie: two that saturate and two that
do not."""

_JITTER = 6.0
_NUM_PSF_STARS = 12
_PSF_STAR_SNR = (150.0, 1500.0)
_CENTROID_ERROR = 0.02
_FIT_STAMP_SIZE = 25
_EDGE = 1e-7
"""Light of a true PSF below which there is none."""


@dataclasses.dataclass(frozen=True)
class BrightStar:
    """A bright star of a field: its position, magnitude, flux in nJy, and the
    exposures in which it saturates.
    """

    y: float
    x: float
    magnitude: float
    flux: float
    saturated: Mask


@dataclasses.dataclass(frozen=True)
class StarField:
    """Exposures of a field in nJy, exact and fitted PSFs, and the truth.

    The sky noise is that of the inverse-variance coadd.
    """

    images: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    good: Mask
    psfs: Array
    fitted_psfs: Array
    stars: tuple[BrightStar, ...]
    sky_sigma: float
    sources: tuple[SceneSource, ...]

    def truth(self, fwhm: float) -> Array:
        """Draw the sky at a circular Gaussian PSF, (H, W)."""
        half = math.ceil(2.6 * fwhm)
        stamps = [draw_source(s, gaussian(fwhm), half + math.ceil(s.extent)) for s in self.sources]
        return add_stamps(SHAPE, stamps, [s.flux for s in self.sources])


def make_field(seed: int) -> StarField:
    """Simulate a field of faint galaxies with four bright stars.

    Exposures are those of `~astroclearnet_benchmarks.scenes`, without cosmic
    rays and trails, on one grid.  Light of saturated pixels runs along
    columns, and is flagged.
    """
    rng = np.random.default_rng([seed, 1501])
    half = _STAMP_SIZE // 2
    conditions = [draw_conditions(_SEEING, _STAMP_SIZE, rng) for _ in range(NUM_EXPOSURES)]
    limits = (*SATURATED, BRIGHT, BRIGHT)
    bright = []
    for (row, column), (low, high) in zip(_PLACES, limits, strict=True):
        y, x = (place + rng.uniform(-_JITTER, _JITTER) for place in (row, column))
        flux = 10.0 ** (0.4 * (AB_ZERO_POINT_NJY - rng.uniform(low, high)))
        bright.append(SceneSource("star", x, y, flux=flux))
    faint = [s for s in draw_field(SHAPE, rng, galaxies=35.0, stars=4.0) if _is_faint(s)]
    sources = (*bright, *faint)
    drawn = [[expose_source(s, c, half) for s in sources] for c in conditions]
    flux = [s.flux for s in sources]
    options = ArtefactOptions(cosmic_rays=0.0, satellite_trails=False)
    recorded = [
        record(add_stamps(SHAPE, stamps, flux), c, np.zeros(SHAPE, dtype=bool), options, rng, has_trail=False)
        for stamps, c in zip(drawn, conditions, strict=True)
    ]
    stars = []
    for number, source in enumerate(bright):
        full = [
            source.flux * stamps[number].array.max() * c.per_njy + c.sky > FULL_WELL
            for stamps, c in zip(drawn, conditions, strict=True)
        ]
        magnitude = AB_ZERO_POINT_NJY - 2.5 * math.log10(source.flux)
        stars.append(BrightStar(source.y, source.x, magnitude, source.flux, np.array(full)))
    point = SceneSource("star", 0.0, 0.0)
    return StarField(
        images=np.stack([one.image for one in recorded]).astype(np.float32),
        variances=np.stack([one.variance for one in recorded]).astype(np.float32),
        good=np.stack([one.good for one in recorded]),
        psfs=np.stack([draw_source(point, c.psf, half).array for c in conditions]),
        fitted_psfs=np.stack([_fit_psf(c, rng) for c in conditions]),
        stars=tuple(stars),
        sky_sigma=sum(1.0 / c.sky_variance for c in conditions) ** -0.5,
        sources=sources,
    )


def _is_faint(source: SceneSource) -> bool:
    """Return whether a source is not as bright as the stars that count."""
    return AB_ZERO_POINT_NJY - 2.5 * math.log10(source.flux) > 21.0


def _fit_psf(conditions: SceneConditions, rng: np.random.Generator) -> Array:
    """Fit a PSF to noisy stars, as the simulated surveys do."""
    wcs = galsim.PixelScale(1.0)
    stars = []
    area = 4.0 * math.pi * (conditions.fwhm / 2.355) ** 2
    for snr in np.exp(rng.uniform(*np.log(_PSF_STAR_SNR), size=_NUM_PSF_STARS)):
        electrons = snr * (snr + math.sqrt(snr**2 + 4.0 * area * conditions.sky)) / 2.0
        image = galsim.ImageD(_FIT_STAMP_SIZE, _FIT_STAMP_SIZE, wcs=wcs)
        center = image.true_center + galsim.PositionD(*rng.uniform(-0.5, 0.5, size=2))
        (conditions.psf * electrons).drawImage(image, center=center, method="no_pixel")
        variance = image.array.clip(0.0) + conditions.sky
        image.array[...] += rng.normal(size=variance.shape) * np.sqrt(variance)
        measured = center + galsim.PositionD(*rng.normal(0.0, _CENTROID_ERROR, size=2))
        stars.append(piff.Star(piff.StarData(image, measured, weight=galsim.Image(1.0 / variance)), None))
    psf = piff.SimplePSF(
        piff.Moffat(beta=MOFFAT_BETA, fastfit=True), piff.Mean(), chisq_thresh=1e-2, max_iter=6
    )
    psf.fit(stars, {0: wcs}, None)
    # It has no edge, and the true one does.
    inside = draw_source(SceneSource("star", 0.0, 0.0), conditions.psf, _STAMP_SIZE // 2).array > _EDGE
    drawn = inside * psf.draw(x=0.0, y=0.0, stamp_size=_STAMP_SIZE, center=True).array
    return np.asarray(drawn / drawn.sum(), dtype=float)
