# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of one patch as the arrays that the core computes on."""

from __future__ import annotations

__all__ = ("PatchArrays", "pad_to_common_size", "stack_patch_exposures")

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..core import PixelPositions
from ._patch_exposure import PatchExposure


@dataclasses.dataclass(frozen=True)
class PatchArrays:
    """Arguments of `lsst.astroclearnet.core.restore`.

    Exposures have different sizes; the smaller ones are padded at the end of
    both axes with pixels that are not usable and have no position.

    Attributes
    ----------
    images
        Shape (n, h, w), float32, nJy.
    variances
        Shape (n, h, w), float32, nJy^2.
    good
        Shape (n, h, w), bool.
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P), float64.
    positions
        Where the pixels lie on the patch.
    """

    images: np.ndarray
    variances: np.ndarray
    good: np.ndarray
    psfs: np.ndarray
    positions: PixelPositions


def stack_patch_exposures(exposures: Sequence[PatchExposure]) -> PatchArrays:
    """Stack exposures, padding pixels and PSFs to common sizes.

    Parameters
    ----------
    exposures
        At least one exposure, all on the same box of the patch.

    Returns
    -------
    arrays : `PatchArrays`
        The stacked arrays.
    """
    # Two pixels are the least that has a gradient.
    shape = tuple(max(2, *(e.bbox.shape[axis] for e in exposures)) for axis in (0, 1))
    stacked = {
        name: np.full((len(exposures), *shape), fill, dtype=getattr(exposures[0], name).dtype)
        for name, fill in (
            ("image", 0),
            ("variance", 1),
            ("good", False),
            ("y", np.nan),
            ("x", np.nan),
            ("area", 0),
        )
    }
    for n, exposure in enumerate(exposures):
        height, width = exposure.bbox.shape
        for name, array in stacked.items():
            array[n, :height, :width] = getattr(exposure, name)
    patch_height, patch_width = exposures[0].box.shape
    return PatchArrays(
        images=stacked["image"],
        variances=stacked["variance"],
        good=stacked["good"],
        psfs=pad_to_common_size([e.psfs for e in exposures]),
        positions=PixelPositions.from_arrays(
            (patch_height, patch_width), y=stacked["y"], x=stacked["x"], area=stacked["area"]
        ),
    )


def pad_to_common_size(psfs: Sequence[np.ndarray]) -> np.ndarray:
    """Stack PSFs, padding them to a common size.

    Parameters
    ----------
    psfs
        Shape (..., P, P) each, P odd; NaN where there is none.

    Returns
    -------
    stacked : `numpy.ndarray`
        Shape (n, ..., P, P), of the largest P.
    """
    size = max(stamps.shape[-1] for stamps in psfs)
    padded = []
    for stamps in psfs:
        pad = (size - stamps.shape[-1]) // 2
        larger = np.pad(stamps, [(0, 0)] * (stamps.ndim - 2) + [(pad, pad)] * 2)
        # The padding of a cell without a PSF must not make it look like one.
        larger[~np.isfinite(stamps).all(axis=(-1, -2))] = np.nan
        padded.append(larger)
    return np.stack(padded)
