# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of one patch as the arrays that the core computes on."""

from __future__ import annotations

__all__ = ("ExposureArrays", "stack_exposures")

import dataclasses
from collections.abc import Sequence

import numpy as np

from ._visit_image import CoregisteredExposure


@dataclasses.dataclass(frozen=True)
class ExposureArrays:
    """Arguments of `lsst.astroclearnet.core.restore`.

    Attributes
    ----------
    images
        Shape (n, H, W), float32, nJy.
    variances
        Shape (n, H, W), float32, nJy^2.
    good
        Shape (n, H, W), bool.
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P), float64.
    noise
        Shape (k, n, H, W), float32, nJy.
    """

    images: np.ndarray
    variances: np.ndarray
    good: np.ndarray
    psfs: np.ndarray
    noise: np.ndarray


def stack_exposures(exposures: Sequence[CoregisteredExposure]) -> ExposureArrays:
    """Stack exposures, padding their PSFs to a common size.

    Parameters
    ----------
    exposures
        At least one exposure, all on the same box.

    Returns
    -------
    arrays : `ExposureArrays`
        The stacked arrays.
    """
    size = max(e.psfs.shape[-1] for e in exposures)
    psfs = []
    for exposure in exposures:
        pad = (size - exposure.psfs.shape[-1]) // 2
        padded = np.pad(exposure.psfs, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        # The padding of a cell without a PSF must not make it look like one.
        missing = ~np.isfinite(exposure.psfs).all(axis=(-1, -2))
        padded[missing] = np.nan
        psfs.append(padded)
    return ExposureArrays(
        images=np.stack([e.image for e in exposures]),
        variances=np.stack([e.variance for e in exposures]),
        good=np.stack([e.good for e in exposures]),
        psfs=np.stack(psfs),
        noise=np.stack([e.noise for e in exposures], axis=1),
    )
