# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Variances that are free of the noise of their own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, gaussian_kernel
from lsst.astroclearnet.core.exposures import masked_medians, model_variances, smooth
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_stack

SHAPE = (120, 150)
STARS = [(30.3, 40.8, 30000.0), (80.9, 100.2, 60000.0), (60.0, 120.0, 10000.0), (95.1, 30.7, 20000.0)]


@pytest.mark.parametrize("gain", [4.0, 20.0])
def test_photon_noise_slope(gain: float) -> None:
    """If it fails, bright stars get wrong weights and variances."""
    stack = make_exposure_stack(SHAPE, (3.5, 4.5), stars=STARS, gain=gain)
    light = torch.from_numpy(np.stack([gaussian_stars(SHAPE, STARS, f) for f in (3.5, 4.5)])).float()
    variances = model_variances(stack, light)
    for star in STARS[:2]:
        pixel = (slice(None), round(star[0]), round(star[1]))
        slope = (variances[pixel] - 1.0) / light[pixel]
        torch.testing.assert_close(slope, torch.full((2,), 1.0 / gain), rtol=0.05, atol=0.0)
    sky = light.amax(dim=0) < 1e-3
    torch.testing.assert_close(variances[:, sky].mean(dim=1), torch.ones(2), rtol=0.02, atol=0.0)


def test_negative_light_adds_no_variance() -> None:
    """If it fails, over-subtracted sky gets infinite weight."""
    stack = make_exposure_stack((50, 60), (3.5,), stars=STARS[:1], gain=1.0)
    light = torch.from_numpy(gaussian_stars((50, 60), STARS[:1], 3.5)).float()[None] - 5.0
    variances = model_variances(stack, light)
    assert float(variances.min()) > 0.5


def test_vignetting_is_followed() -> None:
    """If it fails, the thin corner of a detector counts as deep."""
    rows = np.linspace(1.0, 3.0, SHAPE[0])[:, None]
    truth = np.broadcast_to(rows, SHAPE)[None]
    stack = ExposureStack.from_arrays(
        np.zeros(truth.shape), truth.copy(), np.ones(truth.shape, bool), gaussian_kernel(3.5, 25)[None]
    )
    variances = model_variances(stack, torch.zeros(1, *SHAPE))
    inner = slice(20, -20)
    np.testing.assert_allclose(variances[0, inner].numpy(), truth[0, inner], rtol=0.03)


def test_masked_pixels_count_for_nothing() -> None:
    """If it fails, a bleed trail spoils the weights around it."""
    stack = make_exposure_stack((50, 60), (3.5, 4.0), stars=[], sigmas=(1.0, 2.0))
    stack.good[0, 20:25, 30:40] = False
    spoiled = stack.variances.clone()
    spoiled[0, 20:25, 30:40] = 1e8
    for prediction in (None, torch.zeros_like(stack.images)):
        clean, other = (model_variances(s, prediction) for s in (stack, stack.replace(variances=spoiled)))
        torch.testing.assert_close(other, clean)
        torch.testing.assert_close(clean[:, 5, 5], torch.tensor([1.0, 4.0]))
        assert bool((clean > 0).all())


def test_weights_do_not_follow_the_noise() -> None:
    """If it fails, the mean of many exposures is too faint."""
    # A sky of 20 electrons a pixel, which the variances know from the pixels.
    generator = np.random.default_rng(3)
    n, sky, shape = 40, 20.0, (60, 70)
    counts = generator.poisson(sky, (n, *shape)).astype(float)
    stack = ExposureStack.from_arrays(
        counts - sky,
        np.maximum(counts, 1.0),
        np.ones(counts.shape, bool),
        np.stack([gaussian_kernel(3.5, 9)] * n),
    )

    def bias(variances: torch.Tensor) -> float:
        mean = (stack.images / variances).sum(dim=0) / (1.0 / variances).sum(dim=0)
        return float(mean.mean()) / sky**0.5

    # To first order the weighted mean loses cov(w, y) / w = sigma^2 / sky.
    assert bias(stack.variances) == pytest.approx(-1.0 / sky**0.5, rel=0.2)
    assert abs(bias(model_variances(stack))) < 0.02
    assert abs(bias(model_variances(stack, torch.zeros_like(stack.images)))) < 0.02


def test_masked_medians() -> None:
    """If it fails, the typical depth of an exposure is wrong."""
    images = torch.tensor([[[1.0, 2.0, 9.0]], [[5.0, 100.0, 100.0]], [[7.0, 8.0, 9.0]]])
    good = torch.tensor([[[True, True, True]], [[True, False, False]], [[False, False, False]]])
    assert masked_medians(images, good, -1.0).tolist() == [2.0, 5.0, -1.0]


@pytest.mark.parametrize("fwhm", [2.0, 6.0])
def test_smooth(fwhm: float) -> None:
    """If it fails, trails are searched for at a wrong scale."""
    point = torch.zeros(2, 61, 75)
    point[0, 30, 40] = 1.0
    point[1] = 4.0
    smoothed = smooth(point, fwhm)
    expected = np.zeros((61, 75))
    expected[10:51, 20:61] = gaussian_kernel(fwhm, 41)
    np.testing.assert_allclose(smoothed[0].numpy(), expected, atol=1e-3 * expected.max())
    # Zeros beyond the edge: a half plane keeps about half at its border.
    assert float(smoothed[1, 30, 37]) == pytest.approx(4.0, rel=1e-5)
    assert 2.0 < float(smoothed[1, 30, 0]) < 3.0
