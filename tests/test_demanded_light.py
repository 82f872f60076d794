# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How much of the restored light the exposures demand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, MaskBit, RestoreOptions
from lsst.astroclearnet.core.estimate import Estimate, Estimator, Network
from lsst.astroclearnet.core.estimate._debias import Debiased
from lsst.astroclearnet.core.forward import ForwardModel, weight_maps
from lsst.astroclearnet.core.noise import DemandedLight, measure_demanded_light
from lsst.astroclearnet.tests import (
    QUICK,
    SHAPE,
    STARS,
    TARGET,
    ExposureArrays,
    gaussian_stars,
    make_scene,
    restore_on_cpu,
)

PLACE = (33.0, 44.0)
"""Row and column of a source far from the stars of the scene."""


class Doctored:
    """Exposures with a restored image that is made up.

    Parameters
    ----------
    arrays
        The exposures.
    """

    def __init__(self, arrays: ExposureArrays) -> None:
        self.stack = ExposureStack.from_arrays(*arrays)
        self.model = ForwardModel.from_stack(self.stack, TARGET)
        self.weights = self.stack.good / self.stack.variances
        # It only has to be there.
        network = cast("Network", SimpleNamespace())
        self.estimator = Estimator(network, self.model, self.weights, RestoreOptions())
        self.flux_noise = float(self.model.crop(self.estimator.debiaser.flux_noise)[33, 44])

    def measure(self, image: np.ndarray, images: np.ndarray | None = None, **changes: Any) -> DemandedLight:
        """Return what exposures demand of an image, (H, W)."""
        restored = self.model.embed(torch.from_numpy(image).float())
        seen = self.stack.images if images is None else torch.from_numpy(images).float()
        right = self.estimator.linear.right_side(seen)
        debiased = Debiased(restored, restored, restored[None], right)
        estimate = Estimate(debiased=debiased, linear=restored, estimates=restored[None])
        arguments: dict[str, Any] = {
            "noise": torch.zeros(1, *self.model.latent_shape),
            "maps": weight_maps(self.model, self.weights),
            "psf_variance": torch.zeros(SHAPE),
        }
        return measure_demanded_light(self.estimator, estimate, **(arguments | changes))


def star(flux: float, fwhm: float = TARGET, place: tuple[float, float] = PLACE) -> np.ndarray:
    """Return a star at the target PSF."""
    return gaussian_stars(SHAPE, [(*place, flux)], fwhm)


@pytest.fixture(scope="module")
def blank() -> Doctored:
    """Exposures without noise or light."""
    return Doctored(make_scene(stars=(), seed=None))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 1.5])
@pytest.mark.parametrize("width", [1.0, 2.0, 5.0])
def test_share_is_that_of_the_exposures(blank: Doctored, share: float, width: float) -> None:
    """If it fails, the map does not say what its name says."""
    flux = 60.0 * width * blank.flux_noise
    image = star(flux, width * TARGET)
    images = blank.model.predict(blank.model.embed(torch.from_numpy(share * image).float())).numpy()
    found = blank.measure(image, images)
    # In its outskirts it does not stand out as one blob.
    here = image > 0.6 * image.max()
    np.testing.assert_allclose(found.share[here], share, atol=0.01)
    assert bool(found.supplied[33, 44]) == (share == 0.0 or (share < 0.5 and width < 5.0))
    assert not found.withheld.any()


def test_errors_of_shares() -> None:
    """If it fails, a user quotes an error that is wrong."""
    shares, sigmas = [], []
    image = star(0.0)
    for y in (11, 33, 55):
        for x in (12, 34, 56):
            image += star(10.0, place=(y, x))
    for seed in range(20):
        doctored = Doctored(make_scene(stars=(), seed=seed))
        light = doctored.model.embed(torch.from_numpy(image * doctored.flux_noise).float())
        images = doctored.stack.images + doctored.model.predict(light)
        found = doctored.measure(image * doctored.flux_noise, images.numpy())
        shares.append(found.share[11:56:22, 12:57:22].numpy())
        sigmas.append(found.sigma[11:56:22, 12:57:22].numpy())
    pulls = (np.array(shares) - 1.0) / np.array(sigmas)
    # 180 stars: the standard deviation has an error of 0.05.
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(pulls)) < 0.25
    # A tenth for S/N 10, and a little more for the surroundings.
    assert 0.1 < np.mean(sigmas) < 0.125


@pytest.mark.parametrize("seed", range(3))
def test_invented_and_withheld_sources(seed: int) -> None:
    """If it fails, the network can add to the sky, or take from it, unseen."""
    doctored = Doctored(make_scene(stars=(), seed=seed))
    image = star(10.0 * doctored.flux_noise)
    near = np.hypot(*(np.indices(SHAPE) - np.array(PLACE)[:, None, None])) < 2.0 * TARGET
    invented = doctored.measure(image)
    assert invented.supplied[33, 44]
    assert not (invented.supplied.numpy() & ~near).any()
    assert not invented.withheld.any()
    images = doctored.model.predict(doctored.model.embed(torch.from_numpy(image).float()))
    withheld = doctored.measure(np.zeros(SHAPE), (doctored.stack.images + images).numpy())
    assert withheld.withheld[33, 44]
    assert not (withheld.withheld.numpy() & ~near).any()
    assert not withheld.supplied.any()
    assert withheld.share.isnan().all()


def test_noise_is_neither_supplied_nor_withheld() -> None:
    """If it fails, the mask is full of false alarms."""
    flagged = 0
    for seed in range(10):
        found = Doctored(make_scene(stars=(), seed=seed)).measure(np.zeros(SHAPE))
        flagged += int((found.supplied | found.withheld).sum())
        assert found.share.isnan().all()
    assert flagged == 0


def test_knot_on_bright_light(blank: Doctored) -> None:
    """If it fails, what is invented on a galaxy hides in its light."""
    galaxy = star(2000.0 * blank.flux_noise, 6.0 * TARGET, (30.0, 40.0))
    knot = star(12.0 * blank.flux_noise, place=(36.0, 46.0))
    images = blank.model.predict(blank.model.embed(torch.from_numpy(galaxy).float())).numpy()
    found = blank.measure(galaxy + knot, images)
    assert found.supplied[36, 46]
    assert not found.supplied[30, 40]
    assert found.share[30, 40] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_beside_a_bright_star(factor: float) -> None:
    """If it fails, rings and moats of bright stars are not shown."""
    doctored = Doctored(make_scene(stars=(), seed=1))
    bright = star(3000.0 * doctored.flux_noise, place=(33.0, 31.0))
    images = doctored.model.predict(doctored.model.embed(torch.from_numpy(bright).float()))
    found = doctored.measure(
        bright + star(factor * 12.0 * doctored.flux_noise), (doctored.stack.images + images).numpy()
    )
    assert bool(found.supplied[33, 44]) == (factor > 0)
    assert bool(found.withheld[33, 44]) == (factor < 0)
    assert found.share[33, 31] == pytest.approx(1.0, abs=0.01)


def test_light_in_a_hole_is_supplied() -> None:
    """If it fails, what fills a hole passes for observed."""
    arrays = make_scene(stars=(), seed=None)
    arrays.good[:, 23:44, 34:55] = False
    doctored = Doctored(arrays)
    found = doctored.measure(star(30.0 * doctored.flux_noise))
    assert found.supplied[33, 44]
    assert found.share[33, 44] == 0.0
    assert found.sigma[33, 44].isnan()
    # Not on larger scales either, which reach beyond the hole.
    assert found.share.nan_to_num().max() < 0.01


def test_star_that_is_put_back_is_demanded() -> None:
    """If it fails, the masked core of a star passes for invented, or hides
    what is invented beside it.
    """
    arrays = make_scene(stars=(), seed=None)
    arrays.good[:, 28:39, 39:50] = False
    doctored = Doctored(arrays)
    noise = doctored.flux_noise
    put_back = torch.from_numpy(star(3000.0 * noise)).float()
    stars = torch.stack([doctored.model.embed(one) for one in (put_back, 0.02 * put_back)])
    # What the network paints into the core, and a source that it invents.
    rest = star(30.0 * noise) + star(12.0 * noise, place=(33.0, 60.0))
    found = doctored.measure(rest, stars=stars)
    core = put_back.numpy() > 0.1 * put_back.numpy().max()
    assert not (found.supplied.numpy() & core).any()
    np.testing.assert_allclose(found.share[core], 1.0, atol=0.02)
    assert float(found.sigma[33, 44]) == pytest.approx(0.02, rel=0.05)
    assert found.supplied[33, 60]
    assert not found.withheld.any()


def test_single_exposure() -> None:
    arrays = ExposureArrays(*(a[:1] for a in make_scene(stars=(), seed=3)))
    doctored = Doctored(arrays)
    assert doctored.measure(star(10.0 * doctored.flux_noise)).supplied[33, 44]


def test_order_and_unit_do_not_matter() -> None:
    """If it fails, the same data say two things."""
    arrays = make_scene(seed=4)
    image = gaussian_stars(SHAPE, STARS, TARGET) + star(40.0)
    expected = Doctored(arrays).measure(image)
    reordered = Doctored(ExposureArrays(*(a[::-1].copy() for a in arrays))).measure(image)
    unit = 1e-3
    scaled = arrays._replace(images=unit * arrays.images, variances=unit**2 * arrays.variances)
    for other in (reordered, Doctored(scaled).measure(unit * image)):
        np.testing.assert_allclose(other.share, expected.share, atol=1e-3)
        np.testing.assert_allclose(other.sigma, expected.sigma, atol=1e-3)


def test_correlated_noise_and_psf_errors_count() -> None:
    """If it fails, shares look more certain than they are."""
    doctored = Doctored(make_scene(stars=(), seed=None))
    image = star(20.0 * doctored.flux_noise)
    plain = float(doctored.measure(image).sigma[33, 44])
    draw = np.random.default_rng(1).normal(size=doctored.stack.images.shape)
    noise = torch.from_numpy(2.0 * draw).float() * doctored.stack.variances.sqrt()
    louder = doctored.measure(image, noise=doctored.estimator.linear.right_side(noise)[None])
    assert float(louder.sigma[33, 44]) == pytest.approx(2.0 * plain, rel=0.1)
    # An error of 20 % of the star.
    of_psfs = torch.from_numpy(0.2 * image).float() ** 2
    expected = float(np.hypot(plain, 0.2))
    found = doctored.measure(image, psf_variance=of_psfs)
    assert float(found.sigma[33, 44]) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_restoration_is_checked(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the check does not reach the result."""
    # A star that the network adds, or takes away from what the exposures have.
    light = star(factor * 60.0)
    stars = STARS if factor > 0 else (*STARS, (*PLACE, 60.0))
    plain = Estimator.estimate

    def estimate(self: Estimator, images: torch.Tensor) -> Estimate:
        found = plain(self, images)
        debiased = found.debiased
        changed = debiased.image + self.model.embed(torch.from_numpy(light).float())
        return dataclasses.replace(found, debiased=dataclasses.replace(debiased, image=changed))

    arrays = make_scene(stars=stars, seed=6)
    arrays.good[:, :, :16] = False
    honest = restore_on_cpu(arrays, QUICK)
    bits = np.uint8(MaskBit.SUPPLIED | MaskBit.WITHHELD)
    assert not (honest.mask & bits).any()
    for y, x, _ in STARS:
        share = float(honest.demanded_share[round(y), round(x)])
        assert share == pytest.approx(1.0, abs=0.2)
    no_data = (honest.mask & MaskBit.NO_DATA) > 0
    assert no_data.any()
    assert np.isnan(honest.demanded_share[no_data]).all()
    monkeypatch.setattr(Estimator, "estimate", estimate)
    doctored = restore_on_cpu(arrays, QUICK)
    expected = MaskBit.SUPPLIED if factor > 0 else MaskBit.WITHHELD
    assert doctored.mask[33, 44] & bits == expected
