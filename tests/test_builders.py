# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Builders and assertions that the package ships for tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsst.astroclearnet.tests import (
    assert_adjoint,
    gaussian_stars,
    make_exposure_arrays,
    make_exposure_stack,
    measure_star,
)


def test_adjointness_is_recognised() -> None:
    """If it fails, wrong adjoints pass."""
    matrix = torch.arange(12.0).reshape(3, 4)
    assert_adjoint(lambda x: matrix @ x, lambda y: matrix.T @ y, (4,), (3,))
    with pytest.raises(AssertionError, match="<K x, y> = .* but <x, K' y> = "):
        assert_adjoint(lambda x: matrix @ x, lambda y: 1.01 * matrix.T @ y, (4,), (3,))
    with pytest.raises(AssertionError, match=r"Shapes \(3,\), \(4,\): not \(3, 1\), \(4,\)"):
        assert_adjoint(lambda x: matrix @ x, lambda y: matrix.T @ y[:, 0], (4,), (3, 1))


def test_stars_are_where_they_are_said_to_be() -> None:
    """If it fails, the truth that tests compare with is wrong."""
    image = gaussian_stars((60, 74), [(25.3, 40.6, 250.0)], 4.0)
    assert measure_star(image) == pytest.approx((25.3, 40.6, 250.0), rel=1e-6)


def test_noise_has_the_variance_it_is_given() -> None:
    """If it fails, tests of uncertainties prove nothing."""
    arrays = make_exposure_arrays((150, 170), (3.0, 4.0), stars=[], sigmas=(1.0, 3.0))
    pull = arrays.images / np.sqrt(arrays.variances)
    np.testing.assert_allclose(pull.std(axis=(1, 2)), 1.0, atol=0.02)
    assert arrays.psfs.sum() == pytest.approx(2.0)
    # Photon noise: the variances follow the pixels and average to the truth.
    stars = [(70.0, 80.0, 50000.0)]
    bright = make_exposure_arrays((150, 170), (30.0,), stars=stars, gain=5.0, psf_size=91)
    truth = gaussian_stars((150, 170), stars, 30.0)
    expected = 1.0 + truth / 5.0
    pull = (bright.images[0] - truth) / np.sqrt(expected)
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert bright.variances.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert (
        np.corrcoef((bright.images[0] - truth).ravel(), (bright.variances[0] - expected).ravel())[0, 1] > 0.9
    )


def test_seeds() -> None:
    """If it fails, tests cannot be repeated."""
    first, second, other = (make_exposure_stack((30, 40), seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    noise_free = make_exposure_arrays((30, 40), (3.0,), stars=[(10.0, 12.0, 5.0)], seed=None)
    np.testing.assert_array_equal(noise_free.images[0], gaussian_stars((30, 40), [(10.0, 12.0, 5.0)], 3.0))
