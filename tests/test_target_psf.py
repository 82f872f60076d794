# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Prediction of the noise of a target PSF, and its choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    DebiasingOptions,
    InputError,
    fwhm_to_sigma,
    gaussian_kernel,
    gaussian_pair_limit,
    kernel_fwhm,
    linear_noise,
    linear_psf_residual,
    psf_fit_scatter,
    suggest_target_fwhm,
)
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel

FWHMS = (3.4, 4.2, 5.0)
LEVELS = np.array([1.0, 2.0, 0.5])
PSFS = np.stack([gaussian_kernel(fwhm, 25) for fwhm in FWHMS])


def restored_noise(target: float) -> torch.Tensor:
    """Return 40 draws of the noise of the linear image."""
    shape = (70, 86)
    model = ForwardModel(torch.from_numpy(PSFS)[:, None, None], shape, target)
    levels = torch.from_numpy(LEVELS).float()[:, None, None]
    estimator = LinearEstimator(model, (1.0 / levels).expand(3, *shape))
    penalty_weight = estimator.penalty_weight_for(DebiasingOptions().max_psf_residual)
    generator = torch.Generator().manual_seed(4)
    draws = []
    for _ in range(40):
        right = estimator.right_side(torch.randn((3, *shape), generator=generator) * levels.sqrt())
        draws.append(model.crop(estimator.solve(right, (penalty_weight,))[0])[14:-14, 14:-14])
    return torch.stack(draws)


@pytest.mark.parametrize(("target", "tolerance"), [(2.9, 0.03), (3.3, 0.03), (4.0, 0.08)])
def test_predicted_noise_is_that_of_the_estimator(target: float, tolerance: float) -> None:
    """If it fails, the chosen target PSF is noisier than promised, or fluxes
    measured on it are.
    """
    draws = restored_noise(target)
    coadd = np.sqrt(1.0 / np.sum(1.0 / LEVELS))
    assert linear_noise(PSFS, LEVELS, target) == pytest.approx(float(draws.std()) / coadd, rel=tolerance)
    profile = torch.from_numpy(gaussian_kernel(target, 15)).to(draws.dtype)
    fluxes = torch.nn.functional.conv2d(draws[:, None], profile[None, None]) / (profile**2).sum()
    bound = np.sqrt(1.0 / np.sum(np.sum(PSFS**2, axis=(1, 2)) / LEVELS))
    # The fluxes of 40 x 28 x 44 overlapping apertures are some 2000
    # independent ones.
    assert psf_fit_scatter(PSFS, LEVELS, target) == pytest.approx(float(fluxes.std()) / bound, rel=0.07)


@pytest.mark.parametrize("target", [3.5, 4.0, 5.0])
def test_fit_scatter_of_equal_gaussians(target: float) -> None:
    """If it fails, the depth that a target loses is wrong."""
    psfs = np.stack([gaussian_kernel(4.0, 25)] * 3)
    t, s = fwhm_to_sigma(target), fwhm_to_sigma(4.0)
    expected = t**2 / (s * math.sqrt(2.0 * t**2 - s**2))
    assert psf_fit_scatter(psfs, LEVELS, target) == pytest.approx(expected, rel=2e-3)
    assert psf_fit_scatter(psfs, 1e6 * LEVELS, target) == pytest.approx(expected, rel=2e-3)


def test_no_fit_beats_the_bound() -> None:
    """If it fails, a target seems to give more depth than there is."""
    assert all(psf_fit_scatter(PSFS, LEVELS, fwhm) >= 1.0 for fwhm in np.arange(2.0, 7.0, 0.25))


def test_odd_sizes_do_not_matter() -> None:
    """If it fails, large PSF stamps give another noise than small ones."""
    large = np.pad(PSFS, [(0, 0), (40, 40), (40, 40)])
    assert linear_noise(large, LEVELS, 3.3) == pytest.approx(linear_noise(PSFS, LEVELS, 3.3), rel=1e-3)
    assert psf_fit_scatter(large, LEVELS, 3.3) == pytest.approx(psf_fit_scatter(PSFS, LEVELS, 3.3), rel=1e-3)


def test_pair_limit_is_where_the_dip_vanishes() -> None:
    """If it fails, pairs are promised to split that do not."""
    limit, sigma = gaussian_pair_limit(3.0), fwhm_to_sigma(3.0)

    def dip(separation: float) -> float:
        sides = np.exp(-0.5 * ((np.array([0.01, 0.0, -0.01]) - separation / 2.0) / sigma) ** 2)
        pair = sides + sides[::-1]
        return float(pair[0] - pair[1])

    assert dip(1.01 * limit) > 0.0 > dip(0.99 * limit)
    assert limit == pytest.approx(0.849 * 3.0, rel=1e-3)


def test_noise_at_the_common_psf_is_that_of_the_coadd() -> None:
    """If it fails, a target equal to the seeing is thought to cost noise."""
    psfs = np.stack([gaussian_kernel(4.0, 25)] * 3)
    # With t^2 = exp(-u) for u = (2 pi sigma k)^2 integrals over the plane are
    # in closed form: a star loses 1.57 sqrt(s) of its peak, and the spectrum
    # of the noise is (t^2 / (t^2 + s))^2.
    sigma, penalty_weight = fwhm_to_sigma(4.0), (DebiasingOptions().max_psf_residual / (0.5 * math.pi)) ** 2
    expected = (math.log(1.0 / penalty_weight) - 1.0) / (4.0 * math.pi * sigma**2)
    assert linear_noise(psfs, LEVELS, 4.0) == pytest.approx(math.sqrt(expected), rel=0.02)


def test_wider_is_quieter() -> None:
    """If it fails, the search for a target goes astray."""
    noise = [linear_noise(PSFS, LEVELS, fwhm) for fwhm in (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)]
    assert all(b < a for a, b in zip(noise, noise[1:], strict=False))


def test_depth_cancels() -> None:
    """If it fails, the target depends on the unit of the images."""
    assert linear_noise(PSFS, 1e6 * LEVELS, 3.6) == pytest.approx(linear_noise(PSFS, LEVELS, 3.6))


@pytest.mark.parametrize("max_noise", [0.8, 1.5, 3.0])
def test_suggestion_keeps_the_bound(max_noise: float) -> None:
    """If it fails, the default target is too sharp or too blurred."""
    fwhm = suggest_target_fwhm(PSFS, LEVELS, max_noise=max_noise)
    assert 2.5 < fwhm < 4.2
    assert linear_noise(PSFS, LEVELS, fwhm) <= max_noise
    assert linear_noise(PSFS, LEVELS, fwhm - 0.05) > max_noise


def test_suggestion_keeps_the_psf_residual() -> None:
    """If it fails, stars are not at the PSF of a suggested target, however
    much noise is allowed.
    """
    limit = DebiasingOptions().max_psf_residual
    fwhm = suggest_target_fwhm(PSFS, LEVELS, max_noise=1e9)
    assert 2.5 < fwhm < 3.0
    assert linear_psf_residual(PSFS, LEVELS, fwhm) <= 1.05 * limit
    assert linear_psf_residual(PSFS, LEVELS, fwhm - 0.05) > 1.05 * limit


def test_psf_residual_is_that_of_the_weakest_penalty() -> None:
    """If it fails, the residual that is stated is not the one of the image:
    with a penalty of s = 1e-8 a target of standard deviation t gets from
    Gaussians of S what u^(S^2 / t^2 - 1) > s leaves of it, u = |g|^2.
    """
    psfs = np.stack([gaussian_kernel(4.0, 25)] * 3)
    # With |g|^2 = exp(-x), x = (2 pi t k)^2, and K = f / g the filter loses
    # s / (|f|^2 + s) of a transform g.
    x = np.linspace(0.0, 80.0, 200_001)
    wide = (4.0 / 2.5) ** 2
    lost = np.exp(-0.5 * x) * 1e-8 / (np.exp(-wide * x) + 1e-8)
    expected = np.trapezoid(lost, x) / 2.0
    assert linear_psf_residual(psfs, LEVELS, 2.5) == pytest.approx(expected, rel=0.1)
    assert linear_psf_residual(psfs, LEVELS, 4.0) <= DebiasingOptions().max_psf_residual


def test_suggestion_stays_in_its_bounds() -> None:
    """If it fails, targets are undersampled or wider than the seeing."""
    narrow = np.stack([gaussian_kernel(fwhm, 25) for fwhm in (2.8, 3.0)])
    assert suggest_target_fwhm(narrow, LEVELS[:2], max_noise=1e9) == 2.5
    median = kernel_fwhm(PSFS[1])
    assert suggest_target_fwhm(PSFS, LEVELS, max_noise=1e-6) == pytest.approx(median)
    sharp = np.stack([gaussian_kernel(2.0, 25)] * 2)
    assert suggest_target_fwhm(sharp, LEVELS[:2], max_noise=1e-6) == 2.5


@pytest.mark.parametrize("max_noise", [0.0, -1.0, np.nan])
def test_refusals(max_noise: float) -> None:
    """If it fails, a wrong bound gives the widest target in silence."""
    with pytest.raises(InputError, match=f"max_noise={max_noise} must be positive"):
        suggest_target_fwhm(PSFS, LEVELS, max_noise=max_noise)


def test_a_finer_grid_has_the_same_target() -> None:
    """If it fails, a target that is chosen on a finer grid costs more noise
    than is allowed.
    """
    targets, noises = [], []
    for factor in (1, 2, 3):
        psfs = np.stack([gaussian_kernel(fwhm * factor, 30 * factor + 1) for fwhm in (3.6, 4.2)])
        # White noise has the same power per area.
        levels = np.array([1.0, 2.0]) / factor**2
        targets.append(suggest_target_fwhm(psfs, levels, max_noise=1.5, pixel_side=factor) / factor)
        noises.append(linear_noise(psfs, levels, 3.2 * factor, pixel_side=factor))
    np.testing.assert_allclose(targets, targets[0], atol=0.06)
    np.testing.assert_allclose(noises, noises[0], rtol=0.03)
