# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Handles that convert a visit image as it is read."""

from __future__ import annotations

__all__ = ("WARP_DETECTOR", "DirectWarpSource", "RecalibratedSource")

from typing import Any

from lsst.images import VisitImage

from .._exposure_id import ExposureId, UnusableExposureError
from ._calibration import VisitCalibration, recalibrate
from ._handles import ImageHandle, VisitImageSource, read_visit_image
from ._legacy import visit_image_from_warp

WARP_DETECTOR = 65535
"""Detector ID of a warp of all detectors of a visit: the largest that the
provenance of a coadd can hold."""


class RecalibratedSource:
    """An `ImageHandle` that reads a visit image with another calibration.

    It reads no single component, and no other storage class.

    Parameters
    ----------
    source
        The visit image.
    identity
        Which exposure.
    calibration
        What replaces its own calibration.
    """

    def __init__(self, source: VisitImageSource, identity: ExposureId, calibration: VisitCalibration) -> None:
        self._source = source
        self._calibration = calibration
        self.identity = identity

    @property
    def dataId(self) -> dict[str, Any]:
        """Instrument, visit and detector (`dict`)."""
        return self.identity.data_id

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,
    ) -> Any:
        if storageClass is not None:
            raise NotImplementedError(f"It is not read as {storageClass}.")
        arguments = dict(parameters or {})
        if component == "components":
            return self._read_parts(arguments)
        if component is not None:
            raise NotImplementedError(f"The component {component!r} is not read alone.")
        return recalibrate(self._read(arguments), self._calibration)

    def _read(self, arguments: dict[str, Any]) -> VisitImage:
        image = self._source
        if not isinstance(image, VisitImage):
            if arguments:
                part = image.get(parameters=arguments)
                # Readers of other formats need not know boxes.
                if isinstance(part, VisitImage) and part.bbox == arguments.get("bbox"):
                    return part
            image = read_visit_image(image)
        return image[arguments["bbox"]] if "bbox" in arguments else image

    def _read_parts(self, arguments: dict[str, Any]) -> dict[str, Any]:
        names = arguments.pop("components", ())
        if isinstance(self._source, VisitImage):
            raise NotImplementedError("An image in memory is read whole.")
        if self._calibration.scaling is not None and "variance" in names:
            raise NotImplementedError("The calibration needs the whole image.")
        new = {"psf": self._calibration.psf, "sky_projection": self._calibration.projection}
        parts = {name: new[name] for name in names if new.get(name) is not None}
        others = [name for name in names if name not in parts]
        if others:
            arguments["components"] = others
            parts |= self._source.get(component="components", parameters=arguments)
        return parts


class DirectWarpSource:
    """An `ImageHandle` that reads a direct warp as a visit image of the patch.

    It is read whole, without components.

    Parameters
    ----------
    handle
        Deferred handle of a ``direct_warp``, with instrument and visit in its
        data ID.
    """

    def __init__(self, handle: ImageHandle) -> None:
        self._handle = handle
        data_id = handle.dataId
        self.identity = ExposureId(
            visit=int(data_id["visit"]), detector=WARP_DETECTOR, instrument=str(data_id["instrument"])
        )

    @property
    def dataId(self) -> dict[str, Any]:
        """Instrument, visit and detector (`dict`)."""
        return self.identity.data_id

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,
    ) -> VisitImage:
        if component is not None or parameters or storageClass is not None:
            raise NotImplementedError("A direct warp is read whole.")
        try:
            content = self._handle.get()
            if isinstance(content, VisitImage):
                return content
            return visit_image_from_warp(content, self.identity)
        except (MemoryError, UnusableExposureError):
            raise
        except Exception as exc:
            # A file may fail in any way of the library that reads it.
            raise UnusableExposureError("unreadable", f"The direct warp cannot be read: {exc}") from exc
