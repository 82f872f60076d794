# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Image of a star in a linear estimate, and the penalty that it allows."""

from __future__ import annotations

import math

import torch

from ..forward import ForwardModel

_PENALTY_WEIGHTS = tuple(10.0 ** (-8.0 + 0.5 * k) for k in range(15))
"""Brackets of the search for a penalty weight."""


def star_image(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> torch.Tensor:
    """Return the transform of the image of a star, (Hl, Wl // 2 + 1), real.

    With the target PSF g and the difference kernels k(t) = f(t) / g the
    estimate of penalty weight s from the exposures f(t) of the star is::

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
        The penalty weight s.
    """
    inverse = model.inverse_target_power
    gain = (1.0 + penalty_weight) * power / (power + penalty_weight * inverse)
    # The floor keeps out 0 / 0, where the target PSF leaves no signal.
    return gain / (inverse * model.target_transform.clamp(min=1e-30))


def star_psf_residual(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> float:
    """Return the largest residual of a star on a pixel from the target PSF,
    over the peak.

    Parameters
    ----------
    model, power, penalty_weight
        As for `star_image`.
    """
    residual = model.target_transform - star_image(model, power, penalty_weight)
    difference = model.inverse_transform(residual.to(torch.complex64))
    return float(difference.abs().max() / model.fold_transform(model.target_transform))


def penalty_weight_for_residual(model: ForwardModel, power: torch.Tensor, residual: float) -> float:
    """Return the penalty weight that keeps stars at the target PSF.

    A penalty broadens stars.  One that is too weak sharpens them, where the
    target PSF leaves no signal and the difference kernels fade out.

    Parameters
    ----------
    model, power
        As for `star_image`.
    residual
        The largest `star_psf_residual` that is allowed.

    Returns
    -------
    penalty_weight : `float`
        The largest such penalty weight between 1e-8 and 0.1, within a
        tenth; if there is none, that of the smallest residual.
    """
    residuals = {s: star_psf_residual(model, power, s) for s in _PENALTY_WEIGHTS}
    kept = [s for s, value in residuals.items() if value <= residual]
    if not kept:
        return min(residuals, key=lambda s: residuals[s])
    low = max(kept)
    high = min((s for s in _PENALTY_WEIGHTS if s > low), default=low)
    while high / low > 1.1:
        middle = math.sqrt(low * high)
        fits = star_psf_residual(model, power, middle) <= residual
        low, high = (middle, high) if fits else (low, middle)
    return low
