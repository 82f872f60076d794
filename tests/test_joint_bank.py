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
import functools

import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, InputError, JointModel, RestoreOptions, load_packaged_model
from lsst.astroclearnet.core.estimate import SMOOTHED_FWHMS, BandImage, Estimator
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


def observe(ratio: float, seed: int | None, psf_size: int = 25, columns: int | None = None) -> BandImage:
    """Return a band of two stars of some brightness, restored on its own, with
    data in some columns.
    """
    stars = [(y, x, ratio * flux) for y, x, flux in STARS]
    images, *rest = make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=seed, psf_size=psf_size)
    stack = ExposureStack.from_arrays(images, *rest)
    if columns is not None:
        stack.good[..., columns:] = False
    model = ForwardModel.from_stack(stack, TARGET)
    network = load_packaged_model().network
    estimator = Estimator(network, model, stack.good / stack.variances, RestoreOptions())
    with torch.no_grad():
        return estimator.restore(stack.images)


SIZE = len(SMOOTHED_FWHMS) + len(load_packaged_model().network.penalty_weights)


@functools.cache
def band_of(ratio: float, seed: int | None) -> BandImage:
    """Return a band, which several tests look at."""
    return observe(ratio, seed)


def at_stars(band: BandImage, image: torch.Tensor) -> torch.Tensor:
    """Return the values of an image at the stars."""
    margin = band.estimator.model.grid.margin
    return torch.stack([image[round(y) + margin, round(x) + margin] for y, x, _ in STARS])


@torch.no_grad()
def test_guide_has_the_colour_of_the_band() -> None:
    """If it fails, light of other bands is added in their unit, or moved."""
    band, other = observe(1.0, 6), observe(2.0, 7, psf_size=31)
    guide = make_guide(band, [other])
    # Few sources, of a ratio of about 20, tell the colour beside the prior.
    ratio = at_stars(band, guide.restored) / at_stars(band, band.restored)
    assert ((ratio > 0.8) & (ratio < 2.0)).all()
    crop, own = band.estimator.model.crop, other.estimator.model.crop
    scale = guide.restored.max() / other.restored.max()
    torch.testing.assert_close(crop(guide.restored), scale * own(other.restored), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        crop(guide.estimates[0]), scale * own(other.estimates[0]), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        crop(guide.noise), scale * own(other.estimator.debiaser.star_noise), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_colour_is_that_of_sources_which_both_bands_have() -> None:
    """If it fails, a saturated star of the band, a trail of the other, or
    missing data decide how bright faint light is.
    """
    band, other = band_of(1.0, None), band_of(1.3, None)
    expected = float(make_guide(band, [other]).restored.max())
    star = torch.zeros_like(band.restored)
    star[-30:-26, -30:-26] = 1.0
    noise = band.estimator.debiaser.star_noise
    brighter = dataclasses.replace(band, restored=band.restored + 3000.0 * noise * star)
    guide = make_guide(brighter, [dataclasses.replace(other, restored=other.restored + 30.0 * noise * star)])
    assert float((guide.restored * (star == 0.0)).max()) == pytest.approx(expected, rel=0.02)
    trail = torch.zeros_like(star)
    trail[-22:-20] = 25.0 * noise[-22:-20]
    guide = make_guide(band, [dataclasses.replace(other, restored=other.restored + trail)])
    assert float(at_stars(band, guide.restored).max()) == pytest.approx(expected, rel=0.1)


@torch.no_grad()
def test_colour_is_that_of_covered_pixels() -> None:
    """If it fails, fluxes of a band that covers a part of the tile are wrong
    by the noise of what it does not cover.
    """
    band = band_of(1.0, None)
    whole = make_guide(band, [observe(1.3, None)])
    part = make_guide(band, [observe(1.3, None, columns=40)])
    # The star in the part that is left; it tells the colour, too.
    ratio = at_stars(band, part.restored)[0] / at_stars(band, whole.restored)[0]
    assert float(ratio) == pytest.approx(1.0, abs=0.2)


@torch.no_grad()
def test_equal_bands_average_their_noise() -> None:
    """If it fails, the network sees another noise than the guide has."""
    band, other = band_of(1.0, 6), band_of(1.0, 7)
    one, two = make_guide(band, [other]), make_guide(band, [other, other])
    torch.testing.assert_close(two.noise * 2.0**0.5, one.noise)
    torch.testing.assert_close(two.restored, one.restored)
    assert float(band.estimator.model.crop(one.agreement).min()) > 0.5


@torch.no_grad()
@pytest.mark.parametrize("ratio", [20.0, 100.0])
def test_light_of_a_single_band_is_left_out(ratio: float) -> None:
    """If it fails, artefacts, transients and stars leak into other bands."""
    # Without noise, which is averaged otherwise where a band is left out.
    band, first, second = (band_of(brightness, None) for brightness in (1.0, 1.1, 0.9))
    noise = band.estimator.debiaser.star_noise
    star = torch.from_numpy(gaussian_stars(SHAPE, [(12.0, 70.0, 1.0)], TARGET)).float()
    star = first.estimator.model.embed(star / star.max())
    light = star * ratio * first.estimator.debiaser.star_noise
    spoiled = dataclasses.replace(
        first,
        restored=first.restored + light,
        mixed=first.mixed + light,
        estimates=first.estimates + light,
    )
    for before, after in (([first], [spoiled]), ([first, second], [spoiled, second])):
        images = []
        for others in (before, after):
            guide = make_guide(band, others)
            images.append(GuidedBank.build(band, guide).largest_weight * guide.restored / noise)
        leak = ((images[1] - images[0]) * star).sum() / star.square().sum()
        assert abs(float(leak)) < 0.05


@torch.no_grad()
def test_bands_of_another_field_do_not_help() -> None:
    """If it fails, images depend on bands of another sky."""
    band, other = band_of(1.0, 6), band_of(1.0, 7)
    assert float(make_guide(band, [other]).shared) == 1.0
    stranger = dataclasses.replace(
        other,
        estimates=other.estimates.roll(20, -1),
        mixed=other.mixed.roll(20, -1),
        restored=other.restored.roll(20, -1),
    )
    guide = make_guide(band, [stranger])
    assert float(guide.shared) == 0.0
    network = JointNetwork(SIZE - len(SMOOTHED_FWHMS))
    network.initialize(make_generator(1))
    assert torch.equal(network(GuidedBank.build(band, guide)), band.restored)


@torch.no_grad()
def test_weights_are_positive_with_sum_one() -> None:
    """If it fails, flux is not conserved."""
    band, guide = band_of(1.0, 6), make_guide(band_of(1.0, 6), [band_of(1.0, 7)])
    guide.agreement[:, :40] = 0.0
    bank = GuidedBank.build(band, guide)
    assert len(bank.estimates) == 2 * SIZE + 2
    network = JointNetwork(SIZE - len(SMOOTHED_FWHMS))
    network.initialize(make_generator(1))
    weights = network.mixture(bank)
    assert float(weights.min()) >= 0.0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones_like(guide.noise))
    image = network(bank)
    assert torch.equal(image[:, :40], band.restored[:, :40])
    assert not torch.equal(image[:, 40:], band.restored[:, 40:])
    # Without training the image is nearly the band's own.
    assert float(weights[0, :, 40:].median()) > 0.5


@torch.no_grad()
def test_source_of_an_odd_colour_is_the_bands_own() -> None:
    """If it fails, emission lines and dropouts get the colour of others."""
    # Without noise; other sources show that the field is the same.
    band = band_of(1.0, None)
    noise = band.estimator.debiaser.star_noise
    star = torch.from_numpy(gaussian_stars(SHAPE, [(12.0, 70.0, 1.0)], TARGET)).float()
    light = 15.0 * noise * band.estimator.model.embed(star / star.max())
    brighter = dataclasses.replace(
        band, restored=band.restored + light, mixed=band.mixed + light, estimates=band.estimates + light
    )
    place = [int(n) for n in (light == light.max()).nonzero()[0]]
    alike = GuidedBank.build(band, make_guide(band, [band, band])).largest_weight[*place]
    alone = GuidedBank.build(brighter, make_guide(brighter, [band, band])).largest_weight[*place]
    missing = GuidedBank.build(band, make_guide(band, [brighter, brighter])).largest_weight[*place]
    assert float(alike) > 0.9
    assert max(float(alone), float(missing)) < 0.03


@torch.no_grad()
@pytest.mark.parametrize(("own", "others"), [(40.0, 1.0), (0.2, 40.0)])
def test_bright_light_is_the_bands_own(own: float, others: float) -> None:
    """If it fails, fluxes of bright sources depend on other bands, or those
    of other bands appear in a band that does not have them.
    """
    band = band_of(own, 9)
    guide = make_guide(band, [band_of(others, 10), band_of(others, 11)])
    assert float(at_stars(band, GuidedBank.build(band, guide).largest_weight).max()) < 1e-3


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
    old = load_packaged_joint_model().to_bytes().replace(b'\\"schema\\": 2', b'\\"schema\\": 0')
    with pytest.raises(InputError, match="schema 0, and this version reads 2"):
        JointModel.from_bytes(old)


def test_departures_are_named() -> None:
    """If it fails, a network is used where nobody trained it."""
    model = load_packaged_joint_model()
    assert model.find_departure([*model.bases] * model.num_bands[1]) == ""
    assert "7 bands" in model.find_departure([*model.bases] * 7)
    assert "trained with" in model.find_departure([*model.bases, "fit"])
