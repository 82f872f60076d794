# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Guided estimates, the joint network, and the file of a trained one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, InputError, JointModel, RestoreOptions, load_packaged_model
from lsst.astroclearnet.core.estimate import BandImage, Estimator
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.joint import (
    GuidedBank,
    JointNetwork,
    load_packaged_joint_model,
    make_guide,
)
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_arrays

SHAPE = (72, 84)
FWHMS = (3.2, 4.0, 4.8, 3.6)
TARGET = 3.6
STARS = ((22.3, 27.6, 60.0), (47.8, 58.1, 90.0))


def observe(ratio: float, seed: int | None, psf_size: int = 25, sign: float = 1.0) -> BandImage:
    """Return a band of two stars of some brightness, restored on its own."""
    stars = [(y, x, ratio * flux) for y, x, flux in STARS]
    images, *rest = make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=seed, psf_size=psf_size)
    stack = ExposureStack.from_arrays(sign * images, *rest)
    model = ForwardModel.from_stack(stack, TARGET)
    network = load_packaged_model().network
    estimator = Estimator(network, model, stack.good / stack.variances, RestoreOptions())
    with torch.no_grad():
        return estimator.restore(stack.images)


@torch.no_grad()
def true_guide(band: BandImage) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a guide that knows where the stars are."""
    model = band.estimator.model
    truth = torch.from_numpy(gaussian_stars(SHAPE, STARS, TARGET)).float()
    guide = model.embed(truth) / band.estimator.debiaser.star_noise
    return guide, torch.ones_like(guide)


@torch.no_grad()
@pytest.mark.parametrize("ratio", [0.0, 0.4, 3.0])
def test_brightness_is_that_of_the_band(ratio: float) -> None:
    """If it fails, light leaks from other bands, or is taken away."""
    band = observe(ratio, None)
    bank = GuidedBank.build(band, *true_guide(band))
    truth = ratio * torch.from_numpy(gaussian_stars(SHAPE, STARS, TARGET)).float()
    peak = float(gaussian_stars(SHAPE, STARS, TARGET).max())
    for guided in bank.estimates[2:3]:
        error = band.estimator.model.crop(guided) - truth
        assert float(error.abs().max()) < 0.02 * max(ratio, 0.01) * peak


@torch.no_grad()
def test_brightness_is_unbiased_and_its_error_known() -> None:
    """If it fails, the amplitude of forced photometry is not its maximum
    likelihood, or the network sees the wrong significance.
    """
    amplitudes, significances = [], []
    for seed in range(24):
        band = observe(0.0, seed)
        bank = GuidedBank.build(band, *true_guide(band))
        margin = band.estimator.model.grid.margin
        for y, x, _ in STARS:
            place = round(y) + margin, round(x) + margin
            noise = band.estimator.debiaser.star_noise[place]
            amplitudes.append(float(bank.estimates[2][place] / noise))
            significances.append(float(bank.features[2][place].sinh()))
    errors = torch.tensor(amplitudes)
    # The Cramer-Rao bound is 1 by the unit.
    assert float(errors.std()) == pytest.approx(1.0, abs=0.3)
    assert abs(float(errors.mean())) < 3.0 / len(errors) ** 0.5
    assert float(torch.tensor(significances).square().mean().sqrt()) == pytest.approx(1.0, abs=0.35)


@torch.no_grad()
def test_noise_of_either_sign_gets_the_same_weights() -> None:
    """If it fails, the mean of other bands' light in a blank band is not
    zero.
    """
    band, mirrored = observe(0.0, 4), observe(0.0, 4, sign=-1.0)
    guide = true_guide(band)
    first, second = GuidedBank.build(band, *guide), GuidedBank.build(mirrored, *guide)
    torch.testing.assert_close(first.features, second.features, rtol=1e-3, atol=1e-3)
    # Each estimate but the image of the network changes its sign.
    torch.testing.assert_close(first.estimates[2:], -second.estimates[2:], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_guide_of_zeros_has_no_structure() -> None:
    """If it fails, the noise of a quiet guide becomes light."""
    band = observe(1.0, 5)
    nothing = torch.zeros_like(band.restored)
    bank = GuidedBank.build(band, nothing, torch.ones_like(nothing))
    # Neither structure nor a significance of it.
    assert not bank.features[:3].any()
    assert float(bank.estimates[2].abs().max()) < float(band.restored.abs().max())
    assert torch.isfinite(bank.features).all()


@torch.no_grad()
def test_guide_adds_signal_to_noise_ratios() -> None:
    """If it fails, a guide depends on units, or is shifted."""
    one = observe(1.0, 6)
    other = observe(1.0, 7, psf_size=31)
    guide, presence = make_guide(one, [one, one])
    crop = one.estimator.model.crop
    torch.testing.assert_close(crop(guide), 2.0**0.5 * crop(one.significance))
    assert float(presence.max()) == 2.0
    # On a grid with another margin the patch is where it was.
    guide, _ = make_guide(one, [other])
    expected = other.estimator.model.crop(other.significance)
    torch.testing.assert_close(crop(guide), expected)
    guide, presence = make_guide(one, [])
    assert not guide.any()
    assert not presence.any()


@torch.no_grad()
def test_weights_are_positive_with_sum_one() -> None:
    """If it fails, flux is not conserved."""
    band = observe(1.0, 8)
    guide, presence = true_guide(band)
    presence[:, :40] = 0.0
    bank = GuidedBank.build(band, guide, presence)
    network = JointNetwork(len(band.estimator.network.penalty_weights))
    network.initialize(make_generator(1))
    weights = network.mixture(bank)
    assert float(weights.min()) >= 0.0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones_like(guide))
    image = network(bank)
    assert torch.equal(image[:, :40], band.restored[:, :40])
    assert not torch.equal(image[:, 40:], band.restored[:, 40:])
    # Without training the image is nearly the band's own.
    assert float(weights[0, :, 40:].median()) > 0.6


@torch.no_grad()
def test_bright_light_is_the_bands_own() -> None:
    """If it fails, fluxes of bright sources depend on other bands."""
    band = observe(40.0, 9)
    bank = GuidedBank.build(band, *true_guide(band))
    margin = band.estimator.model.grid.margin
    for y, x, _ in STARS:
        assert float(bank.shared[round(y) + margin, round(x) + margin]) < 1e-3


def test_file_of_a_model_is_read_back() -> None:
    """If it fails, a trained network is lost, or taken for another."""
    model = load_packaged_joint_model()
    again = JointModel.from_bytes(model.to_bytes())
    assert again.identity == model.identity
    assert (again.bases, again.num_bands) == (model.bases, model.num_bands)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    assert model.bases == (load_packaged_model().identity,)
    other = dataclasses.replace(model, bases=("other", "another"))
    assert JointModel.from_bytes(other.to_bytes()).bases == other.bases
    assert other.identity != model.identity


def test_other_files_are_refused() -> None:
    """If it fails, a file of another kind ends in a traceback."""
    with pytest.raises(InputError, match="my file is no file of a trained joint network"):
        JointModel.from_bytes(load_packaged_model().to_bytes(), "my file")
    old = load_packaged_joint_model().to_bytes().replace(b'\\"schema\\": 1', b'\\"schema\\": 0')
    with pytest.raises(InputError, match="schema 0, and this version reads 1"):
        JointModel.from_bytes(old)


def test_departures_are_named() -> None:
    """If it fails, a network is used where nobody trained it."""
    model = load_packaged_joint_model()
    assert model.find_departure([*model.bases] * model.num_bands[1]) == ""
    assert "7 bands" in model.find_departure([*model.bases] * 7)
    assert "trained with" in model.find_departure([*model.bases, "fit"])
