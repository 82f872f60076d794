# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets and configuration of the training of a restoration network."""

from __future__ import annotations

__all__ = ("TrainRestorationConfig", "TrainRestorationConnections")

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate
from lsst.pex.config import ConfigField, Field, ListField, RangeField
from lsst.pipe.base import NoWorkFound

from ._options_config import TrainingConfig
from ._patch_exposures_config import PatchExposuresConfig, PatchExposuresConnections

_LOG = logging.getLogger(__name__)


class TrainRestorationConnections(
    PatchExposuresConnections,
    dimensions=("skymap", "band"),
    defaultTemplates={"model_name": "restoration_model"},
):
    """Inputs and outputs of `TrainRestorationTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    reference_coadd = cT.Input(
        doc="Existing coadds that define the grids, for geometry_source='coadd'.",
        name="{reference_name}",
        storageClass="CellCoadd",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    restoration_model = cT.Output(
        doc="Trained network with its weights, the conditions that it has seen, and its origin.",
        name="{model_name}",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "band"),
    )
    restoration_model_metrics = cT.Output(
        doc="Course and result of the training.",
        name="{model_name}_metrics",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "band"),
    )
    restoration_model_patch = cT.Output(
        doc="What a patch contributed to the training.",
        name="{model_name}_patch",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
    )
    restoration_model_plot = cT.Output(
        doc="Course of the training.",
        name="{model_name}_plot",
        storageClass="Plot",
        dimensions=("skymap", "band"),
    )

    def __init__(self, *, config: TrainRestorationConfig | None = None) -> None:
        super().__init__(config=config)
        if config is None:
            return
        self._patches = frozenset(config.patches)
        if not config.do_plot:
            del self.restoration_model_plot

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[Any, Collection[Any]]],
        outputs: dict[str, tuple[Any, Collection[Any]]],
        label: str,
        data_id: DataCoordinate,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Leave out patches that are not in the list.

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
            If no patch of the list is left.
        """
        adjusted = self.keep_wanted(self._is_wanted, inputs, outputs)
        if not outputs["restoration_model_patch"][1]:
            where = f" in {data_id['band']}" if "band" in data_id.dimensions else ""
            message = f"No patch of {label}:patches is among those of the data query{where}."
            # The builder of quantum graphs only counts such quanta.
            _LOG.warning("%s", message)
            raise NoWorkFound(message)
        super().adjustQuantum(inputs, outputs, label, data_id)
        return adjusted[0], adjusted[1]

    def _is_wanted(self, data_id: DataCoordinate) -> bool:
        """Tell whether a dataset is of a patch in the list, or of none."""
        if not self._patches or "patch" not in data_id.dimensions:
            return True
        return f"{data_id['tract']}/{data_id['patch']}" in self._patches


class TrainRestorationConfig(PatchExposuresConfig, pipelineConnections=TrainRestorationConnections):
    """Configuration of `TrainRestorationTask`."""

    patches = ListField[str](
        doc="Patches to use among those of the data query, each as 'TRACT/PATCH'; all of them if empty.",
        default=[],
        itemCheck=lambda item: re.fullmatch(r"\d+/\d+", item) is not None,
        listCheck=lambda items: len(set(items)) == len(items),
    )
    validation_fraction = RangeField(
        dtype=float,
        doc="Fraction of the patches that the network is not trained on; its loss on them is reported. Of "
        "two patches or more it is at least one.",
        default=0.1,
        min=0.0,
        max=1.0,
    )
    target_fwhm = ListField[float](
        doc="FWHMs (arcsec) of target PSFs, of which each patch draws one: cover those that coadds will be "
        "restored to. If empty, that of each patch is the sharpest that keeps the noise of an unbiased "
        "linear restoration below max_noise.",
        default=[],
        itemCheck=lambda item: item > 0,
    )
    training: Any = ConfigField(doc="Settings of the training.", dtype=TrainingConfig)
    checkpoint_folder = Field[str](
        doc="Directory for the state of the training, from which it goes on when it is run again with the "
        "same inputs and settings; without one an interrupted training begins anew.",
        default=None,
        optional=True,
    )
    checkpoint_interval = RangeField(
        dtype=float,
        doc="Minutes between two states that are saved.",
        default=20.0,
        min=0.0,
        max=40.0,
        inclusiveMax=True,
    )
    do_plot = Field[bool](doc="Write a figure of the training?  It needs matplotlib.", default=True)
