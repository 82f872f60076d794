# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Backgrounds of visit images, added back or corrected."""

from __future__ import annotations

__all__ = ("adjust_background",)

import astropy.units as u
import numpy as np

from lsst.images import Box, Image, VisitImage
from lsst.images.fields import BaseField

from ._exposure_id import UnusableExposureError


def adjust_background(
    visit_image: VisitImage, *, restore: bool = False, correction: Image | BaseField | None = None
) -> VisitImage:
    """Undo the background subtraction of a visit image, or improve on it.

    Parameters
    ----------
    visit_image
        The visit image, or a part of it.
    restore
        Whether to add the background that was subtracted.
    correction
        What to subtract, over at least the box of ``visit_image``; without a
        unit it is in that of the pixels.

    Returns
    -------
    adjusted : `lsst.images.VisitImage`
        A copy with other pixels, or the image itself where there is nothing
        to do.

    Raises
    ------
    UnusableExposureError
        If no background is known to be subtracted, or one of the two has
        other units than the pixels or does not cover them.
    """
    if not restore and correction is None:
        return visit_image
    change = np.zeros(tuple(visit_image.bbox.shape), dtype=np.float32)
    if restore:
        subtracted = visit_image.backgrounds.subtracted
        if subtracted is None:
            raise UnusableExposureError(
                "no_background",
                "The visit image does not say which background was subtracted from it, so that it cannot be "
                f"added back; it has {sorted(visit_image.backgrounds) or 'none'}.",
            )
        change += _values(subtracted.field, visit_image, f"background {subtracted.name!r}")
    if correction is not None:
        change -= _values(correction, visit_image, "sky correction")
    adjusted = visit_image.copy()
    adjusted.image.array += change
    return adjusted


def _values(background: Image | BaseField, visit_image: VisitImage, name: str) -> np.ndarray:
    """Return a background in the pixels and the unit of a visit image."""
    bbox, unit = visit_image.bbox, visit_image.unit
    covered: Box = background.bbox if isinstance(background, Image) else background.bounds.bbox
    if not covered.contains(bbox):
        raise UnusableExposureError(
            "bad_background", f"The {name} covers {covered}, but the visit image needs {bbox}."
        )
    try:
        factor = 1.0 if background.unit is None else background.unit.to(unit)
    except u.UnitConversionError as exc:
        raise UnusableExposureError(
            "bad_background",
            f"The {name} is in {background.unit}, which cannot be converted to the {unit} of the pixels.",
        ) from exc
    image = background[bbox] if isinstance(background, Image) else background.render(bbox, dtype=np.float32)
    return np.asarray(image.array * factor)
