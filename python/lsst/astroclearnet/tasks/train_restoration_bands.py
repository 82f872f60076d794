# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Train a joint network on the exposures of many patches in several bands."""

from __future__ import annotations

__all__ = ("TrainRestorationBandsTask",)

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lsst.pipe.base import InputQuantizedConnection, OutputQuantizedConnection, QuantumContext, Struct
from lsst.utils.timer import timeMethod

from ..adapters import joint_model_to_dict, model_from_dict
from ..core import JointModel, RestorationError, RestorationModel, load_packaged_model
from ..core.training import JointTrainer, collect_joint_samples
from ._band_datasets import describe_missing_bands, list_bands
from ._errors import RestorationAlgorithmError, translate_errors
from ._train_network import TrainNetworkTask
from ._training_patches import PatchSamples, TrainingPatch, sort_patches
from .train_restoration_bands_config import TrainRestorationBandsConfig


class TrainRestorationBandsTask(TrainNetworkTask):
    """Train a network that restores the bands of a patch together, on the
    exposures of many patches.

    It sees some exposures of a band, and other bands, and predicts the other
    exposures of the band.  What it is trained with restores each band on its
    own: the packaged network, or one of `TrainRestorationTask` for each band.
    """

    ConfigClass = TrainRestorationBandsConfig
    _DefaultName = "trainRestorationBands"
    _needs = "two usable exposures of a band that overlap each other and those of another band"
    config: TrainRestorationBandsConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        self.begin_quantum(butlerQC)
        exposures = inputRefs.visit_images if hasattr(inputRefs, "visit_images") else inputRefs.direct_warps
        patches = self.gather_patches(butlerQC, inputRefs, outputRefs, list_bands(exposures))
        models = None
        if hasattr(inputRefs, "band_models"):
            refs = inputRefs.band_models
            models = {str(ref.dataId["band"]): butlerQC.get(ref) for ref in refs}
        self.put_outputs(butlerQC, self.run(patches=patches, band_models=models), outputRefs)

    @timeMethod
    def run(
        self,
        *,
        patches: Sequence[TrainingPatch],
        band_models: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Struct:
        """Train a joint network for a sky map.

        A patch without two exposures of a band that overlap each other and
        those of another band, or whose exposures cannot be calibrated, is left
        out, with the reason in its record.

        Parameters
        ----------
        patches
            The patches, all of one sky map, in any order.
        band_models
            What `~lsst.astroclearnet.adapters.model_to_dict` makes of the
            trained network of each band, for
            ``restoration.model.source="dataset"``.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            Those of `TrainRestorationTask.run`; ``restoration_model`` is for
            `lsst.astroclearnet.adapters.joint_model_from_dict`.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no patch has exposures as above.
        RestorationAlgorithmError
            If a network is missing, penalty weights differ between bands, no
            patch can be used for other reasons, or the training diverges.
        """
        device = self.select_device()
        given = sorted({band for patch in patches for band in patch.bands})
        if words := describe_missing_bands(self.config.bands, set(given), self.getName()):
            self.log.warning("%s", words)
        models = self._read_models(given, band_models)
        networks = {band: copy.deepcopy(model.network).to(device) for band, model in models.items()}
        ordered = sort_patches(patches)
        collected = [self._collect(patch, networks, device) for patch in ordered]
        skymap = ordered[0].geometry.skymap if ordered else ""
        used = {band for patch in collected for sample in patch.samples for band in sample.bands}
        bands = [band for band in given if band in used]
        identities = {band: models[band].identity for band in bands}
        training = self.train(
            ordered,
            collected,
            JointTrainer,
            name=f"{skymap}, {', '.join(bands or given)}",
            made_for={"skymap": skymap, "bands": bands, "networks": identities},
            penalty_weights=next(iter(networks.values())).penalty_weights if networks else (),
            device=device,
        )
        model = JointModel(
            network=training.network,
            bases=tuple(sorted(set(identities.values()))),
            num_bands=(2, max(len(sample.bands) for sample in training.trained_samples)),
            provenance=training.provenance,
        )
        return self.make_outputs(training, model.identity, joint_model_to_dict(model))

    def _read_models(
        self, bands: Sequence[str], given: Mapping[str, Mapping[str, Any]] | None
    ) -> dict[str, RestorationModel]:
        """Return the network of each band, with equal penalty weights."""
        source = self.config.restoration.model.source
        if source == "packaged":
            return dict.fromkeys(bands, load_packaged_model())
        missing = sorted(set(bands).difference(given or ()))
        if missing:
            raise RestorationAlgorithmError(
                f"The trained network of band {', '.join(missing)} is missing: give it, or change "
                f"restoration.model.source={source!r}.",
                {},
            )
        with translate_errors():
            models = {
                band: model_from_dict(content, f"restoration model of band {band}")
                for band, content in (given or {}).items()
                if band in bands
            }
        weights = {band: model.network.penalty_weights for band, model in models.items()}
        if len(set(weights.values())) > 1:
            shown = "; ".join(f"{band} {each}" for band, each in sorted(weights.items()))
            raise RestorationAlgorithmError(
                f"The networks of all bands must have the same penalty weights, not {shown}: train them with "
                "the same restoration.network.penalty_weights.",
                {},
            )
        return models

    def _collect(
        self, patch: TrainingPatch, networks: Mapping[str, Any], device: torch.device
    ) -> PatchSamples:
        """Return the samples of a patch, or why there are none."""
        geometry = patch.geometry
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}"
        exposures = {
            band: self.read_exposures(inputs, geometry=geometry, band=band, num_bands=len(patch.bands))
            for band, inputs in sorted(patch.bands.items())
        }
        found = PatchSamples.start(patch, list(exposures.values()))
        sources = {band: each.source for band, each in exposures.items() if each.source.num_exposures}
        numbers = {band: source.num_exposures for band, source in sources.items()}
        shown = ", ".join(f"{band} {number}" for band, number in numbers.items()) or "none"
        if len(numbers) < 2:
            return self.leave_out(found, name, f"too_few_bands: exposures that are usable: {shown}")
        if max(numbers.values()) < 2:
            return self.leave_out(found, name, f"too_few_exposures: {shown} usable")
        try:
            target_fwhm = self.draw_target_fwhm(list(sources.values()), name)
            samples = collect_joint_samples(
                sources,
                networks=networks,
                target_fwhm=target_fwhm,
                options=self.config.training.make_options(),
                restoration=self.config.restoration.make_options(),
                seed=self.make_seed(name),
                device=device,
            )
        except RestorationError as exc:
            return self.leave_out(found, name, f"failed: {exc}")
        if not samples:
            reason = "no_overlap: No two exposures of a band overlap each other and those of another band."
            return self.leave_out(found, name, reason)
        self.log.info("Made %d samples of exposures %s of %s.", len(samples), shown, name)
        present = {name for sample in samples for name in sample.bands}
        made_of = [
            cutout.identity
            for band, source in sources.items()
            if band in present
            for cutout in source.cutouts
        ]
        return dataclasses.replace(
            found, samples=samples, exposures=made_of, target_fwhm=target_fwhm * geometry.pixel_scale
        )
