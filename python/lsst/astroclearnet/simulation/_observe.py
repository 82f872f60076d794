# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Expose a detector to the simulated sky and calibrate what it records."""

from __future__ import annotations

__all__ = ("observe",)

import dataclasses
import math

import astropy.units as u
import galsim
import numpy as np
import numpy.typing as npt
from astro_metadata_translator import ObservationInfo
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Table
from astropy.time import Time, TimeDelta

from lsst.images import (
    DetectorFrame,
    Image,
    Mask,
    MaskSchema,
    SkyProjection,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)

from ._artefacts import _bad_column_mask, _satellite_trail, add_cosmic_rays, bleed, interpolate_rows
from ._fast_drawing import PsfShapes, add_stars, count_photons
from ._instrument import (
    BANDS,
    EXPOSURE_TIME,
    GAIN,
    INSTRUMENT,
    PIXEL_SCALE,
    READ_NOISE,
    DetectorLayout,
    make_detector,
)
from ._options import SurveyOptions
from ._projection import _jacobians, local_wcs
from ._psf import _psf_shape, _stamp_radius, _true_psf, fit_psf
from ._rendering import _draw_sources, _select_sources, _source_extents
from ._visits import SimulatedVisit, _electrons_per_njy, _sky_electrons, detector_projection

type Array = npt.NDArray[np.float64]

_EDGE_WIDTH = 5

_MAX_PHOTONS = 8000.0
"""Electrons from which on a galaxy is drawn faster by a Fourier transform: one
takes 1.5 ms, a photon 0.18 microseconds."""


@dataclasses.dataclass(frozen=True)
class _Recorded:
    """Electrons that a detector recorded, and what is wrong with them."""

    electrons: Array
    planes: dict[str, npt.NDArray[np.bool_]]


def observe(
    visit: SimulatedVisit, layout: DetectorLayout, catalogue: Table, options: SurveyOptions
) -> VisitImage:
    """Simulate one calibrated visit image.

    The variance plane is that of a real pipeline: the recorded electrons,
    noise and all, for the photon noise of sky and source in each pixel, plus
    the variance of the read noise. Flagged pixels are interpolated along
    rows; ``DETECTION_EDGE`` marks the rim of the detector.

    Parameters
    ----------
    visit
        The visit.
    layout
        The detector.
    catalogue
        The truth catalogue.
    options
        The survey.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        Sky-subtracted image in nJy with variance, mask, sky projection, a
        fitted Piff PSF and a description of the observation.
    """
    rng = np.random.default_rng([options.seed, visit.visit, layout.detector])
    projection = detector_projection(visit, layout, options)
    psf = fit_psf(visit, layout, projection, options, rng)
    electrons = _collect(visit, layout, projection, catalogue, options, rng)
    recorded = _record(electrons, layout, options, rng)
    bbox, per_njy = layout.bbox, _electrons_per_njy(visit)
    mask = Mask(0, schema=MaskSchema(get_legacy_visit_image_mask_planes().values()), bbox=bbox)
    for plane, pixels in recorded.planes.items():
        mask.set(plane, pixels)
    variance = np.clip(recorded.electrons, 1.0, None) + READ_NOISE**2
    flux = (recorded.electrons - _sky_electrons(visit)) / per_njy
    return VisitImage(
        Image(flux.astype(np.float32), bbox=bbox, unit=u.nJy),
        mask=mask,
        variance=Image((variance / per_njy**2).astype(np.float32), bbox=bbox, unit=u.nJy**2),
        sky_projection=projection,
        psf=psf,
        detector=make_detector(layout, visit.visit),
        obs_info=_observation_info(visit, layout),
        band=visit.band,
    )


def _collect(
    visit: SimulatedVisit,
    layout: DetectorLayout,
    projection: SkyProjection[DetectorFrame],
    catalogue: Table,
    options: SurveyOptions,
    rng: np.random.Generator,
) -> Array:
    """Return the electrons that light sets free in a detector."""
    flux = np.asarray(catalogue[f"flux_{visit.band}"], dtype=float) * _electrons_per_njy(visit)
    reach = np.hypot(_source_extents(catalogue) / PIXEL_SCALE, _stamp_radius(visit, flux))
    sources, touches = _select_sources(catalogue, projection, layout.bbox, reach)
    flux, reach = flux[touches], reach[touches]
    height, width = layout.bbox.shape
    image = galsim.ImageD(galsim.BoundsI(0, width - 1, 0, height - 1), init_value=0.0)
    photons: npt.NDArray[np.int64] | int = 0
    if options.is_drawn_fast:
        x, y = (np.asarray(sources[name], dtype=float) for name in ("x", "y"))
        shape = _psf_shape(visit, layout, options, x=x, y=y)
        psfs = PsfShapes(*shape, _jacobians(projection, x, y))
        stars = np.asarray(sources["kind"] == "star")
        add_stars(
            image.array, x=x[stars], y=y[stars], flux=flux[stars], radius=reach[stars], psfs=psfs.part(stars)
        )
        faint = ~stars & (flux < _MAX_PHOTONS)
        photons = count_photons(
            (height, width), sources[faint], flux=flux[faint], psfs=psfs.part(faint), rng=rng
        )
        rest = ~stars & ~faint
        sources, flux, reach = sources[rest], flux[rest], reach[rest]
    _draw_sources(
        image,
        sources,
        local_wcs(projection, x=np.asarray(sources["x"]), y=np.asarray(sources["y"])),
        flux=flux,
        psf=lambda x, y: _true_psf(visit, layout, options, x=x, y=y),
        radius=reach,
        method="auto",
    )
    # Convolution by FFT leaves ripples of rounding errors below zero.
    expected = image.array + _sky_electrons(visit) + _satellite_trail(visit, layout)
    electrons = np.clip(expected, 0.0, None)
    if options.artefacts.noise:
        electrons = rng.poisson(electrons).astype(float)
    return np.asarray(electrons + photons)


def _record(
    electrons: Array, layout: DetectorLayout, options: SurveyOptions, rng: np.random.Generator
) -> _Recorded:
    """Turn electrons into recorded ones, flag and interpolate defects."""
    artefacts = options.artefacts
    planes = {"COSMIC_RAY": add_cosmic_rays(electrons, artefacts, rng)}
    if artefacts.saturation:
        planes["SATURATED"] = bleed(electrons)
    planes["BAD"] = _bad_column_mask(layout, artefacts.bad_columns, options.seed)
    if artefacts.noise:
        electrons += rng.normal(0.0, READ_NOISE, size=electrons.shape)
        electrons = np.round(electrons / GAIN) * GAIN
    interpolated = np.logical_or.reduce(list(planes.values()))
    interpolate_rows(electrons, interpolated)
    edge = np.ones(electrons.shape, dtype=bool)
    edge[_EDGE_WIDTH:-_EDGE_WIDTH, _EDGE_WIDTH:-_EDGE_WIDTH] = False
    return _Recorded(electrons, {**planes, "INTERPOLATED": interpolated, "DETECTION_EDGE": edge})


def _observation_info(visit: SimulatedVisit, layout: DetectorLayout) -> ObservationInfo:
    """Describe an observation in standard form."""
    date = str(visit.day_obs)
    begin = Time(f"{date[:4]}-{date[4:6]}-{date[6:]}T06:00:00", scale="tai")
    begin += TimeDelta(300.0 * (visit.visit % 100), format="sec")
    return ObservationInfo(
        instrument=INSTRUMENT,
        telescope="Simulated Subaru",
        physical_filter=BANDS[visit.band].physical_filter,
        visit_id=visit.visit,
        exposure_id=visit.visit,
        observation_id=f"{INSTRUMENT}-{visit.visit}",
        observation_type="science",
        observing_day=visit.day_obs,
        datetime_begin=begin,
        datetime_end=begin + TimeDelta(EXPOSURE_TIME, format="sec"),
        exposure_time=EXPOSURE_TIME * u.s,
        detector_num=layout.detector,
        detector_name=layout.name,
        tracking_radec=SkyCoord(visit.ra_deg, visit.dec_deg, unit="deg", frame="icrs"),
        boresight_rotation_angle=Angle(math.radians(visit.rotation_deg), unit="rad"),
        boresight_rotation_coord="sky",
        has_simulated_content=True,
    )
