# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Patches, and exposures of them behind simulated and real projections."""

from __future__ import annotations

__all__ = ("PROJECTIONS", "Field", "make_field", "square_patch", "view")

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord

from lsst.astroclearnet.adapters import PatchGeometry, SkyMapGeometry, TractGeometry
from lsst.astroclearnet.simulation import (
    AB_ZERO_POINT_NJY,
    EXPOSURE_TIME,
    PIXEL_SCALE,
    DetectorLayout,
    SimulatedVisit,
    SurveyOptions,
    detector_projection,
    plan_visits,
)
from lsst.images import Box, DetectorFrame, SkyProjection, Transform
from lsst.images.serialization import read_archive

from ..record import data_folder
from .exposures import Conditions, moffat

BORDER = 16
"""Pixels by which the restored box exceeds the patch on each side."""

_DITHER = 25
"""Radius in pixels of the disc of the pointings."""

PROJECTIONS = {
    "survey": "simulated TAN-SIP: any rotation, dithers of 4 arcsec, scales within 1 %, distortion 1 %",
    "rubin-dp1": "AST projection of an LSSTComCam detector (DP1), rotated and dithered",
    "rubin-dp2": "AST projection of an LSSTCam detector (DP2), rotated and dithered",
    "decam": "TPV projections of eight DECam exposures, 0.263 arcsec onto 0.2 arcsec",
}
"""What there is, by name."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A patch and the exposures of it.

    Attributes
    ----------
    geometry
        The patch.
    exposures
        Exposures with PSFs that vary over the detector.
    visits
        Visit and detector of each, for PSF models to be fitted.
    options
        The survey they are from.
    target_fwhm
        FWHM in pixels of the target PSF.
    """

    geometry: PatchGeometry
    exposures: tuple[Conditions, ...]
    visits: tuple[tuple[SimulatedVisit, DetectorLayout], ...]
    options: SurveyOptions
    target_fwhm: float


def square_patch(ra: float, dec: float, size: int, pixel_scale: float) -> PatchGeometry:
    """Return a patch without neighbours."""
    tract = TractGeometry(
        tract=0,
        ra_deg=ra,
        dec_deg=dec,
        pixel_scale_arcsec=pixel_scale,
        cell_shape=(50, 50),
        patch_cells=(size // 50, size // 50),
        border_cells=0,
        num_patches=(1, 1),
    )
    return SkyMapGeometry(skymap="benchmark", tracts=(tract,)).patch(0, 0)


def view(
    base: SkyProjection[Any],
    center: tuple[float, float],
    size: int,
    *,
    visit: int,
    rotation: float = 0.0,
    scale: float = 1.0,
) -> SkyProjection[DetectorFrame]:
    """Return a projection of other pixels on the same focal plane."""
    frame = DetectorFrame(instrument="TestCam", visit=visit, detector=0, bbox=Box.from_shape((size, size)))
    angle = math.radians(rotation)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = np.array(center) - linear @ np.full(2, 0.5 * (size - 1))
    to_base = Transform.affine(frame, base.pixel_frame, matrix)
    return SkyProjection(to_base.then(base.pixel_to_sky_transform))


def make_field(name: str, *, seed: int, size: int, number: int) -> Field:
    """Return exposures behind one kind of projections.

    Raises
    ------
    FileNotFoundError
        If the projections are those of real exposures, which are not here.
    """
    # Dithered and rotated by 45 degrees a detector must still cover the patch
    # and all the light of its stars.
    side = math.ceil(math.sqrt(2.0) * (size + 2 * BORDER)) + 2 * _DITHER + 20
    seeing = (0.5, 0.66, 0.95) if name == "survey" else (0.6, 0.75, 1.0)
    options = SurveyOptions(
        seed=seed,
        bands=("i",),
        visits_per_band=number,
        detector_grid=(1, 1),
        detector_shape=(side, side),
        dither_arcsec=_DITHER * PIXEL_SCALE,
        distortion=0.01,
        seeing_arcsec=seeing,
    )
    visits = plan_visits(options)
    rng = np.random.default_rng([seed, 11])
    if name == "survey":
        geometry = square_patch(options.ra_deg, options.dec_deg, size, PIXEL_SCALE)
        projections = [_survey_projection(v, options, side, rng) for v in visits]
        target = 3.0
    elif name == "decam":
        files = sorted((data_folder() / "decam").glob("galaxy_*.fits"))
        bases = [_read_projection(path) for path in files]
        geometry, projections = _decam(bases, size, side, number)
        target = 3.5
    else:
        base = _read_projection(data_folder() / "rubin" / f"visit_image-{name.removeprefix('rubin-')}.json")
        geometry, projections = _rubin(base, size, side, number, rng)
        target = 3.0
    layout = DetectorLayout(0, "R0", Box.from_shape((side, side)), -0.5 * (side - 1), -0.5 * (side - 1))
    exposures = tuple(_conditions(v, p, side) for v, p in zip(visits, projections, strict=False))
    return Field(geometry, exposures, tuple((v, layout) for v in visits), options, target)


def _survey_projection(
    visit: SimulatedVisit, options: SurveyOptions, side: int, rng: np.random.Generator
) -> SkyProjection[DetectorFrame]:
    layout = DetectorLayout(0, "R0", Box.from_shape((side, side)), -0.5 * (side - 1), -0.5 * (side - 1))
    base = detector_projection(visit, layout, options)
    middle = 0.5 * (side - 1)
    scale = 1.0 + float(rng.uniform(-0.005, 0.005))
    return view(base, (middle, middle), side, visit=visit.visit, scale=scale)


def _read_projection(path: Path) -> SkyProjection[DetectorFrame]:
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    archive: Any = read_archive(path)
    visit_image = getattr(archive, "deserialized", archive)
    projection: SkyProjection[DetectorFrame] = visit_image.sky_projection
    return projection


def _rubin(
    base: SkyProjection[DetectorFrame], size: int, side: int, number: int, rng: np.random.Generator
) -> tuple[PatchGeometry, list[SkyProjection[DetectorFrame]]]:
    # Away from the middle, where the distortion is stronger.
    bbox = base.pixel_frame.bbox
    center = np.array([bbox.x.min + 0.8 * bbox.x.size, bbox.y.min + 0.75 * bbox.y.size])
    sky: SkyCoord = base.pixel_to_sky(x=float(center[0]), y=float(center[1]))
    geometry = square_patch(float(sky.ra.deg), float(sky.dec.deg), size, 0.2)
    projections = [
        view(
            base,
            (float(x), float(y)),
            side,
            visit=1 + k,
            rotation=float(rng.uniform(0.0, 360.0)),
            scale=1.0 + float(rng.uniform(-0.005, 0.005)),
        )
        for k, (x, y) in enumerate(center + rng.uniform(-0.7 * _DITHER, 0.7 * _DITHER, size=(number, 2)))
    ]
    return geometry, projections


def _decam(
    bases: list[SkyProjection[DetectorFrame]], size: int, side: int, number: int
) -> tuple[PatchGeometry, list[SkyProjection[DetectorFrame]]]:
    if not bases:
        raise FileNotFoundError(f"There are no exposures in {data_folder() / 'decam'}.")
    bbox = bases[0].pixel_frame.bbox
    sky: SkyCoord = bases[0].pixel_to_sky(x=float(bbox.x.center), y=float(bbox.y.center))
    geometry = square_patch(float(sky.ra.deg), float(sky.dec.deg), size, 0.2)
    projections = []
    for k, base in enumerate(bases[:number]):
        middle = base.pixel_frame.bbox
        # The pixels of the file itself: nothing is rotated or scaled.
        corner = np.floor([middle.x.center, middle.y.center]) + 0.5 * ((side - 1) % 2)
        projections.append(view(base, (float(corner[0]), float(corner[1])), side, visit=1 + k))
    return geometry, projections


def _conditions(visit: SimulatedVisit, projection: SkyProjection[DetectorFrame], side: int) -> Conditions:
    """Put the PSF of a simulated visit behind a projection."""
    corner, middle = math.sqrt(0.5) * side, 0.5 * (side - 1)
    along_x, along_y, radial = visit.size_gradient
    g1_x, g1_y, g2_x, g2_y = visit.ellipticity_gradient

    def profile(x: float, y: float) -> Any:
        u, v = (x - middle) / corner, (y - middle) / corner
        fwhm = visit.seeing_arcsec * (1.0 + along_x * u + along_y * v + radial * (u * u + v * v))
        g1 = visit.ellipticity[0] + g1_x * u + g1_y * v
        g2 = visit.ellipticity[1] + g2_x * u + g2_y * v
        return moffat(fwhm, g1, g2)

    largest = visit.seeing_arcsec * (1.0 + abs(along_x) + abs(along_y) + abs(radial))
    per_njy = EXPOSURE_TIME * 10.0 ** (0.4 * (visit.zero_point - AB_ZERO_POINT_NJY))
    sky = EXPOSURE_TIME * PIXEL_SCALE**2 * 10.0 ** (-0.4 * (visit.sky_brightness - visit.zero_point))
    return Conditions(projection, profile, largest, per_njy, sky)
