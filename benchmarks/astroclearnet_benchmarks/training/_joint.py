# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training samples of the joint network, kept as files."""

from __future__ import annotations

__all__ = ()

import dataclasses
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lsst.astroclearnet.core import (
    CalibrationOptions,
    ExposureStack,
    RejectionOptions,
    RestoreOptions,
    StarOptions,
    TrainingOptions,
    load_packaged_model,
)
from lsst.astroclearnet.core.estimate import Estimator
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.joint import GuidedBank
from lsst.astroclearnet.core.training import JointSample, JointTrainer, collect_joint_samples, draw_guide

from ..processes import FAILURES
from ._bands import render_bands
from ._scene import TrainingScene

_LOG = logging.getLogger(__name__)


_RESTORATION = RestoreOptions(
    rejection=RejectionOptions(enabled=False),
    calibration=CalibrationOptions(background="none", psf_refinement="off"),
    stars=StarOptions(enabled=False),
)
"""Of exposures with nothing to calibrate and no outliers but flagged ones,
which saves two thirds of the time.  Bright stars are the band's own."""


_LEAST_COVERAGE = 0.5
"""Share of the exposures from which on the truth of a pixel counts."""

_CROPS = 2
"""Quarters of a scene that are kept of each band."""

_BRIGHTEST = 40.0
"""Brightness of the truth, in units of the peak of a star of signal-to-noise
ratio 1, from which on pixels do not count: light there is the band's own."""

_FAINT = 0.5, 20.0
_FAINT_WEIGHT = 4.0
"""Brightness of faint light, in the same unit, and how much it counts: most
pixels are blank."""

_SCALE = 2.0
"""Error, in the same unit, beyond which the loss grows with its logarithm."""


class StoredSamples(Sequence[Any]):
    """Samples that are read when they are needed.

    Parameters
    ----------
    files
        Their files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        # A file of this command.
        return pickle.loads(self._files[index].read_bytes())  # noqa: S301


@dataclasses.dataclass(frozen=True)
class TrueJointSample:
    """A sample of a band that knows the truth.

    Attributes
    ----------
    bank
        Estimates from all exposures of the band, guided by other bands.
    truth
        The sky at the target PSF, shape (h, w).
    unit
        Peak of a star of signal-to-noise ratio 1, shape (h, w).
    known
        Pixels that count, shape (h, w), bool.
    """

    bank: GuidedBank
    truth: torch.Tensor
    unit: torch.Tensor
    known: torch.Tensor


class TrueJointTrainer(JointTrainer):
    """Training of a joint network on `TrueJointSample`."""

    def _mean_loss(self, network: Callable[[Any], torch.Tensor], sample: Any) -> torch.Tensor:
        """Return the weighted mean of a robust loss of errors, in units of the
        peak of a star of signal-to-noise ratio 1.
        """
        error = (network(sample.bank) - sample.truth) / sample.unit
        brightness = sample.truth / sample.unit
        is_faint = (brightness > _FAINT[0]) & (brightness < _FAINT[1])
        weight = torch.where(is_faint, _FAINT_WEIGHT, 1.0) * (sample.known & (brightness < _BRIGHTEST))
        loss = _SCALE**2 * torch.log1p((error / _SCALE).square())
        return (weight * loss).sum() / weight.sum().clamp(min=1.0)


def joint_training_options(steps: int) -> TrainingOptions:
    """Return how the joint network is trained.

    Parameters
    ----------
    steps
        Number of steps.

    Returns
    -------
    options : `TrainingOptions`
        Each scene is one tile, and each band is restored once with some of
        its exposures held out.
    """
    return TrainingOptions(num_steps=steps, num_splits=1, max_held_out=4)


def simulate_bands(seed: int, folder: Path, on_truth: bool) -> list[Path]:
    """Write the training samples of a scene, if that was not done before.

    Parameters
    ----------
    seed
        Seed of the scene.
    folder
        Where to.
    on_truth
        Whether samples know the truth, or hold exposures out.

    Returns
    -------
    files : `list` [`pathlib.Path`]
        A file for each sample.
    """
    name = f"{seed:05d}-{'truth' if on_truth else 'exposures'}"
    done = folder / f"{name}.done"
    if not done.exists():
        torch.set_num_threads(1)
        try:
            samples = _collect_true(seed) if on_truth else _collect(seed)
        except FAILURES as exc:
            _LOG.warning("scene %d gives no samples: %s", seed, exc)
            samples = []
        for number, sample in enumerate(samples):
            path = folder / f"{name}-{number:03d}.sample"
            path.with_suffix(".partial").write_bytes(pickle.dumps(sample))
            os.replace(path.with_suffix(".partial"), path)
        done.touch()
    return sorted(folder.glob(f"{name}-*.sample"))


@torch.no_grad()
def _collect_true(seed: int) -> list[TrueJointSample]:
    """Return the samples of a scene with the truth."""
    network, generator = load_packaged_model().network, torch.Generator().manual_seed(seed)
    images, truths = [], []
    for scene in render_bands(seed, all_flagged=True):
        stack = _stack(scene)
        model = ForwardModel.from_stack(stack, scene.target_fwhm)
        estimator = Estimator(network, model, stack.good / stack.variances, _RESTORATION)
        images.append(estimator.restore(stack.images))
        truths.append(torch.from_numpy(scene.truth / stack.unit).float())
    samples = []
    for band, (image, truth) in enumerate(zip(images, truths, strict=True)):
        bank = GuidedBank.build(image, draw_guide(image, [*images[:band], *images[band + 1 :]], generator))
        known = image.estimator.linear.coverage > _LEAST_COVERAGE
        unit = image.estimator.model.crop(image.estimator.debiaser.star_noise)
        whole = TrueJointSample(bank, truth, unit, known)
        for corner in torch.randperm(4, generator=generator)[:_CROPS].tolist():
            sample = _quarter(whole, image.estimator.model.grid.margin, corner)
            if bool(sample.known.any()):
                samples.append(sample)
    return samples


def _quarter(whole: TrueJointSample, margin: int, corner: int) -> TrueJointSample:
    """Return a quarter of a sample whose bank has a margin."""
    height, width = (side // 2 for side in whole.truth.shape)
    top, left = corner // 2 * height, corner % 2 * width

    def cut(maps: torch.Tensor, start: int = margin) -> torch.Tensor:
        return maps[..., top + start :, left + start :][..., :height, :width].clone()

    return TrueJointSample(
        whole.bank.map(cut), *(cut(maps, 0) for maps in (whole.truth, whole.unit, whole.known))
    )


def _stack(scene: TrainingScene) -> ExposureStack:
    """Return the exposures of a scene."""
    return ExposureStack.from_arrays(
        scene.images,
        scene.variances,
        scene.good,
        scene.psfs,
        positions=scene.positions,
        in_noise_units=True,
    )


def _collect(seed: int) -> list[JointSample]:
    """Return the samples of a scene."""
    scenes = render_bands(seed, all_flagged=True)
    sources = {str(band): StackSource(_stack(scene)) for band, scene in enumerate(scenes)}
    return collect_joint_samples(
        sources,
        networks=dict.fromkeys(sources, load_packaged_model().network),
        target_fwhm=scenes[0].target_fwhm,
        options=joint_training_options(1),
        restoration=_RESTORATION,
        seed=seed,
        device=torch.device("cpu"),
    )
