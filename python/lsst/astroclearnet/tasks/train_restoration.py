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

import copy
import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from lsst.pipe.base import (
    InputQuantizedConnection,
    InvalidQuantumError,
    NoWorkFound,
    OutputQuantizedConnection,
    QuantumContext,
    Struct,
)
from lsst.utils.timer import timeMethod

from .. import __version__
from ..adapters import PatchSource, model_to_dict
from ..core import RestorationError, RestorationModel, TrainedRange
from ..core.training import Trainer, collect_samples
from ._checkpoint import Checkpoint
from ._errors import RestorationAlgorithmError
from ._patch_exposures import PatchExposuresTask
from ._progress import report_training
from ._quantum_inputs import GEOMETRY_CONNECTIONS, gather_inputs, read_geometry
from ._training_patches import PatchSamples, TrainingPatch, choose_validation
from ._training_products import TrainingCurve, make_provenance, make_training_metrics
from .train_restoration_config import TrainRestorationConfig

_CURVE_POINTS = 200
"""Number of points of the curve of the losses."""

_VALIDATED_SHARE = 4
"""How many times fewer samples are predicted for a point of the curve than
were trained on since the last one."""

_NOT_IN_KEY = ("checkpoint_folder", "checkpoint_interval", "scratch_folder", "device", "do_plot")
"""Settings with which an interrupted training may go on differently."""


class TrainRestorationTask(PatchExposuresTask):
    """Train a network that restores coadds, on the exposures of many patches.

    It sees some exposures of a patch and predicts the others; no truth and no
    coadd is needed.  Some patches are set aside, and tell how well it does on
    sky that it has not seen.
    """

    ConfigClass = TrainRestorationConfig
    _DefaultName = "trainRestoration"
    config: TrainRestorationConfig

    def runQuantum(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> None:
        data_id = butlerQC.quantum.dataId
        if data_id is None:
            raise InvalidQuantumError("A quantum of trainRestoration needs a data ID.")
        # The executor leaves one thread to a process; it may have been given
        # more cores than that.
        torch.set_num_threads(max(1, butlerQC.resources.num_cores))
        outputs = self.run(patches=self._gather(butlerQC, inputRefs, outputRefs), band=str(data_id["band"]))
        records = {(record["tract"], record["patch"]): record for record in outputs.restoration_model_patch}
        outputs.restoration_model_patch = [
            records[ref.dataId["tract"], ref.dataId["patch"]] for ref in outputRefs.restoration_model_patch
        ]
        butlerQC.put(outputs, outputRefs)
        outputs.checkpoint.remove()

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
        ordered = sorted(patches, key=lambda patch: (patch.geometry.tract, patch.geometry.definition.id))
        collected = [self._collect(patch, band, device) for patch in ordered]
        used = [patch.key for patch in collected if patch.samples]
        if not used:
            raise _explain_nothing(collected, band)
        skymap = ordered[0].geometry.skymap
        name = f"{skymap}, {band}"
        seed = self.make_seed(name)
        validation = choose_validation(used, self.config.validation_fraction, seed)
        checkpoint = Checkpoint(
            self.config.checkpoint_folder,
            name,
            self._make_key(ordered, collected, name),
            60.0 * self.config.checkpoint_interval,
        )
        trainer, curve = self._train(collected, validation, checkpoint, name, device)
        losses = {
            patch.key: trainer.evaluate(patch.samples) for patch in collected if patch.key in validation
        }
        validation_loss = _mean_loss(collected, losses)
        model = RestorationModel(
            network=copy.deepcopy(trainer.network).cpu().eval(),
            trained_range=TrainedRange.of(
                sample for patch in collected if patch.key not in validation for sample in patch.samples
            ),
            provenance=make_provenance(
                collected,
                validation,
                skymap=skymap,
                band=band,
                seed=seed,
                training=self.config.training.make_options(),
                restoration=self.config.restoration.make_options(),
                curve=curve,
                validation_loss=validation_loss,
            ),
        )
        self.log.info("Trained %s for %s.", model.identity, name)
        roles = {key: "validation" if key in validation else "trained" for key in used}
        outputs = Struct(
            restoration_model=model_to_dict(model),
            restoration_model_metrics=make_training_metrics(
                model.identity, collected, validation, curve=curve, validation_loss=validation_loss
            ),
            restoration_model_patch=[
                patch.record(roles.get(patch.key, "left_out"), losses.get(patch.key)) for patch in collected
            ],
            checkpoint=checkpoint,
        )
        if self.config.do_plot:
            from ..plots import training_figure

            outputs.restoration_model_plot = training_figure(
                step=curve.step,
                loss=curve.loss,
                validation_loss=curve.validation_loss,
                title=f"{name}: {model.identity}",
            )
        return outputs

    def _gather(
        self,
        butlerQC: QuantumContext,
        inputRefs: InputQuantizedConnection,
        outputRefs: OutputQuantizedConnection,
    ) -> list[TrainingPatch]:
        """Return the patches of a quantum, those of its outputs."""
        source = self.config.geometry_source
        refs = getattr(inputRefs, GEOMETRY_CONNECTIONS[source])
        datasets = butlerQC.get(refs)
        patches = []
        for data_id in (ref.dataId for ref in outputRefs.restoration_model_patch):
            dataset = datasets
            if source == "coadd":
                place = (data_id["tract"], data_id["patch"])
                dataset = next(h for h in datasets if (h.dataId["tract"], h.dataId["patch"]) == place)
            geometry = read_geometry(source, dataset, data_id.required, cell_size=self.config.cell_size)
            patches.append(
                TrainingPatch(geometry=geometry, **gather_inputs(butlerQC, inputRefs, patch=data_id))
            )
        return patches

    def _collect(self, patch: TrainingPatch, band: str, device: torch.device) -> PatchSamples:
        """Return the samples of a patch, or why there are none."""
        geometry = patch.geometry
        name = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.definition.id}, {band}"
        exposures = self.read_exposures(
            visit_images=patch.visit_images,
            geometry=geometry,
            band=band,
            selections=patch.selections,
            sky_corrections=patch.sky_corrections,
            visit_summaries=patch.visit_summaries,
        )
        source = exposures.source
        found = PatchSamples(
            patch.key,
            exposures=tuple(cutout.identity for cutout in source.cutouts),
            left_out=exposures.not_selected | exposures.dropped,
        )
        if source.num_exposures < 2:
            return self._leave_out(found, name, f"too_few_exposures: {source.num_exposures} usable")
        try:
            target_fwhm = self._draw_target_fwhm(source, name)
            samples = collect_samples(
                source,
                target_fwhm=target_fwhm,
                options=self.config.training.make_options(),
                restoration=self.config.restoration.make_options(),
                seed=self.make_seed(name),
                device=device,
            )
        except RestorationError as exc:
            return self._leave_out(found, name, f"failed: {exc}")
        if not samples:
            return self._leave_out(found, name, "no_overlap: No two exposures overlap.")
        self.log.info("Made %d samples of %d exposures of %s.", len(samples), source.num_exposures, name)
        return dataclasses.replace(found, samples=samples, target_fwhm=target_fwhm * geometry.pixel_scale)

    def _leave_out(self, found: PatchSamples, name: str, reason: str) -> PatchSamples:
        """Return a patch without samples, and log why."""
        self.log.warning("Left out %s (%s)", name, reason)
        return dataclasses.replace(found, reason=reason)

    def _draw_target_fwhm(self, source: PatchSource, name: str) -> float:
        """Return the FWHM of the target PSF of a patch in pixels."""
        if not self.config.target_fwhm:
            return self.suggest_target_fwhm(source)
        generator = np.random.default_rng(self.make_seed(f"{name}, target PSF"))
        return float(generator.choice(list(self.config.target_fwhm))) / source.geometry.pixel_scale

    def _make_key(
        self, patches: Sequence[TrainingPatch], collected: Sequence[PatchSamples], name: str
    ) -> str:
        """Return a digest of all that the trained network follows from."""
        settings = {key: value for key, value in self.config.toDict().items() if key not in _NOT_IN_KEY}
        facts = [
            (patch.key, patch.dataset_ids, list(map(str, found.exposures)), len(found.samples), found.reason)
            for patch, found in zip(patches, collected, strict=True)
        ]
        content = json.dumps([name, __version__, str(torch.__version__), settings, facts], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    @timeMethod
    def _train(
        self,
        patches: Sequence[PatchSamples],
        validation: Collection[str],
        checkpoint: Checkpoint,
        name: str,
        device: torch.device,
    ) -> tuple[Trainer, TrainingCurve]:
        """Make all steps, or those that are left of an earlier training."""
        options = self.config.training.make_options()
        seed = self.make_seed(name)
        weights = tuple(self.config.restoration.network.penalty_weights)
        trainer = Trainer(weights, options, seed=seed, device=device)
        curve = TrainingCurve()
        state = checkpoint.load()
        if state is not None:
            trainer.resume(state["trainer"])
            curve = TrainingCurve.from_state(state["curve"])
            self.log.info("The training of %s goes on after step %d.", name, trainer.step)
        interval = max(1, options.num_steps // _CURVE_POINTS)
        training = [sample for p in patches if p.key not in validation for sample in p.samples]
        aside = [sample for p in patches if p.key in validation for sample in p.samples]
        number = min(len(aside), max(1, interval * options.batch_size // _VALIDATED_SHARE))
        aside = random.Random(seed).sample(aside, number)

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
        return trainer, curve


def _mean_loss(patches: Sequence[PatchSamples], losses: dict[str, float]) -> float | None:
    """Return the mean loss over all samples of patches with a loss."""
    sizes = {patch.key: len(patch.samples) for patch in patches if patch.key in losses}
    if not sizes:
        return None
    return sum(losses[key] * size for key, size in sizes.items()) / sum(sizes.values())


def _explain_nothing(patches: Sequence[PatchSamples], band: str) -> BaseException:
    """Return the error of a training without samples."""
    failed = {patch.key: patch.reason for patch in patches if patch.reason.startswith("failed")}
    if failed:
        reasons = "\n".join(f"  - {key}: {reason}" for key, reason in failed.items())
        return RestorationAlgorithmError(
            f"No patch can be trained on in {band}:\n{reasons}", {"num_failed_patches": len(failed)}
        )
    return NoWorkFound(f"No patch has two usable exposures that overlap in {band}: {len(patches)} have not.")
