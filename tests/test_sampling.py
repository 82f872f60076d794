# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sampling of exposures on their own pixels, and models made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, InputError, PixelPositions, fwhm_to_sigma, gaussian_kernel
from lsst.astroclearnet.core.forward import ForwardModel, LatentGrid, Sampling, weight_maps
from lsst.astroclearnet.tests import assert_adjoint

SHAPE = (60, 72)
TARGET = 3.0
ANGLES = (0.0, 0.5, 2.0)
SCALES = (1.0, 1.01, 1.3)


def rotated_positions(size: int = 56, shape: tuple[int, int] = SHAPE) -> PixelPositions:
    """Return three exposures, each rotated, dithered and of its own scale."""
    rows, columns = np.mgrid[:size, :size] - size / 2
    y, x = [], []
    for k, (angle, scale) in enumerate(zip(ANGLES, SCALES, strict=True)):
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        y.append(c * rows - s * columns + shape[0] / 2 + 0.3 * k)
        x.append(s * rows + c * columns + shape[1] / 2 - 0.2 * k)
    area = np.broadcast_to(np.square(SCALES)[:, None, None], (3, size, size))
    return PixelPositions.from_arrays(shape, np.stack(y), np.stack(x), area)


def native_model(fwhms: tuple[float, ...] = (3.2, 3.8, 4.4)) -> ForwardModel:
    """Return the model of exposures with Gaussian PSFs on their own grids."""
    psfs = torch.from_numpy(np.stack([gaussian_kernel(fwhm, 31) for fwhm in fwhms]))
    return ForwardModel(psfs[:, None, None], SHAPE, TARGET, rotated_positions())


def gaussian_at(y: np.ndarray, x: np.ndarray, center: tuple[float, float], fwhm: float) -> np.ndarray:
    """Return a Gaussian of unit integral at positions."""
    sigma = fwhm_to_sigma(fwhm)
    square = (y - center[0]) ** 2 + (x - center[1]) ** 2
    return np.exp(-0.5 * square / sigma**2) / (2 * math.pi * sigma**2)


def test_star() -> None:
    """If it fails, a star is predicted at the wrong place, scale or width."""
    model = native_model()
    center = (31.3, 33.6)
    positions = rotated_positions()
    rows, columns = np.mgrid[: model.latent_shape[0], : model.latent_shape[1]] - model.sampling.grid.margin
    latent = torch.from_numpy(gaussian_at(rows, columns, center, TARGET)).float()
    predicted = model.predict(latent).numpy()
    for t, fwhm in enumerate((3.2, 3.8, 4.4)):
        y, x, area = (p[t].numpy() for p in (positions.y, positions.x, positions.area))
        truth = np.nan_to_num(area * gaussian_at(y, x, center, fwhm))
        assert np.abs(predicted[t] - truth).max() < 1.5e-3 * truth.max()
        # The flux that a fit of the PSF to these pixels gives.
        assert (predicted[t] * truth).sum() / (truth**2).sum() == pytest.approx(1.0, abs=3e-4)


def test_adjoint() -> None:
    """If it fails, the normal equations are not those of the problem."""
    model = native_model()
    assert_adjoint(model.predict, model.adjoint, model.latent_shape, (3, 56, 56))
    chosen = torch.tensor([2, 0])
    assert_adjoint(
        lambda x: model.predict(x, chosen),
        lambda y: model.adjoint(y, chosen),
        model.latent_shape,
        (2, 56, 56),
    )


def test_gradient() -> None:
    """If it fails, the network is fitted to something else."""
    model = native_model()
    generator = torch.Generator().manual_seed(3)
    data = torch.randn((3, 56, 56), generator=generator)
    latent = torch.randn(model.latent_shape, generator=generator, requires_grad=True)
    (model.predict(latent) * data).sum().backward()
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, model.adjoint(data), rtol=1e-4, atol=1e-4)


def test_constant() -> None:
    """If it fails, the sky has a pattern of the phase of the pixels."""
    model = native_model()
    inside = rotated_positions().inside
    predicted = model.predict(torch.ones(model.latent_shape))
    for t, scale in enumerate(SCALES):
        values = predicted[t][inside[t]]
        torch.testing.assert_close(values, torch.full_like(values, scale**2), rtol=3e-4, atol=0.0)


def test_weight_maps() -> None:
    """If it fails, depth has the pattern of the pixels or wrong areas."""
    model = native_model()
    inside = rotated_positions().inside
    maps = weight_maps(model, 2.0 * inside)
    middle = (slice(20, 40), slice(26, 46))
    for t, scale in enumerate(SCALES):
        torch.testing.assert_close(
            maps.weights[t][middle], torch.full((20, 20), 2.0 * scale**2), rtol=1e-2, atol=0.0
        )
        torch.testing.assert_close(maps.presence[t][middle], torch.ones(20, 20), rtol=0.0, atol=1e-2)
    torch.testing.assert_close(maps.typical, 2.0 * torch.tensor(SCALES) ** 2, rtol=1e-2, atol=0.0)


def test_normal_is_made_of_its_parts() -> None:
    """If it fails, images that are solved for together mix, or weights are
    those of other pixels.
    """
    sampling = Sampling(rotated_positions(), LatentGrid(SHAPE, 12))
    generator = torch.Generator().manual_seed(2)
    images = torch.randn((3, *sampling.grid.latent_shape), generator=generator)
    weights = torch.rand((56, 56), generator=generator)
    weights[5:9] = 0.0
    found = images.clone()
    sampling.normal(found, weights, 1)
    exposure = torch.tensor([1])
    for image, result in zip(images, found, strict=True):
        expected = sampling.adjoint(weights * sampling.observe(image[None], exposure), exposure)[0]
        torch.testing.assert_close(result, expected, rtol=0.0, atol=5e-6)


@pytest.mark.parametrize("number", [1, 4])
def test_threads_do_not_change_sums(number: int) -> None:
    """If it fails, a result depends on the number of cores."""
    model = native_model()
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn((number, *model.latent_shape), generator=generator)
    weights = torch.rand((3, 56, 56), generator=generator)
    threads = torch.get_num_threads()
    try:
        found = []
        for several in (1, 3):
            torch.set_num_threads(several)
            found.append(model.normal(latents, weights))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_whole_pixels() -> None:
    """If it fails, a stack on the pixels of the patch is one of its own."""
    rows, columns = (c[None].astype(float) for c in np.mgrid[: SHAPE[0], : SHAPE[1]])
    positions = PixelPositions.from_arrays(SHAPE, rows, columns, np.ones_like(rows))
    psfs = torch.from_numpy(gaussian_kernel(3.5, 31))[None, None, None]
    given, default = ForwardModel(psfs, SHAPE, TARGET, positions), ForwardModel(psfs, SHAPE, TARGET)
    latent = torch.randn(given.latent_shape, generator=torch.Generator().manual_seed(4))
    assert given.sampling.prefilter is None
    assert torch.equal(given.predict(latent), default.predict(latent))
    assert torch.equal(default.sampling.observe(latent[None])[0], default.crop(latent))


@pytest.mark.parametrize("offset", [(0, 0), (-4, 3), (5, -7), (-58, 70)])
def test_exposures_at_whole_offsets(offset: tuple[int, int]) -> None:
    """If it fails, co-registered exposures are shifted, or wrap around."""
    rows, columns = (np.arange(SHAPE[axis])[:, None] + offset[axis] for axis in (0, 1))
    y, x = (c[None].astype(float) for c in np.broadcast_arrays(rows, columns.T))
    area = 0.5 + np.random.default_rng(1).random(y.shape)
    sampling = Sampling(PixelPositions.from_arrays(SHAPE, y, x, area), LatentGrid(SHAPE, 6))
    assert sampling.prefilter is None
    generator = torch.Generator().manual_seed(4)
    images = torch.randn((1, *sampling.grid.latent_shape), generator=generator)
    found = sampling.observe(images)
    for t, i, j in ((0, 0, 0), (0, 30, 40), (0, 59, 71), (0, 59, 0)):
        row, column = i + offset[0], j + offset[1]
        inside = 0 <= row < SHAPE[0] and 0 <= column < SHAPE[1]
        expected = sampling.area[t, i, j] * images[t, row + 6, column + 6] if inside else 0.0
        assert float(found[t, i, j]) == float(expected)
    assert_adjoint(sampling.observe, sampling.adjoint, tuple(images.shape), tuple(y.shape))
    weights = torch.rand(SHAPE, generator=generator)
    several = torch.cat([images, 2.0 * images])
    sampling.normal(several, weights, 0)
    expected = sampling.adjoint(weights * found)
    torch.testing.assert_close(several, torch.cat([expected, 2.0 * expected]))


@pytest.mark.parametrize("turned", [False, True])
def test_other_positions_are_interpolated(turned: bool) -> None:
    """If it fails, pixels in another order count as those of the patch."""
    rows, columns = (c[None].astype(float) for c in np.mgrid[:60, :60])
    y, x = (columns, rows) if turned else (rows, columns + 1e-4)
    positions = PixelPositions.from_arrays(SHAPE, y, x, np.ones_like(y))
    assert Sampling(positions, LatentGrid(SHAPE, 6)).prefilter is not None


def test_maps_and_data() -> None:
    """If it fails, exposures are compared in the wrong pixels."""
    sampling = Sampling(rotated_positions(), LatentGrid(SHAPE, 12))
    y, x = sampling.positions()
    inside = torch.isfinite(y)
    rows = torch.arange(SHAPE[0])[:, None].expand(SHAPE).double()
    found = sampling.look_up(rows)
    assert float((found - y)[inside].abs().max()) <= 0.5
    assert not found[~inside].any()
    assert sampling.total(inside.double()).sum() == inside.sum()
    data = torch.zeros(3, 56, 56)
    data[1, 20, 30], data[1, 20, 31] = 5.0, 7.0
    peaks = sampling.largest(data)
    where = int(torch.round(y[1, 20, 31])), int(torch.round(x[1, 20, 31]))
    assert peaks[1][where] == 7.0
    assert int((peaks > 0).sum()) in (1, 2)
    flags = sampling.largest(data > 6.0)
    assert flags.dtype == torch.bool
    assert flags.nonzero().tolist() == [[1, *where]]


def test_refusals() -> None:
    """If it fails, positions of other pixels are used without a word."""
    good = rotated_positions()
    y, x, area = (p.numpy() for p in (good.y, good.x, good.area))
    with pytest.raises(InputError, match=r"Positions need shape"):
        PixelPositions.from_arrays(SHAPE, y[0], x, area)
    with pytest.raises(InputError, match=r"no positive area"):
        PixelPositions.from_arrays(SHAPE, y, x, 0.0 * area)
    images = np.ones((3, 50, 56), dtype=np.float32)
    with pytest.raises(InputError, match=r"positions have shape \(3, 56, 56\)"):
        ExposureStack.from_arrays(images, images, images > 0, np.ones((3, 5, 5)), positions=good)


def test_off_the_patch() -> None:
    """If it fails, pixels beyond the patch pull on its edge."""
    positions = rotated_positions(size=90)
    images = np.ones((3, 90, 90), dtype=np.float32)
    psfs = np.stack(3 * [gaussian_kernel(2.0, 9)])
    stack = ExposureStack.from_arrays(images, images, images > 0, psfs, positions=positions)
    assert torch.equal(stack.good, positions.inside)
    assert stack.shape == SHAPE
    assert not bool(stack.good.all())
