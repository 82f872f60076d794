# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the images of all bands to a catalogue."""

from __future__ import annotations

__all__ = ("measure_objects",)

from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from ..metrics import fwhm_of_kernel
from ._band_images import BandImages
from ._band_measures import measure_band
from ._columns import APERTURE_RADII, PIXEL_FLAGS, object_columns
from ._peaks import detection_image, find_peaks
from ._point_sources import PointSources, fit_point_sources

type Array = NDArray[np.float64]

_DTYPES = {"boolean": np.bool_, "long": np.int64, "float": np.float32, "double": np.float64}


def measure_objects(
    images: Mapping[str, BandImages],
    *,
    bands: Sequence[str] | None = None,
    pixel_scale: float = 1.0,
    threshold: float = 3.0,
    min_signal_to_noise: float = 5.0,
    radii: Sequence[int] = APERTURE_RADII,
) -> Table:
    """Detect sources in all bands together, and measure them in each.

    Parameters
    ----------
    images
        Images by band.
    bands
        Bands of the columns; those without images are empty.  The bands of
        ``images`` without a value.
    pixel_scale
        Size of a pixel in arcsec.
    threshold
        Threshold of detection, as of `find_peaks`.
    min_signal_to_noise
        Least signal-to-noise ratio of the fluxes of a peak as a point source,
        over all bands, on the images to measure on.
    radii
        Radii of apertures in pixels.

    Returns
    -------
    objects : `astropy.table.Table`
        A row for each source and the columns of `object_columns` with
        ``acn_x`` and ``acn_y`` in pixels of the arrays; what is known of the
        patch alone (its number, coordinates) is 0.  Values that could not be
        measured are NaN, and flagged.

    Raises
    ------
    ValueError
        If there are no images, or images that are not among ``bands``.
    """
    names = list(images) if bands is None else list(bands)
    if unknown := sorted(set(images) - set(names)):
        raise ValueError(f"There are images in {', '.join(unknown)}, which is not in bands: {names}.")
    measured = list(images.values())
    peaks = find_peaks(*detection_image(measured), threshold=threshold)
    first = fit_point_sources(measured, peaks["x"], peaks["y"], refine=False)
    peaks = peaks[_total_ratio(first) >= min_signal_to_noise]
    sources = fit_point_sources(measured, peaks["x"], peaks["y"])
    table = _empty_table(names, radii, len(peaks))
    table["acn_x"][:], table["acn_y"][:] = sources.x, sources.y
    for k, axis in enumerate("xy"):
        table[f"acn_{axis}Err"][:] = np.sqrt(sources.covariance[:, k, k])
    table["acn_centroid_flag"][:] = ~sources.is_moved
    table["acn_detectionSignificance"][:] = peaks["significance"]
    table["acn_signalToNoise"][:] = _total_ratio(sources)
    table["acn_neighborDistance"][:] = pixel_scale * _nearest(sources)
    for number, (name, band) in enumerate(images.items()):
        table[f"{name}_acn_psfFwhm"][:] = pixel_scale * fwhm_of_kernel(band.psf)
        for column, values in measure_band(band, sources, number, radii).items():
            table[f"{name}_acn_{column}"][:] = values
        _flag_pixels(table, f"{name}_acn_pixelFlags_", band, sources)
    _mean_extendedness(table, list(images))
    return table


def _empty_table(bands: Sequence[str], radii: Sequence[int], number: int) -> Table:
    """Return a table in which nothing is measured."""
    table = Table()
    for column in object_columns(bands, radii):
        dtype = _DTYPES[column.datatype]
        # What is not measured is flagged; of pixels, that there are none.
        is_flag = column.name.endswith("_flag") or column.name.endswith("pixelFlags_noData")
        empty = {"boolean": is_flag, "long": 0}.get(column.datatype, np.nan)
        table[column.name] = np.full(number, empty, dtype=dtype)
        table[column.name].description = column.description
        if column.unit:
            table[column.name].unit = u.Unit(column.unit)
    return table


def _total_ratio(sources: PointSources) -> Array:
    """Return the signal-to-noise ratio over all bands."""
    ratio = np.nan_to_num(sources.flux / sources.error)
    return np.asarray(np.sqrt(np.sum(np.maximum(ratio, 0.0) ** 2, axis=0)))


def _nearest(sources: PointSources) -> Array:
    """Return the distance of the nearest other source in pixels."""
    places = np.column_stack([sources.x, sources.y])
    if len(places) < 2:
        return np.full(len(places), np.nan)
    distance, _ = cKDTree(places).query(places, k=2)
    return np.asarray(distance[:, 1])


def _flag_pixels(table: Table, prefix: str, band: BandImages, sources: PointSources) -> None:
    """Write which mask planes are set around sources."""
    radius = round(fwhm_of_kernel(band.psf))
    circle = np.hypot(*(np.indices((2 * radius + 1, 2 * radius + 1)) - radius)) <= radius
    row, column = (
        np.clip(np.rint(values).astype(int), 0, length - 1)
        for values, length in zip((sources.y, sources.x), band.image.shape, strict=True)
    )
    for name, plane in PIXEL_FLAGS.items():
        flagged = ~band.good if plane == "NO_DATA" else band.planes.get(plane)
        if flagged is not None:
            table[f"{prefix}{name}"][:] = binary_dilation(flagged, circle)[row, column]


def _mean_extendedness(table: Table, bands: Sequence[str]) -> None:
    """Write the mean extendedness of the bands."""
    value, error = (
        np.array([table[f"{band}_acn_extendedness{suffix}"] for band in bands], dtype=float)
        for suffix in ("", "Err")
    )
    weight = np.where(np.isfinite(value) & (error > 0), error, np.inf) ** -2.0
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        table["acn_extendedness"][:] = np.sum(weight * np.nan_to_num(value), axis=0) / total
        table["acn_extendednessErr"][:] = np.where(total > 0, total**-0.5, np.nan)
