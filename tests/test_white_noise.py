# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise that is a function of the place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core.noise import white_noise


def test_part_of_an_exposure_has_the_noise_of_the_whole() -> None:
    """If it fails, realisations of the noise fade out between tiles."""
    whole = white_noise(5, 0, 3, (0, 0), (400, 300))
    part = white_noise(5, 0, 3, (117, 40), (203, 129))
    assert torch.equal(part, whole[117:320, 40:169])
    assert part.dtype == torch.float32


def test_noise_is_normal_and_white() -> None:
    """If it fails, variances that are drawn with it are wrong."""
    noise = white_noise(11, 2, 0, (30, 50), (1000, 900)).double().numpy()
    number = noise.size
    assert abs(noise.mean()) < 5.0 / number**0.5
    assert noise.var() == pytest.approx(1.0, abs=5.0 * (2.0 / number) ** 0.5)
    assert (noise**4).mean() == pytest.approx(3.0, abs=5.0 * (96.0 / number) ** 0.5)
    for lag in ((0, 1), (1, 0), (1, 1), (0, 128), (128, 0)):
        shifted = np.roll(noise, lag, axis=(0, 1))
        assert abs((noise * shifted).mean()) < 5.0 / number**0.5


def test_draws_and_exposures_are_independent() -> None:
    """If it fails, exposures share noise, and variances are too large."""
    shape = (300, 310)
    draws = [
        white_noise(seed, draw, exposure, (0, 0), shape).numpy().ravel()
        for seed, draw, exposure in ((1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (1, 1, 1))
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5.0 / (shape[0] * shape[1]) ** 0.5
