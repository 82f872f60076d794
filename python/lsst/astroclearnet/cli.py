# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``astroclearnet``."""

from __future__ import annotations

__all__ = ("main",)

import logging
import sys
from collections.abc import Sequence

from .arguments import make_parser

_MIN_WIDTH = 170
"""Width of what is written to anything but a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        Words after the name of the command; those of the process by default.

    Returns
    -------
    status : `int`
        Exit status: 0, or 1 on failure, which is told in one line.
    """
    options = make_parser().parse_args(arguments)
    from rich.console import Console

    from lsst.astroclearnet.commands import ACTIONS

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=_MIN_WIDTH)
    logging.basicConfig(level=logging.ERROR, format="%(name)s %(levelname)s: %(message)s")
    try:
        ACTIONS[options.command](options, console)
    except KeyboardInterrupt:
        return _fail("interrupted")
    except ModuleNotFoundError as exc:
        extra = "postgresql" if (exc.name or "").startswith("psycopg") else "demo"
        return _fail(f"{options.command} needs {exc.name}: pip install 'lsst-astroclearnet[{extra}]'")
    except Exception as exc:
        if options.debug:
            raise
        first = str(exc).strip().split("\n")[0] or type(exc).__name__
        return _fail(first if _is_for_users(exc) else f"{type(exc).__name__}: {first}")
    return 0


def _is_for_users(error: Exception) -> bool:
    """Tell whether the message of an error needs no name of its type.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    for_users : `bool`
        True for errors that this package raises on wrong input.
    """
    from lsst.astroclearnet.commands import CommandError

    return isinstance(error, CommandError | ValueError | TypeError)


def _fail(message: str) -> int:
    """Write an error.

    Parameters
    ----------
    message
        What is wrong.

    Returns
    -------
    status : `int`
        Exit status.
    """
    # A file may have put codes that command a terminal into what is shown.
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    sys.stderr.write(f"astroclearnet: error: {shown}\n")
    return 1
