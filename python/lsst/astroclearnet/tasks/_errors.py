# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the core in the vocabulary of the pipelines."""

from __future__ import annotations

__all__ = ("RestorationAlgorithmError",)

from typing import Self

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

    @classmethod
    def from_core(cls, error: RestorationError) -> Self:
        """Translate an error of the core.

        Parameters
        ----------
        error
            What the core raised.

        Returns
        -------
        translated : `RestorationAlgorithmError`
            The same facts for the executor and the task metadata.
        """
        return cls(str(error), {"error": type(error).__name__, **error.diagnostics})

    @property
    def metadata(self) -> dict[str, str | int | float | bool]:
        """Facts about the failure, for the task metadata (`dict`)."""
        return self._diagnostics
