# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the exposures' PSFs, in declared errors and chi-square."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, RestorationResult, gaussian_kernel, restore
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel, weight_maps
from lsst.astroclearnet.core.noise import PsfErrorImages
from lsst.astroclearnet.core.outliers import PsfErrors
from lsst.astroclearnet.tests import gaussian_stars

SHAPE = (110, 110)
FWHMS = (2.9, 3.3, 3.6, 4.0, 3.1, 3.8, 3.4, 4.2)
TARGET = 3.4
SIGMAS = (0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 0.9, 1.1)


def make_stars(seed: int, number: int = 4) -> list[tuple[float, float, float]]:
    """Return stars on a grid, of S/N 50 to 3000 in the coadd."""
    rng = np.random.default_rng(seed)
    places = np.linspace(16.0, SHAPE[0] - 17.0, number)
    return [
        (y + rng.uniform(-1, 1), x + rng.uniform(-1, 1), 10.0 ** rng.uniform(2.0, 3.8))
        for y in places
        for x in places
    ]


@dataclasses.dataclass(frozen=True)
class Field:
    """Exposures of stars, and the truth at the target PSF."""

    images: np.ndarray
    truth: np.ndarray
    stars: list[tuple[float, float, float]]

    @classmethod
    def draw(cls, seed: int, width: float, shift: float) -> Field:
        """Draw stars that are wider and shifted by random errors."""
        rng = np.random.default_rng(seed)
        stars = make_stars(seed)
        images = []
        for fwhm, sigma in zip(FWHMS, SIGMAS, strict=True):
            dy, dx = rng.normal(0.0, shift, 2)
            moved = [(y + dy, x + dx, flux) for y, x, flux in stars]
            light = gaussian_stars(SHAPE, moved, fwhm * (1.0 + rng.normal(0.0, width)))
            images.append(light + rng.normal(0.0, sigma, SHAPE))
        return cls(np.stack(images), gaussian_stars(SHAPE, stars, TARGET), stars)

    @property
    def variances(self) -> np.ndarray:
        """Variances of the noise."""
        return np.broadcast_to(np.square(SIGMAS)[:, None, None], self.images.shape)

    def restore(self) -> RestorationResult:
        """Restore it with the PSFs as they should be."""
        psfs = np.stack([gaussian_kernel(fwhm, 31) for fwhm in FWHMS])
        good = np.ones(self.images.shape, dtype=bool)
        return restore(self.images, self.variances, good, psfs, target_fwhm=TARGET)

    def pulls_of_cores(self, image: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Return rms errors in cores of bright stars over declared ones."""
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        pulls = (image - self.truth) / np.sqrt(variance)
        return np.array(
            [
                rms(pulls[(rows - y) ** 2 + (columns - x) ** 2 < 4.0])
                for y, x, flux in self.stars
                if flux > 1500.0
            ]
        )


@pytest.mark.parametrize(("width", "shift"), [(0.02, 0.04), pytest.param(0.0, 0.0, marks=pytest.mark.slow)])
def test_declared_errors_know_those_of_psfs(width: float, shift: float) -> None:
    """If it fails, bright stars have errors that nobody is told of, or good
    PSFs are taken for wrong ones.
    """
    pulls, plain, found, chi_squares = [], [], [], []
    for seed in range(4):
        field = Field.draw(seed, width, shift)
        result = field.restore()
        pulls.append(field.pulls_of_cores(result.linear_image, result.linear_variance))
        plain.append(field.pulls_of_cores(result.linear_image, np.median(result.linear_variance)))
        found.append(result.psf_residual_scatter)
        chi_squares.append(result.chi_square)
    # The stars of a field share their errors: only fields scatter.
    assert 0.7 < rms(np.concatenate(pulls)) < 1.3
    assert np.mean(chi_squares) == pytest.approx(1.0, abs=0.06)
    if width:
        # The noise of other pixels would not explain it.
        assert rms(np.concatenate(plain)) > 5.0
        # Errors of one kind look like those of another.
        assert rms(found) > 0.01
    else:
        assert rms(found) < 0.003


def rms(values: Any) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


class Declared(NamedTuple):
    """Errors of an image, its estimator and exposures without noise."""

    images: PsfErrorImages
    estimator: LinearEstimator
    stack: ExposureStack


def build(amplitudes: torch.Tensor, stars: list[tuple[float, float, float]]) -> Declared:
    """Return what errors of some amplitudes do to an image of stars."""
    psfs = torch.from_numpy(np.stack([gaussian_kernel(fwhm, 31) for fwhm in FWHMS]))
    light = np.stack([gaussian_stars(SHAPE, stars, fwhm) for fwhm in FWHMS])
    sigmas = np.broadcast_to(np.asarray(SIGMAS)[:, None, None], light.shape)
    stack = ExposureStack.from_arrays(light, sigmas**2, light > -np.inf, psfs)
    model = ForwardModel.from_stack(stack, TARGET)
    weights = stack.good / stack.variances
    estimator = LinearEstimator(model, weights)
    image = estimator.solve(estimator.right_side(stack.images), (1e-3,))[0]
    images = PsfErrorImages.build(
        PsfErrors(amplitudes.double()),
        stack,
        model,
        weight_maps(model, weights),
        image=image,
        variance=torch.full(SHAPE, 1e-6),
        penalty_weight=1e-3,
    )
    return Declared(images, estimator, stack)


@pytest.mark.parametrize("exposure", [0, 3, 7])
@pytest.mark.parametrize("kind", ["position", "width"])
def test_error_of_one_psf_is_that_of_a_linear_estimate(kind: str, exposure: int) -> None:
    """If it fails, declared errors are not those that the PSF makes."""
    size = 0.01
    stars = [(52.3, 57.6, 1e4)]
    amplitudes = torch.zeros(len(FWHMS), 4)
    amplitudes[exposure, 1 if kind == "position" else 2] = size
    images, estimator, stack = build(amplitudes, stars)
    (y, x, flux), fwhm = stars[0], FWHMS[exposure]
    if kind == "position":
        ways = [gaussian_stars(SHAPE, [place], fwhm) for place in ((y + size, x, flux), (y, x + size, flux))]
    else:
        ways = [gaussian_stars(SHAPE, stars, fwhm * (1.0 + size))]
    total = torch.zeros(SHAPE)
    for way in ways:
        wrong = stack.images.clone()
        wrong[exposure] = torch.from_numpy(way).float()
        right = estimator.right_side(wrong - stack.images)
        total += estimator.model.crop(estimator.solve(right, (1e-3,))[0]).square()
    declared = images.variance()
    core = np.s_[48:57, 53:62]
    assert float(declared[core].sum()) == pytest.approx(float(total[core].sum()), rel=0.1)
    np.testing.assert_allclose(declared[core], total[core], atol=0.2 * float(total.max()))


def test_drawn_errors_have_the_declared_variance() -> None:
    """If it fails, realisations and variances contradict each other."""
    amplitudes = torch.tensor([0.01, 0.02, 0.015, 0.01]).expand(len(FWHMS), 4)
    images, _, _ = build(amplitudes, make_stars(3))
    numbers = list(range(len(FWHMS)))
    draws = torch.stack([images.draw(5, number, numbers, (130, 70)) for number in range(300)])
    variance = images.variance()
    bright = variance > 0.01 * variance.max()
    ratio = draws.square().mean(dim=0)[bright] / variance[bright]
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.06)
    assert float(draws.mean(dim=0)[bright].square().mean() / variance[bright].mean()) < 0.02


def test_without_others_nothing_is_known() -> None:
    """If it fails, two exposures accuse each other of wrong PSFs."""
    field = Field.draw(1, 0.05, 0.0)
    psfs = np.stack([gaussian_kernel(fwhm, 31) for fwhm in FWHMS[:2]])
    result = restore(
        field.images[:2],
        field.variances[:2],
        np.ones((2, *SHAPE), dtype=bool),
        psfs,
        target_fwhm=TARGET,
    )
    assert not result.psf_residual_scatter.any()
