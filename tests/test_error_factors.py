# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Factors that turn the scatter of repeated observations into errors."""

from __future__ import annotations

import math

import pytest
import torch

from lsst.astroclearnet.core import ErrorFactors

FACTORS = ErrorFactors((0.1, 1.0, 10.0), (0.5, 2.0), ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)))


@pytest.mark.parametrize(
    ("image", "sigma", "expected"),
    [
        (1.0, 0.5, 3.0),
        (10.0, 2.0, 6.0),
        (1.0, 1.0, 3.5),
        (math.sqrt(10.0), 0.5, 4.0),
        (math.sqrt(0.1), 1.0, 2.5),
    ],
)
def test_factors_are_interpolated(image: float, sigma: float, expected: float) -> None:
    """If this fails, errors are scaled with the factor of other pixels."""
    noise = 7.0
    planes = (torch.tensor([[value * noise]]) for value in (image, sigma))
    found = FACTORS.at(*planes, torch.tensor([[noise]]))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("image", "sigma", "expected"), [(-5.0, 0.1, 1.0), (0.0, 9.0, 2.0), (99.0, 0.1, 5.0), (99.0, 99.0, 6.0)]
)
def test_the_nearest_node_counts_beyond(image: float, sigma: float, expected: float) -> None:
    """If this fails, a dark or very bright pixel has a factor that nobody
    measured.
    """
    found = FACTORS.at(*(torch.tensor([[value]]) for value in (image, sigma, 1.0)))
    assert float(found) == pytest.approx(expected)


def test_no_factors_are_one() -> None:
    """If this fails, a network that is fitted to a patch has other errors."""
    planes = torch.rand(2, 5, 6)
    assert torch.equal(ErrorFactors.none().at(*planes, torch.ones(5, 6)), torch.ones(5, 6))
