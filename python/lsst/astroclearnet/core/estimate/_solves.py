# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Convergence of iterative solves."""

from __future__ import annotations

__all__ = ("SolveStatus", "collect_solves", "record_solve")

import contextlib
import contextvars
import dataclasses
import logging
from collections.abc import Iterator, MutableMapping

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SolveStatus:
    """Convergence of the iterative solves of one kind.

    Attributes
    ----------
    num_solves
        Number of solves.
    num_unconverged
        Number of those that did not reach their tolerance.
    max_steps
        Largest number of steps.
    max_residual
        Largest final residual in units of the tolerance, NaN if any is.
    """

    num_solves: int = 0
    num_unconverged: int = 0
    max_steps: int = 0
    max_residual: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether all solves converged (`bool`)."""
        return not self.num_unconverged

    def __add__(self, other: SolveStatus) -> SolveStatus:
        residuals = (self.max_residual, other.max_residual)
        return SolveStatus(
            num_solves=self.num_solves + other.num_solves,
            num_unconverged=self.num_unconverged + other.num_unconverged,
            max_steps=max(self.max_steps, other.max_steps),
            # NaN is larger than any number.
            max_residual=max(residuals, key=lambda value: (value != value, value)),
        )


type _Record = MutableMapping[str, SolveStatus]

_RECORD: contextvars.ContextVar[_Record | None] = contextvars.ContextVar("solves", default=None)


@contextlib.contextmanager
def collect_solves(
    solves: dict[str, SolveStatus] | None = None,
) -> Iterator[dict[str, SolveStatus]]:
    """Collect the status of the solves in a block of code.

    Parameters
    ----------
    solves
        Where to add them; by default they are counted from zero.

    Yields
    ------
    solves : `dict` [`str`, `SolveStatus`]
        Status by the kind of solve.  Those that did not converge are warned
        of at the end of the block.
    """
    total = {} if solves is None else solves
    found: dict[str, SolveStatus] = {} if total else total
    token = _RECORD.set(found)
    try:
        yield total
    finally:
        _RECORD.reset(token)
        for kind, status in found.items():
            _warn(kind, status)
            if found is not total:
                total[kind] = total.get(kind, SolveStatus()) + status


def record_solve(kind: str, *, steps: int, residual: float) -> SolveStatus:
    """Record an iterative solve.

    Outside of `collect_solves` one that did not converge is warned of at
    once.

    Parameters
    ----------
    kind
        What was solved for, a key of what `collect_solves` yields.
    steps
        Number of steps.
    residual
        Final residual in units of the tolerance: at most 1 if it converged.

    Returns
    -------
    status : `SolveStatus`
        Status of this solve.
    """
    status = SolveStatus(1, int(not residual <= 1.0), steps, residual)
    solves = _RECORD.get()
    if solves is None:
        _warn(kind, status)
    else:
        solves[kind] = solves.get(kind, SolveStatus()) + status
    return status


def _warn(kind: str, status: SolveStatus) -> None:
    if not status.converged:
        _LOG.warning(
            "%d of %d solves (%s) did not converge: the worst ended at %.3g times the tolerance, "
            "the longest after %d steps.",
            status.num_unconverged,
            status.num_solves,
            kind,
            status.max_residual,
            status.max_steps,
        )
