# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the joint network."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core import RejectionOptions, RestoreOptions, TrainingOptions, load_packaged_model
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.training import JointSample, JointTrainer, collect_joint_samples
from lsst.astroclearnet.tests import make_exposure_stack

OPTIONS = TrainingOptions(num_steps=6, tile_size=64, crop_size=64, num_splits=2, tiles_per_patch=1)
CPU = torch.device("cpu")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples() -> list[JointSample]:
    """Samples of a small patch in three bands."""
    fwhms = (3.8, 4.0, 4.8, 4.4)
    bands = {band: StackSource(make_exposure_stack((66, 80), fwhms, seed=k)) for k, band in enumerate("gri")}
    return collect_joint_samples(
        bands,
        networks=dict.fromkeys(bands, load_packaged_model().network),
        target_fwhm=3.6,
        options=OPTIONS,
        restoration=RestoreOptions(rejection=RejectionOptions(enabled=False)),
        seed=3,
        device=CPU,
    )


def test_each_band_is_predicted(samples: list[JointSample]) -> None:
    """If this fails, the network learns of some bands alone."""
    assert len(samples) == 6
    for sample in samples:
        assert sample.num_bands == 3
        assert 0 < len(sample.held_out) < 4
        assert sample.images.shape == sample.inverse_sigma.shape
        assert sample.bank.estimates.shape[1:] == sample.model.latent_shape
        assert torch.isfinite(sample.bank.features).all()
        assert (sample.bank.largest_weight > 0.0).any()


def test_training_goes_on_where_it_was(samples: list[JointSample]) -> None:
    """If this fails, a training that was stopped ends in another network."""
    penalty_weights = RestoreOptions().network.penalty_weights
    trainers = [JointTrainer(penalty_weights, OPTIONS, seed=5, device=CPU) for _ in range(3)]
    whole, first, second = trainers
    before = whole.evaluate(samples)
    whole.train(samples, 4)
    first.train(samples, 2)
    second.resume(first.state())
    second.train(samples, 2)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    assert whole.evaluate(samples) != before
