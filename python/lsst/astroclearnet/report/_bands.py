# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The order in which bands are shown."""

from __future__ import annotations

__all__ = ("band_order",)

_BANDS = "ugrizy"
"""Bands by wavelength."""


def band_order(band: str) -> tuple[int, str]:
    """Return what sorts bands by wavelength.

    Parameters
    ----------
    band
        Name of a band.

    Returns
    -------
    order : `tuple`
        Key to sort by; bands other than u, g, r, i, z and y come last, by
        name.
    """
    place = _BANDS.find(band) if len(band) == 1 else -1
    return (place if place >= 0 else len(_BANDS), band)
