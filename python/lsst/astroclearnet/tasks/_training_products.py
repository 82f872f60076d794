# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Course of a training, and what is written of it."""

from __future__ import annotations

__all__ = ("Training", "TrainingCurve", "make_provenance", "make_training_metrics")

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch

from .. import __version__
from ..core import RestoreOptions, TrainingOptions
from ._checkpoint import Checkpoint
from ._training_patches import PatchSamples, list_exposures, split_samples


@dataclasses.dataclass
class TrainingCurve:
    """Losses in the course of a training.

    Attributes
    ----------
    step
        Numbers of steps at which there is an entry.
    loss
        Mean loss of the steps since the last entry.
    validation_loss
        Loss at each of them on samples that are not trained on; `None`
        without any.
    recent
        Losses of the steps since the last entry.
    """

    step: list[int] = dataclasses.field(default_factory=list)
    loss: list[float] = dataclasses.field(default_factory=list)
    validation_loss: list[float | None] = dataclasses.field(default_factory=list)
    recent: list[float] = dataclasses.field(default_factory=list)

    @property
    def recent_loss(self) -> float:
        """Mean loss of recent steps (`float`)."""
        return sum(self.recent) / len(self.recent) if self.recent else self.loss[-1]

    @property
    def last_validation_loss(self) -> float | None:
        """The last validation loss, if there is one (`float`)."""
        return self.validation_loss[-1] if self.validation_loss else None

    def close(self, step: int, validation_loss: float | None) -> None:
        """Make an entry of the recent steps.

        Parameters
        ----------
        step
            Number of steps.
        validation_loss
            Loss on other samples.
        """
        self.step.append(step)
        self.loss.append(self.recent_loss)
        self.validation_loss.append(validation_loss)
        self.recent.clear()

    def state(self) -> dict[str, Any]:
        """Return all of it in plain types (`dict`)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `state` was taken of.

        Parameters
        ----------
        state
            What it returned.
        """
        return cls(**state)


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is finished.

    Attributes
    ----------
    name
        What the network was trained for.
    network
        The network, in evaluation mode, on the CPU.
    provenance
        What it was trained on and how, of types that JSON has.
    patches
        All patches.
    validation
        Those that were set aside.
    curve
        Course of the losses.
    losses
        Loss of the network on each of the patches set aside.
    checkpoint
        State of the training, to be removed when its result is safe.
    """

    name: str
    network: Any
    provenance: dict[str, Any]
    patches: Sequence[PatchSamples]
    validation: Collection[str]
    curve: TrainingCurve
    losses: Mapping[str, float]
    checkpoint: Checkpoint

    @property
    def trained_samples(self) -> list[Any]:
        """Samples that the network was trained on (`list`)."""
        return split_samples(self.patches, self.validation)[0]


def make_provenance(
    patches: Sequence[PatchSamples],
    validation: Collection[str],
    *,
    made_for: Mapping[str, Any],
    seed: int,
    training: TrainingOptions,
    restoration: RestoreOptions,
    penalty_weights: Sequence[float],
    curve: TrainingCurve,
    validation_loss: float | None,
) -> dict[str, Any]:
    """Return what a network was trained on and how, of types that JSON has.

    Parameters
    ----------
    patches
        All patches.
    validation
        Those that were set aside.
    made_for
        The sky map and the bands.
    seed
        Seed of the training.
    training, restoration
        Settings.
    penalty_weights
        Those of the filter bank.
    curve
        Course of the training.
    validation_loss
        Loss of the network on the patches set aside.
    """
    used = [patch for patch in patches if patch.samples]
    provenance = {
        "package": "lsst.astroclearnet",
        "version": __version__,
        "torch_version": str(torch.__version__),
        **made_for,
        "patches": {
            "trained": [patch.key for patch in used if patch.key not in validation],
            "validation": [patch.key for patch in used if patch.key in validation],
            "left_out": {patch.key: patch.reason for patch in patches if not patch.samples},
        },
        "target_fwhm": {patch.key: patch.target_fwhm for patch in used},
        "exposures": list_exposures(used),
        "seed": seed,
        "num_steps": curve.step[-1],
        "num_samples": _count_samples(used, validation),
        "loss": curve.loss[-1],
        "validation_loss": validation_loss,
        "options": {
            "training": dataclasses.asdict(training),
            "calibration": dataclasses.asdict(restoration.calibration),
            "rejection": dataclasses.asdict(restoration.rejection),
            "penalty_weights": list(penalty_weights),
        },
    }
    # The same before and after it was a file.
    plain: dict[str, Any] = json.loads(json.dumps(provenance))
    return plain


def make_training_metrics(
    identity: str,
    patches: Sequence[PatchSamples],
    validation: Collection[str],
    *,
    curve: TrainingCurve,
    validation_loss: float | None,
) -> dict[str, Any]:
    """Return the metrics of a training, of types that JSON has.

    Parameters
    ----------
    identity
        Identity of the model.
    patches
        All patches.
    validation
        Those that were set aside.
    curve
        Course of the training.
    validation_loss
        Loss of the network on all samples of the patches set aside.
    """
    used = [patch for patch in patches if patch.samples]
    return {
        "identity": identity,
        "num_patches": {
            "trained": len(used) - len(validation),
            "validation": len(validation),
            "left_out": len(patches) - len(used),
        },
        "num_samples": _count_samples(used, validation),
        "num_steps": curve.step[-1],
        "loss": curve.loss[-1],
        "validation_loss": validation_loss,
        "curve": {"step": curve.step, "loss": curve.loss, "validation_loss": curve.validation_loss},
    }


def _count_samples(used: Sequence[PatchSamples], validation: Collection[str]) -> dict[str, int]:
    """Return the numbers of samples of both kinds of patches."""
    aside = sum(len(patch.samples) for patch in used if patch.key in validation)
    return {"trained": sum(len(patch.samples) for patch in used) - aside, "validation": aside}
