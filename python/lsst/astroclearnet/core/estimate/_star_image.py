# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Image of a star in a linear estimate, and the penalty that it allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..forward import ForwardModel

_PENALTY_WEIGHTS = tuple(10.0 ** (-8.0 + 0.5 * k) for k in range(15))
"""Brackets of the search for a penalty weight."""

_NUM_BETWEEN = 12
"""Penalty weights that are tried between two of them, a tenth apart."""


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


def light_residual(
    model: ForwardModel, power: torch.Tensor, penalty_weight: float, light: torch.Tensor
) -> torch.Tensor:
    """Return the light that is missing in the estimate, latent_shape.

    Parameters
    ----------
    model, power, penalty_weight
        As for `star_image`.
    light
        Shape latent_shape, light at the target PSF.
    """
    # At frequencies without any signal all of it is missing.
    star = star_image(model, power, penalty_weight) / model.target_transform.clamp(min=1e-20)
    return model.inverse_transform((1.0 - star.clamp(max=2.0)) * model.transform(light))


def star_psf_residual(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> float:
    """Return the largest residual of a star on a pixel from the target PSF,
    over the peak.

    Parameters
    ----------
    model, power, penalty_weight
        As for `star_image`.
    """
    return float(_peak_residual(model, power, penalty_weight))


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
    residuals = _residuals(model, power, _PENALTY_WEIGHTS)
    kept = [s for s, value in zip(_PENALTY_WEIGHTS, residuals, strict=True) if value <= residual]
    if not kept:
        return _PENALTY_WEIGHTS[residuals.index(min(residuals))]
    low = max(kept)
    if low == _PENALTY_WEIGHTS[-1]:
        return low
    step = 10.0 ** (0.5 / (_NUM_BETWEEN + 1))
    between = [low * step**k for k in range(1, _NUM_BETWEEN + 1)]
    tried = zip(between, _residuals(model, power, between), strict=True)
    return max((s for s, value in tried if value <= residual), default=low)


def _residuals(model: ForwardModel, power: torch.Tensor, penalty_weights: Sequence[float]) -> list[float]:
    """Return `star_psf_residual` of penalty weights."""
    found = torch.stack([_peak_residual(model, power, s) for s in penalty_weights])
    values: list[float] = found.tolist()
    return values


def _peak_residual(model: ForwardModel, power: torch.Tensor, penalty_weight: float) -> torch.Tensor:
    """Return `star_psf_residual` on the device."""
    residual = model.target_transform - star_image(model, power, penalty_weight)
    difference = model.inverse_transform(residual.to(torch.complex64))
    return difference.abs().max() / model.fold_transform(model.target_transform)
