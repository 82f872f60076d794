# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parts of a visit image, read without the others where possible."""

from __future__ import annotations

__all__ = ("ImageHandle", "VisitComponents", "read_components", "read_visit_image")

import logging
from typing import Any, Protocol

import astropy.units as u
import numpy as np

from lsst.images import Box, VisitImage
from lsst.images.serialization import ArchiveReadError

from ._exposure_id import UnusableExposureError
from ._legacy import visit_image_from_exposure
from ._mask_planes import DEFAULT_EXCLUDED_PLANES, mask_of_planes

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
            Name of a component; all of it by default.
        parameters
            Which part.
        storageClass
            As what to return it.

        Returns
        -------
        dataset : `object`
            What was read.
        """


class VisitComponents:
    """Components of a visit image, read when they are asked for.

    Image pixels are read only where the storage has no components, or where
    the variance needs a calibration.

    Parameters
    ----------
    source
        A visit image of `lsst.images`, or a handle of one or of an afw
        exposure.
    """

    def __init__(self, source: VisitImage | ImageHandle) -> None:
        self._source = source
        self._whole = source if isinstance(source, VisitImage) else None
        self._name = "The visit image" if isinstance(source, VisitImage) else str(source.dataId)

    def read(self, *names: str, bbox: Box | None = None) -> dict[str, Any]:
        """Read components.

        Parameters
        ----------
        *names
            Their names.
        bbox
            Box to which planes of pixels are cut; all by default.

        Returns
        -------
        components : `dict`
            Components by name.

        Raises
        ------
        UnusableExposureError
            If the image cannot be read, or has no PSF that can be read while
            one is asked for.
        """
        components = self._read_parts(names, bbox)
        if components is None:
            whole = self._read_whole()
            image = whole if bbox is None else whole[bbox]
            try:
                components = {name: getattr(image, name) for name in names}
            except ArchiveReadError as exc:
                message = f"The PSF of {self._name} cannot be read: {exc}"
                raise UnusableExposureError("no_psf", message) from exc
        if "psf" in components and components["psf"] is None:
            raise UnusableExposureError("no_psf", f"{self._name} has no PSF.")
        return components

    def sky_variance(self, bbox: Box | None = None) -> tuple[float, float]:
        """Return the variance of the blank sky.

        Parameters
        ----------
        bbox
            Box of pixels to look at; all by default.

        Returns
        -------
        level : `float`
            Median of the variance plane over the usable pixels in nJy^2.
        usable : `float`
            Fraction of the pixels that are usable.

        Raises
        ------
        UnusableExposureError
            If no pixel is usable, or the unit is not calibrated.
        """
        components = self.read("variance", "mask", bbox=bbox)
        if components["variance"].unit != u.nJy**2:
            try:
                self._whole = self._read_whole().convert_unit(u.nJy, copy="as-needed")
            except u.UnitConversionError as exc:
                raise UnusableExposureError("not_calibrated", f"{self._name}: {exc}") from exc
            components = self.read("variance", "mask", bbox=bbox)
        variance = components["variance"].array
        usable = np.isfinite(variance) & (variance > 0)
        usable &= ~mask_of_planes(components["mask"], DEFAULT_EXCLUDED_PLANES)
        if not usable.any():
            raise UnusableExposureError("no_usable_pixels", f"{self._name} has no usable pixel.")
        return float(np.median(variance[usable])), float(usable.mean())

    def _read_parts(self, names: tuple[str, ...], bbox: Box | None) -> dict[str, Any] | None:
        """Read components without the image, where the storage has them."""
        if self._whole is not None or isinstance(self._source, VisitImage):
            return None
        try:
            return read_components(self._source, *names, bbox=bbox)
        except (MemoryError, UnusableExposureError):
            raise
        except Exception as exc:
            # A storage without components or a PSF that cannot be read:
            # reading the whole image tells which.
            _LOG.debug("No read by parts of %s (%s); reading it whole.", self._name, exc)
            return None

    def _read_whole(self) -> VisitImage:
        """Read the whole image, once."""
        if self._whole is None:
            self._whole = (
                self._source if isinstance(self._source, VisitImage) else read_visit_image(self._source)
            )
        return self._whole


def read_components(handle: ImageHandle, *names: str, bbox: Box | None = None) -> dict[str, Any]:
    """Read components of a visit image without the others.

    Any error of the Butler is passed on: a dataset that is stored as an
    ``ExposureF`` has no such components.  Nothing is read of it, and the
    warning of the Butler that all of it had to be is not shown.

    Parameters
    ----------
    handle
        Handle of the image.
    *names
        Names of the components.
    bbox
        Box to which planes of pixels are cut; all by default.

    Returns
    -------
    components : `dict`
        Components by name.
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
    """Tell a message from the warning of a component that is not stored."""
    return not str(record.msg).startswith("Component %r was requested from dataset")


def read_visit_image(handle: ImageHandle) -> VisitImage:
    """Read a whole visit image of `lsst.images`, or an afw exposure as one.

    Parameters
    ----------
    handle
        Handle of the image.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The image.

    Raises
    ------
    UnusableExposureError
        If it can be read as neither.
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
