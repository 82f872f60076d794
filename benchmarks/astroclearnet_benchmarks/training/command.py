# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the packaged networks, on simulated exposures alone."""

from __future__ import annotations

__all__ = ("main",)

import argparse
import dataclasses
import logging
import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lsst.astroclearnet.core import (
    JointModel,
    RejectionOptions,
    RestorationModel,
    RestoreOptions,
    TrainingOptions,
    load_packaged_model,
)
from lsst.astroclearnet.core.estimate import TrainedRange
from lsst.astroclearnet.core.exposures import ExposureStack, StackSource
from lsst.astroclearnet.core.training import JointTrainer, Trainer, collect_samples

from ..processes import FAILURES, make_pool, start_logging
from ..record import make_parser, package_version
from ._ceiling import TrueSample, TrueTrainer
from ._joint import StoredSamples, TrueJointTrainer, joint_training_options, simulate_bands
from ._recipe import NUM_BANDS, draw_recipe
from ._scene import render_scene

_LOG = logging.getLogger(__name__)

_VALIDATION = 16
"""Every such scene is not trained on."""

_STEPS = 500
"""Steps between checkpoints."""


def main(words: Sequence[str]) -> int:
    """Simulate scenes, train a network on them, and write it."""
    start_logging()
    options = _parse(words)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.joint:
        return _train_joint(options)
    start = time.monotonic()
    with make_pool(options.jobs) as pool:
        found = [pool.submit(_simulate, seed, options.work) for seed in range(options.scenes)]
        files = [path for path in (future.result() for future in found) if path is not None]
    _LOG.info("samples of %d scenes after %.0f minutes", len(files), (time.monotonic() - start) / 60.0)
    torch.set_num_threads(options.jobs)
    trained = [s for path in files if int(path.stem) % _VALIDATION for s in _load(path)]
    aside = [s for path in files if not int(path.stem) % _VALIDATION for s in _load(path)]
    kind = TrueTrainer if options.on_truth else Trainer
    network, losses = _train(trained, aside, options, kind, _training_options(options.steps))
    provenance = {
        "trained_on": f"{'the truth' if options.on_truth else 'simulated exposures'} of "
        "astroclearnet_benchmarks.training",
        "num_scenes": len(files),
        "num_samples": len(trained),
        "validation_loss": losses,
        "options": dataclasses.asdict(_training_options(options.steps)),
        "seed": options.seed,
        "package": package_version("lsst-astroclearnet"),
        "torch": torch.__version__,
    }
    model = RestorationModel(network.network, TrainedRange.of([*trained, *aside]), provenance)
    options.output.write_bytes(model.to_bytes())
    _LOG.info("%s after %.0f minutes", model.identity, (time.monotonic() - start) / 60.0)
    return 0


def _train_joint(options: argparse.Namespace) -> int:
    """Train the joint network on scenes in several bands, and write it."""
    start = time.monotonic()
    with make_pool(options.jobs) as pool:
        found = [
            pool.submit(simulate_bands, seed, options.work, options.on_truth)
            for seed in range(options.scenes)
        ]
        scenes = [future.result() for future in found]
    _LOG.info("samples of %d scenes after %.0f minutes", len(scenes), (time.monotonic() - start) / 60.0)
    torch.set_num_threads(options.jobs)
    trained = StoredSamples([f for k, files in enumerate(scenes) if k % _VALIDATION for f in files])
    aside = StoredSamples([f for k, files in enumerate(scenes) if not k % _VALIDATION for f in files])
    settings = joint_training_options(options.steps)
    kind = TrueJointTrainer if options.on_truth else JointTrainer
    trainer, losses = _train(trained, aside, options, kind, settings)
    provenance = {
        "trained_on": f"{'the truth' if options.on_truth else 'simulated exposures'} in several bands of "
        "astroclearnet_benchmarks.training",
        "num_scenes": len(scenes),
        "num_samples": len(trained),
        "validation_loss": losses,
        "options": dataclasses.asdict(settings),
        "seed": options.seed,
        "package": package_version("lsst-astroclearnet"),
        "torch": torch.__version__,
    }
    model = JointModel(trainer.network, (load_packaged_model().identity,), NUM_BANDS, provenance)
    options.output.write_bytes(model.to_bytes())
    _LOG.info("%s after %.0f minutes", model.identity, (time.monotonic() - start) / 60.0)
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("training", __doc__, work="samples and checkpoint")
    parser.add_argument("--scenes", type=int, default=104, help="number of scenes")
    parser.add_argument("--steps", type=int, default=16000, help="number of steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument(
        "--on-truth",
        action="store_true",
        help="train on the truth, for a network that shows what is possible",
    )
    parser.add_argument(
        "--joint", action="store_true", help="train the network that restores several bands together"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, and of threads")
    parser.set_defaults(output=None)
    options = parser.parse_args(words)
    if options.output is None:
        kind = "packaged_joint" if options.joint else "truth" if options.on_truth else "packaged"
        options.output = Path(f"{kind}_model.safetensors")
    return options


def _training_options(steps: int) -> TrainingOptions:
    # A scene is one tile.
    return TrainingOptions(num_steps=steps)


def _simulate(seed: int, folder: Path) -> Path | None:
    """Write the training samples of a scene, if that was not done before."""
    path = folder / f"{seed:05d}.samples"
    if path.exists():
        return path
    torch.set_num_threads(1)
    recipe = draw_recipe(seed)
    # Rejection is slow, and finds what is flagged here.
    exposures = tuple(dataclasses.replace(e, has_trail=False) for e in recipe.exposures)
    scene = render_scene(dataclasses.replace(recipe, flagged_fraction=1.0, exposures=exposures))
    if len(scene.images) < 2:
        return None
    try:
        stack = ExposureStack.from_arrays(
            scene.images,
            scene.variances,
            scene.good,
            scene.psfs,
            positions=scene.positions,
            in_noise_units=True,
        )
        samples = collect_samples(
            StackSource(stack),
            target_fwhm=scene.target_fwhm,
            options=_training_options(1),
            restoration=RestoreOptions(rejection=RejectionOptions(enabled=False)),
            seed=seed,
            device=torch.device("cpu"),
        )
    except FAILURES as exc:
        _LOG.warning("scene %d gives no samples: %s", seed, exc)
        return None
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps([TrueSample.from_sample(s, scene.truth / stack.unit) for s in samples]))
    os.replace(partial, path)
    return path


def _load(path: Path) -> list[TrueSample]:
    # A file of this command.
    samples: list[TrueSample] = pickle.loads(path.read_bytes())  # noqa: S301
    return samples


def _train(
    trained: Sequence[Any],
    aside: Sequence[Any],
    options: argparse.Namespace,
    kind: type[Trainer],
    settings: TrainingOptions,
) -> tuple[Trainer, list[float]]:
    """Train, from the last checkpoint on; return the losses aside."""
    trainer = kind(
        RestoreOptions().network.penalty_weights, settings, seed=options.seed, device=torch.device("cpu")
    )
    name = f"checkpoint-{options.seed}-{options.steps}{'-truth' if options.on_truth else ''}"
    checkpoint, losses = options.work / name, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        losses = state.pop("losses")
        trainer.resume(state)
    while not trainer.is_done:
        loss = trainer.train(trained, _STEPS)
        losses.append(trainer.evaluate(aside))
        _LOG.info("step %d: loss %.5f, of scenes set aside %.5f", trainer.step, loss, losses[-1])
        torch.save(trainer.state() | {"losses": losses}, checkpoint.with_suffix(".partial"))
        os.replace(checkpoint.with_suffix(".partial"), checkpoint)
    return trainer, losses
