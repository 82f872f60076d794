# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The unit of flux in which a restoration is computed."""

from __future__ import annotations

__all__ = ("change_unit", "noise_unit", "restore_unit")

import dataclasses
import math

import torch

from ._exposure_stack import ExposureStack, sample_median
from ._result import StackResult

_POWERS = {
    "image": 1,
    "variance": 2,
    "coadd": 1,
    "noise_realizations": 1,
    "linear_image": 1,
    "linear_variance": 2,
    "linear_noise_realizations": 1,
    "weights": -2,
    "background": 1,
    "background_sigma": 1,
    "sky_level": 1,
}
"""Power of the unit of flux in the attributes of a result that have one."""


def noise_unit(stack: ExposureStack) -> float:
    """Return a unit in which the noise of exposures is about one.

    Sums over many pixels stay within single precision in that unit alone.

    Parameters
    ----------
    stack
        The exposures.

    Returns
    -------
    unit : `float`
        The power of two next to the noise of half the exposures, so that the
        change of unit rounds nothing.
    """
    medians = [sample_median(v[good]) for v, good in zip(stack.variances, stack.good, strict=True)]
    return 2.0 ** round(0.5 * math.log2(float(torch.stack(medians).nanmedian())))


def change_unit(stack: ExposureStack, unit: float) -> ExposureStack:
    """Return exposures in another unit.

    Parameters
    ----------
    stack
        The exposures.
    unit
        The new unit in the old one.

    Returns
    -------
    changed : `ExposureStack`
        The same exposures.
    """
    if unit == 1.0:
        return stack
    variances = torch.where(stack.good, stack.variances / unit / unit, 1.0)
    return stack.replace(images=stack.images / unit, variances=variances)


def restore_unit(result: StackResult, unit: float) -> StackResult:
    """Return a result in the unit that the exposures were given in.

    Parameters
    ----------
    result
        The result in another unit.
    unit
        That unit in the one of the exposures.

    Returns
    -------
    restored : `StackResult`
        The same result.
    """
    if unit == 1.0:
        return result
    changes = {}
    for name, power in _POWERS.items():
        value = getattr(result, name)
        # The square of an extreme unit has no place in single precision.
        for _ in range(abs(power)):
            value = value * unit if power > 0 else value / unit
        changes[name] = value
    return dataclasses.replace(result, **changes)
