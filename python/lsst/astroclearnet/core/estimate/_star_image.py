# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a linear estimate makes of a star, and how strong it may be."""

from __future__ import annotations

__all__ = (
    "star_departure",
    "star_image",
    "strength_for_departure",
)

import math

import torch

from ..forward import ForwardModel

_STRENGTHS = tuple(10.0 ** (-8.0 + 0.5 * k) for k in range(15))
"""Strengths among which a strength is looked for at first."""

_STRENGTH_STEP = 1.1
"""Ratio of strengths at which the search stops."""

_TARGET_FLOOR = 1e-30
"""Transform of the target PSF below which a star has no image."""


def star_image(model: ForwardModel, power: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the transform of what becomes of a star of unit flux.

    With the target PSF g and the difference kernels k(t) = f(t) / g the
    estimate of strength s makes of the exposures f(t) of the star::

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
    strength
        Strength of the penalty.

    Returns
    -------
    image : `torch.Tensor`
        Shape (Hl, Wl // 2 + 1), real; close to the target PSF.
    """
    inverse = model.inverse_target_power
    gain = (1.0 + strength) * power / (power + strength * inverse)
    return gain / (inverse * model.target_transform.clamp(min=_TARGET_FLOOR))


def star_departure(model: ForwardModel, power: torch.Tensor, strength: float) -> float:
    """Return how far the image of a star is from the target PSF.

    Parameters
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), power of the difference kernels for weights
        of sum 1.
    strength
        Strength of the penalty.

    Returns
    -------
    departure : `float`
        Largest difference, for a star on a pixel, over the peak.
    """
    lost = model.target_transform - star_image(model, power, strength)
    difference = model.inverse_transform(lost.to(torch.complex64))
    return float(difference.abs().max() / model.fold_transform(model.target_transform))


def strength_for_departure(model: ForwardModel, power: torch.Tensor, departure: float) -> float:
    """Return the strength that keeps stars at the target PSF.

    A penalty broadens stars.  One that is too weak sharpens them, where the
    target PSF leaves no signal and the difference kernels fade out.

    Parameters
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), power of the difference kernels for weights
        of sum 1.
    departure
        Largest difference between the image of a star and the target PSF,
        over the peak.

    Returns
    -------
    strength : `float`
        The largest such strength between 1e-8 and 0.1, within a tenth; if
        there is none, that of the smallest departure.
    """
    departures = {strength: star_departure(model, power, strength) for strength in _STRENGTHS}
    kept = [strength for strength, value in departures.items() if value <= departure]
    if not kept:
        return min(departures, key=lambda strength: departures[strength])
    low = max(kept)
    high = min((strength for strength in _STRENGTHS if strength > low), default=low)
    while high / low > _STRENGTH_STEP:
        middle = math.sqrt(low * high)
        fits = star_departure(model, power, middle) <= departure
        low, high = (middle, high) if fits else (low, middle)
    return low
