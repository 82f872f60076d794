# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Read the overlap of visit images with a patch, on their own pixels."""

from __future__ import annotations

__all__ = ("PrepareExposuresConfig", "PrepareExposuresTask", "SkyCorrectionSource")

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lsst.images import Box, Image
from lsst.images.fields import BaseField
from lsst.pex.config import Config, DictField, Field, FieldValidationError, RangeField
from lsst.pipe.base import Struct, Task

from ..adapters import (
    DEFAULT_MASK_TREATMENTS,
    SUBTRACTED_BACKGROUND,
    ExposureId,
    ImageHandle,
    MaskTable,
    PatchGeometry,
    PatchSource,
    Scratch,
    UnusableExposureError,
    VisitCutout,
    VisitImageSource,
    background_image_from_legacy,
    read_overlap,
    require_recordable,
    source_id,
)

type SkyCorrectionSource = Image | BaseField | ImageHandle


class PrepareExposuresConfig(Config):
    """Configuration of `PrepareExposuresTask`."""

    border = RangeField(
        dtype=int,
        doc="Pixels beyond the outer box of the patch that are read and restored, then cut off.",
        default=16,
        min=0,
    )
    mask_planes = DictField[str, str](
        doc="Treatment of the mask planes of visit images, by their names in lsst.images, to which legacy "
        "planes are mapped. 'exclude': the pixels are not used. 'propagate F', F from 0 to less "
        "than 1: the plane is set in the coadd where more than the fraction F of the exposures that cover "
        "a pixel have it set in their nearest pixel. Both may be given with a comma. Other planes are "
        "ignored.",
        default=dict(DEFAULT_MASK_TREATMENTS),
    )
    min_good_fraction = RangeField(
        dtype=float,
        doc="Smallest fraction of the patch that usable pixels of an exposure must cover.",
        default=0.001,
        min=0.0,
        max=1.0,
        inclusiveMax=True,
    )
    background = Field[str](
        doc="Background to subtract from each visit image: 'subtracted', the one that was; 'none', for which "
        "it is added back with the light of objects in it, so that the sky must be subtracted otherwise, by "
        "do_apply_sky_correction; or the name of another one that the visit image records, in its place.",
        default=SUBTRACTED_BACKGROUND,
    )
    do_apply_sky_correction = Field[bool](
        doc="Subtract the sky correction of each visit image? An exposure without one is dropped.",
        default=False,
    )

    def validate(self) -> None:
        super().validate()
        try:
            MaskTable.from_treatments(dict(self.mask_planes))
        except ValueError as exc:
            raise FieldValidationError(type(self).mask_planes, self, str(exc)) from exc


class PrepareExposuresTask(Task):
    """Read the overlap of visit images with a patch, and drop unusable ones.

    Exposures are read one at a time, and only where they overlap the patch.
    Nothing is resampled: image, variance and mask stay those of the visit
    image's own pixels, whose positions on the patch go with them, and only
    the PSF is brought to the grid of the patch.  An exposure that has no PSF
    or sky projection, whose pixels are not calibrated, that is of another
    band or that cannot be read is dropped with a reason; the others go on.
    It takes 10 bytes for each pixel of the overlap, in memory or, beyond a
    limit, in temporary files.
    """

    ConfigClass = PrepareExposuresConfig
    _DefaultName = "prepareExposures"
    config: PrepareExposuresConfig

    @property
    def mask_table(self) -> MaskTable:
        """Mask planes (`lsst.astroclearnet.adapters.MaskTable`)."""
        return MaskTable.from_treatments(dict(self.config.mask_planes))

    def run(
        self,
        *,
        visit_images: Sequence[VisitImageSource],
        geometry: PatchGeometry,
        band: str | None = None,
        sky_corrections: Mapping[tuple[str, int, int], SkyCorrectionSource] | None = None,
        scratch: Scratch | None = None,
    ) -> Struct:
        """Prepare visit images.

        Parameters
        ----------
        visit_images
            Visit images, or deferred handles of them, in any order.
        geometry
            Geometry of the patch.
        band
            Band of the patch; by default any.
        sky_corrections
            Images or fields to be subtracted, or deferred handles of these or
            of ``lsst.afw.math.BackgroundList``, by instrument, visit and
            detector; used with ``do_apply_sky_correction``.
        scratch
            Where to keep the pixels; in memory by default.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            ``source`` (`~lsst.astroclearnet.adapters.PatchSource`), the
            exposures sorted by visit, detector and instrument, on the outer
            box of the patch plus its border; and
            ``dropped`` (`dict` [`str`, `str`]), the reason for each exposure
            that was left out, by its name.
        """
        bbox = geometry.bbox.padded(self.config.border)
        scratch = Scratch() if scratch is None else scratch
        cutouts: list[VisitCutout] = []
        dropped: dict[str, str] = {}
        seen: set[ExposureId] = set()
        for source in sorted(visit_images, key=source_id):
            identity = source_id(source)
            name = str(identity)
            try:
                if identity in seen:
                    raise UnusableExposureError(
                        "duplicate", "The same instrument, visit and detector is given twice."
                    )
                seen.add(identity)
                correction = None
                if self.config.do_apply_sky_correction:
                    correction = (sky_corrections or {}).get(identity.detector_key)
                    if correction is None:
                        raise UnusableExposureError("no_sky_correction", "There is no sky correction for it.")
                cutouts.append(self._prepare(source, geometry, bbox, band, correction, scratch))
            except UnusableExposureError as exc:
                dropped[name] = f"{exc.reason}: {exc}"
                level = self.log.verbose if exc.reason == "no_overlap" else self.log.warning
                level("Dropped %s (%s): %s", name, exc.reason, exc)
        self.log.info("Prepared %d of %d visit images.", len(cutouts), len(visit_images))
        return Struct(source=PatchSource(cutouts, geometry, bbox), dropped=dropped)

    def _prepare(
        self,
        source: VisitImageSource,
        geometry: PatchGeometry,
        bbox: Box,
        band: str | None,
        correction: SkyCorrectionSource | None,
        scratch: Scratch,
    ) -> VisitCutout:
        visit_image, pixel_map = read_overlap(source, geometry, bbox, padding=1)
        # Exposures converted from elsewhere may not know their band.
        if band is not None and visit_image.band and visit_image.band != band:
            raise UnusableExposureError("wrong_band", f"It is of band {visit_image.band!r}, not {band!r}.")
        known = source_id(source)
        own = ExposureId.from_visit_image(visit_image)
        identity = dataclasses.replace(
            own, visit=known.visit, detector=known.detector, instrument=known.instrument or own.instrument
        )
        require_recordable(identity)
        cutout = VisitCutout.take(
            visit_image,
            geometry,
            identity=identity,
            bbox=bbox,
            pixel_map=pixel_map,
            mask_table=self.mask_table,
            background=self.config.background,
            sky_correction=None if correction is None else _read_correction(correction),
            scratch=scratch,
        )
        fraction = cutout.usable_fraction
        if fraction < self.config.min_good_fraction:
            raise UnusableExposureError(
                "too_few_pixels",
                f"Only {fraction:.2%} of the patch has usable pixels, less than "
                f"min_good_fraction={self.config.min_good_fraction:.2%}.",
            )
        if cutout.num_not_finite:
            self.log.warning(
                "%s has %d pixels without a usable value or variance that no mask plane excludes; "
                "they are masked.",
                cutout.identity,
                cutout.num_not_finite,
            )
        return cutout


def _read_correction(source: SkyCorrectionSource) -> Image | BaseField:
    """Return a sky correction in the types of `lsst.images`."""
    if isinstance(source, Image | BaseField):
        return source
    try:
        content: Any = source.get()
    except MemoryError:
        raise
    except Exception as exc:
        # A file may fail in any way of the library that reads it.
        raise UnusableExposureError("no_sky_correction", f"It cannot be read: {exc}") from exc
    return content if isinstance(content, Image | BaseField) else background_image_from_legacy(content)
