# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bright stars that are taken out of the exposures and put back."""

from ._find_stars import find_stars
from ._star_light import draw_stars, stars_in_exposures
from ._star_list import NUM_ERRORS, StarList

__all__ = (
    "NUM_ERRORS",
    "StarList",
    "draw_stars",
    "find_stars",
    "stars_in_exposures",
)
