# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The sky of a survey: stars, close pairs and galaxies, as a catalogue."""

from __future__ import annotations

__all__ = ("make_catalogue",)

import math
from collections.abc import Sequence

import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table, vstack

from ._instrument import AB_ZERO_POINT_NJY, BANDS, FULL_WELL, PIXEL_SCALE
from ._options import SurveyOptions
from ._projection import _sky_to_pixels
from ._visits import SimulatedVisit, _corner_distance, _electrons_per_njy, _sky_electrons

type Array = npt.NDArray[np.float64]

_STAR_SLOPE = 0.14
_GALAXY_SLOPE = 0.32
_GALAXY_REFERENCE = 25.0
_MARGIN_ARCSEC = 8.0
_BULGE_TO_DISC_RADIUS = 0.4


def make_catalogue(options: SurveyOptions, visits: Sequence[SimulatedVisit]) -> Table:
    """Draw every source that the visits of a survey can see.

    Sources cover the disc that the focal plane sweeps, so they lie outside
    the tract, too. Star counts rise as 10^(0.14 i), slower than those of the
    sky at high galactic latitude, so that every range of signal-to-noise
    ratio is well filled; galaxy counts rise as 10^(0.32 i) and half-light
    radii fall as 10^(-0.1 i) about 0.28 arcsec at i = 25, as in deep fields of
    the Hubble Space Telescope.

    Parameters
    ----------
    options
        The survey.
    visits
        Its visits, for the saturation of the stars.

    Returns
    -------
    catalogue : `astropy.table.Table`
        One row per source: ``id``; ``kind`` (star or galaxy); ``ra`` and
        ``dec`` in degrees; ``x`` and ``y`` in tract pixels;
        ``flux_<band>`` in nJy for each band of the survey; ``pair_id`` (-1
        for sources that are not in a close pair of stars) and
        ``pair_separation`` in arcsec (NaN without a pair); ``is_saturated``,
        whether its centre is beyond full well in any visit; and for
        galaxies (NaN for stars) ``bulge_fraction``, ``bulge_radius`` and
        ``disc_radius`` (half-light radii in arcsec), ``bulge_g`` and
        ``disc_g`` (reduced shears) and ``position_angle`` in degrees east of
        north.
    """
    rng = np.random.default_rng([options.seed, len(BANDS)])
    radius = PIXEL_SCALE * _corner_distance(options) + options.dither_arcsec + _MARGIN_ARCSEC
    area = math.pi * radius**2
    patch_area = (PIXEL_SCALE * options.cell_size * options.patch_cells) ** 2
    low, high = options.galaxy_magnitudes
    # Cumulative counts between the limits relative to those up to i = 25.
    counts = (10.0 ** (_GALAXY_SLOPE * high) - 10.0 ** (_GALAXY_SLOPE * low)) / 10.0 ** (
        _GALAXY_SLOPE * _GALAXY_REFERENCE
    )
    tables = [
        _stars(rng, options, rng.poisson(options.stars_per_patch * area / patch_area), radius),
        _pairs(rng, options, rng.poisson(options.pairs_per_patch * area / patch_area), radius),
        _galaxies(rng, options, rng.poisson(options.galaxies_per_arcmin2 * counts * area / 3600.0), radius),
    ]
    catalogue = vstack([table for table in tables if len(table)] or tables[:1])
    return _finish(catalogue, options, visits)


def _finish(catalogue: Table, options: SurveyOptions, visits: Sequence[SimulatedVisit]) -> Table:
    """Turn tangent-plane positions into the columns of the catalogue."""
    center = SkyCoord(options.ra_deg, options.dec_deg, unit="deg").skyoffset_frame()
    sky = SkyCoord(
        lon=catalogue["east"] * u.arcsec, lat=catalogue["north"] * u.arcsec, frame=center
    ).transform_to("icrs")
    projection = options.geometry.tract(options.tract).projection(options.skymap)
    x, y = _sky_to_pixels(projection, sky)
    catalogue["id"] = np.arange(1, len(catalogue) + 1)
    catalogue["ra"], catalogue["dec"] = sky.ra.deg * u.deg, sky.dec.deg * u.deg
    catalogue["x"], catalogue["y"] = x * u.pix, y * u.pix
    catalogue["is_saturated"] = _saturated(catalogue, visits)
    first = ["id", "kind", "ra", "dec", "x", "y", *(f"flux_{band}" for band in options.bands)]
    rest = [
        "is_saturated",
        "pair_id",
        "pair_separation",
        "bulge_fraction",
        "bulge_radius",
        "disc_radius",
        "bulge_g",
        "disc_g",
        "position_angle",
    ]
    return catalogue[[*first, *rest]]


def _saturated(catalogue: Table, visits: Sequence[SimulatedVisit]) -> npt.NDArray[np.bool_]:
    """Say which stars are beyond full well in some visit."""
    saturated = np.zeros(len(catalogue), dtype=bool)
    for visit in visits:
        # A Gaussian that includes the pixel has nearly the peak of the PSF.
        sigma = math.hypot(visit.seeing_arcsec * gaussian_fwhm_to_sigma / PIXEL_SCALE, 1.0 / math.sqrt(12.0))
        peak = np.asarray(catalogue[f"flux_{visit.band}"]) * _electrons_per_njy(visit)
        saturated |= peak / (2.0 * math.pi * sigma**2) + _sky_electrons(visit) > FULL_WELL
    return saturated & (catalogue["kind"] == "star")


def _draw_magnitudes(
    rng: np.random.Generator, number: int, slope: float, limits: tuple[float, float]
) -> Array:
    """Draw magnitudes whose counts rise exponentially."""
    low, high = (10.0 ** (slope * limit) for limit in limits)
    return np.log10(rng.uniform(low, high, size=number)) / slope


def _draw_positions(rng: np.random.Generator, number: int, radius: float) -> tuple[Array, Array]:
    """Draw positions in a disc."""
    distance = radius * np.sqrt(rng.uniform(size=number))
    angle = rng.uniform(0.0, 2.0 * math.pi, size=number)
    return distance * np.sin(angle), distance * np.cos(angle)


def _table(
    rng: np.random.Generator,
    options: SurveyOptions,
    kind: str,
    magnitudes: Array,
    position: tuple[Array, Array],
) -> Table:
    """Make a table of sources without shapes and pairs."""
    number = len(magnitudes)
    table = Table({"kind": np.full(number, kind, dtype="U6"), "east": position[0], "north": position[1]})
    colour = rng.normal(size=number)
    for band in options.bands:
        mean, scatter = BANDS[band].star_color if kind == "star" else BANDS[band].galaxy_color
        table[f"flux_{band}"] = (
            10.0 ** (-0.4 * (magnitudes + mean + scatter * colour - AB_ZERO_POINT_NJY)) * u.nJy
        )
    table["pair_id"] = np.full(number, -1)
    table["pair_separation"] = np.full(number, np.nan) * u.arcsec
    for name, unit in (
        ("bulge_fraction", None),
        ("bulge_radius", u.arcsec),
        ("disc_radius", u.arcsec),
        ("bulge_g", None),
        ("disc_g", None),
        ("position_angle", u.deg),
    ):
        table[name] = np.full(number, np.nan) if unit is None else np.full(number, np.nan) * unit
    return table


def _stars(rng: np.random.Generator, options: SurveyOptions, number: int, radius: float) -> Table:
    """Draw single stars."""
    magnitudes = _draw_magnitudes(rng, number, _STAR_SLOPE, options.star_magnitudes)
    return _table(rng, options, "star", magnitudes, _draw_positions(rng, number, radius))


def _pairs(rng: np.random.Generator, options: SurveyOptions, number: int, radius: float) -> Table:
    """Draw close pairs of stars, bright but not saturated."""
    east, north = _draw_positions(rng, number, radius)
    separation = rng.uniform(*options.pair_separation_arcsec, size=number)
    angle = rng.uniform(0.0, 2.0 * math.pi, size=number)
    primary = rng.uniform(20.5, 23.5, size=number)
    d_east, d_north = 0.5 * separation * np.array([np.sin(angle), np.cos(angle)])
    table = _table(
        rng,
        options,
        "star",
        np.concatenate([primary, primary + rng.uniform(0.0, 1.0, size=number)]),
        (
            np.concatenate([east - d_east, east + d_east]),
            np.concatenate([north - d_north, north + d_north]),
        ),
    )
    table["pair_id"] = np.tile(np.arange(number), 2)
    table["pair_separation"] = np.tile(separation, 2) * u.arcsec
    return table


def _galaxies(rng: np.random.Generator, options: SurveyOptions, number: int, radius: float) -> Table:
    """Draw galaxies of a bulge and a disc."""
    magnitudes = _draw_magnitudes(rng, number, _GALAXY_SLOPE, options.galaxy_magnitudes)
    table = _table(rng, options, "galaxy", magnitudes, _draw_positions(rng, number, radius))
    sizes = 0.28 * 10.0 ** (-0.1 * (magnitudes - 25.0) + rng.normal(0.0, 0.18, size=number))
    disc = np.clip(sizes, 0.08, 1.6)
    shear = np.clip(rng.rayleigh(0.25, size=number), 0.0, 0.7)
    table["bulge_fraction"] = rng.beta(1.0, 3.0, size=number)
    table["bulge_radius"] = _BULGE_TO_DISC_RADIUS * disc * u.arcsec
    table["disc_radius"] = disc * u.arcsec
    table["bulge_g"] = 0.4 * shear
    table["disc_g"] = shear
    table["position_angle"] = rng.uniform(0.0, 180.0, size=number) * u.deg
    return table
