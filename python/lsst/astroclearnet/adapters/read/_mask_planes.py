# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Consequences of the mask planes of an exposure for the coadd."""

from __future__ import annotations

__all__ = (
    "DEFAULT_EXCLUDED_PLANES",
    "DEFAULT_MASK_TREATMENTS",
    "MaskTable",
    "mask_of_planes",
)

import dataclasses
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from lsst.images import (
    Mask,
    get_legacy_deep_coadd_mask_planes,
    get_legacy_difference_image_mask_planes,
    get_legacy_optional_mask_planes,
    get_legacy_visit_image_mask_planes,
)

DEFAULT_MASK_TREATMENTS: Mapping[str, str] = MappingProxyType(
    {
        "NO_DATA": "exclude",
        "BAD": "exclude",
        "UNMASKED_NAN": "exclude",
        "SATURATED": "exclude, propagate 0.1",
        "COSMIC_RAY": "exclude, propagate 0",
        "SUSPECT": "exclude",
        "STREAK": "exclude",
        "INTERPOLATED": "exclude",
        "ITL_DIP": "exclude",
        "SPIKE": "exclude",
        "VIGNETTED": "exclude",
        "PARTLY_VIGNETTED": "exclude",
    }
)
"""Treatment of the mask planes of an exposure; others, such as DETECTED, have
no consequence.

``exclude``
    The pixels are not used.
``propagate f``
    The plane is set in the coadd where more than the fraction ``f`` of the
    exposures that cover a pixel have it set in their nearest pixel.

Rubin's ``AssembleCellCoaddTask`` (``bad_mask_planes`` and
``mask_propagation_thresholds``) excludes BAD, NO_DATA and SATURATED, with the
overrides of every camera also SUSPECT, for LSSTCam also SPIKE and
PARTLY_VIGNETTED, and propagates SATURATED from 10 % on and the others from the
first exposure on.  It clips streaks by comparing warps, and uses interpolated
pixels; here neither is used.
"""


def _collect_legacy_names() -> dict[str, frozenset[str]]:
    names: dict[str, frozenset[str]] = {}
    for planes in (
        get_legacy_visit_image_mask_planes(),
        get_legacy_difference_image_mask_planes(),
        get_legacy_optional_mask_planes(),
    ):
        for legacy, plane in planes.items():
            names[plane.name] = names.get(plane.name, frozenset()) | {legacy}
    return names


_LEGACY_NAMES = _collect_legacy_names()
"""Names in `lsst.afw` of each mask plane of `lsst.images`."""

_COADD_PLANES = frozenset(plane.name for plane in get_legacy_deep_coadd_mask_planes().values())

_PROPAGATE = re.compile(r"propagate (\S+)")


@dataclasses.dataclass(frozen=True)
class MaskTable:
    """Treatment of mask planes, by their names in `lsst.images`.

    Attributes
    ----------
    excluded
        Planes whose pixels are not used.
    propagated
        Planes that the coadd shows, with the fraction of the covering
        exposures above which it does.
    """

    excluded: tuple[str, ...]
    propagated: Mapping[str, float]

    @classmethod
    def from_treatments(cls, treatments: Mapping[str, str] = DEFAULT_MASK_TREATMENTS) -> MaskTable:
        """Parse treatments as in `DEFAULT_MASK_TREATMENTS`.

        Parameters
        ----------
        treatments
            ``"exclude"``, ``"propagate 0.1"`` or both, with a comma, by plane.

        Raises
        ------
        ValueError
            If a plane or a treatment is unknown, or coadds have no plane to
            propagate to.
        """
        excluded = []
        propagated = {}
        for plane, treatment in treatments.items():
            if plane not in _LEGACY_NAMES:
                raise ValueError(
                    f"Unknown visit-image mask plane {plane!r}; known planes: {sorted(_LEGACY_NAMES)}."
                )
            for word in (part.strip() for part in treatment.split(",")):
                if word == "exclude":
                    excluded.append(plane)
                else:
                    propagated[plane] = _read_threshold(plane, word)
        return cls(excluded=tuple(excluded), propagated=MappingProxyType(propagated))

    def propagate(self, counts: Mapping[str, np.ndarray], covered: np.ndarray) -> dict[str, np.ndarray]:
        """Return the planes of the coadd, shape (H, W), bool, by name.

        Parameters
        ----------
        counts
            Number of exposures with each plane to be propagated, by name, of
            shape (H, W).
        covered
            Shape (H, W), number of exposures that have a pixel.
        """
        return {plane: counts[plane] > threshold * covered for plane, threshold in self.propagated.items()}


def _read_threshold(plane: str, word: str) -> float:
    match = _PROPAGATE.fullmatch(word)
    try:
        threshold = float(match[1]) if match else -1.0
    except ValueError:
        threshold = -1.0
    if not 0.0 <= threshold < 1.0:
        raise ValueError(
            f"{word!r} is no treatment of mask plane {plane}: give 'exclude', 'propagate F' with a fraction "
            "F of the exposures from 0 to less than 1, or both with a comma."
        )
    if plane not in _COADD_PLANES:
        raise ValueError(f"Coadds have no mask plane {plane}; those they have are {sorted(_COADD_PLANES)}.")
    return threshold


DEFAULT_EXCLUDED_PLANES = MaskTable.from_treatments().excluded
"""Planes whose pixels carry no information about the sky."""


def mask_of_planes(mask: Mask, planes: Iterable[str]) -> np.ndarray:
    """Return the pixels with any of some planes set, shape (H, W), bool.

    Parameters
    ----------
    mask
        A mask of `lsst.images`.
    planes
        Names in the vocabulary of `lsst.images`; planes with their legacy
        names are found too, and planes that the mask lacks are ignored.
    """
    flagged = np.zeros(tuple(mask.bbox.shape), dtype=bool)
    for plane in planes:
        for name in {plane, *_LEGACY_NAMES.get(plane, ())} & mask.schema.names:
            flagged |= mask.get(name)
    return flagged
