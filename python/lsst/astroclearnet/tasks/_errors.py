# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the core in the vocabulary of the pipelines."""

from __future__ import annotations

__all__ = ("RestorationAlgorithmError", "translate_error", "translate_errors")

import contextlib
from collections.abc import Iterator

from lsst.pipe.base import AlgorithmError

from ..core import RestorationError


class RestorationAlgorithmError(AlgorithmError):
    """The restoration of a patch cannot succeed with these inputs.

    Parameters
    ----------
    message
        What went wrong.
    diagnostics
        Flat facts about the failure.
    """

    def __init__(self, message: str, diagnostics: dict[str, str | int | float | bool]) -> None:
        super().__init__(message)
        self._diagnostics = diagnostics

    @property
    def metadata(self) -> dict[str, str | int | float | bool]:
        """Facts about the failure, for the task metadata (`dict`)."""
        return self._diagnostics


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Raise errors of the core as those that the executor knows.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    RestorationAlgorithmError
        For a `~lsst.astroclearnet.core.RestorationError`, with its facts.
    """
    try:
        yield
    except RestorationError as exc:
        raise translate_error(exc) from exc


def translate_error(error: RestorationError, subject: str = "") -> RestorationAlgorithmError:
    """Return an error of the core as one that the executor knows.

    Parameters
    ----------
    error
        The error.
    subject
        What it happened to, with which the message begins.

    Returns
    -------
    translated : `RestorationAlgorithmError`
        With the facts of the error.
    """
    facts: dict[str, str | int | float | bool] = {"error": type(error).__name__, **error.diagnostics}
    return RestorationAlgorithmError(f"{subject}{error}", facts)
