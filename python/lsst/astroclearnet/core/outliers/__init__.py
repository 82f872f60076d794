# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels of exposures that are outliers among the exposures."""

from ._expected_differences import find_structure
from ._leave_one_out import LeaveOneOut
from ._likelihood import likelihood_variances
from ._psf_errors import PsfErrors, psf_moments
from ._rejection import Outliers, reject_outliers
from ._tile_outliers import TileOutliers

__all__ = (
    "LeaveOneOut",
    "Outliers",
    "PsfErrors",
    "TileOutliers",
    "find_structure",
    "likelihood_variances",
    "psf_moments",
    "reject_outliers",
)
