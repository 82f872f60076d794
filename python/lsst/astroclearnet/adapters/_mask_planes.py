# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Names of mask planes, today's and those of `lsst.afw`."""

from __future__ import annotations

__all__ = ("DEFAULT_EXCLUDED_PLANES", "KNOWN_PLANES", "mask_of_planes")

from collections.abc import Iterable

import numpy as np

from lsst.images import (
    Mask,
    get_legacy_difference_image_mask_planes,
    get_legacy_optional_mask_planes,
    get_legacy_visit_image_mask_planes,
)

DEFAULT_EXCLUDED_PLANES = (
    "BAD",
    "SATURATED",
    "INTERPOLATED",
    "COSMIC_RAY",
    "NO_DATA",
    "UNMASKED_NAN",
    "ITL_DIP",
    "VIGNETTED",
)
"""Planes whose pixels carry no information about the sky."""

KNOWN_PLANES = frozenset(
    name
    for planes in (
        get_legacy_visit_image_mask_planes(),
        get_legacy_difference_image_mask_planes(),
        get_legacy_optional_mask_planes(),
    )
    for legacy, plane in planes.items()
    for name in (legacy, plane.name)
)
"""Names that a mask plane can have, old and new."""

_LEGACY_NAMES = {
    "SATURATED": "SAT",
    "INTERPOLATED": "INTRP",
    "COSMIC_RAY": "CR",
    "DETECTION_EDGE": "EDGE",
    "UNMASKED_NAN": "UNMASKEDNAN",
}


def mask_of_planes(mask: Mask, planes: Iterable[str]) -> np.ndarray:
    """Return the pixels in which any of some planes is set.

    Parameters
    ----------
    mask
        A mask of `lsst.images`.
    planes
        Names in the vocabulary of `lsst.images`; a plane that the mask only
        has under its legacy name is found, one that it does not have is
        ignored.

    Returns
    -------
    flagged : `numpy.ndarray`
        Shape (H, W), bool.
    """
    flagged = np.zeros(tuple(mask.bbox.shape), dtype=bool)
    for plane in planes:
        for name in (plane, _LEGACY_NAMES.get(plane)):
            if name is not None and name in mask.schema.names:
                flagged |= mask.get(name)
    return flagged
