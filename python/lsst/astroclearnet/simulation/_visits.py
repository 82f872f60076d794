# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The observing plan: where each visit points, and through what air."""

from __future__ import annotations

__all__ = ("SatelliteTrail", "SimulatedVisit", "detector_projection", "plan_visits")

import dataclasses
import math

import numpy as np
from astropy.wcs import WCS, Sip
from scipy.stats import norm

from lsst.images import DetectorFrame, SkyProjection

from ._instrument import AB_ZERO_POINT_NJY, BANDS, EXPOSURE_TIME, INSTRUMENT, PIXEL_SCALE, DetectorLayout
from ._options import SurveyOptions

_FIRST_VISIT = 1000
_VISITS_OF_A_BAND = 1000
_DAY_OBS = 20260101


@dataclasses.dataclass(frozen=True)
class SatelliteTrail:
    """A straight trail across the focal plane.

    Attributes
    ----------
    angle
        Direction of the trail from the x axis in radians.
    distance
        Signed distance of the trail from the boresight in pixels.
    brightness
        Peak of its profile in units of the noise of the sky.
    """

    angle: float
    distance: float
    brightness: float


@dataclasses.dataclass(frozen=True)
class SimulatedVisit:
    """One exposure of the whole focal plane.

    Attributes
    ----------
    visit
        ID of the visit.
    band
        Name of the band.
    day_obs
        Observing day as ``YYYYMMDD``.
    ra_deg, dec_deg
        ICRS position of the boresight.
    rotation_deg
        Angle of the y axis of the focal plane, east of north.
    seeing_arcsec
        FWHM of atmosphere and optics at the boresight.
    size_gradient
        Fractional change of the FWHM from the boresight to a corner of the
        focal plane: along x, along y, and radially.
    ellipticity
        Reduced shear (g1, g2) of the PSF at the boresight, on the axes west
        and north.
    ellipticity_gradient
        Change of g1 and g2 along x and along y from the boresight to a
        corner: (dg1/dx, dg1/dy, dg2/dx, dg2/dy).
    zero_point
        AB magnitude that gives one electron per second.
    sky_brightness
        AB magnitudes per square arcsec.
    trail
        A satellite trail, if there is one.
    """

    visit: int
    band: str
    day_obs: int
    ra_deg: float
    dec_deg: float
    rotation_deg: float
    seeing_arcsec: float
    size_gradient: tuple[float, float, float]
    ellipticity: tuple[float, float]
    ellipticity_gradient: tuple[float, float, float, float]
    zero_point: float
    sky_brightness: float
    trail: SatelliteTrail | None = None


def plan_visits(options: SurveyOptions) -> tuple[SimulatedVisit, ...]:
    """Draw the visits of a survey.

    Seeing is log-normal around the median between its limits, one visit from
    each of as many equally likely intervals as a band has visits, so that a
    band of a few visits has its share of sharp ones.

    Parameters
    ----------
    options
        The survey.

    Returns
    -------
    visits : `tuple` [`SimulatedVisit`, ...]
        Visits in the order of the bands and of time.
    """
    visits: list[SimulatedVisit] = []
    for band_index, band in enumerate(BANDS):
        if band not in options.bands:
            continue
        rng = np.random.default_rng([options.seed, band_index])
        seeing = _draw_seeing(rng, options)
        trail_visit = int(rng.integers(options.visits_per_band))
        for index in range(options.visits_per_band):
            trail = None
            if index == trail_visit and options.artefacts.satellite_trails:
                trail = SatelliteTrail(
                    angle=float(rng.uniform(0.0, math.pi)),
                    distance=float(rng.uniform(-60.0, 60.0)),
                    brightness=5.0,
                )
            visit = _FIRST_VISIT + _VISITS_OF_A_BAND * band_index + index
            visits.append(_draw_visit(rng, options, visit, band, float(seeing[index]), trail))
    return tuple(visits)


def _draw_seeing(rng: np.random.Generator, options: SurveyOptions) -> np.ndarray:
    """Draw the seeing of the visits of a band."""
    low, median, high = (math.log(value) for value in options.seeing_arcsec)
    scatter = (high - low) / 3.0
    limits = norm.cdf([(low - median) / scatter, (high - median) / scatter])
    number = options.visits_per_band
    quantiles = (np.arange(number) + rng.uniform(size=number)) / number
    probability = limits[0] + quantiles * (limits[1] - limits[0])
    return rng.permutation(np.exp(median + scatter * norm.ppf(probability)))


def _draw_visit(
    rng: np.random.Generator,
    options: SurveyOptions,
    visit: int,
    band: str,
    seeing: float,
    trail: SatelliteTrail | None,
) -> SimulatedVisit:
    """Draw the pointing and the conditions of one visit."""
    radius = options.dither_arcsec / 3600.0 * math.sqrt(rng.uniform())
    angle = rng.uniform(0.0, 2.0 * math.pi)
    properties = BANDS[band]
    return SimulatedVisit(
        visit=visit,
        band=band,
        day_obs=_DAY_OBS + visit % 25,
        ra_deg=options.ra_deg + radius * math.cos(angle) / math.cos(math.radians(options.dec_deg)),
        dec_deg=options.dec_deg + radius * math.sin(angle),
        rotation_deg=float(rng.uniform(0.0, 360.0)),
        seeing_arcsec=seeing,
        size_gradient=(
            float(rng.normal(0.0, 0.02)),
            float(rng.normal(0.0, 0.02)),
            float(rng.uniform(0.0, 0.02)),
        ),
        ellipticity=(float(rng.normal(0.0, 0.025)), float(rng.normal(0.0, 0.025))),
        ellipticity_gradient=(
            float(rng.normal(0.0, 0.015)),
            float(rng.normal(0.0, 0.015)),
            float(rng.normal(0.0, 0.015)),
            float(rng.normal(0.0, 0.015)),
        ),
        zero_point=properties.zero_point + float(rng.normal(0.0, 0.03)),
        sky_brightness=properties.sky_brightness + float(rng.normal(0.0, 0.1)),
        trail=trail,
    )


def detector_projection(
    visit: SimulatedVisit, layout: DetectorLayout, options: SurveyOptions
) -> SkyProjection[DetectorFrame]:
    """Return the mapping from the pixels of a detector to the sky.

    Parameters
    ----------
    visit
        The visit.
    layout
        The detector.
    options
        The survey, for the size of the focal plane and its distortion.

    Returns
    -------
    projection : `lsst.images.SkyProjection`
        A gnomonic projection about the boresight with a cubic radial
        distortion (a TAN-SIP WCS).
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crpix = [1.0 - layout.x_offset, 1.0 - layout.y_offset]
    wcs.wcs.crval = [visit.ra_deg, visit.dec_deg]
    wcs.wcs.radesys = "ICRS"
    scale, angle = PIXEL_SCALE / 3600.0, math.radians(visit.rotation_deg)
    wcs.wcs.cd = scale * np.array([[-math.cos(angle), math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    cubic = options.distortion / (3.0 * _corner_distance(options) ** 2)
    along_x, along_y = np.zeros((4, 4)), np.zeros((4, 4))
    along_x[3, 0] = along_x[1, 2] = along_y[0, 3] = along_y[2, 1] = cubic
    wcs.sip = Sip(along_x, along_y, None, None, wcs.wcs.crpix)
    frame = DetectorFrame(
        instrument=INSTRUMENT, visit=visit.visit, detector=layout.detector, bbox=layout.bbox
    )
    return SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=layout.bbox)


def _corner_distance(options: SurveyOptions) -> float:
    """Return the distance in pixels from the boresight to the corner."""
    sides = [
        number * (size + gap) - gap
        for number, size, gap in zip(
            options.detector_grid, options.detector_shape, options.detector_gap, strict=True
        )
    ]
    return math.hypot(*sides) / 2.0


def _sky_electrons(visit: SimulatedVisit) -> float:
    """Return the expected sky in electrons per pixel."""
    return float(EXPOSURE_TIME * PIXEL_SCALE**2 * 10.0 ** (-0.4 * (visit.sky_brightness - visit.zero_point)))


def _electrons_per_njy(visit: SimulatedVisit) -> float:
    """Return how many electrons a visit collects per nJy."""
    return float(EXPOSURE_TIME * 10.0 ** (0.4 * (visit.zero_point - AB_ZERO_POINT_NJY)))
