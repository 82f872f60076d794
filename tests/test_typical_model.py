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


def make_typical(model: ForwardModel, exposures: list[int]) -> TypicalModel:
    """Return the typical model of exposures of equal weight."""
    shares = torch.full((len(exposures),), 1.0 / len(exposures))
    return TypicalModel(model, exposures, shares)


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


def test_large_groups_are_divided() -> None:
    """If it fails, one thread has all the work, or some exposures are lost."""
    psfs = torch.from_numpy(gaussian_kernel(4.0, 31))[None, None, None].expand(37, 1, 1, 31, 31)
    model = ForwardModel(psfs, (30, 30), TARGET)
    weights = torch.rand(37, 30, 30, generator=torch.Generator().manual_seed(1))
    images = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    expected = model.normal(images, weights)
    torch.testing.assert_close(
        make_typical(model, list(range(37))).normal(images, weights), expected, rtol=0.0, atol=5e-5
    )


@pytest.mark.parametrize("native", [False, True])
def test_equal_kernels_are_one(native: bool) -> None:
    """If it fails, detectors of a visit lose each other's light."""
    model = make_model([[4.0, 4.0], [4.0, 4.0], [5.0, 5.0], [4.0, 4.0]], halves() if native else None)
    exposures = [0, 1, 2, 3] if native else [3, 2, 0]
    if not native:
        assert model.sampling.prefilter is None
    typical = make_typical(model, exposures)
    assert len(set(model.kernel_numbers)) == 2
    weights = (
        make_weights(model) if native else torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    )
    # One, two, and more images than are interpolated alone.
    for number in (1, 2, 5):
        images = torch.randn(number, *model.latent_shape, generator=torch.Generator().manual_seed(7))
        expected = model.normal(images, weights, exposures)
        torch.testing.assert_close(typical.normal(images, weights), expected, rtol=0.0, atol=2e-5)


def test_kernels_that_differ_are_kept() -> None:
    """If it fails, solutions converge slowly, or not at all."""
    model = make_model([[3.6, 3.6], [4.4, 4.4], [5.6, 5.6]])
    assert model.share_of_kernels([0, 1, 2]) == model.share_of_kernels([1]) == 1.0
    # Alike in the mean, so that variations are left out.
    model = make_model([[4.3, 4.5], [4.5, 4.3]])
    typical = make_typical(model, [0, 1])
    assert model.share_of_kernels([0, 1]) == 0.25
    image = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    weights = torch.ones(2, *SHAPE)
    exact, about = model.normal(image, weights), typical.normal(image, weights)
    assert 1e-4 < float((about - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.parametrize(("change", "start", "most"), [(0.04, False, 5), (0.04, True, 5), (0.6, False, 30)])
def test_solutions_are_those_of_the_exact_equations(
    change: float, start: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, stars have the mean PSF of a visit, or the exact equations
    are needed in each step.
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
    expected = exact.solve(right, (1e-3, 1e-2), precision=Precision(light=1e-5, noise=1e-4))
    spy = Mock(side_effect=model.normal)
    monkeypatch.setattr(model, "normal", spy)
    found = estimator.solve(right, (1e-3, 1e-2), precision=FINE, start=begin)
    inner = np.s_[:, margin + 12 : -margin - 12, margin + 12 : -margin - 12]
    error = (found - expected)[inner].square().mean().sqrt()
    assert float(error) < 3.0 * FINE.light * float(expected[inner].square().mean().sqrt())
    # Two of them are for the smooth light.
    assert 3 <= spy.call_count <= most


def test_exact_equations_are_solved_where_refinement_fails() -> None:
    """If it fails, typical kernels that are none spoil an image."""
    model = make_model([[4.0, 4.6], [4.1, 4.7], [5.0, 5.6], [5.1, 5.5]], halves())
    estimator, exact = (LinearEstimator(model, make_weights(model)) for _ in range(2))
    noise = torch.randn(4, 70, 40, generator=torch.Generator().manual_seed(2))
    right = estimator.right_side(30.0 * noise)
    estimator.__dict__["_typical_normal"] = lambda latents: 0.4 * estimator.normal(latents)
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
        estimator.solve_noise(right[None], (1e-2,), num_refinements=1)
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
    assert model.share_of_kernels([0, 1, 2, 3]) < 0.2
    noise = torch.randn(12, 4, *SHAPE, generator=torch.Generator().manual_seed(4))
    right = torch.stack([estimator.right_side(draw) for draw in noise])
    exact = torch.cat([estimator.solve(one, (1e-3,), precision=FINE) for one in right])
    drawn = estimator.solve_noise(right, (1e-3,), num_refinements=2)
    rows = slice(20, -20)
    for columns, least in ((slice(16, 40), 0.9), (slice(-40, -16), 0.9)):
        ratio = drawn[:, rows, columns].std() / exact[:, rows, columns].std()
        assert least < float(ratio) < 1.1
    # The noise itself differs from side to side.
    left, right_side = (exact[:, rows, columns].std() for columns in (slice(16, 40), slice(-40, -16)))
    assert float(right_side / left) > 1.3
