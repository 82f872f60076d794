# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Datasets and configuration of the training of a joint network."""

from __future__ import annotations

__all__ = ("TrainRestorationBandsConfig", "TrainRestorationBandsConnections")

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DataCoordinate
from lsst.pex.config import FieldValidationError, ListField
from lsst.pipe.base import NoWorkFound

from ._band_datasets import describe_missing_bands, explain_missing_model, is_of_bands, list_bands
from .train_restoration_config import TrainRestorationConfig, TrainRestorationConnections

_LOG = logging.getLogger(__name__)


class TrainRestorationBandsConnections(
    TrainRestorationConnections,
    dimensions=("skymap",),
    defaultTemplates={"band_model_name": "restoration_model", "model_name": "restoration_model_joint"},
):
    """Inputs and outputs of `TrainRestorationBandsTask`.

    Parameters
    ----------
    config
        Configuration, which decides which connections there are.
    """

    band_models = cT.PrerequisiteInput(
        doc="Networks of the bands, trained on the survey, for restoration.model.source='dataset'.",
        name="{band_model_name}",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "band"),
        multiple=True,
    )
    restoration_model = dataclasses.replace(
        TrainRestorationConnections.restoration_model,
        doc="Trained joint network with its weights, the networks of the bands, and its origin.",
        dimensions=("skymap",),
    )
    restoration_model_metrics = dataclasses.replace(
        TrainRestorationConnections.restoration_model_metrics, dimensions=("skymap",)
    )
    restoration_model_patch = dataclasses.replace(
        TrainRestorationConnections.restoration_model_patch, dimensions=("skymap", "tract", "patch")
    )
    restoration_model_plot = dataclasses.replace(
        TrainRestorationConnections.restoration_model_plot, dimensions=("skymap",)
    )

    def __init__(self, *, config: TrainRestorationBandsConfig | None = None) -> None:
        super().__init__(config=config)
        self._bands = frozenset(() if config is None else config.bands)
        if config is not None and config.restoration.model.source != "dataset":
            del self.band_models

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[Any, Collection[Any]]],
        outputs: dict[str, tuple[Any, Collection[Any]]],
        label: str,
        data_id: DataCoordinate,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Leave out patches and bands that are not in the lists, and refuse a
        single band, and one whose trained network does not exist.

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
            If no patch of the list is left, or there is a single band.
        """
        adjusted = super().adjustQuantum(inputs, outputs, label, data_id)
        _, exposures = inputs["visit_images" if "visit_images" in inputs else "direct_warps"]
        # Visits have their band as an implied value, known once expanded.
        bands = set(list_bands(ref for ref in exposures if ref.dataId.hasFull()))
        if not bands:
            return adjusted
        if words := describe_missing_bands(self._bands, bands, label):
            _LOG.warning("%s", words)
        if len(bands) == 1:
            message = (
                f"{label} needs exposures of two bands, and those of the data query and {label}:bands are "
                f"all of {bands.pop()}."
            )
            # The builder of quantum graphs only counts such quanta.
            _LOG.warning("%s", message)
            raise NoWorkFound(message)
        if "band_models" in inputs:
            connection, refs = inputs["band_models"]
            if missing := bands.difference(list_bands(refs)):
                field = f"{label}:restoration.model.source"
                raise explain_missing_model(connection, field, data_id, missing)
        return adjusted

    def _is_wanted(self, data_id: DataCoordinate) -> bool:
        """Tell whether a dataset is of a patch and a band in the lists."""
        return super()._is_wanted(data_id) and is_of_bands(data_id, self._bands)


class TrainRestorationBandsConfig(
    TrainRestorationConfig, pipelineConnections=TrainRestorationBandsConnections
):
    """Configuration of `TrainRestorationBandsTask`."""

    bands = ListField[str](
        doc="Bands to train on, of those that the data query selects; all of them if empty.",
        default=[],
        listCheck=lambda bands: len(set(bands)) == len(bands) != 1,
    )

    def setDefaults(self) -> None:
        super().setDefaults()
        # Each band has samples of its own, of three times the memory.
        self.training.num_splits = 1

    def validate(self) -> None:
        super().validate()
        if self.restoration.model.source == "fit":
            raise FieldValidationError(
                type(self).restoration,
                self,
                "A joint network is trained with networks that restore other patches, too: set "
                "restoration.model.source to 'packaged' or 'dataset'.",
            )
