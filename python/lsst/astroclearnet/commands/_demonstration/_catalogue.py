# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The catalogue of the demonstration beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import vstack

from lsst.daf.butler import Butler

from .._butler import find_datasets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MATCH_ARCSEC = 0.3
"""Largest distance of a measured source from a true one."""


def color_magnitude_picture(butler: Butler, bands: list[str]) -> Figure | None:
    """Draw the colours of all sources in the first and the last band.

    Each true source takes the nearest measured one in an inner region, the
    brightest first.  `None` without catalogues or a second band.
    """
    refs = find_datasets(butler, "restored_object_patch")
    if not refs or len(bands) < 2:
        return None
    from ...plots import color_magnitude_figure

    tables = [butler.get(ref) for ref in refs]
    objects = vstack([table[table["acn_isPatchInner"]] for table in tables], metadata_conflicts="silent")
    truth = vstack(
        [butler.get(ref) for ref in find_datasets(butler, "truth_catalogue")], metadata_conflicts="silent"
    )
    truth = truth[np.argsort(-np.asarray(truth[f"flux_{bands[-1]}"]))]
    places = SkyCoord(objects["coord_ra"], objects["coord_dec"], unit="deg")
    nearest, distance, _ = SkyCoord(truth["ra"], truth["dec"], unit="deg").match_to_catalog_sky(places)
    near = np.flatnonzero(distance.arcsec < _MATCH_ARCSEC)
    _, first = np.unique(nearest[near], return_index=True)
    rows = near[np.sort(first)]
    pair = (bands[0], bands[-1])
    found = objects[nearest[rows]]
    return color_magnitude_figure(
        np.array([found[f"{band}_acn_psfFlux"] for band in pair], dtype=float),
        np.array([truth[f"flux_{band}"][rows] for band in pair], dtype=float),
        np.asarray(truth["kind"][rows] == "star"),
        bands=pair,
        title="Fluxes as point sources of restored_object_patch",
    )
