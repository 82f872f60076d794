# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The true PSF over the focal plane, and the model fitted to stars."""

from __future__ import annotations

__all__ = ("MOFFAT_BETA", "fit_psf")

import galsim
import numpy as np
import numpy.typing as npt
import piff
from astropy.stats import gaussian_fwhm_to_sigma

from lsst.images import DetectorFrame, SkyProjection
from lsst.images.psfs import PiffWrapper

from ._instrument import PIXEL_SCALE, READ_NOISE, DetectorLayout
from ._options import SurveyOptions
from ._projection import local_wcs
from ._visits import SimulatedVisit, _corner_distance, _sky_electrons

MOFFAT_BETA = 3.5
"""Exponent of the Moffat profile of every PSF."""

_STAMP_SIZE = 41
_FIT_STAMP_SIZE = 25
_PSF_STAR_SNR = (150.0, 1500.0)
_CENTROID_ERROR = 0.02
_UNIT_MOFFAT = galsim.Moffat(beta=MOFFAT_BETA, fwhm=1.0, gsparams=galsim.GSParams(folding_threshold=1e-3))


def _psf_shape[Position: (float, npt.NDArray[np.float64])](
    visit: SimulatedVisit, layout: DetectorLayout, options: SurveyOptions, *, x: Position, y: Position
) -> tuple[Position, Position, Position]:
    """Return FWHM (arcsec) and reduced shear of the PSF at positions."""
    corner = _corner_distance(options)
    u, v = (x + layout.x_offset) / corner, (y + layout.y_offset) / corner
    along_x, along_y, radial = visit.size_gradient
    fwhm = visit.seeing_arcsec * (1.0 + along_x * u + along_y * v + radial * (u * u + v * v))
    g1_x, g1_y, g2_x, g2_y = visit.ellipticity_gradient
    g1 = visit.ellipticity[0] + g1_x * u + g1_y * v
    g2 = visit.ellipticity[1] + g2_x * u + g2_y * v
    return fwhm, g1, g2


def _true_psf(
    visit: SimulatedVisit, layout: DetectorLayout, options: SurveyOptions, *, x: float, y: float
) -> galsim.GSObject:
    """Return the PSF at a position on a detector."""
    fwhm, g1, g2 = _psf_shape(visit, layout, options, x=x, y=y)
    return _UNIT_MOFFAT.dilate(fwhm).shear(g1=g1, g2=g2)


def fit_psf(
    visit: SimulatedVisit,
    layout: DetectorLayout,
    projection: SkyProjection[DetectorFrame],
    options: SurveyOptions,
    rng: np.random.Generator,
) -> PiffWrapper:
    """Fit a PSF model to stars on a detector.

    The stars are isolated, at random places, with signal-to-noise ratios from
    150 to 1500. The model is an elliptical Moffat profile, integrated over the
    pixel, whose size and shape are linear functions of position: the family of
    the truth, but for the curvature over the focal plane.

    Parameters
    ----------
    visit
        The visit.
    layout
        The detector.
    projection
        Mapping from the pixels to the sky.
    options
        The survey.
    rng
        Random numbers.

    Returns
    -------
    psf : `lsst.images.psfs.PiffWrapper`
        The model, in pixels of the detector.
    """
    sky = _sky_electrons(visit)
    height, width = layout.bbox.shape
    positions = rng.uniform([0.0, 0.0], [width - 1.0, height - 1.0], size=(options.num_psf_stars, 2))
    jacobians = local_wcs(projection, x=positions[:, 0], y=positions[:, 1])
    snr = np.exp(rng.uniform(*np.log(_PSF_STAR_SNR), size=options.num_psf_stars))
    # Area in pixels of the sky that is the noise of a star.
    area = 4.0 * np.pi * (visit.seeing_arcsec * gaussian_fwhm_to_sigma / PIXEL_SCALE) ** 2
    flux = snr * (snr + np.sqrt(snr**2 + 4.0 * area * sky)) / 2.0
    wcs = galsim.PixelScale(PIXEL_SCALE)
    stars = []
    for (x, y), jacobian, electrons in zip(positions, jacobians, flux, strict=True):
        image = galsim.ImageD(_FIT_STAMP_SIZE, _FIT_STAMP_SIZE)
        image.setCenter(round(x), round(y))
        profile = _true_psf(visit, layout, options, x=x, y=y) * electrons
        profile.drawImage(image, center=galsim.PositionD(x, y), wcs=jacobian)
        image.wcs = wcs
        variance = image.array + sky + READ_NOISE**2
        if options.artefacts.noise:
            image.array[...] += rng.normal(size=variance.shape) * np.sqrt(variance)
        weight = galsim.Image(1.0 / variance, xmin=image.xmin, ymin=image.ymin, wcs=wcs)
        measured = galsim.PositionD(*(rng.normal((x, y), _CENTROID_ERROR)))
        stars.append(piff.Star(piff.StarData(image, measured, weight=weight), None))
    psf = piff.SimplePSF(
        piff.Moffat(beta=MOFFAT_BETA, fastfit=True), piff.Polynomial(order=1), chisq_thresh=1e-2, max_iter=6
    )
    psf.fit(stars, {0: wcs}, None)
    return PiffWrapper(psf, bounds=layout.bbox, stamp_size=_STAMP_SIZE)


def _stamp_radius(visit: SimulatedVisit, flux: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the radius out to which the PSF of a source must be drawn."""
    # 8 % more than at the boresight, for the variation over the field.
    fwhm = 1.08 * visit.seeing_arcsec / PIXEL_SCALE
    core = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / MOFFAT_BETA) - 1.0))
    enclosing = np.sqrt(5e-4 ** (-1.0 / (MOFFAT_BETA - 1.0)) - 1.0)
    floor = 0.02 * np.sqrt(_sky_electrons(visit))
    contrast = flux * (MOFFAT_BETA - 1.0) / (np.pi * core**2) / floor
    fading = np.sqrt(np.clip(contrast, 1.0, None) ** (1.0 / MOFFAT_BETA) - 1.0)
    return np.asarray(core * np.maximum(enclosing, fading))
