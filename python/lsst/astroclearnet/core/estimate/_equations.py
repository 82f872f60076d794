# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Regularised normal equations, solved with few exact products."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from ._conjugate_gradients import Solution, solve_equations
from ._precision import ErrorMeasure, Precision
from ._stationary import StationaryEquations

_ROUGH = 0.02
"""Error of the noise from which on solutions are corrected by what is left of
them: with less, tiles would differ by 0.21 instead of 0.13 sigma."""

_INNER = 0.7
"""Error of solutions of the typical equations, of those that are allowed."""

_REDUCTION = 0.1
"""Share of an error to which it is reduced with the typical equations."""

_LEFT = 0.3
"""Share of the error that a solution of the typical equations, or of the
stationary ones, is taken to leave; what remains was measured to be three times
as much as their own errors say."""

type _Matrix = Callable[[torch.Tensor], torch.Tensor]
type _Solver = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class RegularizedEquations:
    """Normal equations with some weights of a penalty.

    Where pixels have to be interpolated, conjugate gradients are
    preconditioned by the solution of typical equations, which take cheap
    steps, so that the exact matrix is needed less often (Golub & Ye 1999, SIAM
    J. Sci. Comput. 21, 1305).

    Attributes
    ----------
    exact
        Multiplies images, shape ``(b, *latent_shape)``, with A'WA.
    typical
        Multiplies them with about that; `None` if it does not save time.
    penalise
        Multiplies images with the matrix of the penalty.
    stationary
        Approximate inverse.
    measure
        What errors count.
    penalty_weights
        Shape (s,), weights of the penalty.
    noise
        Shape (s,), noise of the solutions at full weight.
    counted
        Shape ``(1, *latent_shape)``, light that counts in relative errors
        besides the solutions.
    """

    exact: _Matrix
    typical: _Matrix | None
    penalise: _Matrix
    stationary: StationaryEquations
    measure: ErrorMeasure
    penalty_weights: torch.Tensor
    noise: torch.Tensor
    counted: torch.Tensor | None = None

    def solve(
        self,
        right: torch.Tensor,
        light: torch.Tensor,
        start: torch.Tensor | None,
        precision: Precision,
    ) -> Solution:
        """Solve the equations.

        Parameters
        ----------
        right
            Right-hand sides A'W y, shape ``(s, *latent_shape)``, or
            ``(1, *latent_shape)`` for one of all.
        light
            Light that is known already, of the shape of ``right``.
        start
            Shape ``(s, *latent_shape)``, close to the solutions; 0 if `None`.
        precision
            Errors at which to stop.

        Returns
        -------
        solution : `Solution`
            The rest of the light.
        """
        rest = (right - self.exact(light)).expand(len(self.noise), -1, -1)
        if self.typical is None:
            return self._iterate(rest, start, precision, self._stationary_solution)
        typical = functools.partial(self._typical_solution, self.typical, precision=precision)
        found = self._iterate(rest, start, precision, typical, correct=True, least_share=_LEFT)
        if all(error <= 1.0 for error in found.errors):
            return found
        again = self._iterate(rest, found.values.nan_to_num(), precision, self._stationary_solution)
        return dataclasses.replace(
            again, steps=[a + b for a, b in zip(found.steps, again.steps, strict=True)]
        )

    def _iterate(
        self,
        rest: torch.Tensor,
        start: torch.Tensor | None,
        precision: Precision,
        precondition: _Solver,
        **options: Any,
    ) -> Solution:
        """Solve the exact equations for the rest of the light."""

        def judge(errors: torch.Tensor, latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
            counted = latents if self.counted is None else latents + self.counted
            return self.measure.ratios(errors, counted, self.noise[active], precision)

        options = {"correct": precision.noise >= _ROUGH} | options
        apply = functools.partial(self._apply, self.exact)
        return solve_equations(apply, precondition, rest, start, judge=judge, **options)

    def _apply(self, matrix: _Matrix, latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Multiply images with a matrix and the penalty."""
        weights = self.penalty_weights[active][:, None, None]
        return matrix(latents).addcmul_(self.penalise(latents), weights)

    def _stationary_solution(self, right: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Solve equations in which weights and PSFs hardly vary."""
        gain, local = self._factors
        if len(active) < len(gain):
            gain, local = gain[active], local[active]
        return self.stationary.solve(right, (gain, local))

    def _typical_solution(
        self, typical: _Matrix, right: torch.Tensor, active: torch.Tensor, *, precision: Precision
    ) -> torch.Tensor:
        """Solve equations of typical kernels to a share of the errors."""

        def apply(latents: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
            return self._apply(typical, latents, active[some])

        def precondition(residual: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
            return self._stationary_solution(residual, active[some])

        def judge(errors: torch.Tensor, latents: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
            return self.measure.ratios(errors, latents, self.noise[active[some]], precision) / _INNER

        found = solve_equations(
            apply,
            precondition,
            right,
            None,
            judge=judge,
            correct=True,
            first_share=_LEFT,
            reduction=_REDUCTION,
        )
        if all(map(math.isfinite, found.errors)):
            return found.values
        return self._stationary_solution(right, active)

    @functools.cached_property
    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.stationary.factors(self.penalty_weights)
