# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether a repository holds a visit image as it is in a file."""

from __future__ import annotations

import numpy as np

from lsst.daf.butler import Butler, DatasetRef
from lsst.images import Box, VisitImage
from lsst.images import json as images_json


def _differing_parts(butler: Butler, held: DatasetRef, visit_image: VisitImage) -> list[str]:
    """Return what of a visit image is not as the repository holds it."""
    try:
        other = butler.get(held)
    except Exception as exc:
        # A file may fail in any way of the library that reads it.
        return [f"all: what it holds cannot be read, {exc!r:.200};"]
    if visit_image.bbox != other.bbox:
        return ["size or place of the pixels"]
    parts = [
        f"{name} pixels"
        for name in ("image", "mask", "variance")
        if not _equal(getattr(visit_image, name).array, getattr(other, name).array)
    ]
    if _describe(visit_image) != _describe(other):
        parts.append("description, such as PSF or sky projection")
    return parts


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether pixels are the same, NaN included."""
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _describe(visit_image: VisitImage) -> str:
    """Return all of an image but its pixels, as one text."""
    y, x = visit_image.bbox.y.min, visit_image.bbox.x.min
    corner = visit_image[Box.factory[y : y + 1, x : x + 1]].copy()
    for plane in (corner.image, corner.mask, corner.variance):
        plane.array[...] = 0
    return images_json.write(corner).model_dump_json()
