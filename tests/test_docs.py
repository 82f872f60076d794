# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The documentation builds, is complete, and needs no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fontTools.ttLib import TTFont

TOP = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Page(HTMLParser):
    """Links, sources and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value}
        self.tags.add(tag)
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.sources.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.sources.append(values.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built from a copy, since the build writes beside them."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("docs")
    ignored = shutil.ignore_patterns("_build", "api", "__pycache__")
    shutil.copytree(TOP / "doc", folder / "doc", ignore=ignored)
    for name in ("bps", "CONTRIBUTING.md", "CITATION.cff"):
        (folder / name).symlink_to(TOP / name)
    process = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "doc", "html"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    # Such as the kernel of the notebook may write.
    assert "WARNING" not in process.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """All pages of the site, read."""
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def own_links(pages: dict[Path, Page]) -> Iterator[tuple[Path, Path, str]]:
    """Return page, target and anchor of each link within the site."""
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                yield path, target, unquote(parts.fragment)


def test_pages_are_there(site: Path) -> None:
    folder = site / "lsst.astroclearnet"
    written = {
        path.relative_to(TOP / "doc").with_suffix(".html")
        for path in (TOP / "doc" / "lsst.astroclearnet").iterdir()
        if path.suffix in (".rst", ".md")
    }
    assert len(written) > 25
    for path in written:
        assert (site / path).is_file(), path
    assert (site / "notebooks" / "restore-arrays.html").is_file()
    for name in ("core.restore", "tasks.RestoreCoaddTask", "metrics.psf_flux_correlated"):
        assert (folder / "api" / f"lsst.astroclearnet.{name}.html").is_file()


def test_links_resolve(pages: dict[Path, Page], site: Path) -> None:
    """If this fails, a link within the pages is dead."""
    dead = set()
    links = list(own_links(pages))
    assert len(links) > 1000
    for path, target, anchor in links:
        page = pages.get(target)
        if not target.exists() or (page is not None and anchor and anchor not in page.anchors):
            dead.add(f"{path.relative_to(site)} -> {target.name}#{anchor}")
    assert not dead


def test_every_page_is_reached(pages: dict[Path, Page], site: Path) -> None:
    """If this fails, nobody finds a page by following links."""
    reached = {site / "index.html"}
    targets: dict[Path, set[Path]] = {}
    for path, target, _ in own_links(pages):
        targets.setdefault(path, set()).add(target)
    todo = list(reached)
    while todo:
        for target in targets.get(todo.pop(), set()) - reached:
            if target in pages:
                reached.add(target)
                todo.append(target)
    ours = {path for path in pages if path.parent != site and "_static" not in path.parts}
    assert ours <= reached


def test_nothing_comes_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    """If this fails, a page needs the network to be read."""
    for path, page in pages.items():
        foreign = [source for source in page.sources if urlsplit(source).netloc]
        assert not foreign, (path.name, foreign)
    for path in site.rglob("*.css"):
        text = path.read_text()
        assert "url(http" not in text, path.name
        assert "@import url" not in text, path.name


def test_formulae_and_outputs_are_drawn(pages: dict[Path, Page], site: Path) -> None:
    method = site / "lsst.astroclearnet" / "method.html"
    assert "math" in pages[method].tags
    # The index of a letter with a hat stands beside it, not below.
    assert "<msub><mover><mi>k</mi>" in method.read_text()
    # Indices and exponents are off the line.
    font = TTFont(site / "_static" / "formulae.woff")
    assert font["MATH"].table.MathConstants.SubscriptShiftDown.Value > 0.1 * font["head"].unitsPerEm
    assert "formulae.woff" in (site / "_static" / "site.css").read_text()
    notebook = site / "notebooks" / "restore-arrays.html"
    assert any(source.endswith(".png") for source in pages[notebook].sources)
    assert "rms of (measured - true) / error" in notebook.read_text()


def test_references_come_from_the_code(site: Path) -> None:
    text = (site / "lsst.astroclearnet" / "configuration.html").read_text()
    assert "restoreCoadd:restoration.tiling.max_host_memory" in text
    assert "--max-exposures" in (site / "lsst.astroclearnet" / "command-line.html").read_text()
