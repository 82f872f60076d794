# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Gaussian kernels and widths against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import InputError, fwhm_to_sigma, gaussian_kernel, kernel_fwhm


def test_fwhm_is_where_the_profile_is_half() -> None:
    """If it fails, widths are off by a constant everywhere."""
    sigma = fwhm_to_sigma(3.7)
    assert math.exp(-0.5 * (0.5 * 3.7 / sigma) ** 2) == pytest.approx(0.5)


def test_kernel_profile() -> None:
    """If it fails, the target PSF is not the Gaussian it is said to be."""
    kernel = gaussian_kernel(4.0, 27)
    assert kernel.shape == (27, 27)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.argmax() == 13 * 27 + 13
    # Two pixels from the centre of a FWHM of 4 lies the half maximum.
    assert kernel[15, 13] / kernel[13, 13] == pytest.approx(0.5)
    assert kernel[13, 11] / kernel[13, 13] == pytest.approx(0.5)
    np.testing.assert_allclose(kernel, kernel[::-1].T, atol=1e-18)


@settings(max_examples=20, deadline=None)
@given(fwhm=st.floats(2.0, 7.0), norm=st.floats(0.1, 1e4))
def test_width_of_a_gaussian_is_its_fwhm(fwhm: float, norm: float) -> None:
    """If it fails, seeing and target widths cannot be compared."""
    assert kernel_fwhm(norm * gaussian_kernel(fwhm, 45)) == pytest.approx(fwhm, rel=2e-3)


def test_kernel_refusals() -> None:
    """If it fails, a kernel without a centre or of zero width is made."""
    with pytest.raises(InputError, match=r"Gaussian of FWHM 0\.0 pixels"):
        gaussian_kernel(0.0, 9)
    with pytest.raises(InputError, match="Gaussian of FWHM nan pixels"):
        gaussian_kernel(math.nan, 9)
    with pytest.raises(InputError, match="kernel of 8 pixels has no middle"):
        gaussian_kernel(3.0, 8)
    with pytest.raises(InputError, match="kernel of -3 pixels has no middle"):
        gaussian_kernel(3.0, -3)
