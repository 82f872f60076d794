# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run ``pipetask`` as a user would."""

from __future__ import annotations

__all__ = ("PIPELINE", "format_command", "program", "restore_command", "run_command")

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ._errors import CommandError

PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml"
"""Pipeline for repositories whose patches ``skymap_geometry`` describes."""


def program(name: str) -> str:
    """Return the path of a program of this Python environment.

    Parameters
    ----------
    name
        Name of the program, such as ``pipetask``.

    Returns
    -------
    path : `str`
        The program beside the interpreter or, failing that, on ``PATH``: the
        name alone if that is what a shell finds under it, or else the path,
        relative if it lies below the working directory.

    Raises
    ------
    CommandError
        If there is no such program.
    """
    beside = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    path = str(beside) if beside.is_file() else on_path
    if path is None:
        raise CommandError(f"There is no program {name!r}, neither beside {sys.executable} nor on PATH.")
    relative = os.path.relpath(path)
    # What make puts on PATH is not on that of the shell that make was run in.
    if not relative.startswith(os.pardir):
        return relative
    return name if on_path is not None and os.path.samefile(on_path, path) else path


def restore_command(
    root: str | os.PathLike[str],
    *,
    skymap: str,
    inputs: str,
    output: str,
    options: Sequence[str] = (),
) -> list[str]:
    """Return the command that restores every patch of a sky map.

    Parameters
    ----------
    root
        Root of the repository.
    skymap
        Name of the sky map.
    inputs
        Collection of the visit images and the geometry of the sky map.
    output
        Collection to write.
    options
        Further options of ``pipetask run``.

    Returns
    -------
    command : `list` [`str`]
        Program and arguments.
    """
    return [
        program("pipetask"),
        "run",
        *("-b", os.fspath(root)),
        *("-p", PIPELINE),
        *("-i", inputs),
        *("-o", output),
        *("-d", f"skymap='{skymap}'"),
        "--register-dataset-types",
        *options,
    ]


def format_command(command: Sequence[str]) -> str:
    """Return a command as a line for a shell.

    Parameters
    ----------
    command
        Program and arguments.

    Returns
    -------
    line : `str`
        The command with quotes where a shell needs them.
    """
    # Double quotes around SQL-like strings read better than what shlex makes.
    return " ".join(
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
        for word in command
    )


def run_command(command: Sequence[str]) -> None:
    """Run a command whose output goes to the terminal.

    Parameters
    ----------
    command
        Program and arguments.

    Raises
    ------
    CommandError
        If its exit status is not 0.
    """
    status = subprocess.run(command, check=False).returncode
    if status:
        raise CommandError(f"{' '.join(command[:2])} ended with exit status {status}; its log is above.")
