# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images, or cut-outs of them, from handles of any storage."""

from __future__ import annotations

__all__ = ("ImageHandle", "VisitImageSource", "read_overlap", "read_visit_image", "source_id")

import logging
from typing import Any, Protocol, cast

from lsst.images import Box, VisitImage

from .._exposure_id import ExposureId, UnusableExposureError
from ..place import PatchGeometry, PixelMap
from ._legacy import visit_image_from_exposure

_LOG = logging.getLogger(__name__)
_DATASTORE_LOG = logging.getLogger("lsst.daf.butler.datastores.file_datastore.get")


class ImageHandle(Protocol):
    """Deferred handle of a visit image, of the Butler or in memory."""

    @property
    def dataId(self) -> Any:
        """Data ID of the dataset."""

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,
    ) -> Any:
        """Read the dataset or a part of it.

        Parameters
        ----------
        component
            Name of a component, or ``"components"`` for several at once; the
            whole dataset by default.
        parameters
            ``bbox``, the box to read, and ``components``, their names.
        storageClass
            As what to return it.
        """


type VisitImageSource = VisitImage | ImageHandle
"""A visit image of `lsst.images`, or a handle of one or of an afw exposure."""


def source_id(source: VisitImageSource) -> ExposureId:
    """Return the identity of a visit image, without reading pixels.

    That of a handle has no filter and observing day.

    Parameters
    ----------
    source
        The visit image.
    """
    if isinstance(source, VisitImage):
        return ExposureId.from_visit_image(source)
    data_id = source.dataId
    instrument = str(data_id["instrument"]) if "instrument" in data_id else ""
    return ExposureId(visit=int(data_id["visit"]), detector=int(data_id["detector"]), instrument=instrument)


def read_overlap(
    source: VisitImageSource, geometry: PatchGeometry, bbox: Box, *, padding: int
) -> tuple[VisitImage, PixelMap]:
    """Read the pixels of a visit image that a box of a patch needs.

    An image in its native format is read over the overlap alone; an afw
    exposure is read whole.

    Parameters
    ----------
    source
        The visit image.
    geometry
        Geometry of the patch.
    bbox
        Box to cover, in tract pixels.
    padding
        Pixels to read beyond the overlap.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The overlap.
    pixel_map : `PixelMap`
        Map from ``bbox`` to the visit image.

    Raises
    ------
    UnusableExposureError
        If the image cannot be read (``unreadable``) or does not overlap
        (``no_overlap``).
    """
    if not isinstance(source, VisitImage):
        try:
            found = _read_components(source, "sky_projection", "bbox")
            pixel_map = PixelMap.from_projections(geometry.projection, bbox, found["sky_projection"])
            overlap = _require_overlap(pixel_map, found["bbox"], padding)
            return cast(VisitImage, source.get(parameters={"bbox": overlap})), pixel_map
        except (UnusableExposureError, MemoryError):
            raise
        except Exception as exc:
            # Any stored format that has no components or boxes ends up here,
            # and so does a file that cannot be read, which the next read will
            # show.
            _LOG.debug("No read by parts of %s (%s); reading it whole.", source.dataId, exc)
        source = read_visit_image(source)
    pixel_map = PixelMap.from_projections(geometry.projection, bbox, source.sky_projection)
    return source[_require_overlap(pixel_map, source.bbox, padding)], pixel_map


def _require_overlap(pixel_map: PixelMap, visit_bbox: Box, padding: int) -> Box:
    overlap = pixel_map.overlap(visit_bbox, padding)
    if overlap is None:
        raise UnusableExposureError("no_overlap", "The visit image has no pixel on the patch.")
    return overlap


def read_visit_image(handle: ImageHandle) -> VisitImage:
    """Read a whole visit image of `lsst.images`, or an afw exposure as one.

    Parameters
    ----------
    handle
        Handle of the image.

    Raises
    ------
    UnusableExposureError
        If it can be read as neither (``unreadable``).
    """
    try:
        content = handle.get()
        return content if isinstance(content, VisitImage) else visit_image_from_exposure(content)
    except (MemoryError, UnusableExposureError):
        raise
    except Exception as exc:
        # A file may fail in any way of the library that reads it.
        native = exc
    try:
        return visit_image_from_exposure(handle.get(storageClass="ExposureF"))
    except MemoryError:
        raise
    except Exception as exc:
        message = f"It can be read neither as a VisitImage ({native}) nor as an afw exposure ({exc})."
        raise UnusableExposureError("unreadable", message) from native


def _read_components(handle: ImageHandle, *names: str, bbox: Box | None = None) -> dict[str, Any]:
    """Read components without the others, and pass on the Butler's errors.

    Its warning that all of a file had to be read is not shown.
    """
    parameters: dict[str, Any] = {"components": list(names)}
    if bbox is not None:
        parameters["bbox"] = bbox
    _DATASTORE_LOG.addFilter(_is_of_interest)
    try:
        return dict(handle.get(component="components", parameters=parameters))
    finally:
        _DATASTORE_LOG.removeFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Filter out the warning of a component that is not stored."""
    return not str(record.msg).startswith("Component %r was requested from dataset")
