# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets and configuration of the restoration of a coadd."""

from __future__ import annotations

__all__ = ("RestoreCoaddConfig", "RestoreCoaddConnections")

from collections.abc import Collection, Mapping

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate, DatasetRef
from lsst.pex.config import Field, RangeField

from ._band_datasets import explain_missing_model
from ._patch_exposures_config import PatchExposuresConfig, PatchExposuresConnections


class RestoreCoaddConnections(
    PatchExposuresConnections,
    dimensions=("skymap", "tract", "patch", "band"),
    defaultTemplates={"model_name": "restoration_model", "output_name": "restored_coadd"},
):
    """Inputs and outputs of `RestoreCoaddTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    restoration_model = cT.PrerequisiteInput(
        doc="Network trained on the survey, for restoration.model.source='dataset'.",
        name="{model_name}",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "band"),
    )
    restored_coadd = cT.Output(
        doc="Denoised coadd at the target PSF, in nJy: for display, detection and classification.",
        name="{output_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_demand = cT.Output(
        doc="Share of the light that stands out of the denoised coadd that the exposures demand.",
        name="{output_name}_demand",
        storageClass="MaskedImageV2",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear = cT.Output(
        doc="Linear coadd at the same PSF, with the noise of the exposures, in nJy: for measurement.",
        name="{output_name}_linear",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_linear_noise = cT.Output(
        doc="Correlation of the noise of neighbouring pixels of the linear coadd, by cell.",
        name="{output_name}_linear_noise",
        storageClass="ArrowAstropy",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_metrics = cT.Output(
        doc="Metrics of the restoration and each of its exposures.",
        name="{output_name}_metrics",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
    )
    restored_coadd_plot = cT.Output(
        doc="Coadd beside restored coadd, residual, PSF and convergence.",
        name="{output_name}_plot",
        storageClass="Plot",
        dimensions=("skymap", "tract", "patch", "band"),
    )

    def __init__(self, *, config: RestoreCoaddConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        if config.restoration.model.source != "dataset":
            del self.restoration_model
        if not config.do_linear:
            del self.restored_coadd_linear
            del self.restored_coadd_linear_noise
        if not config.do_plot:
            del self.restored_coadd_plot

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[cT.BaseInput, Collection[DatasetRef]]],
        outputs: dict[str, tuple[cT.Output, Collection[DatasetRef]]],
        label: str,
        data_id: DataCoordinate,
    ) -> tuple[
        Mapping[str, tuple[cT.BaseInput, Collection[DatasetRef]]],
        Mapping[str, tuple[cT.Output, Collection[DatasetRef]]],
    ]:
        """Refuse a quantum whose trained network does not exist.

        Parameters
        ----------
        inputs, outputs
            Connections and datasets of the quantum.
        label
            Label of the task.
        data_id
            Data ID of the quantum.

        Returns
        -------
        adjusted_inputs, adjusted_outputs : `~collections.abc.Mapping`
            What the base class changes: nothing.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        if "restoration_model" in inputs:
            connection, refs = inputs["restoration_model"]
            if not refs:
                field = f"{label}:restoration.model.source"
                raise explain_missing_model(connection, field, data_id, [str(data_id["band"])])
        return super().adjustQuantum(inputs, outputs, label, data_id)


class RestoreCoaddConfig(PatchExposuresConfig, pipelineConnections=RestoreCoaddConnections):
    """Configuration of `RestoreCoaddTask`."""

    target_fwhm = RangeField(
        dtype=float,
        doc="FWHM (arcsec) of the PSF of the restored coadd.  Fix it for a campaign, so that the PSF does "
        "not change from patch to patch; without a value it is the sharpest that keeps the noise of an "
        "unbiased linear restoration below max_noise.",
        default=None,
        optional=True,
        min=0.0,
        inclusiveMin=False,
    )
    min_exposures = RangeField(
        dtype=int,
        doc="Number of exposures with a usable pixel below which FEW_EXPOSURES is set.",
        default=3,
        min=1,
    )
    max_failed_fraction = RangeField(
        dtype=float,
        doc="Largest fraction of the patch in failed tiles with which the coadd is still written, with these "
        "tiles flagged; the quantum then ends with partial outputs. With 0 one failed tile fails the patch.",
        default=0.5,
        min=0.0,
        max=1.0,
        inclusiveMax=True,
    )
    do_linear = Field[bool](
        doc="Write the linear coadd, which keeps the noise of the exposures and is the one to measure on, "
        "and the correlation of its noise?",
        default=True,
    )
    do_plot = Field[bool](doc="Write a figure of the restoration?  It needs matplotlib.", default=True)
