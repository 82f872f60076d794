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
import math
import shutil
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from lsst.astroclearnet.adapters import make_demand_image
from lsst.astroclearnet.cli import main
from lsst.astroclearnet.report import ReportError, read_contents, write_report
from lsst.astroclearnet.report._contents import _BandContents, _PatchContents
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.daf.butler import Butler, DatasetType
from lsst.images import MaskedImage
from lsst.images.cells import CellCoadd

COLLECTION = "u/test/restored"
CONCERN = "Stars <differ> & more."
PATCH_DIMENSIONS = ("skymap", "tract", "patch", "band")
EXPOSURE = {
    "instrument": "TestCam",
    "visit": 42,
    "detector": 3,
    "psf_fwhm": 0.7123,
    "weight_share": 0.5,
    "chi_square": 1.25,
    "used_fraction": 0.9,
    "rejected_fraction": 0.0125,
    "flux_error": 0.011,
    "flux_sigma": 0.001,
    "shift": 0.02,
    "shift_sigma": 0.01,
    "psf_width_error": math.nan,
    "psf_width_sigma": math.inf,
    "background": [0.5, 0.0, 0.0],
}
UNLIKE = {**EXPOSURE, "visit": 43, "chi_square": 5.27}


def make_quality(patch: int, band: str) -> dict[str, Any]:
    """Return the quality of a patch; that of patch 1 in r is bad."""
    is_bad = (patch, band) == (1, "r")
    return {
        "patch": {
            "skymap": "test_map",
            "tract": 3,
            "patch": patch,
            "band": band,
            "inner_x": [100 * patch, 100 * patch + 100],
            "inner_y": [0, 100],
        },
        "network": {"source": "fit" if band == "r" else "packaged", "identity": "0a1b"},
        "verdict": "bad" if is_bad else "good",
        "warnings": [CONCERN] if is_bad else [],
        "details": [],
        "metrics": {
            "fwhm_in": 0.7123,
            "fwhm_out": 0.54,
            "depth_linear": math.nan,
            "flux_offset_measured": 0.0123,
            "flux_offset_error": 0.004,
        },
        "checks": [
            {
                "name": "flux_offset",
                "value": 0.05,
                "limits": [0.01, 0.03],
                "verdict": "bad" if is_bad else "good",
                "words": CONCERN if is_bad else "",
            },
            {
                "name": "chi_square_weight",
                "value": 0.02 if band == "i" else 0.6,
                "limits": [0.1, 0.5],
                "verdict": "good" if band == "i" else "bad",
                "words": "",
            },
        ],
        "exposures": [EXPOSURE, UNLIKE],
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two patches in two bands, with figures."""
    root = str(tmp_path_factory.mktemp("report") / "repo")
    create_repository(root)
    butler = Butler.from_config(root, writeable=True)
    register_sky_map(butler, make_patch_geometry(), run="maps")
    writer = Butler.from_config(root, run=COLLECTION, writeable=True)
    universe = writer.dimensions
    types = {
        name: DatasetType(f"restored_coadd_{name}", dimensions, storage, universe=universe)
        for name, dimensions, storage in (
            ("quality", PATCH_DIMENSIONS, "StructuredDataDict"),
            ("plot", PATCH_DIMENSIONS, "Plot"),
            ("color_plot", PATCH_DIMENSIONS[:3], "Plot"),
            ("tract_color_plot", PATCH_DIMENSIONS[:2], "Plot"),
            ("demand", PATCH_DIMENSIONS, "MaskedImageV2"),
            ("injections", PATCH_DIMENSIONS, "ArrowAstropy"),
            ("injection_plot", PATCH_DIMENSIONS, "Plot"),
        )
    }
    types["coadd"] = DatasetType("restored_coadd", PATCH_DIMENSIONS, "CellCoadd", universe=universe)
    for dataset_type in types.values():
        writer.registry.registerDatasetType(dataset_type)
    figure = Figure(figsize=(2.0, 1.0))
    writer.registry.insertDimensionData("instrument", {"name": "TestCam"})
    for band in "ri":
        writer.registry.insertDimensionData(
            "physical_filter", {"instrument": "TestCam", "name": f"{band}_test", "band": band}
        )
        tract = {"skymap": "test_map", "tract": 3, "band": band}
        for patch in (0, 1):
            writer.put(make_quality(patch, band), types["quality"], tract, patch=patch)
            if patch == 0:
                writer.put(figure, types["plot"], tract, patch=patch)
    writer.put(figure, types["color_plot"], skymap="test_map", tract=3, patch=1)
    writer.put(figure, types["tract_color_plot"], skymap="test_map", tract=3)
    for patch in (0, 1):
        data_id = {"skymap": "test_map", "tract": 3, "patch": patch, "band": "i"}
        writer.put(make_injections(patch), types["injections"], data_id)
        if patch == 0:
            coadd, demand = make_images()
            writer.put(coadd, types["coadd"], data_id)
            writer.put(demand, types["demand"], data_id)
            writer.put(figure, types["injection_plot"], data_id)
    return root


def make_injections(patch: int) -> Table:
    """Return two stars of each magnitude in a patch, of which those of 25 are
    not detected in patch 1, and one galaxy.
    """
    magnitudes = [23.5, 23.6, 25.5, 25.6, 24.2]
    found = [True, True, patch == 0, patch == 0, True]
    return Table(
        {
            "mag": magnitudes,
            "surface_brightness": [math.nan] * 4 + [25.0],
            "is_on_source": [False] * 5,
            "restored_is_detected": found,
            "restored_flux_ratio": [1.0, 1.0, 0.75, 0.75, 0.9],
            "linear_is_detected": [True] * 5,
            "linear_flux_ratio": [1.0] * 5,
        }
    )


def make_images() -> tuple[CellCoadd, MaskedImage]:
    """Return a coadd of patch 0 and the map of its demanded light."""
    geometry = make_patch_geometry().patch(3, 0)
    shape = geometry.bbox.shape
    supplied = np.zeros(shape, dtype=bool)
    supplied[4:7, 9:12] = True
    demand = make_demand_image(
        geometry=geometry,
        share=np.where(supplied, 0.1, 1.0),
        sigma=np.full(shape, 0.1),
        mask_planes={"SUPPLIED": supplied, "WITHHELD": np.zeros(shape, dtype=bool)},
    )
    return make_coadd(geometry, np.random.default_rng(1).normal(size=shape)), demand


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
