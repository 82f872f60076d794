# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Train a restoration network on the exposures of many patches."""

from __future__ import annotations

__all__ = ("TrainRestorationTask",)

import dataclasses
from collections.abc import Sequence

import torch

from lsst.pipe.base import InputQuantizedConnection, OutputQuantizedConnection, QuantumContext, Struct
from lsst.utils.timer import timeMethod

from ..adapters import model_to_dict
from ..core import RestorationError, RestorationModel, TrainedRange
from ..core.training import Trainer, collect_samples
from ._train_network import TrainNetworkTask
from ._training_patches import PatchSamples, TrainingPatch, sort_patches
from .train_restoration_config import TrainRestorationConfig


class TrainRestorationTask(TrainNetworkTask):
    """Train a network that restores coadds, on the exposures of many patches.

    It sees some exposures of a patch and predicts the others; no truth and no
    coadd is needed.  Some patches are set aside, and tell how well it does on
    sky that it has not seen.
    """

    ConfigClass = TrainRestorationConfig
    _DefaultName = "trainRestoration"
    _needs = "two usable exposures that overlap"
    config: TrainRestorationConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        band = str(self.begin_quantum(butlerQC)["band"])
        patches = self.gather_patches(butlerQC, inputRefs, outputRefs, [band])
        self.put_outputs(butlerQC, self.run(patches=patches, band=band), outputRefs)

    @timeMethod
    def run(self, *, patches: Sequence[TrainingPatch], band: str) -> Struct:
        """Train a network for one band of a sky map.

        A patch without two exposures that overlap, or whose exposures cannot
        be calibrated, is left out, with the reason in its record.

        Parameters
        ----------
        patches
            The patches, all of one sky map, in any order.
        band
            Name of the band.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            ``restoration_model`` (`dict`, for
            `lsst.astroclearnet.adapters.model_from_dict`),
            ``restoration_model_metrics`` (`dict`),
            ``restoration_model_patch`` (`list` [`dict`]), sorted by tract and
            patch; if configured, ``restoration_model_plot``
            (`matplotlib.figure.Figure`); and ``checkpoint``, to be removed
            when these are safe.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no patch has two exposures that overlap.
        RestorationAlgorithmError
            If no patch can be used for other reasons, or the training
            diverges.
        """
        device = self.select_device()
        ordered = sort_patches(patches)
        collected = [self._collect(patch, band, device) for patch in ordered]
        skymap = ordered[0].geometry.skymap if ordered else ""
        training = self.train(
            ordered,
            collected,
            Trainer,
            name=f"{skymap}, {band}",
            made_for={"skymap": skymap, "band": band},
            penalty_weights=self.config.restoration.network.penalty_weights,
            device=device,
        )
        model = RestorationModel(
            network=training.network,
            trained_range=TrainedRange.of(training.trained_samples),
            provenance=training.provenance,
        )
        return self.make_outputs(training, model.identity, model_to_dict(model))

    def _collect(self, patch: TrainingPatch, band: str, device: torch.device) -> PatchSamples:
        """Return the samples of a patch, or why there are none."""
        geometry = patch.geometry
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}, {band}"
        exposures = self.read_exposures(patch.bands[band], geometry=geometry, band=band)
        source = exposures.source
        found = PatchSamples.start(patch, [exposures])
        if source.num_exposures < 2:
            return self.leave_out(found, name, f"too_few_exposures: {source.num_exposures} usable")
        try:
            target_fwhm = self.draw_target_fwhm([source], name)
            samples = collect_samples(
                source,
                target_fwhm=target_fwhm,
                options=self.config.training.make_options(),
                restoration=self.config.restoration.make_options(),
                seed=self.make_seed(name),
                device=device,
            )
        except RestorationError as exc:
            return self.leave_out(found, name, f"failed: {exc}")
        if not samples:
            return self.leave_out(found, name, "no_overlap: No two exposures overlap.")
        self.log.info("Made %d samples of %d exposures of %s.", len(samples), source.num_exposures, name)
        return dataclasses.replace(found, samples=samples, target_fwhm=target_fwhm * geometry.pixel_scale)
