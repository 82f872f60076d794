# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading the part of a visit image that overlaps a patch."""

from __future__ import annotations

__all__ = ("VisitImageSource", "read_overlap", "source_id")

import logging
from typing import cast

from lsst.daf.butler import DeferredDatasetHandle
from lsst.images import Box, VisitImage
from lsst.pipe.base import InMemoryDatasetHandle

from ..adapters import (
    DirectWarpSource,
    ExposureId,
    PatchGeometry,
    PixelMap,
    RecalibratedSource,
    UnusableExposureError,
    read_components,
    visit_image_from_exposure,
)

_LOG = logging.getLogger(__name__)


type Handle = DeferredDatasetHandle | InMemoryDatasetHandle | RecalibratedSource | DirectWarpSource
type VisitImageSource = VisitImage | Handle


def source_id(source: VisitImageSource) -> ExposureId:
    """Return the identity of a source, without reading pixels.

    Parameters
    ----------
    source
        A visit image or a handle of one.

    Returns
    -------
    identity : `lsst.astroclearnet.adapters.ExposureId`
        By which inputs are sorted and named; of a handle's, without filter
        and observing day.
    """
    if isinstance(source, VisitImage):
        return ExposureId.from_visit_image(source)
    if isinstance(source, RecalibratedSource | DirectWarpSource):
        return source.identity
    data_id = source.dataId
    instrument = str(data_id["instrument"]) if "instrument" in data_id else ""
    return ExposureId(visit=int(data_id["visit"]), detector=int(data_id["detector"]), instrument=instrument)


def read_overlap(
    source: VisitImageSource, geometry: PatchGeometry, bbox: Box, *, padding: int
) -> tuple[VisitImage, PixelMap]:
    """Read the pixels of a visit image that a box of a patch needs.

    Of an image stored in its native format only the overlapping part is
    read.  An afw exposure is read whole, converted and then cut, because its
    reader has no notion of a box in this conversion.

    Parameters
    ----------
    source
        A visit image or a deferred handle of one.
    geometry
        Geometry of the patch.
    bbox
        Box to cover, in tract pixels.
    padding
        Pixels to read beyond the overlap.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The overlapping part.
    pixel_map : `lsst.astroclearnet.adapters.PixelMap`
        Map from ``bbox`` to the visit image.

    Raises
    ------
    UnusableExposureError
        If the image cannot be read or does not overlap.
    """
    if isinstance(source, VisitImage):
        return _cut(source, geometry, bbox, padding)
    try:
        components = read_components(source, "sky_projection", "bbox")
        pixel_map = PixelMap.from_projections(geometry.projection, bbox, components["sky_projection"])
        overlap = _overlap(pixel_map, components["bbox"], padding)
        return cast(VisitImage, source.get(parameters={"bbox": overlap})), pixel_map
    except (UnusableExposureError, MemoryError):
        raise
    except Exception as exc:
        # Any stored format that has no components or boxes ends up here, and
        # so does a file that cannot be read, which the next read will show.
        _LOG.debug("No read by parts of %s (%s); reading it whole.", source.dataId, exc)
    return _cut(_read_whole(source), geometry, bbox, padding)


def _read_whole(source: Handle) -> VisitImage:
    try:
        return cast(VisitImage, source.get())
    except (MemoryError, UnusableExposureError):
        raise
    except Exception as exc:
        native = exc
    try:
        return visit_image_from_exposure(source.get(storageClass="ExposureF"))
    except MemoryError:
        raise
    except Exception as exc:
        message = f"It can be read neither as a VisitImage ({native}) nor as an afw exposure ({exc})."
        raise UnusableExposureError("unreadable", message) from native


def _cut(
    visit_image: VisitImage, geometry: PatchGeometry, bbox: Box, padding: int
) -> tuple[VisitImage, PixelMap]:
    pixel_map = PixelMap.from_projections(geometry.projection, bbox, visit_image.sky_projection)
    return visit_image[_overlap(pixel_map, visit_image.bbox, padding)], pixel_map


def _overlap(pixel_map: PixelMap, visit_bbox: Box, padding: int) -> Box:
    overlap = pixel_map.overlap(visit_bbox, padding)
    if overlap is None:
        raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
    return overlap
