# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Debiasing: the linear image gets all residual light, the other the stars."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import DebiasingOptions, fwhm_to_sigma
from lsst.astroclearnet.core.estimate import Debiaser, LinearEstimator, Precision
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_arrays

SHAPE = (72, 90)
FWHMS = (3.0, 3.6, 4.4, 5.2)
TARGET = 3.4
OPTIONS = DebiasingOptions()


def make_model() -> ForwardModel:
    """Return the model of four exposures."""
    psfs = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, psf_size=33).psfs)
    return ForwardModel(psfs[:, None, None], SHAPE, TARGET)


def make_debiaser(weights: torch.Tensor | None = None, **changes: float) -> Debiaser:
    """Return the debiaser of four exposures of unit noise."""
    weights = torch.ones(4, *SHAPE) if weights is None else weights
    return Debiaser(make_model(), weights, dataclasses.replace(OPTIONS, **changes))


def star_images(stars: list[tuple[float, float, float]]) -> torch.Tensor:
    """Return noise-free exposures of stars."""
    return torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=None).images).float()


def flux_of(snr: float) -> float:
    """Return the flux of a star of a signal-to-noise ratio."""
    information = sum(1.0 / (4.0 * math.pi * fwhm_to_sigma(fwhm) ** 2) for fwhm in FWHMS)
    return snr / math.sqrt(information)


def soft_latent(model: ForwardModel, images: torch.Tensor) -> torch.Tensor:
    """Return an image such as a careful network gives: too smooth."""
    estimator = LinearEstimator(model, torch.ones(4, *SHAPE))
    return estimator.solve(estimator.right_side(images), (0.03,))[0]


def debias(
    debiaser: Debiaser, images: torch.Tensor, latent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the debiased and the linear image."""
    right = debiaser.linear.right_side(images)
    return debiaser.debias(right, latent).image, debiaser.linear_image(right, latent)


def test_shares_sum_to_one_in_light_and_vanish_on_sky() -> None:
    """If it fails, light is given back twice, or the noise of blank sky is."""
    debiaser = make_debiaser()
    star = debiaser.model.embed(torch.from_numpy(gaussian_stars(SHAPE, [(36.0, 45.0, 1.0)], TARGET)).float())
    for snr in (3.0, 30.0, 1e4):
        shares = debiaser._shares(star * flux_of(snr))
        assert shares.shape == (len(debiaser.penalty_weights), *debiaser.model.latent_shape)
        assert bool((shares >= 0).all())
        total = debiaser.model.crop(shares.sum(dim=0))
        assert float(total.max()) < 1.0 + 1e-5
        assert float(total[36, 45]) == pytest.approx(1.0)
        assert float(total[5, 5]) == 0.0
    assert float(debiaser.model.crop(shares[0])[36, 45]) > 0.9
    assert not bool(debiaser._shares(-debiaser.star_noise).any())


def test_brighter_is_closed_further() -> None:
    """If it fails, bright stars are broadened more than faint ones."""
    debiaser = make_debiaser()
    star = debiaser.model.embed(torch.from_numpy(gaussian_stars(SHAPE, [(36.0, 45.0, 1.0)], TARGET)).float())
    number = torch.arange(len(debiaser.penalty_weights)).float()

    def shares_of(snr: float) -> torch.Tensor:
        return debiaser.model.crop(debiaser._shares(star * flux_of(snr)))[:, 36, 45]

    means = [float(number @ shares_of(snr)) for snr in (3.0, 30.0, 300.0)]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] - 1.0
    assert float(shares_of(0.02).sum()) == 0.0
    assert 0.0 < float(shares_of(0.2).sum()) < 1.0


def test_penalty_weights() -> None:
    """If it fails, the options of the debiaser do nothing."""
    debiaser = make_debiaser(faint_penalty_weight=0.7, max_psf_residual=2e-3)
    assert debiaser.penalty_weights[-1] == pytest.approx(0.7)
    assert debiaser.linear_penalty_weight == debiaser.linear.penalty_weight_for(2e-3)
    assert all(a < b for a, b in zip(debiaser.penalty_weights, debiaser.penalty_weights[1:], strict=False))
    assert make_debiaser(max_psf_residual=4e-3).linear_penalty_weight > debiaser.linear_penalty_weight


def test_star_noise() -> None:
    """If it fails, the debiaser takes faint stars for bright ones."""
    weights = torch.ones(4, *SHAPE)
    weights[:, :, 45:] = 0.25
    debiaser = make_debiaser(weights)
    peak = gaussian_stars((21, 21), [(10.0, 10.0, flux_of(1.0))], TARGET).max()
    noise = debiaser.model.crop(debiaser.star_noise)
    assert float(noise[30, 20]) == pytest.approx(peak, rel=0.02)
    assert float(noise[30, 70]) == pytest.approx(2.0 * peak, rel=0.02)
    flux_noise = debiaser.model.crop(debiaser.flux_noise)
    assert float(flux_noise[30, 20]) == pytest.approx(flux_of(1.0), rel=0.02)


def test_closing_nothing_is_the_linear_estimate() -> None:
    """If it fails, the linear image is not linear in the exposures."""
    debiaser = make_debiaser()
    images = torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(1))
    _, linear = debias(debiaser, images, torch.zeros(debiaser.model.latent_shape))
    estimator, exact = debiaser.linear, Precision(light=1e-5, noise=1e-4)
    right = estimator.right_side(images)
    direct = estimator.solve(right, (debiaser.linear_penalty_weight,), precision=exact)[0]
    inner = np.s_[10:-10, 10:-10]
    difference = debiaser.model.crop(linear - direct)[inner]
    assert float(difference.std()) < 0.02 * float(debiaser.model.crop(direct)[inner].std())


@pytest.mark.parametrize("snr", [10.0, 1e2, 1e3, 1e4])
def test_linear_image_of_a_star(snr: float) -> None:
    """If it fails, the PSF of the linear image is not the declared one."""
    debiaser = make_debiaser()
    rng = np.random.default_rng(int(snr))
    for y, x in rng.uniform((25.0, 25.0), (47.0, 65.0), size=(3, 2)):
        stars = [(float(y), float(x), flux_of(snr))]
        images = star_images(stars)
        _, linear = debias(debiaser, images, soft_latent(debiaser.model, images))
        truth = gaussian_stars(SHAPE, stars, TARGET)
        residual = debiaser.model.crop(linear).numpy() - truth
        assert np.abs(residual).max() < 5e-3 * truth.max()


@pytest.mark.parametrize("offset", [0.0, 2.5, 5.0])
def test_linear_image_beside_a_mask(offset: float) -> None:
    """If it fails, stars change their shape at chip edges."""
    weights = torch.ones(4, *SHAPE)
    weights[1:3, :, 45:] = 0.0
    debiaser = make_debiaser(weights)
    stars = [(36.3, 44.5 - offset, flux_of(1e3))]
    images = torch.where(weights > 0, star_images(stars), 0.0)
    _, linear = debias(debiaser, images, soft_latent(debiaser.model, star_images(stars)))
    truth = gaussian_stars(SHAPE, stars, TARGET)
    assert np.abs(debiaser.model.crop(linear).numpy() - truth).max() < 0.01 * truth.max()


@pytest.mark.parametrize(("snr", "tolerance"), [(100.0, 0.03), (1e3, 0.005), (1e4, 0.003)])
def test_flux_of_bright_stars_comes_back(snr: float, tolerance: float) -> None:
    """If it fails, the restored image loses the light of bright stars."""
    debiaser = make_debiaser()
    stars = [(36.3, 44.6, flux_of(snr))]
    images = star_images(stars)
    latent = soft_latent(debiaser.model, images)
    closed, _ = debias(debiaser, images, latent)
    truth = gaussian_stars(SHAPE, stars, TARGET)
    template = truth / truth.sum()

    def flux(image: torch.Tensor) -> float:
        return float((debiaser.model.crop(image).numpy() * template).sum() / (template**2).sum())

    assert flux(closed) == pytest.approx(stars[0][2], rel=tolerance)
    assert abs(flux(latent) / stars[0][2] - 1.0) > 0.1


@pytest.mark.parametrize("level", [-0.5, 3.0])
def test_sky_level_is_closed(level: float) -> None:
    """If it fails, an over-subtracted sky leaves a pedestal."""
    debiaser = make_debiaser()
    images = torch.full((4, *SHAPE), level)
    closed, linear = debias(debiaser, images, torch.zeros(debiaser.model.latent_shape))
    for image in (closed, linear):
        left = images - debiaser.model.predict(image)
        assert abs(float(left.mean())) < 0.02 * abs(level)
        # At the very edge, to a twentieth of the noise of a pixel.
        assert float(debiaser.model.crop(image)[:3].mean()) == pytest.approx(level, rel=0.03, abs=0.05)
    assert float(debiaser.model.crop(closed).mean()) == pytest.approx(level, rel=0.02)


def test_blank_sky_is_hardly_closed() -> None:
    """If it fails, the debiaser brings back the noise that was taken out."""
    debiaser = make_debiaser()
    images = torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(2))
    closed, linear = debias(debiaser, images, torch.zeros(debiaser.model.latent_shape))
    noise, full_noise = (float(debiaser.model.crop(image).std()) for image in (closed, linear))
    assert noise < 0.25 * full_noise
    # Of the mean of the exposures little is left.
    assert abs(float((images - debiaser.model.predict(closed)).mean())) < 0.01
