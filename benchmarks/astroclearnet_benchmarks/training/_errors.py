# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How the scatter of repeated observations differs from the errors."""

from __future__ import annotations

__all__ = ("find_error_factors", "measure_pulls")

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lsst.astroclearnet.core import (
    ErrorFactors,
    ModelOptions,
    RejectionOptions,
    RestorationModel,
    RestoreOptions,
    restore,
)

from ..truth.coverage import NOMINAL
from ._recipe import draw_recipe
from ._scene import render_scene

type Array = npt.NDArray[np.float64]

_FLUX_RATIOS = tuple(float(2.0**k) for k in np.arange(-4.0, 6.1))
_SIGMA_RATIOS = tuple(float(2.0**k) for k in np.arange(-5.0, 2.1))
"""Nodes in units of the noise of the coadd."""

_FACTORS = np.geomspace(0.2, 5.0, 161)
_ENOUGH = 4000
"""Pixels that a factor is measured on: their shares are known to one percent
where the errors of some twenty neighbours are the same."""


def measure_pulls(seed: int, model: bytes) -> Array | None:
    """Restore a training scene and compare with the truth.

    Parameters
    ----------
    seed
        Seed of the scene.
    model
        File of the network, whose factors are not used.

    Returns
    -------
    pulls : `numpy.ndarray` or `None`
        Shape (3, k), for each pixel with data, in units of the noise of the
        coadd, the restored image and sigma of repeated observations, and the
        error over that sigma; `None` for a scene without exposures.
    """
    torch.set_num_threads(1)
    recipe = draw_recipe(seed)
    exposures = tuple(dataclasses.replace(e, has_trail=False) for e in recipe.exposures)
    scene = render_scene(dataclasses.replace(recipe, flagged_fraction=1.0, exposures=exposures))
    if len(scene.images) < 2:
        return None
    network = dataclasses.replace(RestorationModel.from_bytes(model), error_factors=ErrorFactors.none())
    result = restore(
        scene.images,
        scene.variances,
        scene.good,
        scene.psfs,
        positions=scene.positions,
        target_fwhm=scene.target_fwhm,
        options=RestoreOptions(
            rejection=RejectionOptions(enabled=False), model=ModelOptions(source="dataset")
        ),
        model=network,
        seed=seed,
    )
    noise = result.weights.sum(axis=0)
    used = (result.mask == 0) & np.isfinite(result.variance) & (noise > 0.0)
    unit = noise[used].astype(float) ** -0.5
    sigma = np.sqrt(result.variance[used].astype(float))
    error = result.image[used].astype(float) - scene.truth[used]
    return np.stack([result.image[used] / unit, sigma / unit, error / sigma])


def find_error_factors(pulls: Sequence[Array]) -> ErrorFactors:
    """Find factors with which errors are as often within 1, 2 and 3 sigma as
    normal ones.

    Parameters
    ----------
    pulls
        As of `measure_pulls`.

    Returns
    -------
    factors : `ErrorFactors`
        The factors; their largest difference from the nominal shares is the
        least possible.
    """
    flux, sigma, pull = np.concatenate(pulls, axis=1)
    places = [
        np.log2(np.clip(values, nodes[0], nodes[-1]))
        for values, nodes in ((flux, _FLUX_RATIOS), (sigma, _SIGMA_RATIOS))
    ]
    enough = min(_ENOUGH, len(pull) - 1)
    table = []
    for flux_node in np.log2(_FLUX_RATIOS):
        row = []
        for sigma_node in np.log2(_SIGMA_RATIOS):
            distance = np.maximum(np.abs(places[0] - flux_node), np.abs(places[1] - sigma_node))
            # The smallest neighbourhood with enough pixels.
            reach = max(1.0, float(np.partition(distance, enough)[enough]))
            near = distance <= reach
            row.append(_find_factor(np.abs(pull[near]), 1.0 - 0.5 * distance[near] / reach))
        table.append(tuple(row))
    return ErrorFactors(_FLUX_RATIOS, _SIGMA_RATIOS, tuple(table))


def _find_factor(pull: Array, weight: Array) -> float:
    """Return the factor with which the shares are closest to nominal."""
    order = np.argsort(pull)
    share = np.cumsum(weight[order]) / weight.sum()
    within = np.stack([np.interp(k * _FACTORS, pull[order], share) for k in (1.0, 2.0, 3.0)])
    misfit = np.abs(within - np.array(NOMINAL)[:, None]).max(axis=0)
    return round(float(_FACTORS[np.argmin(misfit)]), 3)
