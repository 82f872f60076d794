# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training task: what it learns from, what it writes, how it goes on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.adapters import PatchGeometry, model_from_dict
from lsst.astroclearnet.core.training import Trainer
from lsst.astroclearnet.tasks import TrainingPatch, TrainRestorationConfig, TrainRestorationTask
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.images import VisitImage
from lsst.pipe.base import NoWorkFound, Struct
from lsst.pipe.base.testUtils import assertValidOutput

SHAPE = (130, 230)
MAP = make_patch_geometry(cell_shape=(24, 20))
PENALTY_WEIGHTS = [1e-3, 1e-2, 1e-1]


def make_config(**changes: Any) -> TrainRestorationConfig:
    """Return a configuration of a training of seconds."""
    config = TrainRestorationConfig()
    config.geometry_source = "dict"
    config.device = "cpu"
    config.target_fwhm = [0.55]
    config.do_plot = False
    config.restoration.network.penalty_weights = PENALTY_WEIGHTS
    config.training.num_steps = 3
    config.training.tile_size = 96
    config.training.crop_size = 96
    config.training.num_splits = 1
    config.training.tiles_per_patch = 1
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return config


def observe(visit: int, offset: tuple[float, float] = (0.0, 0.0), **changes: Any) -> VisitImage:
    """Return a noisy visit image of stars on both patches."""
    rng = np.random.default_rng(3)
    field = StarField(
        geometry=MAP.patch(3, 0),
        x=rng.uniform(5.0, 170.0, 20),
        y=rng.uniform(5.0, 90.0, 20),
        flux=rng.uniform(300.0, 6000.0, 20),
    )
    projection = make_projection(SHAPE, offset=offset, visit=visit)
    fwhm = 3.2 + 0.3 * (visit % 5)
    noise = np.random.default_rng(visit).normal(0.0, 1.0, SHAPE)
    return make_visit_image(field.render(projection, SHAPE, fwhm) + noise, projection, fwhm=fwhm, **changes)


@pytest.fixture(scope="module")
def visits() -> list[VisitImage]:
    """Four visit images that cover both patches."""
    return [observe(visit, (0.7 * visit, -1.3 * visit)) for visit in range(1, 5)]
