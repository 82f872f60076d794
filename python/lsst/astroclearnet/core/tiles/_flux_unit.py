# This file is tile_data of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The unit of flux in which a restoration is computed."""

from __future__ import annotations

__all__ = ("restore_unit",)

import dataclasses
from typing import Any

import numpy as np

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
    changes: dict[str, Any] = {}
    for name, power in _POWERS.items():
        value = np.asarray(getattr(result, name))
        # The square of an extreme unit has no place in single precision.
        changed = (value.astype(np.float64) * unit**power).astype(value.dtype)
        changes[name] = changed if value.ndim else float(changed)
    return dataclasses.replace(result, **changes)
