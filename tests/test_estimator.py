# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The estimator: what it states of its errors against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core.estimate import Estimator, MixingNetwork
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import (
    QUICK,
    SHAPE,
    STARS,
    TARGET,
    gaussian_stars,
    make_exposure_stack,
    make_scene,
    restore_on_cpu,
)


def make_estimator(seed: int = 3) -> tuple[Estimator, torch.Tensor]:
    """Return an estimator whose network was not fitted, and exposures."""
    stack = make_exposure_stack((60, 76), (3.4, 4.2, 5.0))
    network = MixingNetwork(QUICK.network)
    network.initialize(make_generator(seed))
    model = ForwardModel.from_stack(stack, 3.8)
    return Estimator(network, model, stack.good / stack.variances, QUICK), stack.images


@torch.no_grad()
def test_linear_image_does_not_depend_on_the_network() -> None:
    """If it fails, the image to measure on is biased by what was learned."""
    (one, exposures), (other, _) = make_estimator(seed=3), make_estimator(seed=4)
    first, second = one.estimate(exposures), other.estimate(exposures)
    assert not torch.equal(first.restored, second.restored)
    assert torch.equal(first.linear, second.linear)


def test_penalty_weight_of_the_linear_image() -> None:
    """If it fails, the residual of stars is not the one asked for."""
    estimator, _ = make_estimator()
    residual = estimator.linear.psf_residual(estimator.linear_penalty_weight)
    assert 0.8 * QUICK.debiasing.max_psf_residual < residual <= QUICK.debiasing.max_psf_residual


def test_linear_variance_is_the_squared_error() -> None:
    """If it fails, errors of fluxes on the linear image are wrong."""
    truth = gaussian_stars(SHAPE, STARS, TARGET)
    results = [restore_on_cpu(make_scene(seed=seed), QUICK) for seed in range(4)]
    pulls = np.array([(r.linear_image - truth) / np.sqrt(r.linear_variance) for r in results])
    # Four scenes of some 300 independent pixels: a scatter of 0.02 in the
    # width; the outermost pixels, where the estimate is an extrapolation,
    # are left out.
    inner = pulls[:, 2:-2, 2:-2]
    assert inner.std() == pytest.approx(1.0, abs=0.08)
    assert abs(inner.mean()) < 0.1
    for sigmas, share in ((2.0, 0.9545), (3.0, 0.9973)):
        assert (np.abs(inner) < sigmas).mean() == pytest.approx(share, abs=0.015)
    on_stars = truth > 0.2 * truth.max()
    assert pulls[:, on_stars].std() == pytest.approx(1.0, abs=0.35)
