# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Regularised normal equations, solved with few exact residuals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from ._conjugate_gradients import Solution, solve_equations
from ._precision import ErrorMeasure, Precision
from ._stationary import StationaryEquations

_ROUGH = 0.02
"""Error of the noise from which on solutions are corrected by what is left of
them: with less, tiles would differ by 0.21 instead of 0.13 sigma."""

_INNER, _OUTER = 0.7, 0.6
"""Errors, of those that are allowed, of solutions of the typical equations
and of what refinement leaves; they add in quadrature."""

_REDUCTION = 0.01
"""Share of an error to which it is reduced with the typical equations; less
would not count beside what they leave."""

_LARGEST_SHARE = 0.3
"""Share of an error that refinement may leave; more, and the exact equations
are solved instead.  It leaves 0.001 to 0.02 on fields of stars and galaxies,
0.2 where PSFs vary by 5 % over 70 pixels beside stars of 1e4 sigma."""

_MAX_REFINEMENTS = 10

type _Matrix = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class RegularizedEquations:
    """Normal equations with some weights of a penalty.

    They are solved with the matrix of a few typical kernels, and corrected
    for the exact residual, which is needed once or twice instead of in each
    step (iterative refinement, Wilkinson 1963, Rounding Errors in Algebraic
    Processes, chapter 3).

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
        if self.typical is None:
            return self._iterate(self.exact, right - self.exact(light), precision, start=start)
        solutions = torch.zeros(len(self.noise), *right.shape[1:], device=right.device)
        rest = right - self.typical(light) if start is None else self._residual(right, light, start)
        solutions = solutions if start is None else start
        steps, share, last = [0] * len(solutions), math.inf, math.inf
        for number in range(_MAX_REFINEMENTS):
            found = self._iterate(
                self.typical, rest, precision, known=solutions, allowed=_INNER, reduction=_REDUCTION
            )
            before, solutions = solutions, solutions + found.values
            steps = [a + b for a, b in zip(steps, found.steps, strict=True)]
            sizes = self._judge(found.values, solutions, precision).amax(dim=0).tolist()
            if not all(map(math.isfinite, sizes)):
                solutions = before
                break
            if number:
                shrunk = max(sizes) / last if last else math.inf
                # The last ones are errors of the solver, which do not shrink.
                share = min(share, shrunk)
                if share * max(sizes) <= _OUTER and max(found.errors) <= 1.0:
                    left = [
                        math.hypot(_INNER * a, share * b) for a, b in zip(found.errors, sizes, strict=True)
                    ]
                    return Solution(solutions, steps, left)
                if not shrunk <= _LARGEST_SHARE:
                    solutions = solutions if shrunk <= 1.0 else before
                    break
            rest, last = self._residual(right, light, solutions), max(sizes)
        exact = self._iterate(self.exact, right - self.exact(light), precision, start=solutions)
        return dataclasses.replace(exact, steps=[a + b for a, b in zip(steps, exact.steps, strict=True)])

    def _iterate(
        self,
        matrix: _Matrix,
        right: torch.Tensor,
        precision: Precision,
        *,
        start: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
        allowed: float = 1.0,
        reduction: float = 0.0,
    ) -> Solution:
        """Solve for what a known part leaves, to a share of the errors."""
        weights = self.penalty_weights[:, None, None]
        gain, local = self.stationary.factors(self.penalty_weights)

        def apply(latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
            return matrix(latents).addcmul_(self.penalise(latents), weights[active])

        def precondition(residual: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
            return self.stationary.solve(residual, (gain[active], local[active]))

        def judge(errors: torch.Tensor, latents: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
            whole = latents if known is None else latents + known[active]
            return self._judge(errors, whole, precision, active) / allowed

        return solve_equations(
            apply,
            precondition,
            right.expand(len(weights), -1, -1),
            start,
            judge=judge,
            correct=precision.noise >= _ROUGH,
            reduction=reduction,
        )

    def _residual(self, right: torch.Tensor, light: torch.Tensor, solutions: torch.Tensor) -> torch.Tensor:
        applied = self.exact(solutions + light)
        applied.addcmul_(self.penalise(solutions), self.penalty_weights[:, None, None])
        return applied.neg_().add_(right)

    def _judge(
        self,
        errors: torch.Tensor,
        solutions: torch.Tensor,
        precision: Precision,
        active: torch.Tensor | slice = slice(None),
    ) -> torch.Tensor:
        light = solutions if self.counted is None else solutions + self.counted
        return self.measure.ratios(errors, light, self.noise[active], precision)
