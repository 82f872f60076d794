# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Rejection of pixels that the other exposures contradict."""

from __future__ import annotations

__all__ = ("reject_outliers",)

import torch

from .._options import RejectionOptions
from ..estimate import record_solve
from ..exposures import ExposureStack
from ..forward import ForwardModel, Sampling
from ._leave_one_out import LeaveOneOut
from ._structured_residuals import significance

_FREE_ROUNDS = 2
"""Rounds after which pixels are only added, as a few would come and go without
end: 4 to 5 % of those rejected in scenes with trails and cosmic rays."""

_SETTLED = 1e-4
"""Share of the pixels that may still change in the last round."""

_MIN_EXPOSURES = 3
"""With two exposures one cannot tell which of them is wrong."""

_OBJECTION_RATIO = 1.3
"""How much further than any other exposure an outlier must lie."""

_BRIDGE = 1.25
"""Half of the gap, in FWHM of the target PSF, over which a trail is followed
through a star that hides it."""


def reject_outliers(stack: ExposureStack, model: ForwardModel, options: RejectionOptions) -> torch.Tensor:
    """Find pixels in which one exposure contradicts all others.

    Each exposure is predicted from the others.  A pixel deviates when data
    minus prediction, without what a variable source, a small error of the PSF
    or one of the position would make of the structure of the light there, is
    significant, alone or smoothed over a few pixels.  Smooth light has no
    structure, and hides nothing.  A region grows from pixels above the high
    threshold into connected ones above the low threshold, and through a star
    that lies on a trail.  Where another exposure deviates about as much, the
    model is wrong there and nothing is rejected.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    options
        Thresholds and tolerances.

    Returns
    -------
    rejected : `torch.Tensor`
        Shape (n, h, w), bool; always `False` where a pixel was not good.
        With fewer than three exposures nothing is rejected.
    """
    rejected = torch.zeros_like(stack.good)
    if not options.enabled or int(stack.good.any(dim=(1, 2)).sum()) < _MIN_EXPOSURES:
        return rejected
    predictor = None
    for number in range(1, options.num_rounds + 1):
        predictor = LeaveOneOut.build(stack, model, stack.good & ~rejected, options, predictor)
        deviations, plain = _deviations(predictor, stack.good)
        # What was rejected before objects to others with all of its light: a
        # change of the sky must not go from one exposure after the other.
        objections = torch.where(rejected, plain, deviations)
        found = _regions(deviations, objections, stack.good, model.sampling, options)
        reach = max(1, round(_BRIDGE * model.target_fwhm))
        # What several exposures show is a change of the sky.
        bridges = (plain > options.low_threshold) & ~_shared(plain > options.high_threshold, model.sampling)
        for one, limits in zip(found, bridges, strict=True):
            one |= limits & _closing(one, reach)
        if number > _FREE_ROUNDS:
            found |= rejected
        changed = float((found != rejected).sum()) / float(stack.good.sum())
        rejected = found
        if changed <= _SETTLED:
            break
    record_solve("outliers", steps=number, residual=changed / _SETTLED)
    return rejected


def _deviations(predictor: LeaveOneOut, good: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return deviations from what the others predict, in units of its error.

    Shape (n, h, w) both, not negative: without what may differ, and all.
    """
    stack = predictor.stack
    deviations, plain = torch.empty_like(stack.images), torch.empty_like(stack.images)
    for t, image in enumerate(stack.images):
        one = slice(t, t + 1)
        deviations[one], plain[one] = significance(
            image[None], predictor.variances[one], good[one], predictor.predict(t)
        )
    return deviations.abs_(), plain.abs_()


def _regions(
    size: torch.Tensor,
    objections: torch.Tensor,
    good: torch.Tensor,
    sampling: Sampling,
    options: RejectionOptions,
) -> torch.Tensor:
    """Return the pixels to whose deviation no other objects, (n, h, w)."""
    # Exposures are compared where they meet: on the patch.
    near, objecting = (_with_neighbours(sampling.largest(maps)) for maps in (size, objections))
    first = second = torch.zeros_like(near[0])
    for one in objecting:
        second = torch.maximum(second, torch.minimum(first, one))
        first = torch.maximum(first, one)
    alone, strongest = torch.empty_like(near, dtype=torch.bool), torch.empty_like(near, dtype=torch.bool)
    for t, (one, own) in enumerate(zip(near, objecting, strict=True)):
        other = torch.where(own == first, second, first)
        torch.gt(one, _OBJECTION_RATIO * other, out=alone[t])
        torch.ge(one, other, out=strongest[t])
    del near, objecting
    alone, strongest = sampling.look_up(alone), sampling.look_up(strongest)
    seeds = alone & good & (size > options.high_threshold)
    allowed = strongest & good & (size > options.low_threshold)
    for one, limits in zip(seeds, allowed, strict=True):
        one.copy_(_grow(one, limits))
    return seeds


def _with_neighbours(maps: torch.Tensor) -> torch.Tensor:
    """Return the largest of a pixel and its neighbours, (n, H, W)."""
    return torch.nn.functional.max_pool2d(maps, 3, stride=1, padding=1)


def _shared(differs: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the pixels, (n, h, w), at which several exposures differ."""
    several = sampling.largest(differs).sum(dim=0) > 1
    return sampling.look_up(several.expand(len(differs), *several.shape))


def _grow(grown: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Grow seeds into connected pixels that are allowed, (h, w), bool."""
    while bool(grown.any()):
        near = torch.nn.functional.max_pool2d(grown[None].float(), 3, stride=1, padding=1)[0]
        bigger = (near > 0) & allowed
        if torch.equal(bigger, grown):
            break
        grown = bigger
    return grown


def _closing(pixels: torch.Tensor, radius: int) -> torch.Tensor:
    """Fill gaps of up to twice a radius, (h, w), bool."""
    size, margin = 2 * radius + 1, (radius,) * 4
    grown = torch.nn.functional.pad(pixels[None].float(), margin)
    grown = torch.nn.functional.max_pool2d(grown, size, stride=1, padding=radius)
    return -torch.nn.functional.max_pool2d(-grown, size, stride=1)[0] > 0
