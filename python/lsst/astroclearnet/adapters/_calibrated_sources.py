# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images that are not read as they are stored."""

from __future__ import annotations

__all__ = ("DirectWarpSource", "RecalibratedSource")

from typing import Any

from lsst.images import VisitImage

from ._direct_warp import WARP_DETECTOR
from ._exposure_id import ExposureId, UnusableExposureError
from ._legacy import visit_image_from_warp
from ._recalibration import VisitCalibration, recalibrate
from ._visit_components import ImageHandle, read_visit_image


def _data_id(identity: ExposureId) -> dict[str, Any]:
    return {"instrument": identity.instrument, "visit": identity.visit, "detector": identity.detector}


class RecalibratedSource:
    """A visit image, or a handle of one, that is read with a calibration.

    It is read as any other handle of a visit image, in parts too.

    Parameters
    ----------
    source
        The visit image or the handle.
    identity
        Which exposure.
    calibration
        What replaces its own calibration.
    """

    def __init__(
        self, source: VisitImage | ImageHandle, identity: ExposureId, calibration: VisitCalibration
    ) -> None:
        self._source = source
        self._calibration = calibration
        self.identity = identity

    @property
    def dataId(self) -> dict[str, Any]:
        """Instrument, visit and detector (`dict`)."""
        return _data_id(self.identity)

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,
    ) -> Any:
        """Read the visit image or a part of it.

        Parameters
        ----------
        component
            ``"components"`` for several at once, named by the parameter of
            this name; all of the image by default.
        parameters
            ``bbox``, the part to read, and ``components``.
        storageClass
            Must not be given.

        Returns
        -------
        content : `lsst.images.VisitImage` or `dict`
            The image, or components by name.

        Raises
        ------
        NotImplementedError
            If there is no such way to read.
        UnusableExposureError
            If the image cannot be read, or is calibrated already.
        """
        if storageClass is not None:
            raise NotImplementedError(f"It is not read as {storageClass}.")
        arguments = dict(parameters or {})
        if component == "components":
            return self._read_parts(arguments)
        if component is not None:
            raise NotImplementedError(f"The component {component!r} is not read alone.")
        return recalibrate(self._read(arguments), self._calibration)

    def _read(self, arguments: dict[str, Any]) -> VisitImage:
        if isinstance(self._source, VisitImage):
            return self._source[arguments["bbox"]] if "bbox" in arguments else self._source
        if arguments:
            image = self._source.get(parameters=arguments)
            # Readers of other formats need not know boxes.
            if isinstance(image, VisitImage) and image.bbox == arguments.get("bbox"):
                return image
        image = read_visit_image(self._source)
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
    """A direct warp of the full stack, read as a visit image of the patch.

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
        return _data_id(self.identity)

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,
    ) -> VisitImage:
        """Read the whole warp.

        Parameters
        ----------
        component
            Must not be given.
        parameters
            Must not be given.
        storageClass
            Must not be given.

        Returns
        -------
        visit_image : `lsst.images.VisitImage`
            The warp, on the pixels of the tract.

        Raises
        ------
        NotImplementedError
            If only a part is asked for.
        UnusableExposureError
            If it cannot be read, or is not in nJy.
        """
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
