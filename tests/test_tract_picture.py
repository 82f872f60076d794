# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Colour picture of a tract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lsst.astroclearnet.adapters import (
    BinnedPatch,
    PatchGeometry,
    bin_inner_region,
    binned_projection,
    join_binned,
)
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.plots import color_figure, color_picture, color_stretch
from lsst.astroclearnet.repository import create_repository, register_sky_map
from lsst.astroclearnet.tasks import (
    MakeTractPictureConfig,
    MakeTractPictureConnections,
    MakeTractPictureTask,
)
from lsst.astroclearnet.tests import make_coadd, make_patch_geometry
from lsst.daf.butler import Butler, DatasetType
from lsst.images import Box, ColorImage, GeneralFrame, Interval, SkyProjection
from lsst.images.cells import CellCoadd
from lsst.pipe.base import InMemoryDatasetHandle, NoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

SKY_MAP = make_patch_geometry(cells=(3, 4))
PATCHES = [SKY_MAP.patch(3, n) for n in (0, 1)]
INNER = [geometry.definition.inner_bbox for geometry in PATCHES]


def light_of(bbox: Box) -> np.ndarray:
    """Return light that is a function of the place on the tract."""
    y, x = np.mgrid[bbox.y.start : bbox.y.stop, bbox.x.start : bbox.x.stop]
    return 30.0 + 10.0 * np.sin(0.21 * x) + 10.0 * np.cos(0.13 * y) + 0.05 * x


def make_band(geometry: PatchGeometry, band: str, **metadata: float) -> CellCoadd:
    """Return a coadd with light that does not know of patches."""
    coadd = make_coadd(geometry, light_of(geometry.bbox), band=band)
    coadd.metadata.update(metadata)
    return coadd


def make_patches(bands: str = "irg") -> dict[int, dict[str, Any]]:
    """Return handles of the coadds of both patches."""
    return {
        n: {band: InMemoryDatasetHandle(make_band(geometry, band)) for band in bands}
        for n, geometry in enumerate(PATCHES)
    }


def make_task(**options: Any) -> MakeTractPictureTask:
    """Return the task with a configuration."""
    config = MakeTractPictureConfig()
    config.update(**options)
    return MakeTractPictureTask(config=config)


def bin_patches(binning: int, images: list[np.ndarray] | None = None) -> list[BinnedPatch]:
    """Return both patches, binned."""
    images = images or [light_of(geometry.bbox) for geometry in PATCHES]
    return [
        bin_inner_region(image, geometry.bbox, inner, binning)
        for image, geometry, inner in zip(images, PATCHES, INNER, strict=True)
    ]


@pytest.mark.parametrize("binning", [1, 3, 7])
def test_blocks_across_patches_are_means_of_the_tract(binning: int) -> None:
    """If it fails, a step shows where patches meet."""
    parts = bin_patches(binning)
    whole = Box.factory[
        min(p.bbox.y.start for p in parts) : max(p.bbox.y.stop for p in parts),
        min(p.bbox.x.start for p in parts) : max(p.bbox.x.stop for p in parts),
    ]
    joined = join_binned(parts, whole)
    # Blocks inside both inner boxes together.
    start, stop = -(-INNER[0].x.start // binning), INNER[1].x.stop // binning
    rows = range(-(-INNER[0].y.start // binning), INNER[0].y.stop // binning)
    pixels = Box.factory[rows.start * binning : rows.stop * binning, start * binning : stop * binning]
    shape = (len(rows), binning, stop - start, binning)
    expected = light_of(pixels).reshape(shape).mean(axis=(1, 3))
    place = Box.factory[rows.start : rows.stop, start:stop].slice_within(whole)
    np.testing.assert_allclose(joined[place], expected, rtol=1e-6)
    border = INNER[0].x.stop
    assert border == INNER[1].x.start
    assert np.isfinite(joined).all()
    if binning == 7:
        # The case is one in which a block has pixels of both.
        assert border % binning


def test_pixels_without_a_value_do_not_count() -> None:
    """If it fails, holes darken the blocks around them."""
    image = np.full(PATCHES[0].bbox.shape, 5.0)
    corner = tuple(
        axis.start - box.start
        for axis, box in ((INNER[0].y, PATCHES[0].bbox.y), (INNER[0].x, PATCHES[0].bbox.x))
    )
    y, x = (
        -(-axis.start // 4) * 4 - axis.start + first
        for axis, first in ((INNER[0].y, corner[0]), (INNER[0].x, corner[1]))
    )
    image[y : y + 2, x : x + 4] = np.nan  # half of a block
    image[y : y + 3, x + 4 : x + 8] = np.nan  # more than half of the next
    part = bin_inner_region(image, PATCHES[0].bbox, INNER[0], 4)
    joined = join_binned([part], part.bbox)
    row, column = (
        (y + PATCHES[0].bbox.y.start) // 4 - part.bbox.y.start,
        (x + PATCHES[0].bbox.x.start) // 4 - part.bbox.x.start,
    )
    assert joined[row, column] == 5.0
    assert np.isnan(joined[row, column + 1])
    assert np.isnan(joined).sum() == 1


def test_bad_input_is_named() -> None:
    image = light_of(PATCHES[0].bbox)
    with pytest.raises(ValueError, match="binning=0 must be from 1 to 255"):
        bin_inner_region(image, PATCHES[0].bbox, INNER[0], 0)


@pytest.mark.parametrize("binning", [1, 5])
def test_projection_of_blocks(binning: int) -> None:
    """If it fails, sources in the picture are beside their catalogue."""
    pixels = PATCHES[0].projection
    box = Box.factory[3:9, 2:20]
    blocks = binned_projection(pixels, box, binning)
    assert isinstance(blocks.pixel_frame, GeneralFrame)
    for y, x in ((3.0, 2.0), (8.0, 19.0)):
        middle = {"y": binning * y + 0.5 * (binning - 1), "x": binning * x + 0.5 * (binning - 1)}
        distance = blocks.pixel_to_sky(y=y, x=x).separation(pixels.pixel_to_sky(**middle))
        assert distance.arcsec < 1e-6
    # The header that other programs read begins at the first block.
    header: Any = blocks.as_fits_wcs(box)
    assert header.pixel_to_world(0, 0).separation(blocks.pixel_to_sky(y=3.0, x=2.0)).arcsec < 1e-6


def test_projection_must_have_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SkyProjection, "as_fits_wcs", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match="cannot be written as a FITS header"):
        binned_projection(PATCHES[0].projection, Box.factory[0:2, 0:2], 2)


def test_picture_has_no_border_of_patches() -> None:
    """If it fails, patches have stretches or places of their own."""
    task = make_task(binning=3, stretch=50.0)
    outputs = task.run(patches=make_patches())
    assertValidOutput(task, outputs)
    color = outputs.tract_color
    assert isinstance(color, ColorImage)
    assert color.array.dtype == np.uint8
    # One image of the whole tract, with the edges of its blocks cut off.
    pixels = Box(*(Interval(3 * axis.start, 3 * axis.stop) for axis in (color.bbox.y, color.bbox.x)))
    light = light_of(pixels).reshape(color.bbox.y.size, 3, color.bbox.x.size, 3).mean(axis=(1, 3))
    stretch = color_stretch([light] * 3, (0.8, 1.0, 1.5), 50.0)
    expected = color_picture([light] * 3, stretch).astype(int)
    assert np.ptp(expected, axis=(0, 1)).min() > 15
    difference = np.abs(expected - color.array)[1:-1, 1:-1]
    assert difference.max() <= 2
    assert color.metadata["num_patches"] == 2
    assert color.metadata["missing"] == ""


def test_picture_is_stored_with_its_place(tmp_path: Path) -> None:
    """If it fails, other programs cannot find the sky of a pixel."""
    create_repository(str(tmp_path / "repo"))
    butler = Butler.from_config(str(tmp_path / "repo"), writeable=True, run="pictures")
    register_sky_map(butler, SKY_MAP, run="maps")
    dataset_type = DatasetType("picture", ("skymap", "tract"), "ColorImage", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    color = make_task(binning=2).run(patches=make_patches()).tract_color
    ref = butler.put(color, dataset_type, skymap="test_map", tract=3)
    read = butler.get(ref)
    np.testing.assert_array_equal(read.array, color.array)
    assert dict(read.metadata) == dict(color.metadata)
    y, x = color.bbox.y.start + 5, color.bbox.x.start + 7
    sky = PATCHES[0].projection.pixel_to_sky(y=2.0 * y + 0.5, x=2.0 * x + 0.5)
    assert read.sky_projection.pixel_to_sky(y=float(y), x=float(x)).separation(sky).arcsec < 1e-5
    with fits.open(butler.getURI(ref).ospath) as file:
        header = WCS(file["GREEN"].header)
    assert header.pixel_to_world(7, 5).separation(sky).arcsec < 1e-5


def test_saturation_in_one_band_changes_no_colour() -> None:
    """If it fails, bright stars have coloured rings, as blocks are means of
    other pixels in each band.
    """
    patches = {0: {band: make_band(PATCHES[0], band) for band in "irg"}}
    # Bright in some columns, which are saturated in g.
    for band, coadd in patches[0].items():
        coadd.image.array[:, ::4] = 400.0
        if band == "g":
            coadd.mask.set("SATURATED", coadd.image.array == 400.0)
    task = make_task(binning=4, stretch=50.0, scales=[1.0, 1.0, 1.0])
    red, green, blue = task.run(patches=patches).tract_color.array[5:-5, 5:-5].astype(int).transpose(2, 0, 1)
    assert red.min() > 60
    assert np.abs(red - green).max() <= 1
    assert np.abs(red - blue).max() <= 1


def test_missing_patches_are_grey_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, one lost file costs a picture, or nobody knows of it."""

    class Gone:
        def get(self) -> None:
            raise FileNotFoundError("/there/no/more")

    patches = make_patches()
    patches[1]["g"] = Gone()
    patches[2] = {"i": patches[0]["i"]}
    task = make_task(binning=2)
    outputs = task.run(patches=patches)
    words = "patch 1 (a file is gone: /there/no/more); patch 2 (no r, g)"
    assert outputs.tract_color.metadata["missing"] == words
    assert (task.metadata["num_patches"], task.metadata["num_left_out"]) == (1, 2)
    assert "Left out of the picture: patch 2 (no r, g)." in caplog.text
    (axes,) = outputs.tract_color_plot.axes
    assert axes.get_xlabel() == f"Grey: {words}."
    with pytest.raises(NoWorkFound, match="each of i, r, g"):
        task.run(patches={2: patches[2]})


def test_stretch_follows_the_faintest_flux() -> None:
    """If it fails, the little noise of restored coadds decides."""
    patches = {
        0: {
            band: make_band(PATCHES[0], band, faintest_flux_njy=flux, target_fwhm_arcsec=0.6)
            for band, flux in (("i", 100.0), ("r", 60.0), ("g", 40.0))
        }
    }
    scale = PATCHES[0].pixel_scale
    peak = 60.0 * gaussian_kernel(0.6 / scale, 33).max()
    found = make_task(binning=1).run(patches=patches).tract_color.metadata["stretch"]
    assert found == pytest.approx(4.0 * peak, rel=0.02)
    assert make_task(stretch=7.0).run(patches=patches).tract_color.metadata["stretch"] == 7.0


def test_large_pictures_are_drawn_small() -> None:
    """If it fails, the figure of a tract takes gigabytes."""
    picture = np.zeros((900, 4200, 3), dtype=np.uint8)
    picture[:, 2100:] = 200
    figure = color_figure(picture, pixel_scale=0.5, title="Tract")
    (axes,) = figure.axes
    (image,) = axes.get_images()
    drawn: Any = image.get_array()
    assert drawn.shape == (450, 2100, 3)
    assert drawn[0, -1, 0] == 200
    assert figure.get_size_inches()[0] == 10.0


def test_connections() -> None:
    connections: Any = MakeTractPictureConnections
    lintConnections(connections)
    config = MakeTractPictureConfig()
    config.do_plot = False
    assert "tract_color_plot" not in MakeTractPictureConnections(config=config).outputs
