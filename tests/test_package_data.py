# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pipelines and configuration travel with the package."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path, PurePosixPath

import pytest

from lsst.resources import ResourcePath

TOP = Path(__file__).parents[1]
PACKAGED = sorted(
    path.relative_to(TOP).as_posix()
    for path in [
        *(TOP / "pipelines").rglob("*.yaml"),
        *(TOP / "config").rglob("*.py"),
        *(TOP / "bps").rglob("*.*"),
    ]
)


def test_there_are_pipelines() -> None:
    """If this fails, the tests below test nothing."""
    expected = {"pipelines/RestoreCoadd.yaml", "pipelines/_ingredients/RestoreCoadd.yaml", "bps/local.yaml"}
    assert expected <= set(PACKAGED)


@pytest.mark.parametrize("scheme", ["resource://lsst.astroclearnet/resources/", "eups://astroclearnet/"])
def test_files_are_found_by_uri(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, ``pipetask run -p URI`` does not find the pipeline in an
    installation by pip.
    """
    monkeypatch.delenv("ASTROCLEARNET_DIR", raising=False)
    uris = {name: ResourcePath(scheme + name) for name in PACKAGED}
    missing = [name for name, uri in uris.items() if not uri.exists()]
    assert missing == []
    assert [name for name, uri in uris.items() if uri.read() != (TOP / name).read_bytes()] == []


def test_files_are_packaged() -> None:
    """If this fails, a file is in the checkout but not in the wheel."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lsst.astroclearnet"]
    # Patterns are taken from the right: equal lengths make them whole paths.
    left_out = [
        name
        for name in PACKAGED
        for packaged in [PurePosixPath("resources", name)]
        if not any(
            packaged.match(pattern) and len(packaged.parts) == len(PurePosixPath(pattern).parts)
            for pattern in patterns
        )
    ]
    assert left_out == []


def test_package_says_that_it_is_typed() -> None:
    """If this fails, mypy ignores the annotations in a user's checks."""
    assert files("lsst.astroclearnet").joinpath("py.typed").is_file()
