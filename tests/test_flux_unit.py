# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The result does not depend on the unit of flux; units are not lost."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, InputError, NoUsableDataError, StackResult
from lsst.astroclearnet.tests import QUICK, TARGET, ExposureArrays, make_exposure_arrays, restore_on_cpu

POWERS = {
    "image": 1,
    "variance": 2,
    "linear_image": 1,
    "linear_variance": 2,
    "coadd": 1,
    "noise_realizations": 1,
    "weights": -2,
    "background": 1,
    "sky_level": 1,
    "faintest_flux": 1,
}


def make_exposures(unit: float = 1.0, **changes: Any) -> ExposureArrays:
    """Return exposures with photon noise in some unit."""
    arrays = make_exposure_arrays((40, 44), sigmas=(1.0, 2.0, 0.7, 1.3), gain=4.0, **changes)
    return arrays._replace(images=arrays.images * unit, variances=arrays.variances * unit**2)


@pytest.fixture(scope="module")
def reference() -> StackResult:
    """Return the restoration in a unit of one."""
    return restore_on_cpu(make_exposures(), QUICK)


@pytest.mark.parametrize("unit", [1e-12, 1.024, 1e12])
def test_unit_of_flux_does_not_matter(reference: StackResult, unit: float) -> None:
    """If it fails, images and errors depend on the unit they are given in."""
    found = restore_on_cpu(make_exposures(unit), QUICK)
    for name, power in POWERS.items():
        value = np.asarray(getattr(found, name), dtype=float) / unit**power
        np.testing.assert_allclose(value, getattr(reference, name), rtol=5e-7, err_msg=name)
    assert found.history.loss == reference.history.loss
    assert (found.rejected == reference.rejected).all()


@pytest.mark.parametrize("unit", [1e-12, 1.024, 7.7e5, 1e12])
def test_stacks_are_equal_whatever_the_unit(unit: float) -> None:
    """If it fails, what follows starts from other numbers."""
    first, second = (
        ExposureStack.from_arrays(*make_exposures(one, seed=3), in_noise_units=True) for one in (1.0, unit)
    )
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.variances, second.variances)
    assert second.unit == pytest.approx(unit * first.unit, rel=1e-12)
    # Half of the exposures have less noise.
    assert 0.7 < first.unit < 1.4


@pytest.mark.parametrize("unit", [1e-17, 1e17])
def test_unit_beyond_single_precision_is_refused(unit: float) -> None:
    """If it fails, variances underflow or overflow without a word."""
    with pytest.raises(NoUsableDataError, match="beyond single precision"):
        restore_on_cpu(make_exposures(unit), QUICK)


ARRAYS = make_exposures()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"images": ARRAYS.images * u.nJy}, "images has a unit"),
        ({"variances": (ARRAYS.variances * u.nJy**2).to(u.uJy**2)}, "variances has a unit"),
        ({"images": ARRAYS.images * u.dimensionless_unscaled}, "images has a unit"),
        ({"images": [one * u.nJy for one in ARRAYS.images]}, "images has a unit"),
        ({"images": [*ARRAYS.images[:3], ARRAYS.images[3] * u.uJy]}, "images has a unit"),
        ({"psfs": ARRAYS.psfs * u.one}, "psfs has a unit"),
        ({"good": [np.ma.masked_array(one) for one in ARRAYS.good]}, "good is a masked array"),
        ({"variances": [np.ma.masked_array(one) for one in ARRAYS.variances]}, "variances is a masked array"),
    ],
)
def test_arrays_with_units_or_masks_are_refused(changes: dict[str, Any], name: str) -> None:
    """If it fails, units or masks are dropped, and the image is wrong."""
    with pytest.raises(InputError, match=name):
        restore_on_cpu(ARRAYS._replace(**changes), QUICK)


def test_noise_and_target_with_units_are_refused() -> None:
    """If it fails, noise of another unit makes wrong errors."""
    noise = np.zeros((1, *ARRAYS.images.shape)) * u.uJy
    with pytest.raises(InputError, match="noise has a unit"):
        restore_on_cpu(ARRAYS, QUICK, noise=noise)
    with pytest.raises(InputError, match="target_fwhm has a unit"):
        restore_on_cpu(ARRAYS, QUICK, target_fwhm=TARGET * u.arcsec)
