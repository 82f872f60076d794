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
import math
from collections.abc import Callable

import torch

_MAX_ITERATIONS = 200
_PATIENCE = 50
"""Steps without progress after which rounding errors win: in single precision
the error then grows again."""
_LEAST_SHARE, _LARGEST_SHARE = 0.05, 0.5
"""Least share of an error that a correction is usually taken to leave, and the
share from which on it is not made."""

type _Operator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Solution:
    """Solutions, (s, Hl, Wl), with the number of steps and the size of the
    error of each: at most 1 where it converged.
    """

    values: torch.Tensor
    steps: list[int]
    errors: list[float]


def solve_equations(
    apply: _Operator,
    precondition: _Operator,
    right: torch.Tensor,
    start: torch.Tensor | None,
    *,
    judge: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    correct: bool = False,
    least_share: float = _LEAST_SHARE,
    first_share: float = 1.0,
    reduction: float = 0.0,
) -> Solution:
    """Solve systems by preconditioned conjugate gradients.

    Each makes steps until the preconditioned residual, an estimate of its
    error, is small.  The preconditioner may differ from step to step.

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
    correct
        Whether to add the estimate of the error to a solution, as long as it
        shrinks by half or more in a step.  This saves a step, or two, but what
        is left of the error is then not known well.
    least_share
        Least share of an error that a correction is taken to leave.
    first_share
        Share that the first correction is taken to leave; 1 if unknown.
    reduction
        Share of the first error that is small enough, too, both inside and at
        the edge.
    """
    number = len(right)
    active = torch.arange(number, device=right.device)
    solutions = torch.zeros(right.shape, device=right.device) if start is None else start.clone()
    residual = right.clone() if start is None else right - apply(solutions, active)
    error = precondition(residual, active)
    search, product = error.clone(), _dot(residual, error)
    best = torch.full_like(solutions, torch.nan)
    largest_share = _LARGEST_SHARE if correct else 0.0
    progress = [_Progress(largest_share, least_share, first_share, reduction) for _ in range(number)]
    open_ = list(range(number))
    for step in range(_MAX_ITERATIONS + 1):
        plain = solutions[active]
        corrected = plain + error
        # The only thing that a device is waited for.
        sizes = judge(error, corrected, active).T.tolist()
        better = [k for k, one in enumerate(open_) if progress[one].add(step, *sizes[k])]
        for k in better:
            best[open_[k]] = corrected[k] if progress[open_[k]].shrinks else plain[k]
        kept = [k for k, one in enumerate(open_) if progress[one].goes_on]
        if not kept or step == _MAX_ITERATIONS:
            break
        if len(kept) < len(open_):
            open_ = [open_[k] for k in kept]
            active, residual, search, product = (v[kept] for v in (active, residual, search, product))
        image = apply(search, active)
        length = (product / _dot(search, image))[:, None, None]
        solutions[active] += length * search
        change = image.mul_(length)
        residual.sub_(change)
        error = precondition(residual, active)
        previous, product = product, _dot(residual, error)
        # Polak & Ribiere (1969), for preconditioners that are not constant.
        gain = -_dot(change, error) / previous
        search.mul_(gain[:, None, None]).add_(error)
    return Solution(best, [one.step for one in progress], [one.error for one in progress])


@dataclasses.dataclass
class _Progress:
    """Steps of a system, its least error, the steps since then, and whether a
    correction helps.
    """

    largest_share: float
    least_share: float
    first_share: float
    reduction: float
    enough: tuple[float, float] = (1.0, 1.0)
    step: int = 0
    error: float = math.inf
    last: float = 0.0
    waited: int = 0
    shrinks: bool = False
    is_done: bool = False

    def add(self, step: int, inside: float, edge: float) -> bool:
        """Note the size of an error; return whether it is the least."""
        # A correction leaves of the error about as much as the step before
        # did, but not at the edge.
        share = inside / self.last if self.last else self.first_share
        self.shrinks = share < self.largest_share
        left = inside * max(share, self.least_share) if self.shrinks else inside
        if not step:
            self.enough = max(1.0, self.reduction * inside), max(1.0, self.reduction * edge)
        # Of a number and NaN the maximum may be the number.
        found = max(left, edge) if math.isfinite(left) and math.isfinite(edge) else math.nan
        # What is not a number is never better, and never becomes one again.
        better = found < self.error
        waited = _PATIENCE if math.isnan(found) else self.waited + 1
        self.step, self.last, self.waited = step, inside, 0 if better else waited
        self.error = found if better else self.error
        self.is_done |= better and left <= self.enough[0] and edge <= self.enough[1]
        return better

    @property
    def goes_on(self) -> bool:
        """Whether another step is needed, and may help."""
        return not self.is_done and self.waited < _PATIENCE


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return scalar products of images, (b,)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))
