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
        Takes errors, solutions and indices to the size of the errors, shape
        (b,): at most 1 where they are small enough.
    """
    active = torch.arange(len(right), device=right.device)
    solutions = torch.zeros(right.shape, device=right.device) if start is None else start.clone()
    residual = right.clone() if start is None else right - apply(solutions, active)
    error = precondition(residual, active)
    search, product = error.clone(), _dot(residual, error)
    steps, waited = torch.zeros_like(active), torch.zeros_like(active)
    best, errors = torch.full_like(solutions, torch.nan), torch.full_like(right[:, 0, 0], torch.inf)
    for number in range(_MAX_ITERATIONS + 1):
        steps[active] = number
        found = judge(error, solutions[active], active)
        # What is not a number is never better.
        better = found < errors[active]
        waited[active] = torch.where(better, 0, waited[active] + 1)
        better = active[better]
        errors[active] = torch.fmin(found, errors[active])
        best[better] = solutions[better]
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
