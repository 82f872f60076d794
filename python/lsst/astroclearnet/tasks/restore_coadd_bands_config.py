# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets and configuration of the joint restoration of all bands."""

from __future__ import annotations

__all__ = ("RestoreCoaddBandsConfig", "RestoreCoaddBandsConnections")

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate
from lsst.pex.config import ChoiceField, ListField
from lsst.pipe.base import NoWorkFound

from ._band_datasets import describe_missing_bands, explain_missing_model, is_of_bands, list_bands
from .restore_coadd_config import RestoreCoaddConfig, RestoreCoaddConnections

_LOG = logging.getLogger(__name__)


class RestoreCoaddBandsConnections(
    RestoreCoaddConnections,
    dimensions=("skymap", "tract", "patch"),
    defaultTemplates={"joint_model_name": "restoration_model_joint", "output_name": "restored_coadd_joint"},
):
    """Inputs and outputs of `RestoreCoaddBandsTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    reference_coadd = cT.Input(
        doc="Existing coadds that define the grid, for geometry_source='coadd'.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    restoration_model = cT.PrerequisiteInput(
        doc="Networks trained on the survey, for restoration.model.source='dataset'.",
        name="{model_name}",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "band"),
        multiple=True,
    )
    joint_model = cT.PrerequisiteInput(
        doc="Joint network trained on the survey, for joint_model_source='dataset'.",
        name="{joint_model_name}",
        storageClass="StructuredDataDict",
        dimensions=("skymap",),
    )
    restored_coadd = dataclasses.replace(RestoreCoaddConnections.restored_coadd, multiple=True)
    restored_coadd_demand = dataclasses.replace(RestoreCoaddConnections.restored_coadd_demand, multiple=True)
    restored_coadd_linear = dataclasses.replace(RestoreCoaddConnections.restored_coadd_linear, multiple=True)
    restored_coadd_linear_noise = dataclasses.replace(
        RestoreCoaddConnections.restored_coadd_linear_noise, multiple=True
    )
    restored_coadd_metrics = dataclasses.replace(
        RestoreCoaddConnections.restored_coadd_metrics, multiple=True
    )
    restored_coadd_plot = dataclasses.replace(RestoreCoaddConnections.restored_coadd_plot, multiple=True)
    restored_coadd_detection = cT.Output(
        doc="Weighted mean of all bands, restored as one image, in nJy: for detection alone.",
        name="{output_name}_detection",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch"),
    )

    def __init__(self, *, config: RestoreCoaddBandsConfig | None = None) -> None:
        super().__init__(config=config)
        self._bands = frozenset(() if config is None else config.bands)
        self._told = {""}
        if config is not None and config.joint_model_source != "dataset":
            del self.joint_model

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[Any, Collection[Any]]],
        outputs: dict[str, tuple[Any, Collection[Any]]],
        label: str,
        data_id: DataCoordinate,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Leave out bands that are not in the list, and refuse a quantum whose
        trained networks do not exist.

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
        adjusted_inputs, adjusted_outputs : `~collections.abc.Mapping`
            What was changed.

        Raises
        ------
        FileNotFoundError
            If a band has no trained network, or there is no joint network.
        lsst.pipe.base.NoWorkFound
            If no band of the list is left.
        """
        adjusted = self.keep_wanted(lambda each: is_of_bands(each, self._bands), inputs, outputs)
        bands = set(list_bands(outputs["restored_coadd"][1]))
        if not bands:
            raise NoWorkFound(f"No band of {label}:bands is among those of the data query.")
        if (words := describe_missing_bands(self._bands, bands, label)) not in self._told:
            # Once, and not for each patch of a quantum graph.
            self._told.add(words)
            _LOG.warning("%s", words)
        if "restoration_model" in inputs:
            connection, refs = inputs["restoration_model"]
            if missing := bands.difference(list_bands(refs)):
                field = f"{label}:restoration.model.source"
                raise explain_missing_model(connection, field, data_id, missing)
        if "joint_model" in inputs:
            connection, refs = inputs["joint_model"]
            if not refs:
                raise explain_missing_model(connection, f"{label}:joint_model_source", data_id)
        super(RestoreCoaddConnections, self).adjustQuantum(inputs, outputs, label, data_id)
        return adjusted[0], adjusted[1]


class RestoreCoaddBandsConfig(RestoreCoaddConfig, pipelineConnections=RestoreCoaddBandsConnections):
    """Configuration of `RestoreCoaddBandsTask`."""

    bands = ListField[str](
        doc="Bands to restore together, of those that the data query selects; all of them if empty.",
        default=[],
        listCheck=lambda bands: len(set(bands)) == len(bands),
    )
    joint_model_source = ChoiceField[str](
        doc="Where the joint network comes from.",
        allowed={
            "packaged": "Trained on simulations; it comes with the package.",
            "dataset": "Trained on the survey.",
        },
        default="packaged",
        optional=False,
    )
