# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures whose flux scale, position or PSF does not fit the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    DEPTH_FLOOR,
    ExposureConsistency,
    ExposureStack,
    ForwardModel,
    LinearEstimator,
    PixelPositions,
    connected_exposures,
    exposure_consistency,
    gaussian_kernel,
    kernel_fwhm,
    smooth,
)
from lsst.astroclearnet.simulation import ArtefactOptions, SceneOptions, simulate_scene
from lsst.astroclearnet.tests import ExposureArrays, gaussian_stars, make_exposure_arrays

SHAPE = (66, 80)
FWHMS = (3.4, 4.0, 4.6, 3.7, 4.3, 5.0)
STARS = [(22.3, 27.6, 4e4), (47.8, 61.1, 2e4), (50.4, 18.7, 1e4)]
TARGET = 3.6
SIZES = (0.02, 0.08, -0.08, 0.03)
"""Errors of flux scale, shift in y, shift in x and width to be found."""


def pilot_consistency(
    model: ForwardModel, images: torch.Tensor, weights: torch.Tensor, fwhms: torch.Tensor
) -> ExposureConsistency:
    """Compare exposures by their light above the noise."""
    estimator = LinearEstimator(model, weights)
    found = estimator.solve(images, 1e-2)
    light = estimator.solve(images, 1e-3)
    latent = estimator.solve(images, 1e-4)
    latent = latent + estimator.solve(images - model.predict(latent), 1e-4)
    depth = smooth(model.embed(estimator.depth)[None], 5.0)[0].clamp(min=DEPTH_FLOOR)
    noise = (estimator.covariances(torch.tensor([1e-2])).flatten() / depth).sqrt()
    bright = (found > 5.0 * noise).to(light.dtype)
    # A smooth edge: templates are derivatives of the light.
    near = (3.0 * smooth(bright[None], 5.0)[0]).clamp(max=1.0)
    return exposure_consistency(model, near * light, latent, images, weights, fwhms)


def table(found: ExposureConsistency) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and their sigmas, (n, 4) each."""
    errors = (found.flux_error, found.shift_y, found.shift_x, found.psf_width_error)
    sigmas = (found.flux_sigma, found.shift_sigma_y, found.shift_sigma_x, found.psf_width_sigma)
    return torch.stack(errors, dim=1).numpy(), torch.stack(sigmas, dim=1).numpy()


def with_error(
    quantity: int, exposure: int, error: float, stars: Sequence[tuple[float, float, float]], seed: int | None
) -> ExposureArrays:
    """Return exposures of which one has an error of one quantity."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=stars, seed=seed)
    light = gaussian_stars(SHAPE, stars, FWHMS[exposure])
    scale = 1.0 + error * (quantity == 0)
    moved = [(y + error * (quantity == 1), x + error * (quantity == 2), scale * f) for y, x, f in stars]
    arrays.images[exposure] += gaussian_stars(SHAPE, moved, FWHMS[exposure]) - light
    if quantity == 3:
        arrays.psfs[exposure] = gaussian_kernel(FWHMS[exposure] / (1.0 + error), 25)
    return arrays


def measure(
    arrays: ExposureArrays, stars: Sequence[tuple[float, float, float]] = STARS
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and their sigmas, for the true light of the stars."""
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, TARGET)
    weights = stack.good / stack.variances
    latent = LinearEstimator(model, weights).solve(stack.images, 1e-5)
    light = model.embed(torch.from_numpy(gaussian_stars(SHAPE, stars, TARGET)).float())
    fwhms = torch.tensor([kernel_fwhm(psf) for psf in arrays.psfs])
    return table(exposure_consistency(model, light, latent, stack.images, weights, fwhms))


def pilot(arrays: ExposureArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and their sigmas from the exposures alone."""
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, TARGET)
    fwhms = torch.tensor([kernel_fwhm(psf) for psf in arrays.psfs])
    return table(pilot_consistency(model, stack.images, stack.good / stack.variances, fwhms))


def test_consistent_exposures() -> None:
    """If it fails, good exposures are called bad."""
    faint = [(y, x, 0.05 * flux) for y, x, flux in STARS]
    pulls, pilot_pulls = [], []
    for seed in range(8):
        arrays = make_exposure_arrays(SHAPE, FWHMS, stars=faint, seed=seed)
        errors, sigmas = measure(arrays, faint)
        pulls.append(errors / sigmas)
        errors, sigmas = pilot(arrays)
        pilot_pulls.append(errors / sigmas)
    for group in (np.array(pulls), np.array(pilot_pulls)):
        # Of 48 values of each quantity 40 are independent: a scatter of 0.11.
        assert np.std(group, axis=(0, 1)) == pytest.approx(np.ones(4), abs=0.4)
        assert np.abs(group).max() < 4.5
    # Of bright stars, what the penalty of the image does.
    errors, _ = measure(make_exposure_arrays(SHAPE, FWHMS, stars=STARS))
    assert (np.abs(errors).max(axis=0) < (0.002, 0.003, 0.003, 0.003)).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("wrong", [0, 1, 4])
@pytest.mark.parametrize("quantity", range(4))
def test_error_is_found(quantity: int, wrong: int, sign: float) -> None:
    """If it fails, an exposure biases fluxes, positions or shapes in silence,
    or another one is blamed, or an error is taken for one of another kind.
    """
    error = sign * SIZES[quantity]
    arrays = with_error(quantity, wrong, error, STARS, seed=0)
    for errors, sigmas in (measure(arrays), pilot(arrays)):
        assert errors[wrong, quantity] == pytest.approx(error, rel=0.12)
        assert abs(errors[wrong, quantity]) > 5.0 * sigmas[wrong, quantity]
        others = errors.copy()
        others[wrong, quantity] = 0.0
        assert (np.abs(others).max(axis=0) < (0.003, 0.005, 0.005, 0.003)).all()


def test_scene() -> None:
    """If it fails, errors are not found with PSFs that are not Gaussian, with
    the photon noise of bright stars, and where exposures have edges.
    """
    noise_only = ArtefactOptions(saturation=False, cosmic_rays=0.0, bad_columns=0, satellite_trails=False)
    scene = simulate_scene(
        SceneOptions(seed=1, kind="stars", shape=(128, 112), num_exposures=8, artefacts=noise_only)
    )
    images, psfs = scene.images.copy(), scene.psfs.astype(float)
    images[1] *= 1.02
    offset = np.fft.fftfreq(psfs.shape[-1])[:, np.newaxis]
    # Sources further down than the given PSF says.
    psfs[2] = np.fft.ifft2(np.fft.fft2(psfs[2]) * np.exp(2j * math.pi * 0.1 * offset)).real
    stack = ExposureStack.from_arrays(images, scene.true_variances, scene.good, psfs)
    model = ForwardModel.from_stack(stack, 3.0)
    fwhms = torch.tensor([kernel_fwhm(psf) for psf in psfs])
    errors, sigmas = table(pilot_consistency(model, stack.images, stack.good / stack.variances, fwhms))
    assert errors[1, 0] == pytest.approx(0.02, abs=0.002)
    assert errors[2, 1] == pytest.approx(0.1, abs=0.006)
    errors[1, 0] = errors[2, 1] = 0.0
    assert (np.abs(errors) < 0.003 + 4.0 * sigmas).all()


def test_own_pixels() -> None:
    """If it fails, shifts of exposures on their own grids are not those on
    the patch, or their fluxes follow the area of their pixels.
    """
    angles, scales, size = (0.0, 0.5, 2.0, -0.7), (1.0, 1.01, 0.9, 1.1), 100
    rows, columns = np.mgrid[:size, :size] - size / 2
    y = np.stack(
        [s * (math.cos(a) * rows - math.sin(a) * columns) for a, s in zip(angles, scales, strict=True)]
    )
    x = np.stack(
        [s * (math.sin(a) * rows + math.cos(a) * columns) for a, s in zip(angles, scales, strict=True)]
    )
    y, x = y + 0.5 * SHAPE[0], x + 0.5 * SHAPE[1] + 0.3
    area = np.broadcast_to(np.square(scales)[:, None, None], y.shape)
    images = np.zeros(y.shape)
    factors, dy, dx = np.ones((4, 1, 1)), np.zeros((4, 1, 1)), np.zeros((4, 1, 1))
    factors[1], dy[2], dx[2] = 1.02, 0.08, -0.05
    width = 4.0 / math.sqrt(8.0 * math.log(2.0))
    for row, column, flux in STARS:
        square = (y - row - dy) ** 2 + (x - column - dx) ** 2
        images += factors * flux * area * np.exp(-0.5 * square / width**2) / (2.0 * math.pi * width**2)
    images += np.random.default_rng(5).normal(size=images.shape)
    stack = ExposureStack.from_arrays(
        images,
        np.ones(y.shape),
        np.ones(y.shape, dtype=bool),
        np.stack([gaussian_kernel(4.0, 25)] * 4),
        positions=PixelPositions.from_arrays(SHAPE, y, x, area),
    )
    model = ForwardModel.from_stack(stack, TARGET)
    found = pilot_consistency(model, stack.images, stack.good / stack.variances, torch.full((4,), 4.0))
    errors, sigmas = table(found)
    expected = np.zeros((4, 4))
    expected[1, 0], expected[2, 1], expected[2, 2] = 0.02, 0.08, -0.05
    assert errors == pytest.approx(expected, abs=0.004)
    assert (sigmas < 0.003).all()


def test_without_light() -> None:
    """If it fails, noise passes for an error."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=[], seed=None)
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, TARGET)
    weights = torch.ones_like(stack.images)
    dark = torch.zeros(model.latent_shape)
    errors, sigmas = table(
        exposure_consistency(model, dark, dark, stack.images, weights, torch.tensor(FWHMS))
    )
    assert not errors.any()
    assert np.isinf(sigmas).all()
    noise = make_exposure_arrays(SHAPE, FWHMS, stars=[], seed=2)
    errors, sigmas = pilot(noise)
    assert not errors.any()
    assert np.isinf(sigmas).all()


def test_exposure_without_data() -> None:
    """If it fails, an exposure without data spoils what is known of others."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=STARS)
    arrays.good[2] = False
    errors, sigmas = pilot(arrays)
    assert not errors[2].any()
    assert np.isinf(sigmas[2]).all()
    rest = [0, 1, 3, 4, 5]
    assert (sigmas[rest] < 0.01).all()
    assert (np.abs(errors[rest]) < 0.005).all()


def test_groups_that_do_not_overlap() -> None:
    """If it fails, exposures are compared with some that they share no light
    with.
    """
    arrays = with_error(0, 1, 0.05, STARS, seed=0)
    arrays.images[4:] *= 1.3
    arrays.good[:4, :, 44:] = False
    arrays.good[4:, :, :44] = False
    errors, sigmas = pilot(arrays)
    assert errors[1, 0] == pytest.approx(0.05, abs=0.01)
    assert np.abs(errors[[0, 2, 3, 4, 5], 0]).max() < 0.005
    assert np.isfinite(sigmas).all()
    # And one that is alone.
    arrays.good[5] = False
    errors, sigmas = pilot(arrays)
    assert not errors[4:].any()
    assert np.isinf(sigmas[4:]).all()


def test_connected_exposures() -> None:
    """If it fails, groups of exposures have no common zero."""
    overlaps = torch.eye(7, dtype=torch.bool)
    for t, s in ((0, 5), (5, 2), (2, 6), (1, 3)):
        overlaps[t, s] = overlaps[s, t] = True
    groups = [group.tolist() for group in connected_exposures(overlaps)]
    assert groups == [[0, 2, 5, 6], [1, 3], [4]]


def test_unit_does_not_matter() -> None:
    """If it fails, the figures depend on the photometric unit."""
    arrays = with_error(0, 1, 0.02, STARS, seed=0)
    results = []
    for scale in (1.0, 1e-9, 1e6):
        changed = arrays._replace(images=arrays.images * scale, variances=arrays.variances * scale**2)
        results.append(pilot(changed))
    for errors, sigmas in results[1:]:
        assert errors == pytest.approx(results[0][0], abs=1e-4)
        assert sigmas == pytest.approx(results[0][1], rel=1e-2)


def test_apply() -> None:
    """If it fails, results are not put back into the order of the input."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=STARS)
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, TARGET)
    found = pilot_consistency(model, stack.images, stack.good / stack.variances, torch.tensor(FWHMS))
    turned = found.apply(lambda values: values.flip(0))
    for field in dataclasses.fields(found):
        assert torch.equal(getattr(turned, field.name), getattr(found, field.name).flip(0))
