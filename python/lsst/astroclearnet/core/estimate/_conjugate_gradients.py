# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Conjugate gradients for several systems at the same time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

_MAX_ITERATIONS = 200
_PATIENCE = 50
"""Steps without progress after which rounding errors win: in single precision
the error then grows again."""
_LEAST_GAIN = 0.05
"""Least share of an error that a correction leaves."""

type _Operator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Solution:
    """Solutions, (s, Hl, Wl), with the number of steps and the size of the
    error of each, (s,): at most 1 where it converged.
    """

    values: torch.Tensor
    steps: torch.Tensor
    errors: torch.Tensor


def solve_equations(
    apply: _Operator,
    precondition: _Operator,
    right: torch.Tensor,
    start: torch.Tensor | None,
    *,
    judge: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Solution:
    """Solve systems by preconditioned conjugate gradients.

    Each makes steps until the preconditioned residual, an estimate of its
    error, is small.

    Parameters
    ----------
    apply
        Matrix: takes images, shape (b, Hl, Wl), and the indices of their
        systems.
    precondition
        Approximate inverse of the matrix, of the same arguments.
    right
        Shape (s, Hl, Wl), right-hand sides.
    start
        Shape (s, Hl, Wl); zero by default.
    judge
        Takes errors, solutions and indices to the sizes of the errors, shape
        (2, b), inside and at the edge: at most 1 where they are small enough.
    """
    active = torch.arange(len(right), device=right.device)
    solutions = torch.zeros(right.shape, device=right.device) if start is None else start.clone()
    residual = right.clone() if start is None else right - apply(solutions, active)
    error = precondition(residual, active)
    search, product = error.clone(), _dot(residual, error)
    steps, waited = torch.zeros_like(active), torch.zeros_like(active)
    best, errors = torch.full_like(solutions, torch.nan), torch.full_like(right[:, 0, 0], torch.inf)
    last = torch.full_like(errors, torch.nan)
    for number in range(_MAX_ITERATIONS + 1):
        steps[active] = number
        # The estimate of the error is also a correction, which leaves of the
        # error about as much as the step before did, but not at the edge.
        corrected = solutions[active] + error
        size, edge = judge(error, corrected, active)
        found = torch.maximum(size * (size / last[active]).nan_to_num(1.0).clamp(_LEAST_GAIN, 1.0), edge)
        last[active] = size
        # What is not a number is never better.
        better = found < errors[active]
        waited[active] = torch.where(better, 0, waited[active] + 1)
        better, rows = active[better], better
        errors[active] = torch.fmin(found, errors[active])
        best[better] = corrected[rows]
        open_ = (errors[active] > 1.0) & (waited[active] < _PATIENCE)
        if not bool(open_.all()):
            active, residual, search, product = (v[open_] for v in (active, residual, search, product))
        if not len(active) or number == _MAX_ITERATIONS:
            break
        image = apply(search, active)
        step = (product / _dot(search, image))[:, None, None]
        solutions[active] += step * search
        residual.sub_(image.mul_(step))
        error = precondition(residual, active)
        previous, product = product, _dot(residual, error)
        search.mul_((product / previous)[:, None, None]).add_(error)
    return Solution(best, steps, errors)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return scalar products of images, (b,)."""
    return torch.stack([torch.dot(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)])
