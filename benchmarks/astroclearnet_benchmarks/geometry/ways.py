# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The likelihood on the exposures' own pixels, and that on resampled ones."""

from __future__ import annotations

__all__ = ("WAYS", "Way", "prepare")

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsst.astroclearnet.adapters import (
    PatchGeometry,
    VisitCutout,
    pad_to_common_size,
    stack_exposures,
)
from lsst.astroclearnet.simulation import DirectWarp, resample, warp_visit_image
from lsst.images import Box, VisitImage

from .projections import BORDER

WAYS = ("native", "resampled")
"""Pixels that the likelihood is of."""

type Way = str


def prepare(
    way: Way, visit_images: Sequence[VisitImage], geometry: PatchGeometry, *, num_draws: int = 0
) -> dict[str, Any]:
    """Make the arguments of `lsst.astroclearnet.core.restore`."""
    bbox = geometry.bbox.padded(BORDER)
    if way == "native":
        cutouts = [VisitCutout.take(v, geometry, bbox=bbox) for v in visit_images]
        placed = [exposure for c in cutouts if (exposure := c.within(bbox)) is not None]
        return stack_exposures(placed)
    warps = [warp_visit_image(v, geometry, bbox=bbox) for v in visit_images]
    noise = None
    if num_draws:
        noise = np.stack([_draw_noise(w, bbox, num_draws, seed) for seed, w in enumerate(warps)], axis=1)
    return {
        "images": np.stack([w.image for w in warps]),
        "variances": np.stack([w.variance for w in warps]),
        "good": np.stack([w.good for w in warps]),
        "psfs": pad_to_common_size([w.cutout.psfs_within(bbox) for w in warps]),
        "noise": noise,
    }


def _draw_noise(warp: DirectWarp, bbox: Box, number: int, seed: int) -> np.ndarray:
    """Return realisations of the noise of a warp, of shape (k, H, W)."""
    cutout, pixel_map = warp.cutout, warp.cutout.from_patch.part(bbox)
    y, x = (values - start for values, start in zip(pixel_map.positions(), cutout.bbox.start, strict=True))
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal((number, *cutout.image.shape)) * np.sqrt(cutout.variance)
    area = pixel_map.area()
    return np.stack([resample(d, cutout.variance, cutout.good, y=y, x=x, area=area)[0] for d in draws])
