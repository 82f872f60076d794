# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogue of the sources on restored coadds."""

from __future__ import annotations

__all__ = ("MeasureObjectsConfig", "MeasureObjectsConnections", "MeasureObjectsTask")

from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.table import Table

import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd
from lsst.pex.config import ListField, RangeField
from lsst.pipe.base import (
    InputQuantizedConnection,
    NoWorkFound,
    OutputQuantizedConnection,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from ..adapters import CoaddArrays, PatchGeometry
from ..measurement import APERTURE_RADII, BANDS, PIXEL_FLAGS, BandImages, measure_objects

_TRACT_BITS, _PATCH_BITS = 40, 24
"""Places of tract and patch in the number of an object."""


class MeasureObjectsConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch"),
    defaultTemplates={"output_name": "restored_coadd", "catalog_name": "restored_object"},
):
    """Inputs and outputs of `MeasureObjectsTask`."""

    # Without linear coadds there is no work, and a graph all the same.
    restored_coadds = cT.Input(
        doc="Restored coadds in all bands, to detect on.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    linear_coadds = cT.Input(
        doc="Restored coadds to measure on.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
        minimum=0,
        deferGraphConstraint=True,
    )
    linear_noises = cT.Input(
        doc="Correlation of their noise.",
        name="{output_name}_linear_noise",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
        minimum=0,
        deferGraphConstraint=True,
    )
    restored_object_patch = cT.Output(
        doc="Sources of the patch, measured in all bands.",
        name="{catalog_name}_patch",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch"),
    )


class MeasureObjectsConfig(PipelineTaskConfig, pipelineConnections=MeasureObjectsConnections):
    """Configuration of `MeasureObjectsTask`."""

    bands = ListField[str](
        doc="Bands of the columns.  Those of a band without coadds are empty; a band that is not named is "
        "not used.",
        default=list(BANDS),
        minLength=1,
        listCheck=lambda bands: len(set(bands)) == len(bands),
    )
    detection_threshold = RangeField(
        dtype=float,
        doc="Threshold of detection in a pixel of the restored coadds of all bands together (sigma).",
        default=3.0,
        min=0.0,
        inclusiveMin=False,
    )
    min_signal_to_noise = RangeField(
        dtype=float,
        doc="Signal-to-noise ratio of PSF fluxes on the linear coadds, over all bands, from which on a "
        "detection is measured.",
        default=5.0,
        min=0.0,
    )
    aperture_radii = ListField[int](
        doc="Radii of apertures (pixels).",
        default=list(APERTURE_RADII),
        itemCheck=lambda radius: 0 < radius < 100,
        listCheck=lambda radii: len(set(radii)) == len(radii),
    )


class MeasureObjectsTask(PipelineTask):
    """Detect sources on the restored coadds of a patch, and measure them on
    the linear ones, forced over all bands.
    """

    ConfigClass = MeasureObjectsConfig
    _DefaultName = "measureObjects"
    config: MeasureObjectsConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        inputs = butlerQC.get(inputRefs)
        restored, linear, noise = (
            {str(handle.dataId["band"]): handle for handle in inputs.get(name, ())}
            for name in ("restored_coadds", "linear_coadds", "linear_noises")
        )
        outputs = self.run(restored=restored, linear=linear, noise=noise)
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(
        self, *, restored: Mapping[str, Any], linear: Mapping[str, Any], noise: Mapping[str, Any]
    ) -> Struct:
        """Measure the sources of one patch.

        Parameters
        ----------
        restored
            Restored coadds (`lsst.images.cells.CellCoadd`), or handles of
            them, by band.
        linear
            Linear coadds, or handles of them, by band.
        noise
            Correlation of their noise by cell, the datasets
            ``restored_coadd_linear_noise``, or handles of them, by band.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_object_patch`` (`astropy.table.Table`), with the columns
            of `lsst.astroclearnet.measurement.object_columns`.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no band has all three inputs and a pixel with data.
        ValueError
            If coadds differ in their boxes.
        """
        images: dict[str, BandImages] = {}
        reference: CellCoadd | None = None
        for band in self.config.bands:
            lacking = [
                name
                for name, inputs in (("restored", restored), ("linear", linear), ("noise", noise))
                if band not in inputs
            ]
            if lacking:
                self.log.info("Columns of %s are empty: there is no dataset %s.", band, ", ".join(lacking))
                continue
            coadd = _read(linear[band])
            if reference is not None and coadd.bbox != reference.bbox:
                raise ValueError(
                    f"The coadd in {band} covers {coadd.bbox}, that in {reference.band} {reference.bbox}: "
                    "restore all bands of a patch with one sky map."
                )
            found = _band_images(_read(restored[band]), coadd, _read(noise[band]))
            if found is None:
                self.log.info("Columns of %s are empty: no pixel has data.", band)
                continue
            images[band] = found
            reference = coadd if reference is None else reference
        for band in sorted(set(restored) - set(self.config.bands)):
            self.log.info("The coadd in %s is not used: %s is not in bands.", band, band)
        if reference is None:
            raise NoWorkFound(f"No coadd in {', '.join(self.config.bands)} has data to measure.")
        geometry = PatchGeometry(projection=reference.sky_projection, definition=reference.patch)
        objects = measure_objects(
            images,
            bands=list(self.config.bands),
            pixel_scale=geometry.pixel_scale,
            threshold=self.config.detection_threshold,
            min_signal_to_noise=self.config.min_signal_to_noise,
            radii=list(self.config.aperture_radii),
        )
        _place(objects, reference, geometry)
        self.log.info(
            "Measured %d sources in %s, %d of them in the inner region.",
            len(objects),
            ", ".join(images),
            np.count_nonzero(objects["acn_isPatchInner"]),
        )
        self.metadata["num_objects"] = len(objects)
        self.metadata["bands"] = list(images)
        return Struct(restored_object_patch=objects)


def _read(source: Any) -> Any:
    """Return a dataset that may be still in its file."""
    return source if isinstance(source, CellCoadd | Table) else source.get()


def _band_images(restored: CellCoadd, linear: CellCoadd, noise: Table) -> BandImages | None:
    """Return the arrays of a band; `None` without data."""
    planes = {
        name: np.asarray(restored.mask.get(name))
        for name in PIXEL_FLAGS.values()
        if name in restored.mask.schema.names
    }
    # Saturated stars are filled with what their wings say, and flagged.
    bad = planes["NO_DATA"] | ~np.isfinite(restored.image.array) | ~np.isfinite(linear.image.array)
    if bad.all():
        return None
    arrays = CoaddArrays.from_coadd(linear, bad, noise)
    assert arrays.correlation is not None
    return BandImages(
        detection=np.where(bad, np.nan, restored.image.array),
        detection_variance=restored.variance.array,
        image=arrays.image,
        variance=arrays.variance,
        psf=arrays.psf,
        correlation=arrays.correlation,
        cell_shape=arrays.cell_shape,
        first_cell=arrays.first_cell,
        planes=planes,
    )


def _place(objects: Table, coadd: CellCoadd, geometry: PatchGeometry) -> None:
    """Write where the sources are on the sky, and number them."""
    x = np.asarray(objects["acn_x"]) + coadd.bbox.x.start
    y = np.asarray(objects["acn_y"]) + coadd.bbox.y.start
    objects["acn_x"][:], objects["acn_y"][:] = x, y
    sky = coadd.sky_projection.pixel_to_sky(x=x, y=y).icrs
    objects["coord_ra"][:], objects["coord_dec"][:] = sky.ra.deg, sky.dec.deg
    inner = coadd.patch.inner_bbox
    # A pixel reaches half its width to either side of its centre.
    objects["acn_isPatchInner"][:] = (
        (x >= inner.x.start - 0.5)
        & (x < inner.x.stop - 0.5)
        & (y >= inner.y.start - 0.5)
        & (y < inner.y.stop - 0.5)
    )
    tract, patch = geometry.tract, geometry.definition.id
    objects["tract"][:], objects["patch"][:] = tract, patch
    number = np.arange(1, len(objects) + 1)
    objects["acn_objectId"][:] = (tract << _TRACT_BITS) + (patch << _PATCH_BITS) + number
