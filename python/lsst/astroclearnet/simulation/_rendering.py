# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Draw sources onto images, with any PSF."""

from __future__ import annotations

__all__ = ("render_truth",)

import math
from collections.abc import Callable, Sequence
from typing import Any

import astropy.units as u
import galsim
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Row, Table

from lsst.images import Box, SkyProjection

from ..adapters import PatchGeometry
from ._projection import _sky_to_pixels, local_wcs

_GSPARAMS = galsim.GSParams(folding_threshold=1e-3)
# The wings of a de Vaucouleurs profile reach far beyond any stamp: cut them.
_BULGE_TRUNCATION = 6.0
_DISC_EXTENT = 5.5
_UNIT_BULGE = galsim.DeVaucouleurs(
    half_light_radius=1.0, trunc=_BULGE_TRUNCATION, flux_untruncated=False, gsparams=_GSPARAMS
)
_UNIT_DISC = galsim.Exponential(half_light_radius=1.0, gsparams=_GSPARAMS)


def _source_profile(source: Row, flux: float) -> galsim.GSObject | None:
    """Return the intrinsic profile of a source."""
    if source["kind"] == "star":
        return None
    # The angle of the major axis from west towards north.
    beta = (90.0 + float(source["position_angle"])) * galsim.degrees
    fraction = float(source["bulge_fraction"])
    bulge = _UNIT_BULGE.dilate(float(source["bulge_radius"])).shear(g=float(source["bulge_g"]), beta=beta)
    disc = _UNIT_DISC.dilate(float(source["disc_radius"])).shear(g=float(source["disc_g"]), beta=beta)
    return bulge.withFlux(fraction * flux) + disc.withFlux((1.0 - fraction) * flux)


def _source_extents(sources: Table) -> npt.NDArray[np.float64]:
    """Return radii in arcsec that hold all but a thousandth of sources."""
    shear = np.asarray(sources["disc_g"], dtype=float)
    stretch = np.sqrt((1.0 + shear) / (1.0 - shear))
    extents = _DISC_EXTENT * np.asarray(sources["disc_radius"], dtype=float) * stretch
    return np.where(np.asarray(sources["kind"]) == "star", 0.0, extents)


def _draw_sources(
    image: galsim.Image,
    sources: Table,
    wcs: Sequence[galsim.JacobianWCS],
    *,
    flux: npt.NDArray[np.float64],
    psf: Callable[[float, float], galsim.GSObject],
    radius: npt.NDArray[np.float64],
    method: str,
) -> None:
    """Add sources to an image."""
    for source, local, electrons, reach in zip(sources, wcs, flux, radius, strict=True):
        x, y = float(source["x"]), float(source["y"])
        half = math.ceil(reach)
        stamp = galsim.BoundsI(round(x) - half, round(x) + half, round(y) - half, round(y) + half)
        overlap = stamp & image.bounds
        if not overlap.isDefined():
            continue
        profile = _source_profile(source, electrons)
        kernel = psf(x, y)
        drawn = (
            kernel * electrons if profile is None else galsim.Convolve(profile, kernel, gsparams=_GSPARAMS)
        )
        drawn.drawImage(
            image[overlap], center=galsim.PositionD(x, y), wcs=local, method=method, add_to_image=True
        )


def _select_sources(
    catalogue: Table, projection: SkyProjection[Any], bbox: Box, radius: npt.NDArray[np.float64]
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """Return the sources whose stamps touch a box, with their pixels."""
    sky = SkyCoord(ra=np.asarray(catalogue["ra"]) * u.deg, dec=np.asarray(catalogue["dec"]) * u.deg)
    x, y = _sky_to_pixels(projection, sky)
    touches = (
        (x > bbox.x.min - radius - 1)
        & (x < bbox.x.max + radius + 1)
        & (y > bbox.y.min - radius - 1)
        & (y < bbox.y.max + radius + 1)
    )
    sources = catalogue[touches]
    sources["x"], sources["y"] = x[touches], y[touches]
    return sources, touches


def render_truth(
    catalogue: Table, geometry: PatchGeometry, band: str, *, psf_fwhm: float
) -> npt.NDArray[np.float64]:
    """Draw the noiseless sky of a patch at a circular Gaussian PSF.

    The Gaussian is the whole PSF: pixels are samples of the smoothed sky
    times the area of a pixel, not integrals over pixels.

    Parameters
    ----------
    catalogue
        The truth catalogue.
    geometry
        The patch; its outer box is drawn.
    band
        Name of the band; the catalogue needs a column ``flux_<band>``.
    psf_fwhm
        FWHM of the PSF in pixels of the patch.

    Returns
    -------
    image : `numpy.ndarray`
        Flux per pixel in nJy, of shape (H, W).

    Raises
    ------
    ValueError
        If the PSF has no width, or the catalogue no fluxes in the band.
    """
    if not psf_fwhm > 0.0:
        raise ValueError(f"psf_fwhm={psf_fwhm} must be a positive number of pixels.")
    if f"flux_{band}" not in catalogue.colnames:
        raise ValueError(f"The truth catalogue has no fluxes in band {band!r}.")
    bbox = geometry.bbox
    sigma = psf_fwhm * gaussian_fwhm_to_sigma
    scale = geometry.pixel_scale
    # Six sigma leave less than 2e-8 of a star outside.
    reach = 6.0 * sigma + _source_extents(catalogue) / scale
    sources, touches = _select_sources(catalogue, geometry.projection, bbox, reach)
    image = galsim.ImageD(galsim.BoundsI(bbox.x.min, bbox.x.max, bbox.y.min, bbox.y.max), init_value=0.0)
    kernel = galsim.Gaussian(sigma=sigma * scale, gsparams=_GSPARAMS)
    _draw_sources(
        image,
        sources,
        local_wcs(geometry.projection, x=np.asarray(sources["x"]), y=np.asarray(sources["y"])),
        flux=np.asarray(sources[f"flux_{band}"], dtype=float),
        psf=lambda x, y: kernel,
        radius=reach[touches],
        method="no_pixel",
    )
    return np.asarray(image.array)
