# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the restoration."""

from __future__ import annotations

__all__ = ("InputError", "NoUsableDataError", "RestorationError")


class RestorationError(RuntimeError):
    """Base class of the errors that the restoration raises.

    Parameters
    ----------
    message
        What is wrong, with the offending value, and what to do.
    **diagnostics
        Facts about the failure, kept in ``diagnostics``.
    """

    def __init__(self, message: str, **diagnostics: str | int | float | bool) -> None:
        super().__init__(message)
        self.diagnostics = dict(diagnostics)


class InputError(RestorationError, ValueError):
    """Invalid arrays or options, such as wrong shapes."""


class NoUsableDataError(RestorationError):
    """No exposure has a usable pixel."""
