# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Significance of residuals under what may differ between exposures."""

from __future__ import annotations

import math

import pytest
import torch

from lsst.astroclearnet.core.outliers._expected_differences import find_structure, list_differences
from lsst.astroclearnet.core.outliers._leave_one_out import Prediction
from lsst.astroclearnet.core.outliers._structured_residuals import StructuredResiduals, _LocalFit
from lsst.astroclearnet.tests import gaussian_stars

SHAPE = (40, 46)
FWHM = 3.5


def judge(templates: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """Return the significance of what differs from dark sky, of noise 1."""
    nothing = torch.zeros(1, *SHAPE)
    prediction = Prediction(nothing, nothing, templates, nothing, nothing, 0.0, FWHM)
    ones = torch.ones(1, *SHAPE)
    residuals = StructuredResiduals(difference, ones, ones > 0, prediction)
    return residuals.fit(residuals.may_differ.flatten().nonzero()[:, 0])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("peak", [1e2, 1e4, 1e6, 1e8])
def test_templates_that_resemble_each_other(peak: float, seed: int) -> None:
    """If it fails, bright stars in badly known exposures end a restoration,
    or differences that are expected count as artefacts.
    """
    light = torch.from_numpy(gaussian_stars(SHAPE, [(18.3, 23.6, 1.0)], FWHM)).float()[None]
    template = peak * light / light.max()
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
    # Several templates of one shape permit what one stronger template does.
    one = judge(template, noise + template)
    several = judge((template / 7.0**0.5).expand(7, -1, -1), noise + template)
    torch.testing.assert_close(several, one, rtol=1e-3, atol=1e-3)
    assert float(one.abs().max()) < 6.0


def test_local_fit_is_that_of_each_pixel() -> None:
    """If it fails, an artefact explains itself, or neighbours count wrong."""
    generator = torch.Generator().manual_seed(4)
    templates = torch.randn(3, *SHAPE, generator=generator)
    residual = torch.randn(1, *SHAPE, generator=generator)
    weights = torch.rand(1, *SHAPE, generator=generator)
    pixels = torch.tensor([0, 45, 500, 777, 778, 40 * 46 - 1])
    fitted, variance = _LocalFit(templates, pixels, FWHM).solve(residual, weights)
    sigma = 1.5 * FWHM / 2.3548
    radius = round(2.0 * sigma)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"))
    design = templates.flatten(1).double()
    for pixel in pixels.tolist():
        y, x = rows - rows[pixel], columns - columns[pixel]
        near = (y.abs() <= radius) & (x.abs() <= radius) & ((y != 0) | (x != 0))
        weight = near * torch.exp(-0.5 * (y**2 + x**2) / sigma**2) * weights.flatten()
        normal = (design * weight) @ design.T + torch.eye(3, dtype=torch.float64)
        own = torch.linalg.solve(normal, design[:, pixel])
        expected = own @ ((design * weight) @ residual.flatten().double())
        assert float(fitted.flatten()[pixel]) == pytest.approx(float(expected), abs=1e-4)
        assert float(variance.flatten()[pixel]) == pytest.approx(float(own @ design[:, pixel]), rel=1e-4)
    assert int((variance > 0).sum()) == len(pixels)


def test_differences_of_a_parabola() -> None:
    """If it fails, small errors of positions and PSFs count as artefacts, or
    the border of the patch does.
    """
    rows, columns = torch.meshgrid(*(torch.arange(float(s)) for s in SHAPE), indexing="ij")
    light = (0.5 * rows**2 + 3.0 * rows * columns - columns)[None]
    inside = torch.ones(1, *SHAPE, dtype=torch.bool)
    inside[:, :, :5] = False
    light[~inside] = 1e6
    found = list_differences(light, inside, 0.3 * light, shift=0.1, width=0.2)
    inner = (slice(2, -2), slice(7, -2))
    expected = (
        0.3 * light[0],
        0.1 * (rows + 3.0 * columns),
        0.1 * (3.0 * rows - 1.0),
        torch.full(SHAPE, 0.2),
        torch.zeros(SHAPE),
        torch.full(SHAPE, 0.6 * math.sqrt(2.0)),
    )
    for template, right in zip(found, expected, strict=True):
        torch.testing.assert_close(template[inner], right[inner], rtol=1e-3, atol=1e-3)
    # Nothing off the patch leaks in.
    assert float(found[1:, :, 5:].abs().max()) < 100.0


def test_structure_stands_on_smooth_light() -> None:
    """If it fails, smooth light or the end of the data is taken for stars."""
    rows = torch.arange(float(SHAPE[0]))[:, None].expand(SHAPE)
    star = torch.from_numpy(gaussian_stars(SHAPE, [(20.0, 23.0, 1000.0)], FWHM)).float()
    inside = torch.ones(1, *SHAPE, dtype=torch.bool)
    inside[:, 33:] = False
    light = torch.where(inside, 500.0 + rows + star, 0.0)
    structure = find_structure(light, inside, FWHM / 2.3548, torch.tensor(0.0))
    assert float(structure[0, 20, 23]) == pytest.approx(float(star.max()), rel=0.15)
    far = (star < 1e-3)[None]
    assert float(structure[far].max()) < 15.0
