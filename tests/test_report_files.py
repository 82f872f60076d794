# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Files of a report: what is replaced, kept and left out, and its command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_repository import COLLECTION, make_repository

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.report import ReportError, read_contents, write_report
from lsst.daf.butler import Butler


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two patches in two bands, with figures."""
    root = str(tmp_path_factory.mktemp("report") / "repo")
    make_repository(root)
    return root


@pytest.fixture
def report(repository: str, tmp_path: Path) -> Path:
    """First page of a report of it."""
    contents = read_contents(Butler.from_config(repository, collections=COLLECTION), title="A <title>")
    return write_report(contents, tmp_path / "report", notes=["First.", "Second & last."])


def test_only_reports_are_replaced(repository: str, report: Path) -> None:
    """If it fails, a mistyped folder costs a user's files."""
    contents = read_contents(Butler.from_config(repository, collections=COLLECTION), title="Another")
    (report.parent / "patches" / "old.html").write_text("")
    assert write_report(contents, report.parent) == report
    assert "Another" in report.read_text()
    assert not (report.parent / "patches" / "old.html").exists()
    other = report.parent.parent / "thesis"
    other.mkdir()
    (other / "index.html").write_text("<p>Mine</p>")
    with pytest.raises(ReportError, match="holds something else than a report"):
        write_report(contents, other)
    assert (other / "index.html").read_text() == "<p>Mine</p>"


def test_an_interrupted_report_leaves_the_old_one(
    repository: str, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a crash costs the report that was there, or blocks its
    folder.
    """
    contents = read_contents(Butler.from_config(repository, collections=COLLECTION), title="Another")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt("stopped")

    before = report.read_text()
    with monkeypatch.context() as patched:
        patched.setattr("lsst.astroclearnet.report._pages._draw_maps", fail)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            write_report(contents, report.parent)
    assert report.read_text() == before
    assert [path.name for path in report.parent.parent.iterdir()] == ["report"]
    assert "Another" in write_report(contents, report.parent).read_text()


def test_a_picture_that_is_gone_is_left_out(repository: str, tmp_path: Path) -> None:
    """If it fails, one missing file costs the report."""
    copy = tmp_path / "repo"
    shutil.copytree(repository, copy)
    butler = Butler.from_config(str(copy), collections=COLLECTION)
    (ref,) = butler.query_datasets("restored_coadd_color_plot")
    butler.getURI(ref).remove()
    (demand,) = butler.query_datasets("restored_coadd_demand")
    butler.getURI(demand).remove()
    index = write_report(read_contents(butler, title=""), tmp_path / "report")
    left = {path.name for path in (index.parent / "images").iterdir()}
    assert not left & {"test_map-3-1-color.png", "test_map-3-0-i-demand.png"}
    assert "test_map-3-tract-color.png" in left


def test_command(repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, users have no report, or an error that says nothing."""
    folder = tmp_path / "pages"
    assert main(["report", repository, COLLECTION, "--output", str(folder)]) == 0
    assert f"Report: {folder / 'index.html'}" in capsys.readouterr().out
    words = ["report", repository, COLLECTION, "--output", str(folder), "--where", "band = 'z'"]
    assert main(words) == 1
    assert "where band = 'z': run the tasks of the pipeline's subset 'diagnose'" in capsys.readouterr().err
    assert main(["report", repository, "u/nothing", "--output", str(folder)]) == 1
    assert "u/nothing" in capsys.readouterr().err
