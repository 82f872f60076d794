# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The simulated camera: numbers of Hyper Suprime-Cam, fewer detectors."""

from __future__ import annotations

__all__ = (
    "AB_ZERO_POINT_NJY",
    "BANDS",
    "EXPOSURE_TIME",
    "FULL_WELL",
    "GAIN",
    "INSTRUMENT",
    "PIXEL_SCALE",
    "READ_NOISE",
    "BandProperties",
    "DetectorLayout",
    "focal_plane",
    "make_detector",
)

import dataclasses
import math

from lsst.images import Box
from lsst.images._transforms import _ast
from lsst.images.cameras import CameraFrameSet, Detector, DetectorAttributes, DetectorType, Orientation

AB_ZERO_POINT_NJY = 31.4
"""AB magnitude of a source of 1 nJy, rounded as in the Rubin pipelines."""

INSTRUMENT = "HSC-Sim"
PIXEL_SCALE = 0.168
"""Size of a pixel at the boresight in arcsec."""

EXPOSURE_TIME = 200.0
"""Exposure time in seconds, that of an i-band visit of the HSC-SSP Wide layer
(Aihara et al. 2018, PASJ 70, S4)."""

GAIN = 3.0
"""Electrons per digital unit (HSC instrument parameters, Subaru Telescope)."""

READ_NOISE = 4.5
"""Read noise in electrons (same source)."""

FULL_WELL = 150_000.0
"""Saturation level in electrons (same source)."""

_PIXEL_SIZE_MM = 0.015


@dataclasses.dataclass(frozen=True)
class BandProperties:
    """Photometric properties of a band.

    Attributes
    ----------
    physical_filter
        Name of the filter.
    zero_point
        AB magnitude that gives one electron per second: the sensitivities
        that Subaru Telescope publishes for HSC.
    sky_brightness
        AB magnitudes per square arcsec, typical of dark time on Maunakea. With
        the zero point of i it gives a 5 sigma depth of 25.4 in 200 s at 0.6
        arcsec, and 26.4 in the 20 minutes of the HSC-SSP Wide layer, whose
        published depth is 26.2.
    star_color, galaxy_color
        Mean and scatter of the magnitude in this band minus that in i, for
        stars of the field and for galaxies fainter than i = 21.
    """

    physical_filter: str
    zero_point: float
    sky_brightness: float
    star_color: tuple[float, float]
    galaxy_color: tuple[float, float]


BANDS: dict[str, BandProperties] = {
    "g": BandProperties("HSC-G", 29.0, 22.1, (1.30, 0.50), (1.10, 0.40)),
    "r": BandProperties("HSC-R", 29.0, 21.2, (0.45, 0.25), (0.40, 0.20)),
    "i": BandProperties("HSC-I", 28.6, 20.0, (0.00, 0.00), (0.00, 0.00)),
    "z": BandProperties("HSC-Z", 27.7, 19.3, (-0.25, 0.12), (-0.20, 0.10)),
    "y": BandProperties("HSC-Y", 27.4, 18.4, (-0.35, 0.15), (-0.30, 0.15)),
}
"""Properties of the bands by name."""


@dataclasses.dataclass(frozen=True)
class DetectorLayout:
    """Place of a detector in the focal plane.

    Attributes
    ----------
    detector
        ID of the detector.
    name
        Name of the detector.
    bbox
        Its pixels.
    x_offset, y_offset
        Position of the centre of pixel (0, 0) relative to the boresight in
        pixels.
    """

    detector: int
    name: str
    bbox: Box
    x_offset: float
    y_offset: float


def focal_plane(
    grid: tuple[int, int], shape: tuple[int, int], gap: tuple[int, int]
) -> tuple[DetectorLayout, ...]:
    """Return the detectors of a mosaic centred on the boresight.

    Parameters
    ----------
    grid
        Number of detectors along y and x.
    shape
        Height and width of a detector in pixels.
    gap
        Gaps between detectors along y and x in pixels.

    Returns
    -------
    detectors : `tuple` [`DetectorLayout`, ...]
        The detectors, row by row, in the order of their IDs.
    """
    (rows, columns), (height, width), (y_gap, x_gap) = grid, shape, gap
    y_corner = -(rows * (height + y_gap) - y_gap - 1) / 2.0
    x_corner = -(columns * (width + x_gap) - x_gap - 1) / 2.0
    return tuple(
        DetectorLayout(
            detector=row * columns + column,
            name=f"{row}_{column:02d}",
            bbox=Box.from_shape([height, width]),
            x_offset=x_corner + column * (width + x_gap),
            y_offset=y_corner + row * (height + y_gap),
        )
        for row in range(rows)
        for column in range(columns)
    )


def make_detector(layout: DetectorLayout, visit: int) -> Detector:
    """Return the description of a detector that a visit image carries.

    Parameters
    ----------
    layout
        Place of the detector.
    visit
        ID of the visit.

    Returns
    -------
    detector : `lsst.images.cameras.Detector`
        Name, pixels and the nominal coordinate systems of the camera.
    """
    bbox = layout.bbox
    frames = _ast.FrameSet(_ast.Frame(2, "Ident=FOCAL_PLANE,Domain=FOCAL_PLANE,Unit(1)=mm,Unit(2)=mm"))
    radians_per_mm = math.radians(PIXEL_SCALE / 3600.0) / _PIXEL_SIZE_MM
    frames.addFrame(
        1,
        _ast.ZoomMap(2, radians_per_mm),
        _ast.Frame(2, "Ident=FIELD_ANGLE,Domain=FIELD_ANGLE,Unit(1)=rad,Unit(2)=rad"),
    )
    to_pixels = _ast.ZoomMap(2, 1.0 / _PIXEL_SIZE_MM).then(
        _ast.ShiftMap([-layout.x_offset, -layout.y_offset])
    )
    name = f"DETECTOR_{layout.detector:03d}"
    limits = ",".join(
        f"Bottom({axis})={interval.start},Top({axis})={interval.stop}"
        for axis, interval in ((1, bbox.x), (2, bbox.y))
    )
    frames.addFrame(
        1, to_pixels, _ast.Frame(2, f"Ident={name},Domain={name},Unit(1)=pixel,Unit(2)=pixel,{limits}")
    )
    attributes = DetectorAttributes(
        name=layout.name,
        id=layout.detector,
        type=DetectorType.SCIENCE,
        serial=layout.name,
        bbox=bbox,
        orientation=Orientation(
            focal_plane_x=layout.x_offset * _PIXEL_SIZE_MM,
            focal_plane_y=layout.y_offset * _PIXEL_SIZE_MM,
            focal_plane_z=0.0,
            pixel_reference_x=0.0,
            pixel_reference_y=0.0,
        ),
        pixel_size=_PIXEL_SIZE_MM,
        physical_type="simulated",
    )
    return Detector(attributes, [], CameraFrameSet(INSTRUMENT, frames), visit=visit)
