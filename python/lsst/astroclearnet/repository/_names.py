# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Names and numbers that a repository can keep."""

from __future__ import annotations

__all__ = ("require_name",)

import re

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_COLLECTION = re.compile(rf"{_PART.pattern}(?:/{_PART.pattern})*")
_FILTER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+~ -]*[A-Za-z0-9_.+~-])?")
"""Of a filter: ``g DECam SDSS c0001 4720.0 1520.0``, ``empty~i_03``."""

_MAX_NAME, _MAX_COLLECTION = 32, 64
"""Characters that the registry of a Butler has for an instrument, a filter or
a band, and for a collection."""

_MAX_ID = 2**63 - 1
"""Largest number that a registry can hold."""


def require_name(what: str, name: object, *, max_length: int = _MAX_NAME) -> str:
    """Return a name that may become part of the name of a file.

    Parameters
    ----------
    what
        What has the name, for the message.
    name
        The name.
    max_length
        Number of characters that it may have.

    Returns
    -------
    name : `str`
        The name.

    Raises
    ------
    ValueError
        If it is empty, too long, begins with a dot or a sign, or holds
        anything but ASCII letters, digits, ``_``, ``+``, ``-`` and ``.``.
    """
    if isinstance(name, str) and len(name) <= max_length and _PART.fullmatch(name):
        return name
    raise ValueError(
        f"The name of the {what} is {name!r:.80}: it must have 1 to {max_length} letters, digits, '_', '+', "
        "'-' and '.', and begin with none of the last three."
    )


def _require_filter(name: object) -> str:
    """Return the name of a filter, which may have spaces and ``~`` as well."""
    if isinstance(name, str) and len(name) <= _MAX_NAME and _FILTER.fullmatch(name):
        return name
    raise ValueError(
        f"The name of the physical filter is {name!r:.80}: it must have 1 to {_MAX_NAME} letters, digits, "
        "spaces, '_', '+', '-', '.' and '~', and begin with a letter or digit."
    )


def _require_collection(name: object) -> str:
    """Return the name of a collection that can be mapped to folders."""
    if isinstance(name, str) and len(name) <= _MAX_COLLECTION and _COLLECTION.fullmatch(name):
        return name
    raise ValueError(
        f"The name of the collection is {name!r:.100}: it must have 1 to {_MAX_COLLECTION} characters, "
        "letters, digits, '_', '+', '-' and '.', in parts that begin with none of the last three, with '/' "
        "between them."
    )


def _require_id(what: str, number: object) -> int:
    """Return an ID that the registry can hold."""
    # An integer of numpy has an index, a boolean is none.
    if hasattr(number, "__index__") and not isinstance(number, bool):
        value = int(number)
        if 0 <= value <= _MAX_ID:
            return int(value)
    raise ValueError(f"The {what} is {number!r:.80}: it must be an integer from 0 to {_MAX_ID}.")
