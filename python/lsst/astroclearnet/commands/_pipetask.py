# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Run ``pipetask`` as a user would."""

from __future__ import annotations

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

JOINT_PIPELINE = PIPELINE.replace("RestoreCoadd", "RestoreCoaddBands") + "#restoreBands"
"""The same for all bands together, the coadds alone."""


def program(name: str) -> str:
    """Return a program of this Python environment, or else of ``PATH``, by the
    shortest name under which a shell finds it.
    """
    beside = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    path = str(beside) if beside.is_file() else on_path
    if path is None:
        raise CommandError(f"There is no program {name!r}, neither beside {sys.executable} nor on PATH.")
    relative = os.path.relpath(path)
    # PATH of make is not that of the shell that make was run in.
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
    pipeline: str = PIPELINE,
) -> list[str]:
    """Return the command that restores every patch of a sky map."""
    return [
        program("pipetask"),
        "run",
        *("-b", os.fspath(root)),
        *("-p", pipeline),
        *("-i", inputs),
        *("-o", output),
        *("-d", f"skymap='{skymap}'"),
        "--register-dataset-types",
        *options,
    ]


def format_command(command: Sequence[str]) -> str:
    """Return a command as a line for a shell."""
    # Double quotes around SQL-like strings read better than those of shlex.
    return " ".join(
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
        for word in command
    )


def run_command(command: Sequence[str]) -> None:
    """Run a command whose output goes to the terminal."""
    status = subprocess.run(command, check=False).returncode
    if status:
        raise CommandError(f"{' '.join(command[:2])} ended with exit status {status}; its log is above.")
