# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Colour pictures of coadds and restored coadds."""

from __future__ import annotations

__all__ = ("MakeColorPicturesConfig", "MakeColorPicturesConnections", "MakeColorPicturesTask")

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.images import ColorImage
from lsst.pex.config import ChoiceField, Field
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

from ..adapters import PatchGeometry, direct_storage_class
from ._color_channels import CoaddSource, ColorConfig, _coadd_pixels, _read_coadd


class MakeColorPicturesConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch"),
    defaultTemplates={"reference_name": "deep_coadd", "output_name": "restored_coadd"},
):
    """Inputs and outputs of `MakeColorPicturesTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    restored_coadds = cT.Input(
        doc="Restored coadds in several bands.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    direct_coadds = cT.Input(
        doc="Coadds of the same patch made without restoration, where there are some.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
        minimum=0,
        deferGraphConstraint=True,
    )
    restored_color = cT.Output(
        doc="Colour picture of the restored coadds.",
        name="{output_name}_color",
        storageClass="ColorImage",
        dimensions=("skymap", "tract", "patch"),
    )
    direct_color = cT.Output(
        doc="Colour picture of the direct coadds, with the same stretch.",
        name="{reference_name}_color",
        storageClass="ColorImage",
        dimensions=("skymap", "tract", "patch"),
    )
    color_plot = cT.Output(
        doc="Both pictures side by side, whole and enlarged.",
        name="{output_name}_color_plot",
        storageClass="Plot",
        dimensions=("skymap", "tract", "patch"),
    )

    def __init__(self, *, config: MakeColorPicturesConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        self._bands = frozenset(config.bands)
        if config.do_compare_direct:
            chosen = config.direct_storage_class
            self.direct_coadds = dataclasses.replace(
                self.direct_coadds, storageClass=direct_storage_class() if chosen == "auto" else chosen
            )
        else:
            del self.direct_coadds
            del self.direct_color

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[Any, Collection[Any]]],
        outputs: dict[str, tuple[Any, Collection[Any]]],
        label: str,
        data_id: Any,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Leave out coadds in bands that are not drawn.

        Parameters
        ----------
        inputs, outputs
            Connections and references by the names of the connections.
        label
            Label of the task.
        data_id
            Data ID of the quantum.

        Returns
        -------
        adjusted_inputs, adjusted_outputs : `dict`
            What was changed.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If a band has no restored coadd.
        """
        adjusted: dict[str, tuple[Any, Collection[Any]]] = {}
        for name in ("restored_coadds", "direct_coadds"):
            if name in inputs:
                connection, refs = inputs[name]
                adjusted[name] = (connection, [ref for ref in refs if ref.dataId["band"] in self._bands])
                inputs[name] = adjusted[name]
        found = {ref.dataId["band"] for ref in adjusted["restored_coadds"][1]}
        if missing := sorted(self._bands - found):
            raise NoWorkFound(f"There is no restored coadd in {', '.join(missing)} for a colour picture.")
        super().adjustQuantum(inputs, outputs, label, data_id)
        return adjusted, {}


class MakeColorPicturesConfig(
    PipelineTaskConfig, ColorConfig, pipelineConnections=MakeColorPicturesConnections
):
    """Configuration of `MakeColorPicturesTask`."""

    direct_storage_class = ChoiceField[str](
        doc="Storage class that direct coadds are read as.",
        allowed={
            "auto": "ExposureF where afw is installed, else CellCoadd.",
            "CellCoadd": "A coadd of lsst.images.",
            "ExposureF": "An exposure of afw, which any coadd of the full stack can be read as.",
        },
        default="auto",
        optional=False,
    )
    do_compare_direct = Field[bool](
        doc="Draw the direct coadd too, where there is one (connections.reference_name)?", default=True
    )


class MakeColorPicturesTask(PipelineTask):
    """Make colour pictures of the restored coadds of a patch, and of the
    direct ones with the same stretch.
    """

    ConfigClass = MakeColorPicturesConfig
    _DefaultName = "makeColorPictures"
    config: MakeColorPicturesConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        inputs = butlerQC.get(inputRefs)
        restored, direct = (
            {str(handle.dataId["band"]): handle for handle in inputs.get(name, ())}
            for name in ("restored_coadds", "direct_coadds")
        )
        outputs = self.run(restored=restored, direct=direct)
        butlerQC.put(outputs, outputRefs)

    @timeMethod
    def run(self, *, restored: Mapping[str, CoaddSource], direct: Mapping[str, Any] | None = None) -> Struct:
        """Make the pictures of one patch.

        Parameters
        ----------
        restored
            Restored coadds, or handles of them, by band.
        direct
            Coadds made without restoration, in nJy or a
            ``lsst.afw.image.ExposureF``, or handles of them, by band; they
            are drawn if there is one in each of the bands.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restored_color`` and, if there are direct coadds,
            ``direct_color`` (`lsst.images.ColorImage`, uint8), and
            ``color_plot`` (`matplotlib.figure.Figure`).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If a band has no restored coadd.
        """
        from ..plots import color_channels, color_comparison_figure, color_picture, color_stretch

        bands = list(self.config.bands)
        if missing := [band for band in bands if band not in restored]:
            raise NoWorkFound(f"There is no restored coadd in {', '.join(missing)} for a colour picture.")
        # One coadd at a time, of which the pixels are kept.
        first = _read_coadd(restored[bands[0]])
        geometry, bbox = PatchGeometry(projection=first.sky_projection, definition=first.patch), first.bbox
        images = [_coadd_pixels(first, bbox)]
        del first
        images += [_coadd_pixels(_read_coadd(restored[band]), bbox) for band in bands[1:]]
        planes = {"restored": color_channels(images)}
        if direct is not None and all(band in direct for band in bands):
            planes = {
                "direct": color_channels([_coadd_pixels(_read_coadd(direct[band]), bbox) for band in bands]),
                **planes,
            }
        red, green, blue = (float(scale) for scale in self.config.scales)
        stretch = color_stretch(next(iter(planes.values())), (red, green, blue), self.config.stretch)
        pictures = {name: color_picture(channels, stretch) for name, channels in planes.items()}
        outputs = Struct()
        for name, picture in pictures.items():
            image = ColorImage(picture, bbox=bbox, sky_projection=geometry.projection)
            image.metadata.update({"bands": ", ".join(bands), "stretch": stretch.stretch, "coadd": name})
            setattr(outputs, f"{name}_color", image)
        titles = {"direct": "Coadd", "restored": "Restored"}
        outputs.color_plot = color_comparison_figure(
            [(titles[name], picture) for name, picture in pictures.items()],
            pixel_scale=geometry.pixel_scale,
            title=f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}: "
            + ", ".join(bands),
        )
        return outputs
