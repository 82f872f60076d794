# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Which kernels are so much alike that one may stand for them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage

_ALIKE = 0.3
"""Largest rms difference of kernels that count as alike, over the root of the
power of all exposures.  On detector images of very different seeing the exact
matrix is needed as often as with 0.1, and the typical one costs half as much;
with 0.8 it is needed half as often again."""

_STEP = 3
"""Kernels are compared at every third frequency along both axes."""

_PENALTY_WEIGHT = 1e-3
"""Penalty of a typical estimate: where there is no power, differences do not
count."""


def find_alike(otfs: torch.Tensor, inverse_target_power: torch.Tensor) -> tuple[int, ...]:
    """Return the same number for kernels that are all alike.

    Parameters
    ----------
    otfs
        Shape (n, Hl, Wl // 2 + 1), complex64, transforms of the kernels.
    inverse_target_power
        Shape (Hl, Wl // 2 + 1), one over the power of the target PSF.

    Returns
    -------
    numbers : `tuple` [`int`, ...]
        One for each kernel; groups are made by complete linkage.
    """
    if len(otfs) == 1:
        return (1,)
    some = otfs[:, ::_STEP, ::_STEP]
    power = some.abs().square().mean(dim=0) + _PENALTY_WEIGHT * inverse_target_power[::_STEP, ::_STEP]
    some = (some * power.rsqrt()).flatten(1)
    product = (some @ some.mH).real / some.shape[1]
    square = product.diagonal()
    distance = (square[:, None] + square - 2.0 * product).clamp_(min=0.0).sqrt_().double().cpu().numpy()
    tree = linkage(distance[np.triu_indices(len(otfs), 1)], "complete")
    return tuple(fcluster(tree, _ALIKE, "distance").tolist())
