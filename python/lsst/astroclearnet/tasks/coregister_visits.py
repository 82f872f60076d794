# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bring visit images onto the grid of a patch."""

from __future__ import annotations

__all__ = ("CoregisterVisitsConfig", "CoregisterVisitsTask")

import dataclasses
from collections.abc import Sequence

from lsst.images import Box
from lsst.pex.config import Config, ListField, RangeField
from lsst.pipe.base import Struct, Task

from ..adapters import (
    DEFAULT_EXCLUDED_PLANES,
    KNOWN_PLANES,
    CoregisteredExposure,
    ExposureId,
    PatchGeometry,
    UnusableExposureError,
    coregister,
    crop_to_patch,
)
from ._reading import VisitImageSource, read_overlap, source_id


class CoregisterVisitsConfig(Config):
    """Configuration of `CoregisterVisitsTask`."""

    border = RangeField(
        dtype=int,
        doc="Pixels beyond the outer box of the patch that are read and restored, then cut off.",
        default=16,
        min=0,
    )
    kernel_order = RangeField(
        dtype=int,
        doc="Half width (pixels) of the Lanczos kernel that resamples the pixels.",
        default=5,
        min=2,
    )
    excluded_mask_planes = ListField[str](
        doc="Mask planes, by their names in lsst.images, whose pixels are not used.",
        default=list(DEFAULT_EXCLUDED_PLANES),
        itemCheck=lambda name: name in KNOWN_PLANES,
    )
    min_good_fraction = RangeField(
        dtype=float,
        doc="Smallest fraction of usable pixels on the patch that an exposure must have.",
        default=0.001,
        min=0.0,
        max=1.0,
    )


class CoregisterVisitsTask(Task):
    """Resample visit images onto a patch and drop those that cannot be used.

    Exposures are read one at a time, and only where they overlap the patch.
    One that has no PSF or sky projection, whose pixels are not calibrated or
    that cannot be read is dropped with a reason; the others go on.
    """

    ConfigClass = CoregisterVisitsConfig
    _DefaultName = "coregisterVisits"
    config: CoregisterVisitsConfig

    def run(
        self,
        *,
        visit_images: Sequence[VisitImageSource],
        geometry: PatchGeometry,
        num_realizations: int = 0,
        seed: int = 0,
    ) -> Struct:
        """Resample visit images.

        Parameters
        ----------
        visit_images
            Visit images, or deferred handles of them, in any order.
        geometry
            Geometry of the patch.
        num_realizations
            Noise realisations to resample with each exposure.
        seed
            Seed of the realisations.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            ``exposures`` (`list` [`CoregisteredExposure`]), sorted by visit
            and detector, on the box ``bbox`` (`lsst.images.Box`), which is
            the outer box of the patch plus its border; and ``dropped``
            (`dict` [`str`, `str`]), the reason for each exposure that was
            left out, by its name.
        """
        bbox = geometry.bbox.padded(self.config.border)
        exposures: list[CoregisteredExposure] = []
        dropped: dict[str, str] = {}
        seen: set[ExposureId] = set()
        for source in sorted(visit_images, key=source_id):
            identity = source_id(source)
            name = str(identity)
            try:
                if identity in seen:
                    raise UnusableExposureError("duplicate", "The same visit and detector is given twice.")
                seen.add(identity)
                exposures.append(self._coregister(source, geometry, bbox, num_realizations, seed))
            except UnusableExposureError as exc:
                dropped[name] = f"{exc.reason}: {exc}"
                level = self.log.verbose if exc.reason == "no_overlap" else self.log.warning
                level("Dropped %s (%s): %s", name, exc.reason, exc)
        self.log.info("Brought %d of %d visit images onto the patch.", len(exposures), len(visit_images))
        return Struct(exposures=exposures, dropped=dropped, bbox=bbox)

    def _coregister(
        self, source: VisitImageSource, geometry: PatchGeometry, bbox: Box, num_realizations: int, seed: int
    ) -> CoregisteredExposure:
        visit_image, pixel_map = read_overlap(source, geometry, bbox, padding=self.config.kernel_order + 1)
        known = source_id(source)
        own = ExposureId.from_visit_image(visit_image)
        exposure = coregister(
            visit_image,
            geometry,
            identity=dataclasses.replace(
                own,
                visit=known.visit,
                detector=known.detector,
                instrument=known.instrument or own.instrument,
            ),
            bbox=bbox,
            pixel_map=pixel_map,
            excluded_planes=tuple(self.config.excluded_mask_planes),
            num_realizations=num_realizations,
            seed=seed,
            kernel_order=self.config.kernel_order,
        )
        fraction = float(crop_to_patch(exposure.good, geometry).mean())
        if fraction < self.config.min_good_fraction:
            raise UnusableExposureError(
                "too_few_pixels",
                f"Only {fraction:.2%} of the patch has usable pixels, less than "
                f"min_good_fraction={self.config.min_good_fraction:.2%}.",
            )
        if exposure.num_not_finite:
            self.log.warning(
                "%s has %d pixels without a usable value or variance that no mask plane excludes; "
                "they are masked.",
                exposure.identity,
                exposure.num_not_finite,
            )
        return exposure
