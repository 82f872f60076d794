# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command that demands the tests of the full stack."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests of this folder."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", *arguments]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(importlib.util.find_spec("lsst.afw") is not None, reason="the full stack is set up")
def test_missing_stack_is_an_error_that_names_packages() -> None:
    """If it fails, somebody who forgot to set up the stack sees a success."""
    result = run_pytest("--require-afw", "-m", "afw", "tests/test_afw.py")
    assert result.returncode == 1
    assert "lsst.afw, lsst.cell_coadds," in result.stdout
    assert "are not set up; set up lsst_distrib" in result.stdout


def test_nothing_to_run_is_an_error() -> None:
    """If it fails, a run of no test counts as one of all."""
    result = run_pytest("--require-afw", "tests/test_find_python.py")
    assert result.returncode == 1
    assert "no test of the full stack is among those selected" in result.stdout


def test_timeouts_are_optional() -> None:
    """If it fails, a stack without pytest-timeout cannot run any test."""
    hide = (
        "import importlib.util as util, sys; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'pytest_timeout' else find(name, *rest)\n"
        "import pytest; sys.exit(pytest.main())"
    )
    command = [
        sys.executable,
        "-c",
        hide,
        "-p",
        "no:timeout",
        "--collect-only",
        "-q",
        "tests/test_find_python.py",
    ]
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
