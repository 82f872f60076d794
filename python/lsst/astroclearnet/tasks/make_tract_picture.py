# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Colour picture of the restored coadds of a whole tract."""

from __future__ import annotations

__all__ = ("MakeTractPictureConfig", "MakeTractPictureConnections", "MakeTractPictureTask")

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import lsst.pipe.base.connectionTypes as cT
from lsst.images import Box, ColorImage, Interval, SkyProjection
from lsst.pex.config import Field, RangeField
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

from ..adapters import (
    MAX_BINNING,
    BinnedPatch,
    PatchGeometry,
    bin_inner_region,
    binned_projection,
    faintest_peak,
    join_binned,
)
from ._color_channels import CoaddSource, ColorConfig, _coadd_pixels, _read_coadd

_STRIP = 512
"""Rows of a picture that are coloured at a time: colouring takes some twenty
times the memory of the picture."""


class MakeTractPictureConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract"),
    defaultTemplates={"output_name": "restored_coadd"},
):
    """Inputs and outputs of `MakeTractPictureTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    restored_coadds = cT.Input(
        doc="Restored coadds of the tract.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    tract_color = cT.Output(
        doc="Colour picture of the tract.",
        name="{output_name}_tract_color",
        storageClass="ColorImage",
        dimensions=("skymap", "tract"),
    )
    tract_color_plot = cT.Output(
        doc="The same as a figure that says what is missing.",
        name="{output_name}_tract_color_plot",
        storageClass="Plot",
        dimensions=("skymap", "tract"),
    )

    def __init__(self, *, config: MakeTractPictureConfig | None = None) -> None:
        super().__init__(config=config)
        if config is not None and not config.do_plot:
            del self.tract_color_plot


class MakeTractPictureConfig(
    PipelineTaskConfig, ColorConfig, pipelineConnections=MakeTractPictureConnections
):
    """Configuration of `MakeTractPictureTask`."""

    binning = RangeField(
        dtype=int,
        doc="Width in pixels of the blocks that become a pixel of the picture.  Memory is some 50 bytes for "
        "each of these, beside those of a patch: 2.8 GB for a tract of 30000 pixels with blocks of 4.",
        default=4,
        min=1,
        max=MAX_BINNING,
    )
    do_plot = Field[bool](doc="Write a figure?", default=True)


@dataclasses.dataclass
class _ReadPatches:
    """Patches in the bands of a picture, the faintest believable peaks in
    them, what is missing, and the geometry of the first.
    """

    parts: dict[str, list[BinnedPatch]]
    peaks: dict[str, list[float]]
    missing: list[str] = dataclasses.field(default_factory=list)
    geometry: PatchGeometry | None = None


@dataclasses.dataclass(frozen=True)
class _TractImages:
    """Images of a tract in the bands of a picture."""

    bbox: Box
    channels: list[np.ndarray]
    projection: SkyProjection[Any]


class MakeTractPictureTask(PipelineTask):
    """Make one colour picture of the restored coadds of a tract.

    Each patch is shown within its inner box, and all with one stretch, so
    that no border of a patch shows.
    """

    ConfigClass = MakeTractPictureConfig
    _DefaultName = "makeTractPicture"
    config: MakeTractPictureConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        patches: dict[int, dict[str, CoaddSource]] = {}
        for handle in butlerQC.get(inputRefs)["restored_coadds"]:
            patches.setdefault(int(handle.dataId["patch"]), {})[str(handle.dataId["band"])] = handle
        butlerQC.put(self.run(patches=patches), outputRefs)

    @timeMethod
    def run(self, *, patches: Mapping[int, Mapping[str, CoaddSource]]) -> Struct:
        """Make the picture of a tract.

        Parameters
        ----------
        patches
            Restored coadds, or handles of them, by patch and band.  A patch
            without one of the bands is grey.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``tract_color`` (`lsst.images.ColorImage`, uint8), on blocks of
            ``binning`` pixels of the tract, with their projection, and, if
            configured, ``tract_color_plot`` (`matplotlib.figure.Figure`).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no patch has a coadd in each of the bands.
        """
        from ..plots import choose_range, color_figure, color_picture, color_stretch

        bands, binning = list(self.config.bands), int(self.config.binning)
        read = self._read(patches)
        first, missing = read.geometry, read.missing
        self.metadata["num_patches"] = len(read.parts[bands[0]])
        self.metadata["num_left_out"] = len(missing)
        for words in missing:
            self.log.warning("Left out of the picture: %s.", words)
        if first is None:
            raise NoWorkFound(f"No patch of the tract has a restored coadd in each of {', '.join(bands)}.")
        images = self._join(read.parts, first)
        red, green, blue = (float(factor) for factor in self.config.scales)
        linear = self.config.stretch or choose_range(list(read.peaks.values()), (red, green, blue))
        stretch = color_stretch(images.channels, (red, green, blue), linear)
        picture: Any = np.empty((*images.bbox.shape, 3), dtype=np.uint8)
        for start in range(0, len(picture), _STRIP):
            rows = slice(start, start + _STRIP)
            picture[rows] = color_picture([channel[rows] for channel in images.channels], stretch)
        color = ColorImage(picture, bbox=images.bbox, sky_projection=images.projection)
        color.metadata.update(
            {
                "bands": ", ".join(bands),
                "stretch": stretch.stretch,
                "binning": binning,
                "num_patches": self.metadata["num_patches"],
                "missing": "; ".join(missing),
            }
        )
        outputs = Struct(tract_color=color)
        if self.config.do_plot:
            outputs.tract_color_plot = color_figure(
                picture,
                pixel_scale=binning * first.pixel_scale,
                title=f"{first.skymap}, tract {first.tract}: {', '.join(bands)}",
                note=_missing_sentence(missing),
            )
        return outputs

    def _read(self, patches: Mapping[int, Mapping[str, CoaddSource]]) -> _ReadPatches:
        """Read and bin the patches that have all bands, one at a time."""
        bands = list(self.config.bands)
        read = _ReadPatches({band: [] for band in bands}, {band: [] for band in bands})
        for patch, coadds in sorted(patches.items()):
            if absent := [band for band in bands if band not in coadds]:
                read.missing.append(f"patch {patch} (no {', '.join(absent)})")
                continue
            pixels, peaks = {}, {}
            try:
                # One coadd at a time, of which the pixels are kept.
                for band in bands:
                    coadd = _read_coadd(coadds[band])
                    pixels[band] = _coadd_pixels(coadd, coadd.bbox)
                    peaks[band] = faintest_peak(coadd)
            except FileNotFoundError as error:
                read.missing.append(f"patch {patch} (a file is gone: {error})")
                continue
            # Else a star that is saturated in one band would change colour.
            known = np.isfinite(list(pixels.values())).all(axis=0)
            for band, image in pixels.items():
                masked = np.where(known, image, np.nan)
                read.parts[band].append(
                    bin_inner_region(masked, coadd.bbox, coadd.patch.inner_bbox, self.config.binning)
                )
                read.peaks[band].append(peaks[band])
            if read.geometry is None:
                read.geometry = PatchGeometry(projection=coadd.sky_projection, definition=coadd.patch)
        return read

    def _join(self, parts: Mapping[str, list[BinnedPatch]], geometry: PatchGeometry) -> _TractImages:
        """Join the patches in each band; the sums are given up for it."""
        from ..plots import color_channels

        boxes = [part.bbox for part in next(iter(parts.values()))]
        bbox = Box(Interval.hull(*(box.y for box in boxes)), Interval.hull(*(box.x for box in boxes)))
        images = []
        for found in parts.values():
            images.append(join_binned(found, bbox))
            found.clear()
        projection = binned_projection(geometry.projection, bbox, self.config.binning)
        return _TractImages(bbox, color_channels(images), projection)


def _missing_sentence(missing: Sequence[str]) -> str:
    """Say which patches are grey."""
    return f"Grey: {'; '.join(missing)}." if missing else ""
