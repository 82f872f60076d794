# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Significance of residuals under what may differ between exposures."""

from __future__ import annotations

import pytest
import torch

from lsst.astroclearnet.core.outliers._leave_one_out import Prediction
from lsst.astroclearnet.core.outliers._structured_residuals import StructuredResiduals
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
