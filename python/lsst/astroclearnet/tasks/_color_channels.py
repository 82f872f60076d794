# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What tasks that make colour pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsst.daf.butler import DeferredDatasetHandle
from lsst.images import Box
from lsst.images.cells import CellCoadd
from lsst.pex.config import Config, ListField, RangeField
from lsst.pipe.base import InMemoryDatasetHandle

from ..adapters import crop_to_box, pixels_from_exposure, unusable_pixels

type CoaddSource = CellCoadd | DeferredDatasetHandle | InMemoryDatasetHandle
"""A coadd, or a handle of one."""


class ColorConfig(Config):
    """Configuration of the colours of pictures."""

    bands = ListField[str](
        doc="Bands shown as red, green and blue, or as red and blue, with their mean as green.",
        default=["i", "r", "g"],
        minLength=2,
        maxLength=3,
        listCheck=lambda bands: len(set(bands)) == len(bands),
    )
    scales = ListField[float](
        doc="Factors of the fluxes in red, green and blue.",
        default=[0.8, 1.0, 1.5],
        length=3,
        itemCheck=lambda scale: scale > 0,
    )
    stretch = RangeField(
        dtype=float,
        doc="Range (nJy a pixel, after the factors) of the linear part of the stretch.  Fix it for pictures "
        "that are to be put together; without a value it follows from the noise of the exposures.",
        default=None,
        optional=True,
        min=0.0,
        inclusiveMin=False,
    )


def _read_coadd(source: Any) -> Any:
    """Return a coadd that may be still in its file."""
    return source if isinstance(source, CellCoadd) or not hasattr(source, "get") else source.get()


def _coadd_pixels(coadd: Any, bbox: Box) -> np.ndarray:
    """Return the image, NaN without data and in saturated pixels."""
    if not isinstance(coadd, CellCoadd):
        image, _, planes = pixels_from_exposure(coadd, bbox)
        return np.where(planes["SATURATED"], np.nan, image)
    part = crop_to_box(coadd, bbox)
    return np.where(unusable_pixels(part), np.nan, part.image.array)
