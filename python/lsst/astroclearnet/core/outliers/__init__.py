# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels of exposures that are outliers among the exposures."""

from ._likelihood import likelihood_variances
from ._rejection import reject_outliers
from ._tile_outliers import TileOutliers

__all__ = (
    "TileOutliers",
    "likelihood_variances",
    "reject_outliers",
)
