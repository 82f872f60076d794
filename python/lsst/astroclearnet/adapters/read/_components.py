# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Components of visit images, read without the pixels where possible."""

from __future__ import annotations

__all__ = ("VisitComponents", "read_visit_psf")

import logging
from typing import Any

import astropy.units as u
import numpy as np

from lsst.images import Box, VisitImage
from lsst.images.serialization import ArchiveReadError

from .._exposure_id import UnusableExposureError
from ..place import VisitPsf
from ._handles import VisitImageSource, _read_components, read_visit_image
from ._mask_planes import DEFAULT_EXCLUDED_PLANES, mask_of_planes

_LOG = logging.getLogger(__name__)


class VisitComponents:
    """Components of a visit image, read when they are asked for.

    Image pixels are read only if the storage has no components, or the
    variance needs a calibration.

    Parameters
    ----------
    source
        The visit image.
    """

    def __init__(self, source: VisitImageSource) -> None:
        self._source = source
        self._whole = source if isinstance(source, VisitImage) else None
        self._name = "The visit image" if isinstance(source, VisitImage) else str(source.dataId)

    def read(self, *names: str, bbox: Box | None = None) -> dict[str, Any]:
        """Read components, by name.

        Parameters
        ----------
        *names
            Their names.
        bbox
            Box to which planes of pixels are cut; all by default.

        Raises
        ------
        UnusableExposureError
            If the image, or a PSF that is asked for, is missing or unreadable.
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
            If no pixel is usable (``no_usable_pixels``), or the unit is not
            calibrated (``not_calibrated``).
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
            return _read_components(self._source, *names, bbox=bbox)
        except (MemoryError, UnusableExposureError):
            raise
        except Exception as exc:
            # A storage without components or a PSF that cannot be read:
            # reading the whole image tells which.
            _LOG.debug("No read by parts of %s (%s); reading it whole.", self._name, exc)
            return None

    def _read_whole(self) -> VisitImage:
        """Read the whole image, once."""
        if self._whole is None and not isinstance(self._source, VisitImage):
            self._whole = read_visit_image(self._source)
        assert self._whole is not None
        return self._whole


def read_visit_psf(source: VisitImageSource) -> VisitPsf:
    """Read footprint, PSF and blank-sky variance of a visit image.

    Parameters
    ----------
    source
        The visit image.

    Raises
    ------
    UnusableExposureError
        As of `VisitComponents`.
    """
    components = VisitComponents(source)
    parts = components.read("psf", "sky_projection", "bbox")
    level, _ = components.sky_variance()
    return VisitPsf(projection=parts["sky_projection"], bbox=parts["bbox"], psf=parts["psf"], level=level)
