# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Notebooks of the documentation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lsst.astroclearnet.cli import main

TOP = Path(__file__).parents[1]
NOTEBOOKS = sorted((TOP / "doc" / "notebooks").glob("*.ipynb"))


def test_notebooks_have_no_outputs() -> None:
    """If this fails, the outputs of somebody's machine were committed."""
    assert NOTEBOOKS
    executed = []
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert cells, path.name
        executed += [path.name for c in cells if c.get("outputs") or c.get("execution_count") is not None]
    assert executed == []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the repository of a small demonstration."""
    root = tmp_path_factory.mktemp("demo")
    words = "--bands i --visits 3 --patches 1 --patch-cells 2 --stars 40 --jobs 1"
    assert main(["demo", str(root), *words.split()]) == 0
    return str(root / "repo")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a reader who runs the notebook gets an error."""
    monkeypatch.setenv("REPOSITORY", repository)
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    if "OMP_NUM_THREADS" not in os.environ:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": path.parent}}).execute()
    # Their last assertions say that fluxes agree with the truth, and that
    # light which stands out has a share.
    assert any("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", ()))
