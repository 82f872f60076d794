# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Equations with one kernel for exposures that are alike, and their use."""

from __future__ import annotations

import gc
import math
import weakref
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import PixelPositions, gaussian_kernel
from lsst.astroclearnet.core.estimate import LinearEstimator, Precision
from lsst.astroclearnet.core.forward import ForwardModel, TypicalModel
from lsst.astroclearnet.tests import gaussian_stars

SHAPE = (60, 72)
TARGET = 3.4
FINE = Precision(light=1e-4, noise=1e-3)


def make_model(fwhms: list[list[float]], positions: PixelPositions | None = None) -> ForwardModel:
    """Return a model with the FWHM of each exposure left and right."""
    psfs = torch.from_numpy(np.stack([[gaussian_kernel(fwhm, 31) for fwhm in sides] for sides in fwhms]))
    return ForwardModel(psfs[:, None], SHAPE, TARGET, positions)


def make_typical(model: ForwardModel, exposures: list[int], weights: torch.Tensor) -> TypicalModel:
    """Return the typical model of exposures of about equal weight."""
    shares = torch.full((len(exposures),), 1.0 / len(exposures))
    return TypicalModel(model, exposures, shares, weights)


def halves(angle: float = 0.4) -> PixelPositions:
    """Return two visits of two detectors each, which meet on the patch."""
    rows, columns = np.mgrid[:70, :40].astype(float)
    y, x = [], []
    for visit, turn in enumerate((angle, -angle)):
        for start in (-41.0, 2.0):
            u, v = columns + start, rows - 35.0
            y.append(math.cos(turn) * v - math.sin(turn) * u + SHAPE[0] / 2 + 0.3 * visit)
            x.append(math.sin(turn) * v + math.cos(turn) * u + SHAPE[1] / 2)
    return PixelPositions.from_arrays(SHAPE, np.stack(y), np.stack(x), np.ones((4, 70, 40)))


def make_weights(model: ForwardModel) -> torch.Tensor:
    """Return weights that differ from pixel to pixel, some of them 0."""
    generator = torch.Generator().manual_seed(3)
    weights = 0.5 + torch.rand(model.sampling.area.shape, generator=generator)
    weights[0, 20:24, 11:30] = 0.0
    return weights * model.sampling.positions()[0].isfinite()


def test_equal_kernels_are_one() -> None:
    """If it fails, detectors of a visit lose each other's light."""
    model = make_model([[4.0, 4.0], [4.0, 4.0], [5.6, 5.6], [4.0, 4.0]], halves())
    assert len(set(model.kernel_numbers)) == 2
    weights = make_weights(model)
    typical = make_typical(model, [0, 1, 2, 3], weights)
    images = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    expected, found = model.normal(images, weights), typical.normal(images)
    # Pixels are not interpolated, so that borders and masks are soft.
    assert float((found - expected).norm()) < 0.08 * float(expected.norm())


def test_pixels_of_the_patch_are_those_of_the_exposures() -> None:
    """If it fails, exposures of other weights or areas are meant."""
    model = make_model([[4.0, 4.0], [4.0, 4.0], [5.6, 5.6], [4.0, 4.0]])
    weights = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    images = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(
        make_typical(model, [3, 2, 0], weights).normal(images),
        model.normal(images, weights, [3, 2, 0]),
        rtol=0.0,
        atol=2e-5,
    )


def test_typical_matrix_is_positive() -> None:
    """If it fails, conjugate gradients break down beside masks."""
    psfs = torch.from_numpy(gaussian_kernel(3.0, 15))[None, None, None].expand(2, 1, 1, 15, 15)
    y, x = (np.stack([c + 0.3, c - 0.2]) for c in np.mgrid[:14, :12].astype(float))
    positions = PixelPositions.from_arrays((14, 12), y, x, np.ones_like(y))
    model = ForwardModel(psfs, (14, 12), 3.0, positions)
    weights = torch.ones(2, 14, 12)
    weights[:, 4:9, 5:8] = 0.0
    typical = make_typical(model, [0, 1], weights * model.sampling.positions()[0].isfinite())
    size = math.prod(model.latent_shape)
    matrix = typical.normal(torch.eye(size).reshape(size, *model.latent_shape)).flatten(1)
    values = torch.linalg.eigvalsh((matrix + matrix.T).double() / 2.0)
    assert float(values.min()) > -1e-6 * float(values.max())


def test_kernels_that_differ_are_kept() -> None:
    """If it fails, solutions converge slowly."""
    assert len(set(make_model([[3.4, 3.4], [3.6, 3.6], [5.6, 5.6]]).kernel_numbers)) == 2
    # Alike in the mean, so that variations are left out.
    model = make_model([[4.3, 4.5], [4.5, 4.3]])
    assert len(set(model.kernel_numbers)) == 1
    weights = torch.ones(2, *SHAPE)
    image = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    exact, about = model.normal(image, weights), make_typical(model, [0, 1], weights).normal(image)
    assert 1e-4 < float((about - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.parametrize("precision", [FINE, Precision(light=1e-3, noise=0.005)])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("change", [0.04, 0.6])
def test_solutions_are_those_of_the_exact_equations(
    change: float, start: bool, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, stars have the mean PSF of a visit, or the typical
    equations are no use.
    """
    model = make_model([[fwhm, fwhm + change] for fwhm in (4.0, 4.05, 5.0, 5.05)], halves())
    estimator, exact = (LinearEstimator(model, make_weights(model)) for _ in range(2))
    stars = [(30.0, 20.0, 4e4), (25.0, 50.0, 2e4), (44.0, 38.0, 1e3)]
    margin = model.grid.margin
    sky = torch.from_numpy(
        gaussian_stars(model.latent_shape, [(y + margin, x + margin, f) for y, x, f in stars], TARGET)
    ).float()
    noise = torch.randn(4, 70, 40, generator=torch.Generator().manual_seed(2))
    right = estimator.right_side(model.predict(sky) + noise)
    begin = 0.98 * sky if start else None
    exact.__dict__["_typical_normal"] = None
    # With it what both need once is there.
    assert estimator.smooth_light(right).shape == model.latent_shape
    expected = exact.solve(right, (1e-3, 1e-2), precision=Precision(light=1e-5, noise=1e-4))
    spy = Mock(side_effect=model.normal)
    monkeypatch.setattr(model, "normal", spy)
    exact.solve(right, (1e-3, 1e-2), precision=precision, start=begin)
    most, spy.call_count = spy.call_count, 0
    found = estimator.solve(right, (1e-3, 1e-2), precision=precision, start=begin)
    inner = np.s_[:, margin + 12 : -margin - 12, margin + 12 : -margin - 12]
    error = (found - expected)[inner].square().mean().sqrt()
    assert float(error) < 1.5 * precision.light * float(expected[inner].square().mean().sqrt())
    assert spy.call_count < (1.0 if change < 0.1 else 1.5) * most


@pytest.mark.parametrize("broken", [torch.nan, -1.0])
def test_broken_typical_equations_are_left_alone(broken: float) -> None:
    """If it fails, numbers that are none pass for a solution."""
    model = make_model([[4.0, 4.0]] * 4, halves())
    estimator, exact = (LinearEstimator(model, make_weights(model)) for _ in range(2))
    noise = torch.randn(4, 70, 40, generator=torch.Generator().manual_seed(2))
    right = estimator.right_side(30.0 * noise)
    estimator.__dict__["_typical_normal"] = lambda latents: broken * estimator.normal(latents)
    exact.__dict__["_typical_normal"] = None
    found, expected = (one.solve(right, (1e-2,), precision=FINE)[0] for one in (estimator, exact))
    inner = np.s_[30:-30, 30:-30]
    torch.testing.assert_close(found[inner], expected[inner], rtol=0.0, atol=0.02 * float(expected.std()))


def test_poor_typical_equations_do_no_harm() -> None:
    """If it fails, typical kernels that are none spoil an image."""
    model = make_model([[4.0, 4.6], [4.1, 4.7], [5.0, 5.6], [5.1, 5.5]], halves())
    estimator, exact = (LinearEstimator(model, make_weights(model)) for _ in range(2))
    noise = torch.randn(4, 70, 40, generator=torch.Generator().manual_seed(2))
    right = estimator.right_side(30.0 * noise)
    columns = torch.linspace(0.2, 2.0, model.latent_shape[1]).sqrt()
    estimator.__dict__["_typical_normal"] = lambda latents: columns * estimator.normal(columns * latents)
    exact.__dict__["_typical_normal"] = None
    found, expected = (one.solve(right, (1e-2,), precision=FINE)[0] for one in (estimator, exact))
    inner = np.s_[30:-30, 30:-30]
    torch.testing.assert_close(found[inner], expected[inner], rtol=0.0, atol=0.02 * float(expected.std()))


def test_full_weight_is_that_of_a_visit() -> None:
    """If it fails, detectors beside each other count as exposures on top of
    each other, and half of them seem to be missing everywhere.
    """
    model = make_model([[4.0, 4.0]] * 4, halves(0.0))
    weights = model.sampling.positions()[0].isfinite().float()
    estimator = LinearEstimator(model, weights)
    assert estimator.full_weight == pytest.approx(2.0, rel=0.02)
    assert float(estimator.coverage.median()) == pytest.approx(1.0, abs=0.02)
    assert float(estimator.relative_weight.max()) < 1.1
    # One more along a border of four pixels does not make the others few.
    weights[3, :, 4:] = 0.0
    sliver = LinearEstimator(model, weights)
    assert float(sliver.coverage[:, : SHAPE[1] // 2 - 4].median()) == pytest.approx(1.0, abs=0.02)
    assert float(sliver.coverage.max()) == 1.0


def test_estimators_are_not_kept() -> None:
    """If it fails, memory holds tiles that are done with."""
    model = make_model([[4.0, 4.1], [4.0, 4.1], [5.0, 5.0], [5.0, 5.0]], halves())
    estimator = LinearEstimator(model, make_weights(model))
    gc.disable()
    try:
        right = estimator.right_side(torch.randn(4, 70, 40, generator=torch.Generator().manual_seed(2)))
        estimator.solve(right, (1e-2,))
        estimator.solve_noise(right[None], (1e-2,))
        kept = weakref.ref(estimator), weakref.ref(model)
        del estimator, model
        assert kept[0]() is None
        assert kept[1]() is None
    finally:
        gc.enable()


def test_drawn_noise_knows_that_psfs_vary() -> None:
    """If it fails, errors are those of the mean PSF of a tile."""
    model = make_model([[4.0, 5.0]] * 4)
    estimator = LinearEstimator(model, torch.ones(4, *SHAPE))
    noise = torch.randn(12, 4, *SHAPE, generator=torch.Generator().manual_seed(4))
    right = torch.stack([estimator.right_side(draw) for draw in noise])
    exact = torch.cat([estimator.solve(one, (1e-3,), precision=FINE) for one in right])
    drawn = estimator.solve_noise(right, (1e-3,))
    rows = slice(20, -20)
    for columns, least in ((slice(16, 40), 0.9), (slice(-40, -16), 0.9)):
        ratio = drawn[:, rows, columns].std() / exact[:, rows, columns].std()
        assert least < float(ratio) < 1.1
    # The noise itself differs from side to side.
    left, right_side = (exact[:, rows, columns].std() for columns in (slice(16, 40), slice(-40, -16)))
    assert float(right_side / left) > 1.3
