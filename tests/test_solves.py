# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What iterative solves say of themselves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest
import torch

from lsst.astroclearnet.core.estimate import SolveStatus, collect_solves, record_solve
from lsst.astroclearnet.core.estimate._conjugate_gradients import Solution, solve_equations

SIZE = 64


def diagonal(eigenvalues: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a matrix that multiplies pixels."""
    return lambda images, _: images * eigenvalues.reshape(1, 8, 8)


def _rms(images: torch.Tensor) -> torch.Tensor:
    return images.square().mean(dim=(1, 2)).sqrt()


def solve(eigenvalues: torch.Tensor, tolerance: float) -> Solution:
    """Solve for ones, without a preconditioner."""
    apply = diagonal(eigenvalues)
    return solve_equations(
        apply,
        lambda images, _: images.clone(),
        apply(torch.ones(1, 8, 8), torch.zeros(1)),
        None,
        judge=lambda errors, images, _: (_rms(errors) / _rms(images) / tolerance).expand(2, -1),
    )


@pytest.mark.parametrize("number", [1, 3, 7])
def test_steps_are_the_number_of_eigenvalues(number: int) -> None:
    """If it fails, steps are miscounted, or too many are made."""
    values = 1.0 + torch.arange(SIZE) % number
    found = solve(values, 1e-4)
    assert found.steps == [number]
    assert found.errors[0] <= 1.0
    torch.testing.assert_close(found.values, torch.ones(1, 8, 8), rtol=1e-3, atol=0.0)


def test_what_rounding_forbids_is_no_convergence() -> None:
    """If it fails, a solve that cannot reach its tolerance passes for one
    that did, or goes on until rounding errors have eaten the solution.
    """
    found = solve(torch.logspace(-3, 3, SIZE), 1e-12)
    assert found.errors[0] > 1.0
    # It is the best on the way that is returned.
    left = torch.logspace(-3, 3, SIZE).reshape(8, 8) * (found.values[0] - 1.0)
    assert float(left.square().mean().sqrt()) < 1.0


def test_what_is_not_a_number_is_no_convergence() -> None:
    """If it fails, NaN passes for a solution."""
    found = solve(torch.full((SIZE,), math.nan), 1e-3)
    assert not found.errors[0] <= 1.0
    assert not torch.isfinite(found.values).any()


@pytest.mark.parametrize("sizes", [(math.nan, 0.0), (0.0, math.nan)])
def test_half_a_number_is_none(sizes: tuple[float, float]) -> None:
    """If it fails, NaN inside passes for a solution where no edge counts."""
    found = solve_equations(
        lambda latents, active: latents,
        lambda residual, active: residual,
        torch.ones(1, 8, 8),
        None,
        judge=lambda errors, latents, active: torch.tensor(sizes)[:, None],
    )
    assert not found.errors[0] <= 1.0


def test_preconditioners_may_change() -> None:
    """If it fails, solutions of typical equations do not precondition."""
    diagonal = torch.logspace(0, 4, SIZE).reshape(1, 8, 8)
    generator, calls = torch.Generator().manual_seed(4), []

    def precondition(residual: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        # Wrong by up to a factor of three, otherwise in each step.
        calls.append(1)
        factor = 0.3 + 2.7 * torch.rand(residual.shape, generator=generator)
        return factor * residual / diagonal

    found = solve_equations(
        lambda latents, active: diagonal * latents,
        precondition,
        diagonal,
        None,
        judge=lambda errors, latents, active: torch.stack(
            [1e5 * errors.flatten(1).square().mean(dim=1).sqrt(), torch.zeros(1)]
        ),
    )
    assert found.errors[0] <= 1.0
    torch.testing.assert_close(found.values, torch.ones(1, 8, 8), rtol=0.0, atol=1e-4)
    assert len(calls) < 25


def test_records_are_added_up(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, the worst of many solves is lost."""
    with caplog.at_level(logging.WARNING, logger="lsst.astroclearnet"), collect_solves() as solves:
        record_solve("first", steps=3, residual=0.5)
        record_solve("first", steps=9, residual=2.5)
        record_solve("first", steps=4, residual=1.0)
        record_solve("second", steps=2, residual=0.0)
        assert not caplog.text
    assert solves == {"first": SolveStatus(3, 1, 9, 2.5), "second": SolveStatus(1, 0, 2, 0.0)}
    assert "1 of 3 solves (first) did not converge: the worst ended at 2.5 times" in caplog.text
    assert "second" not in caplog.text


@pytest.mark.parametrize("order", [1, -1])
def test_not_a_number_is_the_worst(order: int) -> None:
    """If it fails, NaN hides behind a number."""
    with collect_solves() as solves:
        for residual in (0.5, math.nan, 7.0)[::order]:
            record_solve("one", steps=1, residual=residual)
    assert solves["one"].num_unconverged == 2
    assert math.isnan(solves["one"].max_residual)


def test_a_solve_on_its_own_warns_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, users of single functions are told nothing."""
    with caplog.at_level(logging.WARNING, logger="lsst.astroclearnet"):
        assert record_solve("one", steps=25, residual=0.9).converged
        assert not caplog.text
        assert not record_solve("one", steps=25, residual=1.1).converged
    assert "(one) did not converge" in caplog.text
