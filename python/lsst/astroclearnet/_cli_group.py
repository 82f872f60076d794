# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The group of subcommands of ``astroclearnet``, and how it fails."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_LOG_WIDTH = 170
"""Columns of what is not written to a terminal: enough for the tables."""

_EXTRAS = {"psycopg": "postgresql", "psycopg2": "postgresql", "reproject": "hips"}
"""What installs a package that a subcommand lacks; ``demo`` otherwise."""


class Failure(click.ClickException):
    """A failure, told in one line."""

    def show(self, file: IO[Any] | None = None) -> None:
        # A file may have put terminal control codes into what is shown.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.message)
        click.echo(f"astroclearnet: error: {shown}", file=file, err=file is None)


class CommandGroup(click.Group):
    """Subcommands whose errors are told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise Failure("interrupted") from None
        except ModuleNotFoundError as exc:
            extra = _EXTRAS.get((exc.name or "").partition(".")[0], "demo")
            raise Failure(
                f"{ctx.invoked_subcommand} needs {exc.name}: pip install 'lsst-astroclearnet[{extra}]'"
            ) from exc
        except Exception as exc:
            if ctx.params["debug"]:
                raise
            from .commands import CommandError

            first = str(exc).strip().split("\n")[0] or type(exc).__name__
            is_own = isinstance(exc, CommandError | ValueError | TypeError)
            raise Failure(first if is_own else f"{type(exc).__name__}: {first}") from exc


def make_console() -> Console:
    """Return where to write, wide enough for tables if it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_LOG_WIDTH)
