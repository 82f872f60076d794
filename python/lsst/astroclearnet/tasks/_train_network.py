# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the tasks that train networks have in common."""

from __future__ import annotations

__all__ = ("TrainNetworkTask",)

import copy
import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from lsst.pipe.base import (
    InputQuantizedConnection,
    InvalidQuantumError,
    OutputQuantizedConnection,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from .. import __version__
from ..adapters import PatchSource
from ..core.training import Trainer
from ._checkpoint import Checkpoint
from ._errors import RestorationAlgorithmError
from ._patch_exposures import BandInputs, PatchExposuresTask
from ._progress import report_training
from ._quantum_inputs import GEOMETRY_CONNECTIONS, gather_inputs, read_geometry
from ._training_patches import (
    PatchSamples,
    TrainingPatch,
    choose_validation,
    explain_nothing,
    mean_loss,
    split_samples,
)
from ._training_products import Training, TrainingCurve, make_provenance, make_training_metrics
from .train_restoration_config import TrainRestorationConfig

_CURVE_POINTS = 200
"""Number of points of the curve of the losses."""

_VALIDATED_SHARE = 4
"""How many times fewer samples are predicted for a point of the curve than
were trained on since the last one."""

_NOT_IN_KEY = ("checkpoint_folder", "checkpoint_interval", "scratch_folder", "device", "do_plot")
"""Settings with which an interrupted training may go on differently."""


class TrainNetworkTask(PatchExposuresTask):
    """Base of tasks that train a network on the exposures of many patches."""

    ConfigClass = TrainRestorationConfig
    config: TrainRestorationConfig

    _needs: ClassVar[str]
    """What a patch must have."""

    def gather_patches(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
        bands: Sequence[str],
    ) -> list[TrainingPatch]:
        """Return the patches of a quantum, those of its outputs.

        Parameters
        ----------
        butlerQC
            Butler of the quantum.
        inputRefs, outputRefs
            Its inputs and outputs.
        bands
            Bands to read.

        Returns
        -------
        patches : `list` [`TrainingPatch`]
            The patches.
        """
        source = self.config.geometry_source
        datasets = butlerQC.get(getattr(inputRefs, GEOMETRY_CONNECTIONS[source]))
        patches = []
        for data_id in (ref.dataId for ref in outputRefs.restoration_model_patch):
            dataset = datasets
            if source == "coadd":
                # The coadds of all bands have the same grid.
                place = (data_id["tract"], data_id["patch"])
                dataset = next(h for h in datasets if (h.dataId["tract"], h.dataId["patch"]) == place)
            geometry = read_geometry(source, dataset, data_id.required, cell_size=self.config.cell_size)
            gathered = {
                band: BandInputs(**gather_inputs(butlerQC, inputRefs, patch=data_id, band=band))
                for band in bands
            }
            patches.append(TrainingPatch(geometry, gathered))
        return patches

    def begin_quantum(self, butlerQC: QuantumContext) -> Mapping[str, Any]:
        """Take the cores of a quantum.

        Parameters
        ----------
        butlerQC
            Butler of the quantum.

        Returns
        -------
        data_id : `~collections.abc.Mapping`
            Data ID of the quantum.
        """
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError(f"A quantum of {self.getName()} needs a data ID.")
        # The executor leaves one thread to a process; it may have been given
        # more cores than that.
        torch.set_num_threads(max(1, butlerQC.resources.num_cores))
        return data_id.mapping

    def put_outputs(
        self, butlerQC: QuantumContext, outputs: Struct, outputRefs: OutputQuantizedConnection
    ) -> None:
        """Write what `make_outputs` returned, then remove the checkpoint.

        Parameters
        ----------
        butlerQC
            Butler of the quantum.
        outputs
            The outputs.
        outputRefs
            Their references.
        """
        records = {(record["tract"], record["patch"]): record for record in outputs.restoration_model_patch}
        outputs.restoration_model_patch = [
            records[ref.dataId["tract"], ref.dataId["patch"]] for ref in outputRefs.restoration_model_patch
        ]
        butlerQC.put(outputs, outputRefs)
        outputs.checkpoint.remove()

    def leave_out(self, found: PatchSamples, name: str, reason: str) -> PatchSamples:
        """Return a patch without samples, and log why.

        Parameters
        ----------
        found
            The patch.
        name
            Its name.
        reason
            Why there are none.
        """
        self.log.warning("Left out %s (%s)", name, reason)
        return dataclasses.replace(found, reason=reason)

    def draw_target_fwhm(self, sources: Sequence[PatchSource], name: str) -> float:
        """Return the FWHM of the target PSF of a patch in pixels.

        Parameters
        ----------
        sources
            Its exposures, by band.
        name
            Its name.
        """
        if not self.config.target_fwhm:
            return max(map(self.suggest_target_fwhm, sources))
        generator = np.random.default_rng(self.make_seed(f"{name}, target PSF"))
        return float(generator.choice(list(self.config.target_fwhm))) / sources[0].geometry.pixel_scale

    @timeMethod
    def train(
        self,
        patches: Sequence[TrainingPatch],
        collected: Sequence[PatchSamples],
        trainer_class: type[Trainer],
        *,
        name: str,
        made_for: Mapping[str, Any],
        penalty_weights: Sequence[float],
        device: torch.device,
    ) -> Training:
        """Train a network on the samples of patches.

        Parameters
        ----------
        patches
            The patches.
        collected
            Samples of each.
        trainer_class
            What trains the network.
        name
            What it is trained for.
        made_for
            The same for its provenance: sky map and bands.
        penalty_weights
            Those of the filter bank.
        device
            Where to train.

        Returns
        -------
        training : `Training`
            The network.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            If no patch has what it needs.
        RestorationAlgorithmError
            If no patch can be used for other reasons, or the training
            diverges.
        """
        used = [patch.key for patch in collected if patch.samples]
        if not used:
            raise explain_nothing(collected, name, self._needs)
        options = self.config.training.make_options()
        seed = self.make_seed(name)
        validation = choose_validation(used, self.config.validation_fraction, seed)
        checkpoint = Checkpoint(
            self.config.checkpoint_folder,
            name,
            self._make_key(patches, collected, made_for),
            60.0 * self.config.checkpoint_interval,
        )
        trainer = trainer_class(tuple(penalty_weights), options, seed=seed, device=device)
        curve = self._make_steps(trainer, collected, validation, checkpoint, name)
        losses = {
            patch.key: trainer.evaluate(patch.samples) for patch in collected if patch.key in validation
        }
        provenance = make_provenance(
            collected,
            validation,
            made_for=made_for,
            seed=seed,
            training=options,
            restoration=self.config.restoration.make_options(),
            penalty_weights=penalty_weights,
            curve=curve,
            validation_loss=mean_loss(collected, losses),
        )
        network = copy.deepcopy(trainer.network).cpu().eval()
        return Training(name, network, provenance, collected, validation, curve, losses, checkpoint)

    def make_outputs(self, training: Training, identity: str, model: dict[str, Any]) -> Struct:
        """Make the outputs of a training.

        Parameters
        ----------
        training
            The training.
        identity
            Identity of the model.
        model
            The model as a dataset.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            As of ``run``.
        """
        self.log.info("Trained %s for %s.", identity, training.name)
        collected, validation, curve = training.patches, training.validation, training.curve
        outputs = Struct(
            restoration_model=model,
            restoration_model_metrics=make_training_metrics(
                identity,
                collected,
                validation,
                curve=curve,
                validation_loss=training.provenance["validation_loss"],
            ),
            restoration_model_patch=[
                patch.record(patch.role(validation), training.losses.get(patch.key)) for patch in collected
            ],
            checkpoint=training.checkpoint,
        )
        if self.config.do_plot:
            from ..plots import training_figure

            outputs.restoration_model_plot = training_figure(
                step=curve.step,
                loss=curve.loss,
                validation_loss=curve.validation_loss,
                title=f"{training.name}: {identity}",
            )
        return outputs

    def _make_key(
        self,
        patches: Sequence[TrainingPatch],
        collected: Sequence[PatchSamples],
        made_for: Mapping[str, Any],
    ) -> str:
        """Return a digest of all that the trained network follows from."""
        settings = {key: value for key, value in self.config.toDict().items() if key not in _NOT_IN_KEY}
        facts = [
            (patch.key, patch.dataset_ids, list(map(str, found.exposures)), len(found.samples), found.reason)
            for patch, found in zip(patches, collected, strict=True)
        ]
        content = [dict(made_for), __version__, str(torch.__version__), settings, facts]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()

    def _make_steps(
        self,
        trainer: Trainer,
        patches: Sequence[PatchSamples],
        validation: Collection[str],
        checkpoint: Checkpoint,
        name: str,
    ) -> TrainingCurve:
        """Make all steps, or those that are left of an earlier training."""
        options = self.config.training.make_options()
        curve = TrainingCurve()
        state = checkpoint.load()
        if state is not None:
            trainer.resume(state["trainer"])
            curve = TrainingCurve.from_state(state["curve"])
            self.log.info("The training of %s goes on after step %d.", name, trainer.step)
        interval = max(1, options.num_steps // _CURVE_POINTS)
        training, aside = split_samples(patches, validation)
        number = min(len(aside), max(1, interval * options.batch_size // _VALIDATED_SHARE))
        aside = random.Random(self.make_seed(name)).sample(aside, number)

        def get_state() -> dict[str, Any]:
            return {"trainer": trainer.state(), "curve": curve.state()}

        with report_training(self.log, name, options.num_steps) as report:
            while not trainer.is_done:
                curve.recent.append(trainer.train(training, 1))
                if not math.isfinite(curve.recent[-1]):
                    raise RestorationAlgorithmError(
                        f"The training of {name} diverged in step {trainer.step}: lower "
                        f"training.learning_rate={options.learning_rate:g}.",
                        {"step": trainer.step},
                    )
                report(trainer.step, curve.recent_loss, curve.last_validation_loss)
                if trainer.step % interval == 0 or trainer.is_done:
                    curve.close(trainer.step, trainer.evaluate(aside) if aside else None)
                checkpoint.save_if_due(get_state)
        # Should the datasets not be written, it need not be done again.
        checkpoint.save(get_state())
        return curve
