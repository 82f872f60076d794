# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Columns of a catalogue: names, types, units and definitions."""

from __future__ import annotations

__all__ = ("APERTURE_RADII", "BANDS", "PIXEL_FLAGS", "Column", "felis_schema", "object_columns")

import dataclasses
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

BANDS = ("u", "g", "r", "i", "z", "y")
"""Bands of Rubin."""

APERTURE_RADII = (3, 6, 9, 12)
"""Radii of apertures in pixels, the smallest of Rubin's."""

PIXEL_FLAGS = MappingProxyType(
    {
        "noData": "NO_DATA",
        "interpolated": "INTERPOLATED",
        "saturated": "SATURATED",
        "clipped": "CLIPPED",
        "fewExposures": "FEW_EXPOSURES",
        "supplied": "SUPPLIED",
        "withheld": "WITHHELD",
    }
)
"""Mask planes of restored coadds by their names in columns."""

_PATCH = (
    ("tract", "long", "", "Skymap tract ID"),
    ("patch", "long", "", "Skymap patch ID"),
    (
        "coord_ra",
        "double",
        "deg",
        "Fiducial ICRS Right Ascension of centroid used for database indexing",
    ),
    ("coord_dec", "double", "deg", "Fiducial ICRS Declination of centroid used for database indexing"),
    (
        "acn_objectId",
        "long",
        "",
        "Unique ID within a sky map: tract times 2^40, plus patch times 2^24, plus the number in the patch. "
        "No objectId of Rubin",
    ),
    (
        "acn_isPatchInner",
        "boolean",
        "",
        "Centroid is in the inner region of the patch. Use rows with it alone: neighbouring patches of a "
        "tract measure the others. Neighbouring tracts overlap all the same",
    ),
    ("acn_x", "double", "pixel", "x of the centroid in pixels of the tract: see acn_xErr"),
    ("acn_y", "double", "pixel", "y of the centroid in pixels of the tract: see acn_yErr"),
    (
        "acn_xErr",
        "float",
        "pixel",
        "Standard deviation of acn_x. Point sources are fitted together with their neighbours to the linear "
        "coadds of all bands, with the covariance of their noise and a prior of 0.5 pixels around the peak",
    ),
    ("acn_yErr", "float", "pixel", "Standard deviation of acn_y"),
    (
        "acn_centroid_flag",
        "boolean",
        "",
        "The fit moved by more than 1.5 pixels: the centroid is the peak of the restored coadds",
    ),
    (
        "acn_detectionSignificance",
        "float",
        "",
        "Value over error of the peak, in the restored coadds of all bands with inverse-variance weights",
    ),
    (
        "acn_signalToNoise",
        "float",
        "",
        "Root of the sum of squares of positive signal-to-noise ratios of acn_psfFlux over the bands",
    ),
    ("acn_neighborDistance", "float", "arcsec", "Distance of the nearest other row, which need not be inner"),
    (
        "acn_extendedness",
        "float",
        "",
        "Inverse-variance mean over the bands of their acn_extendedness: 0 for point sources, towards 1",
    ),
    ("acn_extendednessErr", "float", "", "Standard deviation of acn_extendedness"),
)

_BAND = (
    (
        "psfFlux",
        "float",
        "nJy",
        "Flux of a point source at the centroid on the linear coadd, fitted together with its neighbours, "
        "with weights for the correlated noise (generalised least squares)",
    ),
    (
        "psfFluxErr",
        "float",
        "nJy",
        "Standard deviation of {band}_acn_psfFlux, from the covariance of the noise and the error of the "
        "centroid",
    ),
    (
        "psfFlux_flag",
        "boolean",
        "",
        "No flux: fewer than half of the PSF is on good pixels, or neighbours are inseparable",
    ),
    (
        "gaussFlux",
        "float",
        "nJy",
        "Flux of the elliptical Gaussian with the adaptive moments, on the linear coadd, neighbours "
        "subtracted as point sources: not the total flux of a galaxy",
    ),
    ("gaussFluxErr", "float", "nJy", "Standard deviation of {band}_acn_gaussFlux"),
    (
        "ixx",
        "float",
        "pixel**2",
        "Adaptive moment along x (Gaussian weights) of the linear coadd with its PSF, neighbours subtracted "
        "as point sources",
    ),
    ("iyy", "float", "pixel**2", "The same along y"),
    ("ixy", "float", "pixel**2", "The same along x and y"),
    ("ixxErr", "float", "pixel**2", "Standard deviation of {band}_acn_ixx"),
    ("iyyErr", "float", "pixel**2", "Standard deviation of {band}_acn_iyy"),
    ("ixyErr", "float", "pixel**2", "Standard deviation of {band}_acn_ixy"),
    (
        "shape_flag",
        "boolean",
        "",
        "No moments: {band}_acn_psfFlux is below 5 sigma, the box has bad pixels, or no Gaussian fits",
    ),
    (
        "extendedness",
        "float",
        "",
        "1 - P/G, where G is {band}_acn_gaussFlux and P the flux of the PSF fitted with equal weights: 0 for "
        "point sources, with a scatter, towards 1. No class: Rubin's extendedness is 0 or 1",
    ),
    ("extendednessErr", "float", "", "Standard deviation of {band}_acn_extendedness"),
    ("psfFwhm", "float", "arcsec", "FWHM of the PSF of the coadds"),
)

_FLAGS = {
    "noData": "no data, or no coadd in this band",
    "interpolated": "pixels that no exposure sees",
    "saturated": "saturated pixels",
    "clipped": "pixels of which at least one exposure was rejected",
    "fewExposures": "pixels with few exposures",
    "supplied": "light that the network supplied and exposures refute",
    "withheld": "light that exposures demand and the network withheld",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the catalogue.

    Attributes
    ----------
    name
        Its name.  Those with ``acn_`` are defined here; the others are
        Rubin's, with Rubin's definition.
    datatype
        Type as Felis names it: ``boolean``, ``long``, ``float`` or
        ``double``.
    unit
        Unit as astropy reads it; empty without one.
    description
        Definition.
    """

    name: str
    datatype: str
    unit: str
    description: str


def object_columns(bands: Sequence[str] = BANDS, radii: Sequence[int] = APERTURE_RADII) -> list[Column]:
    """Return the columns of a catalogue, in their order.

    Parameters
    ----------
    bands
        Names of the bands.
    radii
        Radii of apertures in pixels.
    """
    columns = [Column(*entry) for entry in _PATCH]
    for band in bands:
        for name, datatype, unit, description in [*_BAND, *_apertures(radii), *_pixel_flags()]:
            columns.append(Column(f"{band}_acn_{name}", datatype, unit, description.replace("{band}", band)))
    return columns


def felis_schema(bands: Sequence[str] = BANDS, radii: Sequence[int] = APERTURE_RADII) -> dict[str, Any]:
    """Return the schema of ``restored_object_patch`` for Felis.

    Parameters
    ----------
    bands, radii
        As for `object_columns`.

    Returns
    -------
    schema : `dict`
        What ``felis.Schema.model_validate`` takes, plain Python values; the
        file ``resources/schemas/restored_object.yaml`` of the package holds
        that of the default bands and radii.
    """
    columns = [
        {
            "name": column.name,
            "datatype": column.datatype,
            "description": column.description,
            **({"fits:tunit": column.unit} if column.unit else {}),
        }
        for column in object_columns(bands, radii)
    ]
    return {
        "name": "restored",
        "@id": "#restored",
        "description": "Catalogues of restored coadds.",
        "tables": [
            {
                "name": "restored_object_patch",
                "@id": "#restored_object_patch",
                "description": "Sources detected on restored coadds and measured on linear ones. Columns "
                "with acn_ are defined by lsst.astroclearnet, the others by Rubin.",
                "primaryKey": "#restored_object_patch.acn_objectId",
                "columns": [
                    {"@id": f"#restored_object_patch.{column['name']}", **column} for column in columns
                ],
            }
        ],
    }


def _apertures(radii: Sequence[int]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the columns of apertures."""
    for radius in radii:
        name = f"ap{radius:02d}Flux"
        yield (
            name,
            "float",
            "nJy",
            f"Flux within a circle of {radius} pixels around the centroid on the linear coadd, with exact "
            "shares of pixels, neighbours subtracted as point sources; not corrected for light outside",
        )
        yield (
            f"{name}Err",
            "float",
            "nJy",
            f"Standard deviation of {{band}}_acn_{name}, from the covariance of the noise",
        )
        yield f"{name}_flag", "boolean", "", "No flux: the circle has bad pixels or is cut by the image"


def _pixel_flags() -> Iterator[tuple[str, str, str, str]]:
    """Yield the columns of mask planes."""
    for name, meaning in _FLAGS.items():
        yield (
            f"pixelFlags_{name}",
            "boolean",
            "",
            f"Within a FWHM of the PSF around the centroid, the restored coadd has {meaning} "
            f"({PIXEL_FLAGS[name]})",
        )
