# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Linear estimates: what they do to flux, stars, masks and noise."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core.estimate import LinearEstimator, Precision
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_arrays, make_exposure_stack

TARGET = 3.8
SHAPE = (60, 76)
EXACT = Precision(light=1e-5, noise=1e-4)
MARGIN = 7
"""Margin that the PSFs of these tests need."""
FWHMS = (3.4, 4.2, 5.0)
PENALTY_WEIGHTS = (1e-6, 1e-3, 1e-1)


WEIGHTS = torch.tensor([1.0, 0.5, 2.0])[:, None, None].expand(3, *SHAPE)


def make_estimator(weights: torch.Tensor | None = None) -> LinearEstimator:
    """Return the estimator of three exposures of unequal depth."""
    stack = make_exposure_stack(SHAPE, FWHMS)
    if weights is None:
        weights = WEIGHTS.clone()
    return LinearEstimator(ForwardModel.from_stack(stack, TARGET), weights)


def solve(
    estimator: LinearEstimator, images: torch.Tensor, penalty_weight: float, **settings: Any
) -> torch.Tensor:
    """Return the estimate of one penalty weight."""
    return estimator.solve(estimator.right_side(images), (penalty_weight,), **settings)[0]


def sample(latent: torch.Tensor) -> torch.Tensor:
    """Return the pixels of the data of a latent image."""
    return latent[..., MARGIN : MARGIN + SHAPE[0], MARGIN : MARGIN + SHAPE[1]]


def white_noise(number: int, seed: int = 0) -> torch.Tensor:
    """Return draws of unit white noise of the exposures."""
    return torch.randn((number, 3, *SHAPE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("penalty_weight", PENALTY_WEIGHTS)
def test_linear(penalty_weight: float) -> None:
    """If it fails, noise and sources cannot be told apart afterwards."""
    estimator, a, b = make_estimator(), -1.7, 0.6
    x, y = white_noise(2)
    first, second, both = (
        solve(estimator, i, penalty_weight, precision=EXACT) for i in (x, y, a * x + b * y)
    )
    # Conjugate gradients reach the rounding error times the condition number
    # (Greenbaum 1997, SIAM J. Matrix Anal. 18, 535), which is 1 / s for a
    # penalty s that is white for the sky: 0.06 of the noise for the weakest.
    rounding = 0.5 * torch.finfo(torch.float32).eps / penalty_weight
    # Beyond the edge nothing but the penalty decides, and little converges.
    inner = np.s_[22:-22, 22:-22]
    limit = (20.0 * EXACT.light + rounding) * float(both[inner].std())
    torch.testing.assert_close(both[inner], a * first[inner] + b * second[inner], rtol=0.0, atol=limit)


@pytest.mark.parametrize("penalty_weight", PENALTY_WEIGHTS)
def test_constant_sky_is_conserved(penalty_weight: float) -> None:
    """If it fails, the penalty takes flux away."""
    estimate = sample(solve(make_estimator(), torch.full((3, *SHAPE), 5.0), penalty_weight, precision=EXACT))
    inner = estimate[15:-15, 15:-15]
    torch.testing.assert_close(inner, torch.full_like(inner, 5.0), rtol=1e-2, atol=0.0)


@pytest.mark.parametrize("penalty_weight", [1e-8, *PENALTY_WEIGHTS])
@pytest.mark.parametrize("missing", [np.s_[:0], np.s_[:, 40:43], np.s_[20:35, 30:45], np.s_[-20:, :30]])
def test_constant_light_reaches_the_edge(penalty_weight: float, missing: tuple[slice, ...]) -> None:
    """If it fails, bright light is wrong at borders and beside bad pixels."""
    weights = WEIGHTS.clone()
    for weight in weights:
        weight[missing] = 0.0
    images = torch.where(weights > 0, 1000.0, 0.0)
    estimate = sample(solve(make_estimator(weights), images, penalty_weight))
    error = (estimate - 1000.0)[weights[0] > 0]
    # Rough solves are corrected once more, which at an edge helps less.
    assert float(error.abs().max()) < 2e-4 * 1000.0


@pytest.mark.parametrize("column", [-2.3, 0.4, 3.3])
def test_star_at_the_border(column: float) -> None:
    """If it fails, stars that the border cuts are wrong by many sigma."""
    star = [(28.3, column + 12.0, 12000.0)]
    wide = (SHAPE[0], SHAPE[1] + 12)
    images, truth = (
        np.stack([gaussian_stars(wide, star, fwhm) for fwhm in fwhms])[:, :, 12:]
        for fwhms in (FWHMS, (TARGET,))
    )
    data = torch.from_numpy(images).float()
    estimator, precision = make_estimator(), Precision(light=1e-3, noise=0.005, edge_noise=0.1)
    sigma = float(estimator.variances(torch.tensor([1e-6])).sqrt())
    estimate = sample(solve(estimator, data, 1e-6, precision=precision)).numpy()
    error = np.abs(estimate - truth[0])[:, :8].max()
    # The residual of stars from the target PSF is up to 0.4 %.
    assert error < 0.004 * truth.max() + 2.0 * sigma


def test_star_is_recovered_at_the_target_psf() -> None:
    """If it fails, photometry and resolution of the result are wrong."""
    stars = [(28.3, 40.7, 1000.0)]
    images = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=None).images).float()
    estimate = sample(solve(make_estimator(), images, 1e-6, precision=EXACT)).numpy()
    truth = gaussian_stars(SHAPE, stars, TARGET)
    np.testing.assert_allclose(estimate, truth, rtol=0.0, atol=0.01 * truth.max())
    assert estimate.sum() == pytest.approx(1000.0, rel=5e-3)


@pytest.mark.parametrize("shift", [(4, 0), (-3, 7)])
def test_shift_equivariant(shift: tuple[int, int]) -> None:
    """If it fails, the result depends on where in the patch a source is."""
    estimator = make_estimator()
    stars = [(28.3, 40.7, 1000.0), (33.0, 35.0, 300.0)]
    moved = [(y + shift[0], x + shift[1], flux) for y, x, flux in stars]
    first, second = (
        sample(
            solve(
                estimator,
                torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=s, seed=None).images).float(),
                1e-4,
                precision=EXACT,
            )
        )
        for s in (stars, moved)
    )
    rolled = torch.roll(first, shift, dims=(0, 1))
    inner = np.s_[12:-12, 12:-12]
    torch.testing.assert_close(second[inner], rolled[inner], rtol=0.0, atol=2e-3 * float(first.max()))


@settings(max_examples=8, deadline=None)
@given(exponent=st.integers(-4, 4), penalty_weight=st.sampled_from(PENALTY_WEIGHTS))
def test_unit_does_not_matter(exponent: int, penalty_weight: float) -> None:
    """If it fails, the result depends on the photometric unit."""
    scale = 10.0**exponent
    images = white_noise(1)[0] + 3.0
    weights = WEIGHTS.clone()
    expected = solve(make_estimator(weights), images, penalty_weight)
    scaled = solve(make_estimator(weights / scale**2), images * scale, penalty_weight)
    # Rounding decides when conjugate gradients stop, within their tolerance.
    assert float((scaled / scale - expected).std()) < 3e-3 * float(expected.std())


def test_predicted_variances_are_empirical() -> None:
    """If it fails, all variances and significances are wrong."""
    estimator = make_estimator()
    sigma = torch.tensor([1.0, 0.5, 2.0]).rsqrt()[:, None, None]
    draws = torch.stack(
        [sample(estimator.solve(estimator.right_side(n * sigma), PENALTY_WEIGHTS)) for n in white_noise(40)]
    )
    inner = draws[:, :, 12:-12, 12:-12].double()
    predicted = estimator.variances(torch.tensor(PENALTY_WEIGHTS)).double()
    torch.testing.assert_close(inner.square().mean(dim=(0, 2, 3)), predicted, rtol=0.05, atol=0.0)
    gains = torch.zeros(0, *estimator.model.target_transform.shape)
    steps = estimator.bank_variances(torch.tensor(PENALTY_WEIGHTS), gains)[1].double()
    found = inner.diff(dim=1).square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, steps, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("garbage", [0.0, -300.0, 1e6])
def test_masked_pixels_do_not_matter(garbage: float) -> None:
    """If it fails, cosmic rays shine through their mask."""
    stars = [(28.3, 40.7, 1000.0)]
    images = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=stars).images).float()
    weights = torch.ones(3, *SHAPE)
    masked = torch.zeros(3, *SHAPE, dtype=torch.bool)
    masked[1, 26:31, 39:44] = True
    masked[:, 10, 50:55] = True
    weights[masked] = 0.0
    estimator = make_estimator(weights)
    expected = solve(estimator, images, 1e-4)
    assert torch.equal(solve(estimator, torch.where(masked, garbage, images), 1e-4), expected)


def test_masked_star_is_recovered_from_the_others() -> None:
    """If it fails, a mask in one exposure changes the flux of a star."""
    stars = [(28.3, 40.7, 1000.0)]
    images = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=None).images).float()
    weights = torch.ones(3, *SHAPE)
    weights[1, 24:29, 38:42] = 0.0
    estimate = sample(solve(make_estimator(weights), images, 1e-6, precision=EXACT)).numpy()
    truth = gaussian_stars(SHAPE, stars, TARGET)
    np.testing.assert_allclose(estimate, truth, rtol=0.0, atol=0.02 * truth.max())


def test_stronger_is_smoother() -> None:
    """If it fails, the bank is not ordered from sharp to smooth."""
    estimator = make_estimator()
    estimates = sample(estimator.solve(estimator.right_side(white_noise(1)[0]), PENALTY_WEIGHTS))
    roughness = estimates.diff(dim=-1).std(dim=(1, 2)) / estimates.std(dim=(1, 2))
    noise = estimates.std(dim=(1, 2))
    assert bool((roughness.diff() < 0).all())
    assert bool((noise.diff() < 0).all())


def test_only_chosen_exposures_count() -> None:
    """If it fails, the network sees what it has to predict."""
    stack = make_exposure_stack(SHAPE, FWHMS)
    model = ForwardModel.from_stack(stack, TARGET)
    weights = torch.ones(3, *SHAPE)
    estimator = LinearEstimator(model, weights, torch.tensor([0, 2]))
    assert estimator.full_weight == pytest.approx(2.0)
    images = stack.images.clone()
    expected = solve(estimator, images, 1e-3)
    images[1] = 1e6
    assert torch.equal(solve(estimator, images, 1e-3), expected)
    alone = ForwardModel(stack.psfs[[0, 2]], SHAPE, TARGET)
    other = solve(LinearEstimator(alone, weights[:2]), images[[0, 2]], 1e-3)
    torch.testing.assert_close(other, expected, rtol=0.0, atol=2e-3 * float(expected.max()))


def test_depth() -> None:
    """If it fails, thin parts of the patch pass for deep ones."""
    weights = WEIGHTS.clone()
    weights[2, :20] = 0.0
    estimator = make_estimator(weights)
    assert estimator.full_weight == pytest.approx(3.5)
    torch.testing.assert_close(estimator.relative_weight[:20], torch.full((20, SHAPE[1]), 1.5 / 3.5))
    torch.testing.assert_close(estimator.relative_weight[20:], torch.ones(40, SHAPE[1]))


def test_start_does_not_matter() -> None:
    """If it fails, an estimate depends on what was solved before it."""
    estimator = make_estimator()
    images = torch.from_numpy(make_exposure_arrays(SHAPE, FWHMS, stars=[(28.3, 40.7, 1000.0)]).images).float()
    direct = solve(estimator, images, 1e-3, precision=EXACT)
    started = solve(estimator, images, 1e-3, start=torch.full_like(direct, 2.0), precision=EXACT)
    inner = np.s_[6:-6, 6:-6]
    torch.testing.assert_close(
        sample(started)[inner], sample(direct)[inner], rtol=0.0, atol=0.02 * float(sample(direct)[:20].std())
    )


@pytest.mark.parametrize("factor", [1.0, 25.0])
def test_noise_is_solved_as_exactly_as_weights_allow(factor: float) -> None:
    """If it fails, errors are wrong where weights change within a PSF."""
    rows, columns = np.indices(SHAPE) // 8
    patches = torch.from_numpy(np.where((rows + columns) % 2, factor, 1.0)).float()
    estimator = make_estimator(WEIGHTS / patches)
    assert estimator.is_stationary == (factor == 1.0)
    draws = white_noise(2, seed=3) * (patches / WEIGHTS).sqrt()
    right = torch.stack([estimator.right_side(draw) for draw in draws])
    found = sample(estimator.solve_noise(right, (1e-4,)))
    exact = sample(estimator.solve(right, (1e-4, 1e-4), precision=EXACT))
    inner = np.s_[:, 8:-8, 8:-8]
    assert float((found - exact)[inner].std()) < 0.1 * float(exact[inner].std())


def test_nothing_is_kept_alive() -> None:
    """If it fails, a patch takes the memory of many tiles at a time."""
    estimator = make_estimator()
    estimator.solve_noise(estimator.right_side(white_noise(1)[0])[None], (1e-2,))
    solve(estimator, white_noise(1)[0], 1e-2)
    model = weakref.ref(estimator.model)
    gc.disable()
    try:
        del estimator
        assert model() is None
    finally:
        gc.enable()
