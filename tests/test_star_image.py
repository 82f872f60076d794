# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What linear estimates make of stars, and the penalty weight that follows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.core.estimate import LinearEstimator, Precision
from lsst.astroclearnet.core.estimate._star_image import (
    penalty_weight_for_residual,
    star_image,
    star_psf_residual,
)
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import gaussian_stars

type Profile = Callable[[float, int], npt.NDArray[np.float64]]

SHAPE = (64, 84)
EXACT = Precision(light=1e-5, noise=1e-4)


def moffat_kernel(fwhm: float, size: int) -> npt.NDArray[np.float64]:
    """Return a Moffat profile of index 3, sum 1, as wide wings have it."""
    scale = 0.5 * fwhm / math.sqrt(2.0 ** (1.0 / 3.0) - 1.0)
    offset = np.arange(size) - size // 2
    kernel: npt.NDArray[np.float64] = (1.0 + (offset[:, np.newaxis] ** 2 + offset**2) / scale**2) ** -3.0
    return kernel / kernel.sum()


PROFILES = (gaussian_kernel, moffat_kernel)


def make_model(
    fwhms: tuple[float, ...], target: float, profile: Profile = gaussian_kernel
) -> tuple[ForwardModel, torch.Tensor]:
    """Return a model of exposures of equal depth and its power."""
    psfs = np.stack([profile(fwhm, 33) for fwhm in fwhms])
    model = ForwardModel(torch.from_numpy(psfs)[:, None, None], SHAPE, target)
    return model, (model.mean_otfs.abs() ** 2).mean(dim=0)


@pytest.mark.parametrize("penalty_weight", [1e-5, 1e-4])
def test_psf_residual_of_equal_gaussians(penalty_weight: float) -> None:
    """If it fails, stars are further from the declared PSF than promised."""
    model, power = make_model((4.0, 4.0), 4.0)
    # The integral of t - (1 + s) t^3 / (t^2 + s) over that of t, for
    # t = exp(-u / 2) and u from 0 to infinity.
    root = math.sqrt(penalty_weight)
    loss = (1.0 + penalty_weight) * root * math.atan(1.0 / root) - penalty_weight
    assert star_psf_residual(model, power, penalty_weight) == pytest.approx(loss, rel=0.05)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("target", [2.6, 3.4, 4.5, 6.0])
def test_penalty_weight_keeps_the_psf_residual(target: float, profile: Profile) -> None:
    """If it fails, the linear image is biased or needlessly noisy: below the
    penalty weight, a target wider than the seeing has sharper stars.
    """
    model, power = make_model((3.0, 3.6, 4.2), target, profile)
    penalty_weight = penalty_weight_for_residual(model, power, 4e-3)
    assert star_psf_residual(model, power, penalty_weight) <= 4e-3
    assert star_psf_residual(model, power, 1.2 * penalty_weight) > 4e-3


def test_psf_residual_out_of_reach() -> None:
    """If it fails, a residual that no penalty reaches gives the weakest one,
    which is far from the best for a target wider than the seeing.
    """
    model, power = make_model((3.0, 3.6, 4.2), 6.0)
    penalty_weight = penalty_weight_for_residual(model, power, 1e-9)
    assert star_psf_residual(model, power, penalty_weight) < 0.01 * star_psf_residual(model, power, 1e-8)
    sharp, power = make_model((5.0, 6.0), 2.0)
    assert penalty_weight_for_residual(sharp, power, 1e-9) == pytest.approx(1e-8)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("target", [3.2, 5.0])
def test_image_is_that_of_the_estimator(target: float, profile: Profile) -> None:
    """If it fails, the promised residual is not that of the estimates."""
    fwhms, penalty_weight = (3.0, 3.6, 4.2), 1e-3
    model, power = make_model(fwhms, target, profile)
    estimator = LinearEstimator(model, torch.ones(3, *SHAPE))
    images = torch.zeros(3, *SHAPE)
    images[:, 14:47, 25:58] = torch.from_numpy(np.stack([profile(fwhm, 33) for fwhm in fwhms]))
    solved = model.crop(estimator.solve(estimator.right_side(images), (penalty_weight,), precision=EXACT)[0])
    predicted = torch.roll(
        model.inverse_transform(star_image(model, power, penalty_weight).to(torch.complex64)),
        (30, 41),
        (0, 1),
    )[: SHAPE[0], : SHAPE[1]]
    peak = float(predicted.max())
    np.testing.assert_allclose(solved, predicted, atol=2e-3 * peak)
    truth = gaussian_stars(SHAPE, [(30.0, 41.0, 1.0)], target)
    residual = float(np.abs(solved.numpy() - truth).max() / truth.max())
    assert residual == pytest.approx(estimator.psf_residual(penalty_weight), rel=0.05)
    light = model.embed(torch.from_numpy(truth).float())
    missing = model.crop(estimator.light_residual(penalty_weight, light))
    np.testing.assert_allclose(missing, torch.from_numpy(truth) - solved, atol=0.1 * residual * peak)
