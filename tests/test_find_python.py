# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The search for an interpreter behind ``make demo`` and ``make test``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "find-python"
GOOD = f'exec "{sys.executable}" "$@"'


def write_program(path: Path, body: str) -> None:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def find_python(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the search where nothing but what a test wrote can be found."""
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        env={"HOME": str(home), "PATH": str(home / "bin"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("bin/python3.12", id="path"),
        pytest.param(".pyenv/versions/3.12.7/bin/python", id="pyenv"),
        pytest.param("elsewhere/python3.13", id="uv"),
    ],
)
def test_interpreter_is_found(place: str, tmp_path: Path) -> None:
    """If this fails, a newcomer who has a suitable Python is told to install
    one, or is given the shim of a version that is not active.
    """
    write_program(tmp_path / "bin" / "python3.13", "exit 127")
    write_program(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python", "exit 1")
    write_program(tmp_path / place, GOOD)
    if "elsewhere" in place:
        write_program(tmp_path / "bin" / "uv", f'[ "$2" = find ] && echo "{tmp_path / place}"')
    result = find_python(tmp_path)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).samefile(sys.executable)


def test_chosen_interpreter_comes_first(tmp_path: Path) -> None:
    """If this fails, ``make PYTHON=...`` quietly takes another Python."""
    write_program(tmp_path / "bin" / "python3.13", GOOD)
    write_program(tmp_path / "old", "exit 1")
    result = find_python(tmp_path, PYTHON=str(tmp_path / "old"))
    assert result.returncode == 1
    assert "PYTHON=" in result.stderr


def test_one_line_says_what_to_install(tmp_path: Path) -> None:
    """If this fails, a newcomer without Python 3.12 does not know what to
    do.
    """
    result = find_python(tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "install python3.13" in line
