# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures whose PSFs do not fit the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    ExposureStack,
    ForwardModel,
    LinearEstimator,
    gaussian_kernel,
    kernel_fwhm,
    psf_width_errors,
)
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_arrays

SHAPE = (66, 80)
FWHMS = (3.4, 4.0, 4.6, 3.7, 4.3, 5.0)
STARS = [(22.3, 27.6, 4e4), (47.8, 61.1, 2e4), (50.4, 18.7, 1e4)]


def width_errors(
    given: dict[int, float], *, seed: int = 0, stars: Sequence[tuple[float, float, float]] = STARS
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and their sigmas with some PSFs given wrongly.

    Their true widths over the given ones, minus 1, are the values.
    """
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=seed)
    for t, error in given.items():
        arrays.psfs[t] = gaussian_kernel(FWHMS[t] / (1.0 + error), 25)
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, 3.6)
    weights = stack.good / stack.variances
    latent = LinearEstimator(model, weights).solve(stack.images, 1e-5)
    light = model.embed(torch.from_numpy(gaussian_stars(SHAPE, stars, 3.6)).float())
    fwhms = torch.tensor([kernel_fwhm(psf) for psf in arrays.psfs])
    errors, sigmas = psf_width_errors(model, light, latent, stack.images, weights, fwhms)
    assert errors.shape == sigmas.shape == (len(FWHMS),)
    return errors.numpy(), sigmas.numpy()


def test_consistent_psfs() -> None:
    """If it fails, good exposures are called bad."""
    faint = [(y, x, 0.05 * flux) for y, x, flux in STARS]
    results = [width_errors({}, seed=seed, stars=faint) for seed in range(12)]
    pulls = np.array([errors / sigmas for errors, sigmas in results])
    # 72 values, of which 60 are independent: a scatter of 0.09.
    assert np.std(pulls) == pytest.approx(1.0, abs=0.35)
    assert np.abs(pulls).max() < 4.5
    # Of bright stars, what the penalty of the image does.
    errors, _ = width_errors({})
    assert np.abs(errors).max() < 0.003


@pytest.mark.parametrize("error", [0.03, -0.03])
@pytest.mark.parametrize("wrong", [0, 1, 4])
def test_wrong_width_is_found(wrong: int, error: float) -> None:
    """If it fails, an exposure with a wrong PSF biases fluxes in silence."""
    errors, sigmas = width_errors({wrong: error})
    assert errors[wrong] == pytest.approx(error, abs=0.003)
    assert abs(errors[wrong]) > 5.0 * sigmas[wrong]
    # The image follows all exposures a little.
    assert np.abs(np.delete(errors, wrong)).max() < 0.5 * abs(error)


def test_without_light() -> None:
    """If it fails, noise passes for a wrong PSF."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=[], seed=None)
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, 3.6)
    weights = torch.ones_like(stack.images)
    fwhms = torch.tensor(FWHMS)
    dark = torch.zeros(model.latent_shape)
    errors, sigmas = psf_width_errors(model, dark, dark, stack.images, weights, fwhms)
    assert not errors.any()
    assert bool(torch.isinf(sigmas).all())
    # An exposure without data.
    star = make_exposure_arrays(SHAPE, FWHMS, stars=STARS, seed=None).images
    weights[2] = 0.0
    latent = LinearEstimator(model, weights).solve(torch.from_numpy(star).float(), 1e-5)
    errors, sigmas = psf_width_errors(model, latent, latent, torch.from_numpy(star).float(), weights, fwhms)
    assert float(errors[2]) == 0.0
    assert math.isinf(float(sigmas[2]))
    assert bool(torch.isfinite(sigmas[[0, 1, 3, 4, 5]]).all())


def test_unit_does_not_matter() -> None:
    """If it fails, the figure depends on the photometric unit."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=STARS)
    results = []
    for scale in (1.0, 1e3):
        stack = ExposureStack.from_arrays(
            arrays.images * scale, arrays.variances * scale**2, arrays.good, arrays.psfs
        )
        model = ForwardModel.from_stack(stack, 3.6)
        weights = stack.good / stack.variances
        latent = LinearEstimator(model, weights).solve(stack.images, 1e-5)
        results.append(psf_width_errors(model, latent, latent, stack.images, weights, torch.tensor(FWHMS)))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-2, atol=1e-5)
