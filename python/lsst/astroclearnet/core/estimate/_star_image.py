# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a linear estimate makes of a star, and how strong it may be."""

from __future__ import annotations

__all__ = ("penalty_weight_for_residual", "star_image", "star_psf_residual")

import math

import torch

from ..forward import ForwardModel

_PENALTY_WEIGHTS = tuple(10.0 ** (-8.0 + 0.5 * k) for k in range(15))
"""Penalty weights among which a penalty weight is looked for at first."""

_STRENGTH_STEP = 1.1
"""Ratio of penalty weights at which the search stops."""

_TARGET_FLOOR = 1e-30
"""Transform of the target PSF below which a star has no image."""


def star_image(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> torch.Tensor:
    """Return the transform of what becomes of a star of unit flux.

    With the target PSF g and the difference kernels k(t) = f(t) / g the
    estimate of penalty weight s makes of the exposures f(t) of the star::

        (1 + s) sum over t of w(t) k*(t) f(t) / (P + s / |g|^2),
        P = sum over t of w(t) |k(t)|^2.

    The kernels fade out where g leaves no signal, so that f(t) is not quite
    g k(t) there.

    Parameters
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), P for weights of sum 1.
    penalty_weight
        Strength of the penalty.

    Returns
    -------
    image : `torch.Tensor`
        Shape (Hl, Wl // 2 + 1), real; close to the target PSF.
    """
    inverse = model.inverse_target_power
    gain = (1.0 + penalty_weight) * power / (power + penalty_weight * inverse)
    return gain / (inverse * model.target_transform.clamp(min=_TARGET_FLOOR))


def star_psf_residual(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> float:
    """Return how far the image of a star is from the target PSF.

    Parameters
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), power of the difference kernels for weights
        of sum 1.
    penalty_weight
        Strength of the penalty.

    Returns
    -------
    residual : `float`
        Largest difference, for a star on a pixel, over the peak.
    """
    lost = model.target_transform - star_image(model, power, penalty_weight)
    difference = model.inverse_transform(lost.to(torch.complex64))
    return float(difference.abs().max() / model.fold_transform(model.target_transform))


def penalty_weight_for_residual(model: ForwardModel, power: torch.Tensor, residual: float) -> float:
    """Return the penalty weight that keeps stars at the target PSF.

    A penalty broadens stars.  One that is too weak sharpens them, where the
    target PSF leaves no signal and the difference kernels fade out.

    Parameters
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), power of the difference kernels for weights
        of sum 1.
    residual
        Largest difference between the image of a star and the target PSF,
        over the peak.

    Returns
    -------
    penalty_weight : `float`
        The largest such penalty weight between 1e-8 and 0.1, within a
        tenth; if there is none, that of the smallest residual.
    """
    residuals = {
        penalty_weight: star_psf_residual(model, power, penalty_weight) for penalty_weight in _PENALTY_WEIGHTS
    }
    kept = [s for s, value in residuals.items() if value <= residual]
    if not kept:
        return min(residuals, key=lambda s: residuals[s])
    low = max(kept)
    high = min((s for s in _PENALTY_WEIGHTS if s > low), default=low)
    while high / low > _STRENGTH_STEP:
        middle = math.sqrt(low * high)
        fits = star_psf_residual(model, power, middle) <= residual
        low, high = (middle, high) if fits else (low, middle)
    return low
