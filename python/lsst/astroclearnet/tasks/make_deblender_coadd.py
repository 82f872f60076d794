# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Give the deblender of Rubin's pipelines a restored coadd."""

from __future__ import annotations

__all__ = ("MakeDeblenderCoaddConfig", "MakeDeblenderCoaddConnections", "MakeDeblenderCoaddTask")

import dataclasses

import lsst.pipe.base.connectionTypes as cT
from lsst.images import Box
from lsst.images.cells import CellCoadd
from lsst.pex.config import ChoiceField
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

from ..adapters import direct_storage_class, make_deblender_coadd


class MakeDeblenderCoaddConnections(
    PipelineTaskConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={"reference_name": "deep_coadd", "output_name": "restored_coadd"},
):
    """Inputs and outputs of `MakeDeblenderCoaddTask`.

    Parameters
    ----------
    config
        Configuration, which decides what the direct coadd is read as.
    """

    restored_coadd = cT.Input(
        doc="Restored coadd.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    direct_coadd = cT.Input(
        doc="Coadd that is deblended, of which only the box is read.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        deferLoad=True,
    )
    deblender_coadd = cT.Output(
        doc="Restored coadd in the box of the direct one, finite in every pixel.",
        name="{output_name}_for_deblender",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )

    def __init__(self, *, config: MakeDeblenderCoaddConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        chosen = config.direct_storage_class
        self.direct_coadd = dataclasses.replace(
            self.direct_coadd, storageClass=direct_storage_class() if chosen == "auto" else chosen
        )


class MakeDeblenderCoaddConfig(PipelineTaskConfig, pipelineConnections=MakeDeblenderCoaddConnections):
    """Configuration of `MakeDeblenderCoaddTask`."""

    direct_storage_class = ChoiceField[str](
        doc="Storage class of the direct coadd.",
        allowed={
            "auto": "ExposureF where afw is installed, else CellCoadd.",
            "CellCoadd": "A coadd of lsst.images.",
            "ExposureF": "An exposure of afw, as detection writes.",
        },
        default="auto",
        optional=False,
    )


class MakeDeblenderCoaddTask(PipelineTask):
    """Write a restored coadd that can take the place of
    ``deconvolved_deep_coadd``, which Rubin's deblender reads.
    """

    ConfigClass = MakeDeblenderCoaddConfig
    _DefaultName = "makeDeblenderCoadd"
    config: MakeDeblenderCoaddConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        box = butlerQC.get(inputRefs.direct_coadd).get(component="bbox")
        if not isinstance(box, Box):
            box = Box.from_legacy(box)
        butlerQC.put(self.run(restored=butlerQC.get(inputRefs.restored_coadd), bbox=box), outputRefs)

    @timeMethod
    def run(self, *, restored: CellCoadd, bbox: Box) -> Struct:
        """Make the image of one patch in one band.

        Parameters
        ----------
        restored
            Restored coadd.
        bbox
            Box of the coadd that is deblended, in pixels of the tract.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``deblender_coadd`` (`lsst.images.cells.CellCoadd`).

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no pixel in the box has a value; the deblender leaves out bands
            without an image.
        ValueError
            If the restored coadd does not cover the box.
        """
        coadd = make_deblender_coadd(restored, bbox)
        if coadd is None:
            raise NoWorkFound(f"The restored coadd in {restored.band} has no data in {bbox}.")
        return Struct(deblender_coadd=coadd)
