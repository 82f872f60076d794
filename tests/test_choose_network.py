# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""When a trained network is doubted."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from lsst.astroclearnet.core import ModelOptions, RestorationModel, load_packaged_model
from lsst.astroclearnet.core.tiles import _choose_network
from lsst.astroclearnet.tests import QUICK, SIGMAS, make_scene, restore_on_cpu


def brightened(residual: float) -> RestorationModel:
    """Return the packaged network with a residual that is too bright."""
    model = load_packaged_model()
    network = copy.deepcopy(model.network)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias[-1] += residual
    return dataclasses.replace(model, network=network)


@pytest.mark.parametrize(("residual", "is_doubted"), [(0.0, False), (3.0, True)])
def test_light_that_is_not_there_is_doubted(residual: float, is_doubted: bool) -> None:
    """If this fails, a network that adds light is used without a word."""
    options = dataclasses.replace(QUICK, model=ModelOptions(source="dataset"))
    result = restore_on_cpu(make_scene(stars=[], seed=60), options, model=brightened(residual))
    assert ("predicts held-out exposures worse" in result.network_doubt) is is_doubted, result.network_doubt


@pytest.mark.parametrize(("error", "is_doubted"), [(0.2, False), (0.4, True)])
def test_only_a_noticeable_loss_is_doubted(
    error: float, is_doubted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, patches are to be checked for nothing."""
    losses = iter((0.5 + 0.5 * error**2 / len(SIGMAS), 0.5))
    monkeypatch.setattr(_choose_network, "_mean_loss", lambda *_: next(losses))
    assert bool(restore_on_cpu(make_scene(seed=60), QUICK).network_doubt) is is_doubted
