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

import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import overload

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
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.training import JointSample, collect_joint_samples

from ..processes import FAILURES
from ._bands import render_bands

_LOG = logging.getLogger(__name__)


_RESTORATION = RestoreOptions(
    rejection=RejectionOptions(enabled=False),
    calibration=CalibrationOptions(background="none", psf_refinement="off"),
    stars=StarOptions(enabled=False),
)
"""Of exposures with nothing to calibrate and no outliers but flagged ones,
which saves two thirds of the time.  Bright stars are the band's own."""


class StoredSamples(Sequence[JointSample]):
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

    @overload
    def __getitem__(self, index: int) -> JointSample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[JointSample]: ...

    def __getitem__(self, index: int | slice) -> JointSample | Sequence[JointSample]:
        if isinstance(index, slice):
            return StoredSamples(self._files[index])
        # A file of this command.
        sample: JointSample = pickle.loads(self._files[index].read_bytes())  # noqa: S301
        return sample


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
        its exposures held out.  Detail has no weight of its own: estimates of
        the bank differ in noise rather than in sharpness, and the detail of
        held-out exposures is noise for the most part.
    """
    return TrainingOptions(num_steps=steps, num_splits=1, max_held_out=4, detail_weight=0.0)


def simulate_bands(seed: int, folder: Path) -> list[Path]:
    """Write the training samples of a scene, if that was not done before.

    Parameters
    ----------
    seed
        Seed of the scene.
    folder
        Where to.

    Returns
    -------
    files : `list` [`pathlib.Path`]
        A file for each sample.
    """
    done = folder / f"{seed:05d}.done"
    if not done.exists():
        torch.set_num_threads(1)
        try:
            samples = _collect(seed)
        except FAILURES as exc:
            _LOG.warning("scene %d gives no samples: %s", seed, exc)
            samples = []
        for number, sample in enumerate(samples):
            path = folder / f"{seed:05d}-{number:03d}.sample"
            path.with_suffix(".partial").write_bytes(pickle.dumps(sample))
            os.replace(path.with_suffix(".partial"), path)
        done.touch()
    return sorted(folder.glob(f"{seed:05d}-*.sample"))


def _collect(seed: int) -> list[JointSample]:
    """Return the samples of a scene."""
    scenes = render_bands(seed, all_flagged=True)
    sources = {}
    for band, scene in enumerate(scenes):
        stack = ExposureStack.from_arrays(
            scene.images,
            scene.variances,
            scene.good,
            scene.psfs,
            positions=scene.positions,
            in_noise_units=True,
        )
        sources[str(band)] = StackSource(stack)
    return collect_joint_samples(
        sources,
        network=load_packaged_model().network,
        target_fwhm=scenes[0].target_fwhm,
        options=joint_training_options(1),
        restoration=_RESTORATION,
        seed=seed,
        device=torch.device("cpu"),
    )
