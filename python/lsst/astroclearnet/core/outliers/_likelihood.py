# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variances of the likelihood."""

from __future__ import annotations

__all__ = ("likelihood_variances",)

import torch

from ..estimate import LinearEstimator, Precision
from ..exposures import ExposureStack, model_variances
from ..forward import ForwardModel

_PILOT_PENALTY_WEIGHT = 1e-3

_PILOT_PRECISION = Precision(light=0.03, noise=0.1)
"""Photon noise goes with the root of the light."""


def likelihood_variances(
    stack: ExposureStack, model: ForwardModel, latent: torch.Tensor | None = None
) -> torch.Tensor:
    """Return variances with the photon noise of the expected light.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    latent
        Shape latent_shape, an estimate of the sky; made by default.

    Returns
    -------
    variances : `torch.Tensor`
        Shape (n, h, w), positive everywhere.
    """
    if latent is None:
        pilot = LinearEstimator(model, stack.good / model_variances(stack))
        latent = pilot.solve(
            pilot.right_side(stack.images), (_PILOT_PENALTY_WEIGHT,), precision=_PILOT_PRECISION
        )[0]
    return model_variances(stack, model.predict(latent))
