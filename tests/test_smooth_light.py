# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Smooth light of exposures, and how it continues beyond them."""

from __future__ import annotations

import functools

import pytest
import torch

from lsst.astroclearnet.core.estimate._smooth_light import SmoothLight
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import make_exposure_stack

SHAPE = (60, 76)


def make_light(weights: torch.Tensor) -> tuple[ForwardModel, SmoothLight]:
    """Return the smooth light of three exposures and their model."""
    model = ForwardModel.from_stack(make_exposure_stack(SHAPE, (3.4, 4.2, 5.0)), 3.8)
    power = model.total_power(torch.full((3,), 1.0 / 3.0))
    normal = functools.partial(model.normal, weights=weights)
    return model, SmoothLight(model, power, normal, 3.0, weights.device)


def masked(case: str) -> torch.Tensor:
    """Return weights with pixels that no exposure has, or only some."""
    weights = torch.ones(3, *SHAPE)
    if case == "columns":
        weights[:, :, 40:43] = 0.0
    if case == "hole":
        weights[:, 20:35, 30:45] = 0.0
    if case == "one exposure":
        weights[1:, :, 38:] = 0.0
    return weights


@pytest.mark.parametrize("case", ["border", "columns", "hole", "one exposure"])
def test_constant_light_is_exact(case: str) -> None:
    """If it fails, bright sky is wrong at edges."""
    weights = masked(case)
    model, light = make_light(weights)
    right = model.adjoint(torch.full((3, *SHAPE), 1000.0), weights=weights)
    fitted = light.fit(right[None])
    left = right - model.normal(fitted, weights)
    # Rounding of single precision, beyond the edge too.
    assert float((model.crop(fitted) - 1000.0).abs().max()) < 0.05
    assert float(left.abs().max()) < 1e-3 * float(right.max())


def test_gradients_continue_beyond_the_edge() -> None:
    """If it fails, the halo of a galaxy has an edge where the data end."""
    weights = torch.ones(3, *SHAPE)
    weights[:, :, 50:] = 0.0
    model, light = make_light(weights)
    x = torch.arange(SHAPE[1], dtype=torch.float32) - 49.0
    plane = (100.0 + 10.0 * x).expand(SHAPE)
    # A symmetric PSF leaves a plane as it is.
    right = model.adjoint(plane.expand(3, *SHAPE), weights=weights)
    fitted = model.crop(light.fit(right[None])[0])[0]
    error = (fitted - plane)[20:40]
    assert float(error[:, 42:50].abs().max()) < 3.0
    # A constant would be wrong by 10 and 30.
    assert float(error[:, 50].abs().max()) < 5.0
    assert float(error[:, 52].abs().max()) < 15.0


def test_linear() -> None:
    """If it fails, so is the linear image not linear."""
    weights = masked("columns")
    model, light = make_light(weights)
    noise = torch.randn((2, 3, *SHAPE), generator=torch.Generator().manual_seed(1))
    first, second, both = (
        light.fit(model.adjoint(data, weights=weights)[None])[0]
        for data in (noise[0], noise[1], 2.0 * noise[0] - noise[1])
    )
    torch.testing.assert_close(both, 2.0 * first - second, rtol=0.0, atol=5e-3)


@pytest.mark.parametrize("target_fwhm", [4.7, 5.4, 6.6])
def test_wide_targets_have_bounds(target_fwhm: float) -> None:
    """If it fails, images at a target PSF wider than those of the exposures
    run away at oblique edges of the data.
    """
    model = ForwardModel.from_stack(make_exposure_stack(SHAPE, (4.7, 4.7, 4.7)), target_fwhm)
    rows, columns = torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij")
    weights = torch.stack([rows + slope * columns > 18.0 for slope in (0.3, 0.5, -0.2)]).float()
    power = model.total_power(torch.full((3,), 1.0 / 3.0))
    normal = functools.partial(model.normal, weights=weights)
    light = SmoothLight(model, power, normal, 3.0, weights.device)
    noise = torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(2))
    fitted = light.fit(model.adjoint(noise, weights=weights)[None])
    assert float(fitted.abs().max()) < 5.0
