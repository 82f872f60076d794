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
from collections.abc import Collection, Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate
from lsst.pex.config import ListField
from lsst.pipe.base import NoWorkFound

from .restore_coadd_config import RestoreCoaddConfig, RestoreCoaddConnections


class RestoreCoaddBandsConnections(
    RestoreCoaddConnections,
    dimensions=("skymap", "tract", "patch"),
    defaultTemplates={"output_name": "restored_coadd_joint"},
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
        doc="Weighted mean of the denoised coadds of all bands, in nJy: for detection alone.",
        name="{output_name}_detection",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch"),
    )

    def __init__(self, *, config: RestoreCoaddBandsConfig | None = None) -> None:
        super().__init__(config=config)
        self._bands = frozenset(() if config is None else config.bands)

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[Any, Collection[Any]]],
        outputs: dict[str, tuple[Any, Collection[Any]]],
        label: str,
        data_id: DataCoordinate,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Leave out bands that are not in the list, and refuse a band whose
        trained network does not exist.

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
            If a band has no trained network.
        lsst.pipe.base.NoWorkFound
            If no band of the list is left.
        """
        adjusted: list[dict[str, Any]] = []
        for connections in (inputs, outputs):
            changed = {}
            for name, (connection, refs) in connections.items():
                kept = [ref for ref in refs if self._is_wanted(ref.dataId)]
                if len(kept) < len(refs):
                    changed[name] = (connection, kept)
            connections.update(changed)
            adjusted.append(changed)
        bands = {str(ref.dataId["band"]) for ref in outputs["restored_coadd"][1]}
        if not bands:
            raise NoWorkFound(f"No band of {label}:bands is among those of the data query.")
        if "restoration_model" in inputs:
            trained = {str(ref.dataId["band"]) for ref in inputs["restoration_model"][1]}
            self.require_models(inputs["restoration_model"][0], bands - trained, label, data_id)
        super(RestoreCoaddConnections, self).adjustQuantum(inputs, outputs, label, data_id)
        return adjusted[0], adjusted[1]

    def _is_wanted(self, data_id: DataCoordinate) -> bool:
        """Tell whether a dataset is of a band in the list, or of none."""
        if not self._bands or "band" not in data_id.dimensions:
            return True
        # Visits have their band as an implied value, known once expanded.
        return ("band" not in data_id.required and not data_id.hasFull()) or data_id["band"] in self._bands


class RestoreCoaddBandsConfig(RestoreCoaddConfig, pipelineConnections=RestoreCoaddBandsConnections):
    """Configuration of `RestoreCoaddBandsTask`."""

    bands = ListField[str](
        doc="Bands to restore together, of those that the data query selects; all of them if empty.",
        default=[],
        listCheck=lambda bands: len(set(bands)) == len(bands),
    )
