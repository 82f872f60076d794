# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""HiPS of restored coadds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image

from lsst.astroclearnet.cli import main
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.daf.butler import Butler, DatasetType

pytest.importorskip("reproject")
from lsst.astroclearnet.commands._hips_tiles import Hips, color_tiles

SKY_MAP = make_patch_geometry(cells=(3, 4))
PATCHES = [SKY_MAP.patch(3, n) for n in (0, 1)]
COLLECTION = "u/test/restored"
BORDER = PATCHES[0].definition.inner_bbox.x.stop
STARS = {"i": (100.0, BORDER - 40.0), "r": (80.0, BORDER + 30.0), "g": (60.0, BORDER - 10.0)}
"""Row and column, in pixels of the tract, of the only star in each band."""

SKY = {"i": 2.0, "r": 3.0, "g": 4.0}
PEAK, WIDTH = 90.0, 3.0


def light_of(band: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a star on a flat sky."""
    row, column = STARS[band]
    return SKY[band] + PEAK * np.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2) / WIDTH**2)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two patches in three bands, of which the outer boxes hold rubbish."""
    root = str(tmp_path_factory.mktemp("hips") / "repo")
    create_repository(root)
    register_sky_map(Butler.from_config(root, writeable=True), SKY_MAP, run="maps")
    writer = Butler.from_config(root, run=COLLECTION, writeable=True)
    dataset_type = DatasetType(
        "restored_coadd", ("skymap", "tract", "patch", "band"), "CellCoadd", universe=writer.dimensions
    )
    writer.registry.registerDatasetType(dataset_type)
    writer.registry.insertDimensionData("instrument", {"name": "TestCam"})
    for band in SKY:
        writer.registry.insertDimensionData(
            "physical_filter", {"instrument": "TestCam", "name": f"{band}_test", "band": band}
        )
        for n, geometry in enumerate(PATCHES):
            if (band, n) == ("g", 1):
                continue
            box, inner = geometry.bbox, geometry.definition.inner_bbox
            y, x = np.mgrid[box.y.start : box.y.stop, box.x.start : box.x.stop]
            image = np.full(box.shape, 1e6)
            place = inner.slice_within(box)
            image[place] = light_of(band, y, x)[place]
            coadd = make_coadd(geometry, image.astype(np.float32), band=band)
            coadd.metadata.update({"faintest_flux_njy": 100.0, "target_fwhm_arcsec": 0.6})
            writer.put(coadd, dataset_type, skymap="test_map", tract=3, patch=n, band=band)
    return root


@pytest.fixture(scope="module")
def written(repository: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HiPS of it."""
    folder = tmp_path_factory.mktemp("written") / "hips"
    assert main(["hips", repository, COLLECTION, "--tract", "3", "--output", str(folder)]) == 0
    return folder


def properties_of(folder: Path) -> dict[str, str]:
    """Return the properties of a HiPS."""
    lines = (folder / "properties").read_text().splitlines()
    assert len({line.split("=")[0] for line in lines}) == len(lines)
    return {key.strip(): value.strip() for key, value in (line.split("=", 1) for line in lines)}


def tiles_of(folder: Path, order: int, suffix: str) -> list[Path]:
    """Return the tiles of an order."""
    return sorted(folder.glob(f"Norder{order}/Dir*/Npix*.{suffix}"))


def test_tiles_show_the_coadds(written: Path) -> None:
    """If it fails, values or places in the HiPS are not those of coadds, or
    their overlaps show.
    """
    geometry = PATCHES[0]
    area = geometry.pixel_scale**2
    folder = written / "restored_coadd_i"
    order = int(properties_of(folder)["hips_order"])
    tops = []
    for path in tiles_of(folder, order, "fits"):
        with fits.open(path) as file:
            pixels, wcs = np.asarray(file[0].data), WCS(file[0].header)
        y, x = np.nonzero(np.isfinite(pixels))
        place = geometry.projection.sky_to_pixel(wcs.pixel_to_world(x, y))
        expected = light_of("i", place.y, place.x) / area
        # Bilinear interpolation flattens peaks, by a twelfth here at most.
        np.testing.assert_allclose(pixels[y, x], expected, rtol=0.09)
        tops.append(np.max(pixels[y, x], initial=0.0))
        # Without a gap where patches meet.
        near = (abs(place.x - BORDER) < 3) & (abs(place.y - 90.0) < 20)
        assert near.sum() in (0, *range(100, 400))
    assert max(tops) == pytest.approx((SKY["i"] + PEAK) / area, rel=0.09)


@pytest.mark.parametrize("coarser", [0, 1, 2])
def test_colors_lie_where_the_bands_do(written: Path, coarser: int) -> None:
    """If it fails, colour tiles are turned or their bands exchanged, or their
    quarters in coarser tiles.
    """
    folder = written / "restored_coadd_color"
    order = int(properties_of(folder)["hips_order"]) - coarser
    seen = set()
    for path in tiles_of(folder, order, "png"):
        picture = np.array(Image.open(path))[::-1]
        assert picture.shape == (512, 512, 4)
        tile = written / "restored_coadd_i" / path.relative_to(folder).with_suffix(".fits")
        wcs = WCS(fits.getheader(tile))
        for channel, band in enumerate("irg"):
            row, column = STARS[band]
            sky = PATCHES[0].projection.pixel_to_sky(y=row, x=column)
            x, y = (round(float(v)) for v in wcs.world_to_pixel(sky))
            if not (0 <= x < 512 and 0 <= y < 512):
                continue
            seen.add(band)
            # Patch 1 has no g, and is transparent.
            if column > BORDER:
                assert picture[y, x, 3] == 0
            else:
                assert picture[y, x, 3] == 255
                assert picture[y, x, :3].argmax() == channel
    assert seen == set("irg")


def test_every_order_has_tiles_and_a_coverage(written: Path) -> None:
    """If it fails, viewers show nothing until they are zoomed in, or ask for
    tiles that are not there.
    """
    for name, suffix in (("i", "fits"), ("color", "png")):
        folder = written / f"restored_coadd_{name}"
        found = properties_of(folder)
        order = int(found["hips_order"])
        assert found["hips_tile_format"] == suffix
        assert found["hips_status"] == "private master unclonable"
        assert found["hips_frame"] == "equatorial"
        for level in range(order + 1):
            assert tiles_of(folder, level, suffix)
        numbers = [int(path.stem.removeprefix("Npix")) for path in tiles_of(folder, order, suffix)]
        moc = Table.read(folder / "Moc.fits", hdu=1)
        assert sorted(moc["UNIQ"] - 4 * 4**order) == sorted(numbers)
        assert float(found["moc_sky_fraction"]) == pytest.approx(len(numbers) / (12 * 4**order), rel=1e-4)
    assert "nJy / arcsec2" in properties_of(written / "restored_coadd_i")["obs_description"]
    # Nothing is left of the work.
    assert {path.name for path in written.iterdir()} == {f"restored_coadd_{n}" for n in (*"irg", "color")}


def test_command_says_what_is_missing(
    repository: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a user overwrites a HiPS or gets an empty one."""
    words = ["hips", repository, COLLECTION, "--tract", "3", "--output"]
    assert main([*words, str(tmp_path / "a"), "--bands", "r,g", "--order", "10", "--stretch", "20"]) == 0
    shown = capsys.readouterr().out
    assert "1 patches lack a band and have no colour: 1" in shown
    assert "2 patches" in shown
    assert "of order 10" in shown
    assert main([*words, str(tmp_path / "b"), "--bands", "i,z"]) == 1
    assert "no restored_coadd of tract 3 of test_map in z" in capsys.readouterr().err
    assert main([*words, str(written)]) == 1
    assert "restored_coadd_i exists already" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "b"), "--bands", "i,r,i"]) == 1
    assert "--bands has i more than once" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    # Its pixels are wider than the patches.
    assert main([*words, str(tmp_path / "c"), "--order", "3"]) == 1
    assert "no pixel at order 3 has a value in i" in capsys.readouterr().err
    assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.parametrize("step", ["image_tiles", "color_tiles"])
def test_a_failure_leaves_nothing_in_the_way(
    repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """If it fails, the call after an interrupted one is refused."""
    from lsst.astroclearnet.commands import _hips

    make = getattr(_hips, step)

    def make_and_stop(*words: Any, **options: Any) -> Hips:
        made: Hips = make(*words, **options)
        # Of the second band, or of the colours.
        if options["title"].endswith("r"):
            raise KeyboardInterrupt("stopped")
        return made

    monkeypatch.setattr(_hips, step, make_and_stop)
    folder = tmp_path / "hips"
    butler = Butler.from_config(repository, collections=COLLECTION)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        _hips.write_hips(butler, folder, skymap="test_map", tract=3, bands=["i", "r"], order=10)
    assert list(folder.iterdir()) == []


def test_a_lost_file_costs_its_patch_only(
    repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, one lost file costs the HiPS, or nobody knows of it."""
    copy = tmp_path / "repo"
    shutil.copytree(repository, copy)
    butler = Butler.from_config(str(copy), collections=COLLECTION)
    words = ["hips", str(copy), COLLECTION, "--tract", "3", "--output", str(tmp_path / "hips"), "--bands"]
    for where, words_of_loss in (
        # Leaves patch 1 in r, where there never was g.
        ("band = 'r' AND patch = 0", "No patch has all of r, g"),
        ("band = 'g'", "Left out: patch 0, g"),
    ):
        (ref,) = butler.query_datasets("restored_coadd", where=where)
        butler.getURI(ref).remove()
        assert main([*words, "r,g"]) == 1
        assert words_of_loss in capsys.readouterr().err
    assert main([*words, "i,r"]) == 0
    shown = capsys.readouterr().out
    assert "restored_coadd_i: 2 patches" in shown
    assert "restored_coadd_r: 1 patches" in shown
    assert "Left out: patch 0, r (a file is gone: " in shown
    assert "1 patches lack a band and have no colour: 0" in shown
    assert main([*words, "g"]) == 1
    assert "Left out: patch 0, g" in capsys.readouterr().err


def test_missing_library_is_named(
    repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it fails, a user does not know what to install."""
    prefixes = ("reproject", "lsst.astroclearnet.commands._hips")
    loaded = [name for name in sys.modules if name.startswith(prefixes)]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "reproject", None)
    words = ["hips", repository, COLLECTION, "--tract", "3", "--output", str(tmp_path / "hips")]
    assert main(words) == 1
    assert "needs reproject: pip install 'lsst-astroclearnet[hips]'" in capsys.readouterr().err
    assert not (tmp_path / "hips").exists()


def test_orders_must_be_alike(tmp_path: Path) -> None:
    trees = [Hips(tmp_path / str(order), order, 1) for order in (9, 10)]
    with pytest.raises(ValueError, match=r"orders \[9, 10\]"):
        color_tiles(trees, tmp_path / "color", title="", peaks=[[1.0], [1.0]], linear=None)
