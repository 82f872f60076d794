# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures and sky maps of the full stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import patch_geometry_from_skymap, refine_legacy_sky_map
from lsst.astroclearnet.adapters.read import visit_image_from_exposure
from lsst.astroclearnet.repository import sky_map_around
from lsst.astroclearnet.tasks import RestoreCoaddConfig, RestoreCoaddTask
from lsst.images import VisitImage
from lsst.pipe.base import InMemoryDatasetHandle, Struct

pytestmark = pytest.mark.afw(
    "lsst.cell_coadds", "lsst.geom", "lsst.meas.extensions.piff", "lsst.meas.extensions.psfex", "lsst.skymap"
)

VISITS = (1001, 1002, 1003)


def restore_visits(visit_images: list[VisitImage]) -> Struct:
    """Restore what covers some visit images."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 4
    config.validate()
    geometry = sky_map_around(visit_images, skymap="field").patch(0, 0)
    # The files need not say which visits they are.
    handles = [
        InMemoryDatasetHandle(image, instrument="Toy", visit=visit, detector=0, storageClass="VisitImage")
        for visit, image in zip(VISITS, visit_images, strict=True)
    ]
    band = str(visit_images[0].band)
    return RestoreCoaddTask(config=config).run(visit_images=handles, geometry=geometry, band=band)


def test_restore_converted_exposures(shared_data: Path) -> None:
    """If it fails, exposures of the full stack cannot be restored."""
    import lsst.afw.image

    paths = [shared_data / "afw" / f"calexp_toy{visit}.fits" for visit in VISITS]
    exposures = [lsst.afw.image.ExposureF(str(path)) for path in paths]
    visit_images = [visit_image_from_exposure(exposure) for exposure in exposures]
    for exposure, visit_image in zip(exposures, visit_images, strict=True):
        np.testing.assert_array_equal(visit_image.image.array, exposure.image.array)
    outputs = restore_visits(visit_images)
    coadd = outputs.restored_coadd
    assert [int(visit) for visit in coadd.provenance.inputs["visit"]] == list(VISITS)
    # Of the corners of the patch no exposure has a pixel.
    seen = ~coadd.mask.get("NO_DATA")
    assert seen.mean() > 0.4
    np.testing.assert_array_equal(np.isfinite(coadd.image.array), seen)
    assert (coadd.variance.array[seen] > 0).all()


def make_sky_map(builder: str, **options: Any) -> Any:
    """Return a sky map of one tract of 0.12 degrees."""
    from lsst.skymap import DiscreteSkyMap

    config = DiscreteSkyMap.ConfigClass()
    config.raList, config.decList, config.radiusList = [150.1], [2.2], [0.06]
    config.pixelScale, config.tractOverlap = 0.2, 0.0
    config.tractBuilder.name = builder
    for name, value in options.items():
        setattr(config.tractBuilder[builder], name, value)
    return DiscreteSkyMap(config)


@pytest.mark.parametrize(
    ("builder", "options", "cell_shape"),
    [
        ("legacy", {"patchInnerDimensions": [600, 400], "patchBorder": 100}, (50, 50)),
        (
            "cells",
            {
                "cellInnerDimensions": [100, 100],
                "cellBorder": 20,
                "numCellsPerPatchInner": 4,
                "numCellsInPatchBorder": 1,
            },
            (100, 100),
        ),
    ],
)
def test_patch_of_a_sky_map(builder: str, options: dict[str, Any], cell_shape: tuple[int, int]) -> None:
    """If it fails, coadds lie elsewhere than those of the full stack."""
    sky_map = make_sky_map(builder, **options)
    info = sky_map[0][2, 1]
    number = info.getSequentialIndex()
    geometry = patch_geometry_from_skymap(sky_map, name="m", tract=0, patch=number, cell_size=50)
    definition = geometry.definition
    # Both builders have 100 pixels of border here, apart from that of cells.
    width, height = (600, 400) if builder == "legacy" else (400, 400)
    inner = definition.inner_bbox
    assert (inner.x.start, inner.x.stop) == (2 * width, 3 * width)
    assert (inner.y.start, inner.y.stop) == (height, 2 * height)
    assert geometry.bbox == inner.padded(100)
    assert tuple(definition.cells.cell_shape) == cell_shape
    assert (definition.id, definition.index.x, definition.index.y) == (number, 2, 1)
    assert (geometry.skymap, geometry.tract) == ("m", 0)
    corner = geometry.bbox.start
    sky = geometry.projection.pixel_to_sky(x=float(corner.x), y=float(corner.y))
    expected = info.getWcs().pixelToSky(float(corner.x), float(corner.y))
    assert float(sky.ra.deg) == pytest.approx(expected.getRa().asDegrees(), abs=1e-8)
    assert float(sky.dec.deg) == pytest.approx(expected.getDec().asDegrees(), abs=1e-8)


def test_patch_of_no_whole_number_of_cells() -> None:
    """If it fails, the last cells of a patch are cut off, or a patch is
    refused whose cells could be of nearly the size that is asked for.
    """
    sky_map = make_sky_map("legacy", patchInnerDimensions=[600, 400], patchBorder=100)
    number = sky_map[0][2, 1].getSequentialIndex()
    geometry = patch_geometry_from_skymap(sky_map, name="m", tract=0, patch=number, cell_size=70)
    # 600 = 8 x 75 and 800 = 10 x 80: the divisors nearest to 70.
    assert tuple(geometry.bbox.shape) == (600, 800)
    assert tuple(geometry.definition.cells.cell_shape) == (75, 80)


@pytest.mark.parametrize(
    ("builder", "options"),
    [
        ("legacy", {"patchInnerDimensions": [600, 400], "patchBorder": 100}),
        ("cells", {"cellInnerDimensions": [100, 100], "cellBorder": 20, "numCellsPerPatchInner": 4}),
    ],
)
def test_finer_sky_map(builder: str, options: dict[str, Any]) -> None:
    """If it fails, a finer sky map has other tracts and patches."""
    coarse = make_sky_map(builder, **options)
    fine = refine_legacy_sky_map(coarse, 2)
    assert fine.config.pixelScale == pytest.approx(0.1)
    here, there = (
        patch_geometry_from_skymap(sky_map, name="m", tract=0, patch=4, cell_size=size)
        for sky_map, size in ((coarse, 50), (fine, 100))
    )
    assert tuple(there.bbox.shape) == (2 * here.bbox.shape.y, 2 * here.bbox.shape.x)
    middle, finer = (
        geometry.projection.pixel_to_sky(x=geometry.bbox.x.center, y=geometry.bbox.y.center)
        for geometry in (here, there)
    )
    # Edges are those of whole pixels.
    assert middle.separation(finer).arcsec < 0.3


def test_patches_of_hsc() -> None:
    """If it fails, the cells that the pipelines of HSC ask for do not fit the
    patches, or neighbours do not share those of their overlap.
    """
    from lsst.skymap.ringsSkyMap import RingsSkyMap

    # config/makeSkyMap.py of obs_subaru.
    config = RingsSkyMap.ConfigClass()
    config.numRings, config.projection = 120, "TAN"
    config.tractOverlap, config.pixelScale = 1.0 / 60.0, 0.168
    sky_map = RingsSkyMap(config)
    number = sky_map[9813].getNumPatches()
    assert (number.x, number.y) == (9, 9)
    geometries = [
        patch_geometry_from_skymap(sky_map, name="hsc_rings_v1", tract=9813, patch=patch, cell_size=100)
        for patch in (40, 41, 0)
    ]
    middle, right, corner = geometries
    assert tuple(middle.bbox.shape) == (4200, 4200)
    assert tuple(corner.bbox.shape) == (4100, 4100)
    for geometry in geometries:
        assert tuple(geometry.definition.cells.cell_shape) == (100, 100)
        assert geometry.pixel_scale == pytest.approx(0.168, rel=1e-3)
    overlap = right.bbox.x.start - middle.bbox.x.start
    assert overlap == 4000
    assert middle.bbox.x.start % 100 == right.bbox.x.start % 100 == 0
