# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the joint network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from lsst.astroclearnet.core import (
    RejectionOptions,
    RestorationError,
    RestoreOptions,
    TrainingOptions,
    load_packaged_model,
)
from lsst.astroclearnet.core.calibration import ExposureCalibration, calibrate_exposures
from lsst.astroclearnet.core.estimate import Estimator
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.forward import TileReader
from lsst.astroclearnet.core.stars import StarList
from lsst.astroclearnet.core.training import JointSample, JointTrainer, _joint, collect_joint_samples
from lsst.astroclearnet.tests import make_exposure_stack

OPTIONS = TrainingOptions(num_steps=6, tile_size=64, crop_size=64, num_splits=2, tiles_per_patch=1)
CPU = torch.device("cpu")
NETWORK = load_packaged_model().network
RESTORATION = RestoreOptions(rejection=RejectionOptions(enabled=False))


def make_bands(sharp: str = "") -> dict[str, StackSource]:
    """Return three bands, of which one may be too sharp for the target PSF."""
    bands = {}
    for k, band in enumerate("gri"):
        fwhms = (1.3, 1.3, 4.8, 4.4) if band == sharp else (3.8, 4.0, 4.8, 4.4)
        bands[band] = StackSource(make_exposure_stack((66, 80), fwhms, seed=k))
    return bands


def collect(bands: Mapping[str, StackSource], options: TrainingOptions = OPTIONS) -> list[JointSample]:
    """Return samples of bands."""
    return collect_joint_samples(
        bands,
        networks=dict.fromkeys(bands, NETWORK),
        target_fwhm=3.6,
        options=options,
        restoration=RESTORATION,
        seed=3,
        device=CPU,
    )


@pytest.fixture(scope="module")
def samples() -> list[JointSample]:
    """Samples of a small patch in three bands."""
    return collect(make_bands())


@pytest.mark.slow
def test_each_band_is_predicted(samples: list[JointSample]) -> None:
    """If this fails, the network learns of some bands alone."""
    assert len(samples) == 6
    for sample in samples:
        assert sample.bands == ("g", "r", "i")
        assert 0 < len(sample.held_out) < 4
        assert sample.images.shape == sample.inverse_sigma.shape
        assert sample.bank.estimates.shape[1:] == sample.model.latent_shape
        assert torch.isfinite(sample.bank.features).all()
        assert (sample.bank.largest_weight > 0.0).any()


@pytest.mark.slow
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


ONCE = dataclasses.replace(OPTIONS, num_splits=1)


def not_calibrated(reader: TileReader, options: RestoreOptions) -> ExposureCalibration:
    """Return the calibration that changes nothing."""
    return ExposureCalibration.unknown(reader.source.num_exposures, options)


def test_tile_of_a_band_that_is_refused_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, one sharp exposure costs the samples of a patch."""
    monkeypatch.setattr(_joint, "calibrate_exposures", not_calibrated)
    samples = collect(make_bands(sharp="i"), ONCE)
    assert samples
    assert {sample.bands for sample in samples} == {("g", "r")}
    assert "The tile of band i of rows" in caplog.text
    assert "target_fwhm=3.60 pixels is more than" in caplog.text


def test_band_that_cannot_be_calibrated_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If this fails, one band costs the samples of the others."""
    bands = make_bands(sharp="i")

    def calibrate(reader: TileReader, options: RestoreOptions) -> ExposureCalibration:
        is_sharp = reader.source is bands["i"]
        return (calibrate_exposures if is_sharp else not_calibrated)(reader, options)

    monkeypatch.setattr(_joint, "calibrate_exposures", calibrate)
    assert {sample.bands for sample in collect(bands, ONCE)} == {("g", "r")}
    assert "Band i is left out: target_fwhm=3.60 pixels is more than" in caplog.text
    words = "Fewer than two bands can be calibrated. i: target_fwhm=3.60"
    with pytest.raises(RestorationError, match=words):
        collect({band: bands[band] for band in "gi"}, ONCE)


def test_debiasing_knows_the_stars_that_were_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the network learns from other images than it restores."""
    place, flux = torch.tensor([[30.0, 40.0]]).double(), torch.tensor([5e4]).double()
    star = StarList.fitted_together(place, flux, torch.eye(3).double(), chi_square=1.0, misfit=0.0)

    def calibrate(reader: TileReader, options: RestoreOptions) -> ExposureCalibration:
        return dataclasses.replace(not_calibrated(reader, options), stars=star)

    drawn: list[torch.Tensor] = []

    def record(*arguments: Any) -> Estimator:
        *_, image = arguments
        assert image.shape == arguments[1].latent_shape
        drawn.append(image)
        return Estimator(*arguments)

    monkeypatch.setattr(_joint, "calibrate_exposures", calibrate)
    monkeypatch.setattr(_joint, "Estimator", record)
    bands = make_bands()
    assert collect({band: bands[band] for band in "gr"}, ONCE)
    # Each band with all exposures, and with some of them.
    assert len(drawn) == 4
    for image in drawn:
        assert float(image.sum()) == pytest.approx(5e4, rel=0.02)
