# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The environment of ``make``, where it is not the checkout's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make_checkout(root: Path) -> Path:
    """Make a checkout of little more than the scripts."""
    (root / ".ci").mkdir(parents=True)
    for name in ("make-venv", "find-python"):
        shutil.copy(ROOT / ".ci" / name, root / ".ci")
    shutil.copy(ROOT / "Makefile", root)
    (root / "benchmarks").mkdir()
    for package in (root, root / "benchmarks"):
        (package / "pyproject.toml").touch()
    return root


def make_environment(place: Path, owner: Path, installed: Path) -> None:
    """Make an environment with the package of a checkout, in which pip only
    notes that it was asked for something.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    metadata = packages / "lsst_astroclearnet-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lsst-astroclearnet\nVersion: 1\n")
    url = {"url": owner.as_uri(), "dir_info": {"editable": True}}
    (metadata / "direct_url.json").write_text(json.dumps(url))
    (place / "bin" / "astroclearnet").write_text(f"#!{installed}/bin/python\n")
    (packages / "pip.py").write_text("import os\nopen('asked_pip', 'w').close()\n")
    (place / ".done").touch()


def make(checkout: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run ``make`` for the environment, without uv."""
    return subprocess.run(
        ["make", "-s", ".venv/.done"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", "PYTHON": python, "HOME": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the checkouts are."""
    folder = tmp_path / "with a space"
    folder.mkdir()
    return folder


def test_own_environment_is_kept(folder: Path) -> None:
    """If it fails, every ``make`` installs everything again."""
    checkout = make_checkout(folder / "own")
    make_environment(checkout / ".venv", checkout, checkout / ".venv")
    result = make(checkout)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (checkout / "asked_pip").exists()


def test_linked_environment_of_another_checkout_is_refused(folder: Path) -> None:
    """If it fails, the other checkout runs the code of this one, without a
    word.
    """
    other, checkout = make_checkout(folder / "other"), make_checkout(folder / "this")
    make_environment(other / ".venv", other, other / ".venv")
    (checkout / ".venv").symlink_to(other / ".venv")
    result = make(checkout)
    assert result.returncode != 0
    assert f".venv is a link to {other / '.venv'}" in result.stderr
    assert "rm .venv" in result.stderr
    assert not (checkout / "asked_pip").exists()
    assert (other / ".venv" / ".done").exists()


def test_environment_pointed_elsewhere_is_pointed_back(folder: Path) -> None:
    """If it fails, ``make test`` tests another checkout, without a word."""
    other, checkout = make_checkout(folder / "other"), make_checkout(folder / "this")
    make_environment(checkout / ".venv", other, checkout / ".venv")
    result = make(checkout)
    assert result.returncode == 0, result.stderr
    assert f"is that of the checkout in {other}: installing that of this one" in result.stdout
    assert (checkout / "asked_pip").exists()


def test_copied_environment_is_made_afresh(folder: Path) -> None:
    """If it fails, the programs of a copied checkout are those of the
    original.
    """
    other, checkout = make_checkout(folder / "other"), make_checkout(folder / "this")
    make_environment(checkout / ".venv", other, other / ".venv")
    # Without an interpreter to make it with, and thus without a network.
    result = make(checkout, python="/nonexistent")
    assert "moved or copied here: making it afresh" in result.stdout
    assert "PYTHON=/nonexistent" in result.stderr
    assert not (checkout / ".venv").exists()
