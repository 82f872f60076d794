# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Report of a collection: what it shows, and that a browser can show it."""

from __future__ import annotations

import dataclasses
import html.parser
import shutil
import urllib.parse
from pathlib import Path

import pytest
from report_repository import COLLECTION, CONCERN, make_repository

from lsst.astroclearnet.report import read_contents, write_report
from lsst.astroclearnet.report._contents import _BandContents, _PatchContents
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


class Page(html.parser.HTMLParser):
    """Links, images and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        if tag == "img":
            assert values["alt"]
        if "id" in values:
            self.anchors.add(values["id"])

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_link_leads_to_a_file(report: Path) -> None:
    """If it fails, readers meet missing pages or pictures, or need a
    network.
    """
    pages = {path: Page(path) for path in report.parent.rglob("*.html")}
    assert len(pages) == 3
    for path, page in pages.items():
        for link in page.links + page.sources:
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve()
            assert target.is_file(), link
            assert target.is_relative_to(report.parent.resolve())
            if anchor:
                assert anchor in pages[target].anchors
    sources = [source for page in pages.values() for source in page.sources]
    # Two maps, colours and injected sources of the tract; a figure for each
    # band of patch 0, with demanded light and injected sources in i; colours
    # of patch 1.
    assert len(sources) == len(set(sources)) == 9
    for picture in (report.parent / "images").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_names_are_neither_paths_nor_markup(repository: str, tmp_path: Path) -> None:
    """If it fails, a name in a repository is run by the browser, says where
    files are written, or costs the report since it is bad mathematics.
    """
    contents = read_contents(Butler.from_config(repository, collections=COLLECTION), title="T")
    name, band = "../../m'\"><script>alert(1)</script>$\\frac{$", "/i #<blink>?$\\frac{$"

    def rename_band(found: _BandContents) -> _BandContents:
        names = {"skymap": name, "band": band + found.band}
        quality = {**found.quality, "patch": {**found.quality["patch"], **names}}
        return dataclasses.replace(found, band=names["band"], quality=quality)

    def rename(patch: _PatchContents) -> _PatchContents:
        bands = [rename_band(found) for found in patch.bands]
        return dataclasses.replace(patch, skymap=name, bands=bands)

    tracts = [
        dataclasses.replace(tract, skymap=name, patches=[rename(patch) for patch in tract.patches])
        for tract in contents.tracts
    ]
    hostile = dataclasses.replace(contents, title=name, collections=[name], tracts=tracts)
    report = write_report(hostile, tmp_path / "outer" / "report", notes=[name])
    assert [path.name for path in tmp_path.iterdir()] == ["outer"]
    assert [path.name for path in report.parent.parent.iterdir()] == ["report"]
    pages = {path: Page(path) for path in report.parent.rglob("*.html")}
    assert len(pages) == 3
    for path, page in pages.items():
        for element in ("<script", "<blink>"):
            assert element not in path.read_text()
        for link in page.links + page.sources:
            place, _, anchor = link.partition("#")
            target = (path.parent / urllib.parse.unquote(place)).resolve()
            assert target.is_file(), link
            assert not anchor or urllib.parse.unquote(anchor) in pages[target].anchors


def test_pages_say_what_the_datasets_do(report: Path) -> None:
    """If it fails, a report shows other numbers, or none of the reasons."""
    index = Page(report).text
    assert "A <title>" in index
    assert "Second & last." in index
    assert index.count("flux offset") == 1
    assert 'title="Stars &lt;differ&gt; &amp; more."' in report.read_text()
    # The bad one comes first.
    assert index.index("flux offset") < index.index("good", index.index("beyond limits"))
    assert "+1.23% \N{PLUS-MINUS SIGN} 0.40%" in index
    words = index.split()
    assert words.count("bad") >= 1
    patch = Page(report.parent / "patches" / "test_map-3-1.html").text
    assert CONCERN in patch
    for text in ("TestCam 42", "0.712", "1.25", "+0.011", "1.25%", "skymap=test_map, tract=3, patch=1"):
        assert text in patch, text
    for text in ("Networkpackaged 0a1b", "Networkfitted to the patch"):
        assert text in patch.replace("\n", ""), text
    # What is not known is a dash.
    assert "5\N{GREEK SMALL LETTER SIGMA} depth of the linear coadd\N{EN DASH}" in patch.replace("\n", "")


def test_completeness_is_that_of_the_tract(report: Path) -> None:
    """If it fails, injected sources of one patch stand for the tract, or a
    band without any seems complete.
    """
    page = Page(report)
    words = " ".join(page.text.split())
    assert "Stars, 23 to 24 4 1.00 1.000 \N{PLUS-MINUS SIGN} 0.000 1.00 1.000" in words
    assert "Stars, 25 to 26 4 0.50 0.750 \N{PLUS-MINUS SIGN} 0.000 1.00" in words
    assert "Galaxies, 24 to 25 2 1.00 0.900" in words
    assert "completeness, restored flux ratio, restored completeness, linear" in words
    assert "No sources were injected in r, or not in these collections" in words
    assert "RestoreInjectedWithoutStack.yaml" in words
    assert any(source.endswith("-i-completeness.png") for source in page.sources)
    # Both are one figure each.
    assert "There is no colour picture" not in words


def test_pages_show_what_is_real(report: Path) -> None:
    """If it fails, a reader does not see light that the network made, or
    takes a map that is not there for one without any.
    """
    pages = {patch: Page(report.parent / "patches" / f"test_map-3-{patch}.html") for patch in (0, 1)}
    assert "../images/test_map-3-0-i-demand.png" in pages[0].sources
    assert pages[0].text.count("There is no map of demanded light") == 1
    assert pages[1].text.count("There is no map of demanded light") == 2
    assert pages[0].text.count("No sources were injected here") == 1


def test_page_says_why_a_chi_square_does_not_count(report: Path) -> None:
    """If it fails, a good patch shows an exposure that does not fit, and
    nobody knows why.
    """
    text = " ".join(Page(report.parent / "patches" / "test_map-3-0.html").text.split())
    assert text.count("is beyond a factor of 2") == 1
    assert "(visit 43, detector 3: 5.27). By itself that is within the limits: they have 2.0% of" in text
    assert "and up to 10% may have such" in text
    # The band whose verdict it changes says so itself.
    assert text.index("is beyond a factor of 2") > text.index("Band i")


def test_counts_are_those_of_the_verdicts(repository: str) -> None:
    """If it fails, bad patches are overlooked."""
    contents = read_contents(Butler.from_config(repository, collections=COLLECTION), title="")
    assert {band: dict(counts) for band, counts in contents.counts.items()} == {
        "i": {"good": 2},
        "r": {"good": 1, "bad": 1},
    }
    part = read_contents(
        Butler.from_config(repository, collections=COLLECTION), title="", where="band = 'i' AND patch = 1"
    )
    shown = [(p.patch, b.band) for tract in part.tracts for p in tract.patches for b in p.bands]
    assert shown == [(1, "i")]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280, 1400])
def test_browser_shows_all_pages(report: Path, width: int) -> None:
    """If it fails, pages are broken or ask the network for something."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        for path in sorted(report.parent.rglob("*.html")):
            page.goto(path.as_uri())
            loaded = page.evaluate("Array.from(document.images, i => i.complete && i.naturalWidth > 0)")
            assert all(loaded)
            # Wide tables scroll in boxes of their own.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("h1").is_visible()
        page.goto(report.as_uri())
        clipped = "Array.from(document.querySelectorAll('.wide'), e => e.scrollWidth - e.clientWidth)"
        assert width < 1000 or max(page.evaluate(clipped)) <= 0
        page.locator("tbody a").first.click()
        assert "/patches/" in page.url
        browser.close()
    assert problems == []
    assert all(url.startswith("file://") for url in requests)
