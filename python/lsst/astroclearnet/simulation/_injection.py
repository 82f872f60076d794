# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw sources of an injection catalogue, and add them to visit images."""

from __future__ import annotations

__all__ = ("InjectedImage", "SourceStamp", "draw_injections", "inject_sources")

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import astropy.units as u
import galsim
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.table import Row, Table
from scipy.special import gammaincinv

from lsst.images import Box, SkyProjection, VisitImage

from ..adapters.read import convert_to_njy
from ._instrument import AB_ZERO_POINT_NJY
from ._projection import local_wcs
from ._rendering import _GSPARAMS, _select_sources

type Array = npt.NDArray[np.float64]

_STARS = ("DeltaFunction", "Star")
_COLUMNS = ("ra", "dec", "source_type", "mag")
_GALAXY_COLUMNS = ("n", "half_light_radius", "q", "beta")

_LIGHT = 0.995
"""Share of the light of a galaxy inside its stamp: one of n = 4 is then 25
half-light radii wide on each side, and what is beyond would cost ten times
as many pixels for as much again."""

_INTERPOLANT = galsim.Lanczos(7)
"""Interpolation of PSFs to positions between pixels: of one of 3.8 pixels FWHM
right to 0.1 % of its peak, where GalSim's default is right to 0.5 %."""

_UNRELIABLE_PLANES = ("BAD", "COSMIC_RAY", "CROSSTALK", "INTERPOLATED", "SATURATED", "SUSPECT")
"""Mask planes of pixels whose variance need not follow their light."""

_MIN_CORRELATION = 0.3
"""Least correlation of variance and light with which the one is taken for the
photon noise of the other.  It is 1 where variances follow the counts, and 0
where they leave out the sources."""


@dataclasses.dataclass(frozen=True)
class SourceStamp:
    """The light of one source on the pixels around it.

    Attributes
    ----------
    index
        Row of the source in its catalogue.
    x, y
        Its position in pixels.
    flux
        Its flux in nJy, also of the light beyond the stamp.
    rows, columns
        Where the stamp is in the image.
    light
        Flux in each pixel in nJy, of that shape.
    """

    index: int
    x: float
    y: float
    flux: float
    rows: slice
    columns: slice
    light: Array


@dataclasses.dataclass(frozen=True)
class InjectedImage:
    """A visit image with injected sources.

    Attributes
    ----------
    visit_image
        The image.
    num_sources
        Number of sources with light on it.
    njy_per_electron
        Flux of an electron, from which the photon noise of the sources was
        drawn; NaN if it is not known and there is none.
    """

    visit_image: VisitImage
    num_sources: int
    njy_per_electron: float


def draw_injections(
    catalogue: Table,
    projection: SkyProjection[Any],
    bbox: Box,
    psf: Callable[[float, float], npt.NDArray[Any]],
) -> Iterator[SourceStamp]:
    """Draw the sources of an injection catalogue that touch an image.

    Parameters
    ----------
    catalogue
        Sources, with the columns of the ``source_injection`` package: ``ra``
        and ``dec`` in degrees; ``source_type``, ``DeltaFunction`` or ``Star``
        for stars and ``Sersic`` for galaxies; ``mag``, AB; and for galaxies
        the index ``n``, the ``half_light_radius`` in arcsec of the circular
        profile, before it is stretched at constant area to the ratio ``q`` of
        its axes, and the angle ``beta`` of the major axis in degrees from east
        to north.
    projection
        Mapping from pixels to the sky.
    bbox
        Box of the image.
    psf
        Function of x and y that returns the PSF there, with the pixel in it,
        as a stamp with an odd size that is centred on its middle pixel.

    Yields
    ------
    stamp : `SourceStamp`
        Light of each source that touches the box, clipped to it.

    Raises
    ------
    ValueError
        If a column is missing, a source has another type, or a galaxy has no
        profile that GalSim can draw.
    """
    _check(catalogue)
    indexed = catalogue.copy()
    indexed["row"] = np.arange(len(catalogue))
    indexed = indexed[_is_near(indexed, projection, bbox)]
    middle = np.asarray(psf(float(bbox.x.center), float(bbox.y.center)))
    # Of the PSF, and of a shift by a fraction of a pixel.
    margin = middle.shape[0] // 2 + 2
    reach = margin + _extents(indexed) / _pixel_size(projection, bbox)
    sources, touches = _select_sources(indexed, projection, bbox, reach)
    locals_ = local_wcs(projection, x=np.asarray(sources["x"]), y=np.asarray(sources["y"]))
    bounds = galsim.BoundsI(bbox.x.min, bbox.x.max, bbox.y.min, bbox.y.max)
    for source, wcs, radius in zip(sources, locals_, reach[touches], strict=True):
        x, y, half = float(source["x"]), float(source["y"]), math.ceil(radius)
        overlap = bounds & galsim.BoundsI(round(x) - half, round(x) + half, round(y) - half, round(y) + half)
        if not overlap.isDefined():
            continue
        kernel = np.asarray(psf(x, y), dtype=float)
        profile = _profile(source)
        drawn: galsim.GSObject = galsim.InterpolatedImage(
            galsim.ImageD(np.ascontiguousarray(kernel / kernel.sum())),
            x_interpolant=_INTERPOLANT,
            wcs=wcs,
            flux=1.0,
            gsparams=_GSPARAMS,
        )
        if profile is not None:
            drawn = galsim.Convolve(profile, drawn, gsparams=_GSPARAMS)
        flux = 10.0 ** (-0.4 * (float(source["mag"]) - AB_ZERO_POINT_NJY))
        image = galsim.ImageD(overlap, init_value=0.0)
        # The pixel is in the PSF already.
        (drawn * flux).drawImage(image, center=galsim.PositionD(x, y), wcs=wcs, method="no_pixel")
        yield SourceStamp(
            index=int(source["row"]),
            x=x,
            y=y,
            flux=flux,
            rows=slice(overlap.ymin - bbox.y.min, overlap.ymax + 1 - bbox.y.min),
            columns=slice(overlap.xmin - bbox.x.min, overlap.xmax + 1 - bbox.x.min),
            light=np.asarray(image.array),
        )


def inject_sources(
    visit_image: VisitImage,
    catalogue: Table,
    *,
    rng: np.random.Generator,
    njy_per_electron: float | None = None,
) -> InjectedImage:
    """Add sources to a visit image, with their photon noise.

    The variance rises by that of the photons that were drawn where the plane
    follows the light of the image, as one that was made from the counts does,
    and otherwise by that of the photons that were expected.  Masks stay as
    they are: sources that would saturate have no place in the catalogue.

    Parameters
    ----------
    visit_image
        Calibrated image with a PSF; it is not changed.
    catalogue
        Sources, as of `draw_injections`.
    rng
        Random numbers of the photon noise.
    njy_per_electron
        Flux of an electron.  By default it is the slope of a straight line
        through variance and light of the good pixels, if these correlate;
        otherwise no noise is added.

    Returns
    -------
    injected : `InjectedImage`
        The image with the sources, in nJy.

    Raises
    ------
    lsst.astroclearnet.adapters.UnusableExposureError
        If the pixels are not calibrated.
    ValueError
        If the catalogue is none, or ``njy_per_electron`` is not positive.
    """
    visit_image = convert_to_njy(visit_image)
    slope = _slope_of_variance(visit_image)
    if njy_per_electron is None:
        njy_per_electron = slope
    elif not 0.0 < njy_per_electron < math.inf:
        raise ValueError(f"njy_per_electron={njy_per_electron} must be a positive flux.")
    bbox, model = visit_image.bbox, visit_image.psf

    def psf(x: float, y: float) -> npt.NDArray[Any]:
        # Sources beyond the edge have the PSF of the edge.
        inside = {"x": min(max(x, bbox.x.min), bbox.x.max), "y": min(max(y, bbox.y.min), bbox.y.max)}
        return np.asarray(model.compute_kernel_image(**inside).array)

    light, number = np.zeros(bbox.shape), 0
    for stamp in draw_injections(catalogue, visit_image.sky_projection, bbox, psf):
        light[stamp.rows, stamp.columns] += stamp.light
        number += 1
    result = visit_image.copy()
    if math.isfinite(njy_per_electron):
        # Interpolated PSFs have ripples below zero, which have no noise.
        expected = np.clip(light, 0.0, None)
        photons = rng.poisson(expected / njy_per_electron) * njy_per_electron
        light += photons - expected
        counted = photons if math.isfinite(slope) else expected
        result.variance.array[...] += (counted * njy_per_electron).astype(result.variance.array.dtype)
    result.image.array[...] += light.astype(result.image.array.dtype)
    return InjectedImage(result, number, njy_per_electron)


def _check(catalogue: Table) -> None:
    """Refuse a catalogue that cannot be drawn."""
    missing = [name for name in _COLUMNS if name not in catalogue.colnames]
    if missing:
        raise ValueError(f"The injection catalogue lacks the columns {missing}.")
    types = np.asarray(catalogue["source_type"], dtype=str)
    unknown = sorted(set(types.tolist()) - {*_STARS, "Sersic"})
    if unknown:
        raise ValueError(
            f"The injection catalogue has sources of the types {unknown}: only {(*_STARS, 'Sersic')} can be "
            "drawn here; the source_injection package draws others."
        )
    missing = [name for name in _GALAXY_COLUMNS if name not in catalogue.colnames]
    if missing and (types == "Sersic").any():
        raise ValueError(f"The injection catalogue has galaxies, but lacks the columns {missing}.")
    for name in (*_COLUMNS[:2], "mag", *(_GALAXY_COLUMNS if (types == "Sersic").any() else ())):
        values = np.ma.filled(np.ma.asarray(catalogue[name], dtype=float), np.nan)
        bad = ~np.isfinite(values) & ((types == "Sersic") | (name not in _GALAXY_COLUMNS))
        if bad.any():
            raise ValueError(f"Row {int(np.argmax(bad))} of the injection catalogue has no value of {name}.")


def _is_near(catalogue: Table, projection: SkyProjection[Any], bbox: Box) -> npt.NDArray[np.bool_]:
    """Tell which sources are so near that their pixels can be trusted.

    Distortions are polynomials: far outside of the image they may come back.
    """
    if not len(catalogue):
        return np.zeros(0, dtype=bool)
    x = np.array([bbox.x.center, bbox.x.min, bbox.x.min, bbox.x.max, bbox.x.max], dtype=float)
    y = np.array([bbox.y.center, bbox.y.min, bbox.y.max, bbox.y.min, bbox.y.max], dtype=float)
    corners = projection.pixel_to_sky(x=x, y=y)
    sky = SkyCoord(ra=np.asarray(catalogue["ra"]) * u.deg, dec=np.asarray(catalogue["dec"]) * u.deg)
    return np.asarray(sky.separation(corners[0]) < 1.5 * corners.separation(corners[0]).max())


def _pixel_size(projection: SkyProjection[Any], bbox: Box) -> float:
    """Return the size of a pixel in the middle of a box in arcsec."""
    (wcs,) = local_wcs(projection, x=np.array([bbox.x.center]), y=np.array([bbox.y.center]))
    return float(math.sqrt(wcs.pixelArea()))


def _is_galaxy(catalogue: Table) -> npt.NDArray[np.bool_]:
    return np.asarray(np.asarray(catalogue["source_type"], dtype=str) == "Sersic")


def _extents(catalogue: Table) -> Array:
    """Return radii in arcsec that hold the light of the sources."""
    extents, galaxies = np.zeros(len(catalogue)), _is_galaxy(catalogue)
    if galaxies.any():
        n, radius, q = (
            np.asarray(catalogue[name], dtype=float)[galaxies] for name in ("n", "half_light_radius", "q")
        )
        ratio = gammaincinv(2.0 * n, _LIGHT) / gammaincinv(2.0 * n, 0.5)
        extents[galaxies] = radius * ratio**n / np.sqrt(q)
    return extents


def _profile(source: Row) -> galsim.GSObject | None:
    """Return the intrinsic profile of a galaxy, of unit flux."""
    if str(source["source_type"]) in _STARS:
        return None
    n, radius, q, beta = (float(source[name]) for name in _GALAXY_COLUMNS)
    try:
        # The axes of the local maps point west and north.
        return galsim.Sersic(n=n, half_light_radius=radius, gsparams=_GSPARAMS).shear(
            q=q, beta=(180.0 - beta) * galsim.degrees
        )
    except galsim.GalSimError as exc:
        raise ValueError(
            f"A galaxy of n={n}, half_light_radius={radius} and q={q} cannot be drawn: {exc}"
        ) from exc


def _slope_of_variance(visit_image: VisitImage) -> float:
    """Return by how much the variance rises with the light; NaN if unknown."""
    light, variance = visit_image.image.array.astype(float), visit_image.variance.array.astype(float)
    good = np.isfinite(light) & np.isfinite(variance)
    for plane in _UNRELIABLE_PLANES:
        if plane in visit_image.mask.schema.names:
            good &= ~visit_image.mask.get(plane)
    light, variance = light[good], variance[good]
    if light.size < 2 or not (light.std() > 0.0 and variance.std() > 0.0):
        return math.nan
    correlation = float(np.corrcoef(light, variance)[0, 1])
    return correlation * float(variance.std() / light.std()) if correlation > _MIN_CORRELATION else math.nan
