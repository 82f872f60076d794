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
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import refine_sky_map
from lsst.astroclearnet.cli import main
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.daf.butler import Butler, DatasetType

TOP = Path(__file__).parents[1]
NOTEBOOKS = sorted((TOP / "doc" / "notebooks").glob("*.ipynb"))
LOOK = TOP / "doc" / "notebooks" / "look-at-coadds.ipynb"


def test_notebooks_have_no_outputs() -> None:
    """If this fails, the outputs of somebody's machine were committed."""
    assert NOTEBOOKS
    executed = []
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert cells, path.name
        executed += [path.name for c in cells if c.get("outputs") or c.get("execution_count") is not None]
    assert executed == []


def test_coadds_are_those_of_one_sky_map(tmp_path: Path) -> None:
    """If this fails, a finer sky map in the repository changes which coadds
    the notebook shows, without a word.
    """
    create_repository(tmp_path / "repo")
    writer = Butler.from_config(str(tmp_path / "repo"), run="u/test/restored", writeable=True)
    coarse = make_patch_geometry()
    dimensions = ("skymap", "tract", "patch", "band")
    dataset_type = DatasetType("restored_coadd", dimensions, "CellCoadd", universe=writer.dimensions)
    writer.registry.registerDatasetType(dataset_type)
    writer.registry.insertDimensionData("instrument", {"name": "TestCam"})
    names = {"instrument": "TestCam", "name": "i_test", "band": "i"}
    writer.registry.insertDimensionData("physical_filter", names)
    code = ["".join(cell["source"]) for cell in json.loads(LOOK.read_text())["cells"]]

    def choose(skymap: str | None) -> dict[str, Any]:
        known: dict[str, Any] = {}
        exec(code[1].replace("%matplotlib inline", ""), known)  # noqa: S102
        known |= {"REPOSITORY": str(tmp_path / "repo"), "COLLECTIONS": ["u/test/restored"], "SKYMAP": skymap}
        exec(code[3], known)  # noqa: S102
        return known

    depths = []
    for sky_map in (coarse, refine_sky_map(coarse, 2, "test_map_x2")):
        register_sky_map(writer, sky_map, run="maps")
        geometry = sky_map.patch(3, 0)
        coadd = make_coadd(geometry, np.zeros(geometry.bbox.shape, dtype=np.float32), band="i")
        writer.put(coadd, dataset_type, skymap=sky_map.skymap, tract=3, patch=0, band="i")
        if sky_map is coarse:
            assert choose(None)["data_id"]["skymap"] == "test_map"
        chosen = choose(sky_map.skymap)
        assert chosen["data_id"]["skymap"] == sky_map.skymap
        depths.append(chosen["distance_to_border"](chosen["ref"]))
    with pytest.raises(ValueError, match=r"Set SKYMAP .* \['test_map', 'test_map_x2'\]"):
        choose(None)
    # In arcsec they are alike, but for the pixel in whose middle a box ends.
    assert depths[0] == pytest.approx(depths[1], abs=coarse.tracts[0].pixel_scale_arcsec)


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
