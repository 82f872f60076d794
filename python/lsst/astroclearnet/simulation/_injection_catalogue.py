# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogues of sources to inject, like those of source_injection."""

from __future__ import annotations

__all__ = ("make_injection_catalogue", "put_injection_catalogue")

import math
from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.table import Table

from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.images import Box, SkyProjection, TractFrame
from lsst.sphgeom import HtmPixelization, LonLat, UnitVector3d

_DATASET = "injection_catalog"
_HTM_LEVEL = 7
"""Name and trixels of the dataset that source_injection reads."""

_JITTER = 0.25
"""Largest shift of a source from its place in the grid, in steps of the grid:
half a step is left between neighbours, and every part of a pixel is met."""


def make_injection_catalogue(
    projection: SkyProjection[TractFrame],
    bbox: Box,
    *,
    spacing: float,
    magnitudes: tuple[float, float],
    half_light_radii: tuple[float, float] = (0.2, 1.0),
    sersic_indices: Sequence[float] = (1.0, 4.0),
    galaxy_fraction: float = 0.5,
    seed: int = 0,
) -> Table:
    """Draw stars and galaxies on a jittered grid.

    Magnitudes and logarithms of radii are uniform.

    Parameters
    ----------
    projection
        Mapping from the pixels of the tract to the sky.
    bbox
        Box to fill, in pixels of the tract.
    spacing
        Step of the grid in arcsec; neighbours are at least half of it apart.
    magnitudes
        Brightest and faintest AB magnitude.
    half_light_radii
        Smallest and largest half-light radius of galaxies in arcsec.
    sersic_indices
        Sersic indices of galaxies, as often each.
    galaxy_fraction
        Share of galaxies; the others are stars.
    seed
        Seed of all choices.

    Returns
    -------
    catalogue : `astropy.table.Table`
        Columns as of `draw_injections`, and ``injection_id`` from 0 on.  Stars
        have n = 1, a radius of 0 and q = 1, which nothing reads.

    Raises
    ------
    ValueError
        If a number has no meaning, or the box has no room for a source.
    """
    for name, (low, high) in (("magnitudes", magnitudes), ("half_light_radii", half_light_radii)):
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"{name}={(low, high)} must be two finite numbers in order.")
    if not half_light_radii[0] > 0.0:
        raise ValueError(f"half_light_radii={half_light_radii} must be positive.")
    if not 0.0 <= galaxy_fraction <= 1.0:
        raise ValueError(f"galaxy_fraction={galaxy_fraction} must be from 0 to 1.")
    if galaxy_fraction and not sersic_indices:
        raise ValueError("sersic_indices is empty: galaxies need at least one.")
    ends = projection.pixel_to_sky(
        x=np.array([bbox.x.center - 0.5, bbox.x.center + 0.5]), y=np.full(2, float(bbox.y.center))
    )
    step = spacing / float(ends[0].separation(ends[1]).arcsec)
    if not 0.0 < step <= min(bbox.shape):
        raise ValueError(f"A spacing of {spacing} arcsec leaves no place in {bbox}.")
    rng = np.random.default_rng(seed)
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(
            *(np.arange(side.min + 0.5 * step, side.max + 1 - 0.5 * step, step) for side in (bbox.x, bbox.y))
        )
    )
    x, y = (axis + step * rng.uniform(-_JITTER, _JITTER, axis.size) for axis in (x, y))
    number = x.size
    sky = projection.pixel_to_sky(x=x, y=y)
    galaxies = rng.permutation(np.arange(number) < round(galaxy_fraction * number))
    radii = np.exp(rng.uniform(*np.log(half_light_radii), size=number))
    indices = rng.choice(sersic_indices or [1.0], size=number)
    return Table(
        {
            "injection_id": np.arange(number),
            "ra": sky.ra.deg * u.deg,
            "dec": sky.dec.deg * u.deg,
            "source_type": np.where(galaxies, "Sersic", "DeltaFunction"),
            "mag": rng.uniform(*magnitudes, size=number) * u.mag,
            "n": np.where(galaxies, indices, 1.0),
            "half_light_radius": np.where(galaxies, radii, 0.0) * u.arcsec,
            "q": np.where(galaxies, rng.uniform(0.3, 1.0, size=number), 1.0),
            "beta": np.where(galaxies, rng.uniform(0.0, 180.0, size=number), 0.0) * u.deg,
        }
    )


def put_injection_catalogue(
    butler: Butler, catalogue: Table, run: str, *, bands: Sequence[str]
) -> list[DatasetRef]:
    """Put an injection catalogue where tasks look for it.

    Parameters
    ----------
    butler
        A writeable Butler.
    catalogue
        Sources, as of `make_injection_catalogue`.
    run
        RUN collection for the datasets, made if absent.
    bands
        Bands whose images get these sources, with these magnitudes.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        A dataset ``injection_catalog`` (``ArrowAstropy``) for each band and
        trixel of ``htm7`` with a source.
    """
    dataset_type = DatasetType(_DATASET, ["htm7", "band"], "ArrowAstropy", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(run)
    htm = HtmPixelization(_HTM_LEVEL)
    trixels = np.array(
        [
            htm.index(UnitVector3d(LonLat.fromDegrees(float(ra), float(dec))))
            for ra, dec in zip(catalogue["ra"], catalogue["dec"], strict=True)
        ],
        dtype=np.int64,
    )
    return [
        butler.put(catalogue[trixels == trixel], dataset_type, htm7=int(trixel), band=band, run=run)
        for band in bands
        for trixel in np.unique(trixels)
    ]
