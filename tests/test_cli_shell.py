# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command line in a shell: help, slips, printed commands and progress."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from rich.console import Console

from lsst.astroclearnet.cli import cli, main
from lsst.astroclearnet.commands import CommandError
from lsst.astroclearnet.commands._pipetask import format_command, program, restore_command, run_command
from lsst.astroclearnet.commands._progress import show_progress
from lsst.astroclearnet.tasks import RestoreCoaddConfig
from lsst.resources import ResourcePath


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a user does not find what there is, or what it takes."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "..." not in text.partition("Commands:")[2]
    for command in cli.commands:
        assert re.search(rf"^ +{command} ", text, re.MULTILINE)
        assert main([command, "--help"]) == 0
        assert f"Usage: astroclearnet {command} [OPTIONS]" in capsys.readouterr().out


def test_help_loads_nothing() -> None:
    """If it fails, help takes the seconds that torch takes to load."""
    code = "import sys, lsst.astroclearnet.cli; sys.exit('numpy' in sys.modules or 'rich' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: astroclearnet [OPTIONS] COMMAND"),
        (["restore"], "No such command 'restore'"),
        (["simulate"], "Missing argument 'REPO'"),
        (["simulate", "repo", "--visits", "0"], "'--visits': 0 is not in the range x>=1"),
        (["simulate", "repo", "--patches", "1,2,3"], "neither a positive integer nor two with a comma"),
        (["simulate", "repo", "--patches", "2,0"], "neither a positive integer nor two with a comma"),
        (["demo", "out", "--jobs", "-2"], "--jobs"),
        (["ingest", "repo", "image.fits"], "Missing option '--skymap'"),
        (["ingest", "repo", "--skymap", "map"], "Missing argument 'FILE...'"),
        (["compare", "repo"], "Missing option '--collection'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a slip of the finger starts something."""
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_commands_of_the_shell(tmp_path: Path) -> None:
    """If it fails, what is printed cannot be pasted, or failure is missed."""
    command = restore_command("a repo", skymap="m", inputs="in", output="out", options=["-j", "2"])
    line = format_command(command)
    assert "-b 'a repo'" in line
    assert "-d \"skymap='m'\"" in line
    echoed = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert echoed == command
    run_command([sys.executable, "-c", ""])
    with pytest.raises(CommandError, match="ended with exit status 3"):
        run_command([sys.executable, "-c", "raise SystemExit(3)"])


def test_programs_are_named_as_a_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, printed commands hold paths of an environment that is
    active, or names that the shell of the user does not know.
    """
    beside = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{os.defpath}")
    assert program("pipetask") == "pipetask"
    # Another program of the name comes first.
    (tmp_path / "pipetask").write_text("#!/bin/sh\n")
    (tmp_path / "pipetask").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{beside}")
    assert program("pipetask") == str(beside / "pipetask")
    # As for make, which puts the environment on PATH for itself alone.
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{os.defpath}")
    monkeypatch.chdir(beside.parent)
    assert program("pipetask") == f"{beside.name}/pipetask"


def test_progress_ends_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, the last line of a log says that something is left."""
    with show_progress(Console()) as report:
        for done in range(30):
            report(done, 30, f"visit {done}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  0/30 visit 0"
    assert lines[-1] == "  30/30 done"
    assert len(lines) == 9
    with show_progress(Console()) as report:
        report(5, 6, "patch 5")
        report(6, 6, "patch 6")
    assert capsys.readouterr().out.splitlines()[-1] == "  6/6 patch 6"
    with show_progress(Console()):
        pass
    assert capsys.readouterr().out == ""

    def fail() -> None:
        with show_progress(Console()) as report:
            report(2, 6, "patch 2")
            raise CommandError("stop")

    with pytest.raises(CommandError, match="stop"):
        fail()
    assert "6/6" not in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help_has_no_empty_defaults(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, the help gives a default to options that have none."""
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for empty in ("]", "None", "False", "[", "(", "''", '""'):
        assert f"[default: {empty}" not in text
    if command == "simulate":
        assert "Bands to observe. [default: g,r,i]" in text


def test_quick_look_configuration() -> None:
    """If it fails, the override names a field that is no more."""
    config = RestoreCoaddConfig()
    config.load(ResourcePath("resource://lsst.astroclearnet/resources/config/quick_look.py"))
    config.validate()
    default = RestoreCoaddConfig()
    assert config.restoration.fit.max_epochs < default.restoration.fit.max_epochs
    assert config.restoration.noise.num_draws < default.restoration.noise.num_draws


def test_values_with_commas_or_repeated() -> None:
    """If it fails, collections are lost that options of the Butler take."""
    plan = cli.commands["plan"]
    for words in (["--input", "a, b"], ["--input", "a", "--input", "b"]):
        assert plan.make_context("plan", ["repo", *words]).params["inputs"] == ("a", "b")
    for words in (["--input", ""], ["--input", "a", "--bands", "g,"]):
        with pytest.raises(click.BadParameter, match="empty name"):
            plan.make_context("plan", ["repo", *words])
