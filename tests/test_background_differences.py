# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Differences of background between exposures, and what they leave alone."""

from __future__ import annotations

import dataclasses
import functools
import math

import galsim
import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, InputError, PixelPositions, gaussian_kernel
from lsst.astroclearnet.core.calibration._background_differences import BackgroundDifferences
from lsst.astroclearnet.core.calibration._background_fit import (
    BackgroundTile,
    _robust_averages,
    fit_backgrounds,
)
from lsst.astroclearnet.core.estimate import LinearEstimator, Precision, collect_solves
from lsst.astroclearnet.core.exposures import Tile
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import make_exposure_stack

SHAPE = (224, 256)
EXACT = Precision(light=1e-5, noise=1e-4)
TARGET = 3.0
FWHMS = (3.4, 4.6, 3.8, 5.0, 4.2, 3.6)
SIGMAS = np.array([1.0, 1.2, 0.9, 1.1, 0.8, 1.3])
CENTER = (105.3, 131.8)
RADIUS = 60.0
"""Half-light radius in pixels: 20 arcsec across in pixels of 0.168 arcsec."""


@functools.cache
def galaxy(peak: float) -> np.ndarray:
    """Return noise-free exposures of an exponential disc."""
    # Loose limits of the Fourier transform would be differences themselves.
    limits = galsim.GSParams(folding_threshold=1e-5, maximum_fft_size=16384)
    profile = galsim.Exponential(half_light_radius=RADIUS, gsparams=limits)
    images = []
    for fwhm in FWHMS:
        seen = galsim.Convolve(profile, galsim.Gaussian(fwhm=fwhm), gsparams=limits)
        image = galsim.ImageD(galsim.BoundsI(0, SHAPE[1] - 1, 0, SHAPE[0] - 1))
        seen.drawImage(image, center=galsim.PositionD(CENTER[1], CENTER[0]), scale=1.0, method="no_pixel")
        images.append(image.array)
    return peak * np.stack(images) / images[0].max()


def noise(seed: int) -> np.ndarray:
    """Return noise of all exposures."""
    scale = SIGMAS[:, None, None]
    return scale * np.random.default_rng(seed).normal(size=(len(FWHMS), *SHAPE))


def offsets(coefficients: np.ndarray) -> np.ndarray:
    """Return planes, (n, H, W), of coefficients (n, 3)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    y, x = y - 0.5 * (SHAPE[0] - 1), x - 0.5 * (SHAPE[1] - 1)
    level, slope_y, slope_x = coefficients[:, :, None, None].transpose(1, 0, 2, 3)
    return np.asarray(level + slope_y * y + slope_x * x)


def masks(seed: int) -> np.ndarray:
    """Return good pixels: two exposures see half of the patch, and one
    square is masked in all of them.
    """
    good = np.random.default_rng(seed).random((len(FWHMS), *SHAPE)) > 0.02
    good[1, :, : SHAPE[1] // 2] = False
    good[4, SHAPE[0] // 2 :] = False
    good[:, 130:139, 40:49] = False
    return good


def draw(seed: int, slope: float) -> np.ndarray:
    """Draw coefficients of planes, of 0.3 sigma in the centre."""
    scale = np.array([0.3, slope * 2.0 / SHAPE[0], slope * 2.0 / SHAPE[1]])
    return SIGMAS[:, None] * scale * np.random.default_rng(seed).normal(size=(len(FWHMS), 3))


def prepare(
    images: np.ndarray, good: np.ndarray | None = None
) -> tuple[ExposureStack, ForwardModel, torch.Tensor]:
    """Return exposures, their model and weights."""
    variances = np.broadcast_to((SIGMAS**2)[:, None, None], images.shape)
    usable = np.ones(images.shape, dtype=bool) if good is None else good
    psfs = np.stack([gaussian_kernel(fwhm, 31) for fwhm in FWHMS])
    stack = ExposureStack.from_arrays(images, variances, usable, psfs)
    return stack, ForwardModel.from_stack(stack, TARGET), stack.good / stack.variances


def fit(
    stack: ExposureStack, model: ForwardModel, weights: torch.Tensor, order: int = 1
) -> BackgroundDifferences:
    """Fit backgrounds in a single tile."""
    rows, columns = (slice(0, size) for size in stack.shape)
    exposures = torch.arange(stack.num_exposures)
    tile = BackgroundTile(Tile(rows, columns, rows, columns), exposures, stack.images, model, weights)
    return fit_backgrounds([tile], stack.shape, stack.num_exposures, order=order)


def relative(coefficients: np.ndarray, weights: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients less their mean plane, and that plane, (H, W)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    terms = np.stack([np.ones(SHAPE), y - 0.5 * (SHAPE[0] - 1), x - 0.5 * (SHAPE[1] - 1)])
    own = np.einsum("tyx,pyx,qyx->tpq", weights.double().numpy(), terms, terms)
    mean = np.linalg.solve(own.sum(axis=0), np.einsum("tpq,tq->p", own, coefficients))
    return coefficients - mean, np.tensordot(mean, terms, axes=1)


def errors_of_planes(found: BackgroundDifferences, truth: np.ndarray, good: torch.Tensor) -> np.ndarray:
    """Return the rms error of each background where it is subtracted, in
    units of the noise of a pixel.
    """
    difference = offsets(found.coefficients.double().numpy() - truth)
    use = good.numpy()
    return np.sqrt((use * difference**2).sum(axis=(1, 2)) / use.sum(axis=(1, 2))) / SIGMAS


@pytest.mark.parametrize(
    ("peak", "slope", "masked"),
    [(100.0, 0.0, False), (100.0, 0.3, False), (100.0, 0.3, True), (5.0, 0.0, True)],
)
def test_galaxy_that_fills_the_patch(peak: float, slope: float, masked: bool) -> None:
    """If it fails, differences of background are left in, or light of an
    extended source is taken for background.
    """
    clean = galaxy(peak) + noise(1)
    given = draw(2, slope)
    stack, model, weights = prepare(clean + offsets(given), masks(3) if masked else None)
    found = fit(stack, model, weights)
    truth, mean = relative(given, weights)
    errors = errors_of_planes(found, truth, stack.good)
    assert errors.max() < 0.025
    assert np.sqrt(np.mean(errors**2)) < 0.015
    pulls = (found.coefficients.numpy() - truth) / found.sigma.numpy()
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1.0, abs=0.5)
    estimator = LinearEstimator(model, weights)
    corrected = stack.images - found.evaluate(model)
    with_offsets = (
        model.crop(estimator.solve(estimator.right_side(corrected), (1e-3,), precision=EXACT)[0]).numpy()
        - mean
    )
    without = model.crop(
        estimator.solve(estimator.right_side(torch.from_numpy(clean).float()), (1e-3,), precision=EXACT)[0]
    ).numpy()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (y - CENTER[0]) ** 2 + (x - CENTER[1]) ** 2 < RADIUS**2
    assert with_offsets[inside].sum() == pytest.approx(without[inside].sum(), rel=1e-3)


def test_constants() -> None:
    """If it fails, slopes are fitted where only levels were asked for."""
    given = draw(5, 0.0)
    stack, model, weights = prepare(galaxy(20.0) + noise(4) + offsets(given), masks(6))
    found = fit(stack, model, weights, order=0)
    assert not found.coefficients[:, 1:].any()
    assert bool(torch.isinf(found.sigma[:, 1:]).all())
    total = weights.sum(dim=(1, 2)).double().numpy()
    truth = given[:, 0] - (total * given[:, 0]).sum() / total.sum()
    levels = found.coefficients[:, 0].numpy()
    assert np.abs((levels - truth) / SIGMAS).max() < 0.02
    assert np.sqrt(np.mean(((levels - truth) / found.sigma[:, 0].numpy()) ** 2)) < 1.8


def test_common_background_is_light() -> None:
    """If it fails, something is removed that no comparison can tell from
    light, or exposures without a difference are given one.
    """
    common = np.array([[0.7, 0.004, -0.003]]) * np.ones((len(FWHMS), 1))
    clean = galaxy(20.0) + noise(7)
    results = []
    for images in (clean, clean + offsets(common)):
        stack, model, weights = prepare(images, masks(8))
        results.append(fit(stack, model, weights))
    assert errors_of_planes(results[0], np.zeros((len(FWHMS), 3)), stack.good).max() < 0.025
    change = offsets((results[1].coefficients - results[0].coefficients).double().numpy())
    assert np.abs(change / SIGMAS[:, None, None]).max() < 0.01


def test_contamination() -> None:
    """If it fails, cosmic rays, a transient or an error of the flux scale
    pass for background.
    """
    given = draw(9, 0.3)
    light = galaxy(20.0).copy()
    light[2] *= 1.01
    rng = np.random.default_rng(10)
    for t in range(len(FWHMS)):
        for _ in range(10):
            row, column = rng.integers(0, SHAPE[0]), rng.integers(0, SHAPE[1] - 5)
            light[t, row, column : column + 5] += rng.uniform(10.0, 100.0)
    light[5, 150:180, 170:200] += 3.0
    stack, model, weights = prepare(light + noise(11) + offsets(given), masks(12))
    found = fit(stack, model, weights)
    errors = errors_of_planes(found, relative(given, weights)[0], stack.good)
    assert errors.max() < 0.06


def test_exposures_that_do_not_overlap() -> None:
    """If it fails, exposures that share no sky are compared."""
    given = draw(13, 0.3)
    good = np.ones((len(FWHMS), *SHAPE), dtype=bool)
    good[:3, :, 128:] = False
    good[3:, :, :128] = False
    good[3] = False
    good[3, :96, :96] = True
    good[:3, :96] = False
    stack, model, weights = prepare(galaxy(5.0) + noise(14) + offsets(given), good)
    found = fit(stack, model, weights)
    # Number 3 shares nothing with any.
    assert not found.coefficients[3].any()
    assert bool(torch.isinf(found.sigma[3]).all())
    for group in ([0, 1, 2], [4, 5]):
        assert bool(torch.isfinite(found.sigma[group]).all())
        kept = torch.zeros_like(weights)
        kept[group] = weights[group]
        truth, _ = relative(given, kept)
        assert errors_of_planes(found, truth, stack.good)[group].max() < 0.03


def test_own_pixels() -> None:
    """If it fails, backgrounds of exposures on their own grids are not those
    per area of the patch, or planes lie at the wrong place.
    """
    shape, size = (120, 136), 150
    angles, scales = (0.0, 0.5, 2.0, -0.7), (1.0, 1.05, 0.9, 1.1)
    rows, columns = np.mgrid[:size, :size] - 0.5 * size
    turns = [(s * math.cos(a), s * math.sin(a)) for a, s in zip(angles, scales, strict=True)]
    y = np.stack([c * rows - s * columns for c, s in turns]) + 0.5 * shape[0]
    x = np.stack([s * rows + c * columns for c, s in turns]) + 0.5 * shape[1] + 0.3
    area = np.broadcast_to(np.square(scales)[:, None, None], y.shape)
    given = np.array([[0.5, 0.004, 0.0], [-0.3, 0.0, -0.002], [0.0, 0.0, 0.0], [0.1, -0.003, 0.003]])
    level, slope_y, slope_x = given[:, :, None, None].transpose(1, 0, 2, 3)
    plane = level + slope_y * (y - 0.5 * (shape[0] - 1)) + slope_x * (x - 0.5 * (shape[1] - 1))
    light = 20.0 * np.exp(-0.5 * ((y - 50.0) ** 2 + (x - 80.0) ** 2) / 20.0**2)
    random = np.random.default_rng(15).normal(size=y.shape)
    stack = ExposureStack.from_arrays(
        area * (light + plane) + 0.3 * random,
        np.full(y.shape, 0.09),
        np.ones(y.shape, dtype=bool),
        np.stack([gaussian_kernel(4.0, 25)] * 4),
        positions=PixelPositions.from_arrays(shape, y, x, area),
    )
    model = ForwardModel.from_stack(stack, TARGET)
    found = fit(stack, model, stack.good / stack.variances)
    difference = (found.coefficients.double().numpy() - given)[:, :, None, None]
    error = difference[:, 0] + difference[:, 1] * (y - 59.5) + difference[:, 2] * (x - 67.5)
    # The same plane in all: the mean of what was given.
    inside = stack.good.numpy()
    corners = np.array([[1.0, v, u] for v in (-59.0, 59.0) for u in (-67.0, 67.0)])
    common = corners @ difference[..., 0, 0].T
    assert np.ptp(common, axis=1).max() < 0.03
    assert np.isfinite(error[inside]).all()
    evaluated = found.evaluate(model)
    assert evaluated.shape == stack.images.shape
    assert not evaluated[~stack.good].any()
    b, v, u = found.coefficients[1].tolist()
    expected = scales[1] ** 2 * (b + v * (y[1, 70, 61] - 59.5) + u * (x[1, 70, 61] - 67.5))
    assert float(evaluated[1, 70, 61]) == pytest.approx(expected, rel=1e-4)


def test_unit_does_not_matter() -> None:
    """If it fails, the fit depends on the photometric unit."""
    stack = make_exposure_stack()
    model = ForwardModel.from_stack(stack, TARGET)
    results = []
    for unit in (1.0, 1e-3, 1e6):
        scaled = stack.replace(images=stack.images * unit, variances=stack.variances * unit**2)
        found = fit(scaled, model, scaled.good / scaled.variances)
        results.append(dataclasses.replace(found, coefficients=found.coefficients / unit))
    for found in results[1:]:
        torch.testing.assert_close(found.coefficients, results[0].coefficients, rtol=0.0, atol=1e-3)


def test_unknown_order() -> None:
    """If it fails, an order is ignored that cannot be fitted."""
    stack = make_exposure_stack()
    model = ForwardModel.from_stack(stack, TARGET)
    with pytest.raises(InputError, match="order=2 of backgrounds"):
        fit(stack, model, stack.good / stack.variances, order=2)


@pytest.mark.parametrize(("share", "size"), [(0.0, 0.0), (0.1, 50.0), (0.5, 300.0), (0.95, 1e5)])
def test_robust_averages_are_found(share: float, size: float) -> None:
    """If it fails, a bad exposure makes averages creep, or end elsewhere."""
    generator = torch.Generator().manual_seed(3)
    shape = (2, 64, 64)
    residual = torch.randn(shape, generator=generator)
    hit, level = (torch.rand(shape, generator=generator) for _ in range(2))
    residual += size * (hit < share) * level
    weights = 0.5 + torch.rand(shape, generator=generator)
    weights[0, :16] = 0.0
    area = torch.full(shape, 0.8)
    block = (torch.arange(2)[:, None, None] * 4 + torch.arange(64)[:, None] // 16).expand(shape)
    moment = weights * area**2
    information = torch.stack([moment[block == k].sum() for k in range(8)]).reshape(2, 4).double()
    with collect_solves() as solves:
        used = weights > 0
        averages = _robust_averages(residual[used], weights[used], area[used], block[used], information)
    assert solves["block_average"].converged
    deviation = (residual - averages.flatten()[block] * area) * weights.sqrt()
    pull = deviation.clamp(-2.0, 2.0) * area * weights.sqrt()
    found = torch.stack([pull[block == k].sum() for k in range(8)]).reshape(2, 4)
    # In units of the noise of the averages.
    assert float((found.abs() / information.sqrt().clamp(min=1.0)).max()) < 0.02
