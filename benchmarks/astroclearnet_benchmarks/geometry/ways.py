# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The likelihood on the exposures' own pixels, and that on resampled ones.

The one on resampled pixels is the peer of the product's: everything of it is
imported here.
"""

from __future__ import annotations

__all__ = ("WAYS", "Way", "prepare")

import dataclasses
from collections.abc import Sequence
from typing import Any

from lsst.astroclearnet.adapters import (
    PatchGeometry,
    PixelMap,
    coregister,
    prepare_exposure,
    stack_exposures,
    stack_patch_exposures,
)
from lsst.images import VisitImage

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
        native = stack_patch_exposures([prepare_exposure(v, geometry, bbox=bbox) for v in visit_images])
        return {f.name: getattr(native, f.name) for f in dataclasses.fields(native)}
    exposures = []
    for visit_image in visit_images:
        pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
        # Two pixels more than the half width of the kernel.
        overlap = pixel_map.overlap(visit_image.bbox, padding=7)
        exposures.append(
            coregister(
                visit_image if overlap is None else visit_image[overlap],
                geometry,
                bbox=bbox,
                pixel_map=pixel_map,
                num_realizations=num_draws,
            )
        )
    resampled = stack_exposures(exposures)
    arguments = {f.name: getattr(resampled, f.name) for f in dataclasses.fields(resampled)}
    return arguments if num_draws else {**arguments, "noise": None}
