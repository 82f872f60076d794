# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Geometry of patches: boxes, cells, projections and the stored dictionary."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lsst.astroclearnet.adapters import SkyMapGeometry, TractGeometry, box_region
from lsst.astroclearnet.adapters.place import choose_cell_shape
from lsst.astroclearnet.tests import make_patch_geometry
from lsst.images import Box


def test_patches_tile_the_tract() -> None:
    # Inner regions must meet without gap or overlap, outer ones overlap by
    # two borders, or sources at patch edges are lost or counted twice.
    tract = make_patch_geometry().tract(3)
    first, second = (tract.patch(p) for p in (0, 1))
    assert first.inner_bbox.x.stop == second.inner_bbox.x.start
    assert first.inner_bbox.y == second.inner_bbox.y
    assert first.outer_bbox.x.stop - second.outer_bbox.x.start == 2 * 32
    assert tract.bbox.contains(first.outer_bbox)
    assert tract.bbox.contains(second.outer_bbox)
    assert tuple(first.outer_bbox.shape) == (4 * 40, 5 * 32)
    assert (second.index.y, second.index.x) == (0, 1)


def test_dictionary_round_trip() -> None:
    # The dataset is plain data: what is read back must be the same geometry.
    geometry = make_patch_geometry()
    content = json.loads(json.dumps(geometry.to_dict()))
    assert SkyMapGeometry.from_dict(content) == geometry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"skymap": None}, "skymap"),
        ({"tracts": [{"tract": 1}]}, "ra_deg"),
    ],
)
def test_bad_dictionary_names_the_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SkyMapGeometry.from_dict({**make_patch_geometry().to_dict(), **change})


def test_unknown_tract_and_patch() -> None:
    geometry = make_patch_geometry()
    with pytest.raises(LookupError, match="no tract 4"):
        geometry.patch(4, 0)
    with pytest.raises(LookupError, match="patch 2 is not one"):
        geometry.patch(3, 2)


def test_projection_points_north_up_and_east_left() -> None:
    # A flipped axis would mirror the sky.
    patch = make_patch_geometry().patch(3, 1)
    x, y = patch.bbox.x.center, patch.bbox.y.center
    here = patch.projection.pixel_to_sky(x=x, y=y)
    up = patch.projection.pixel_to_sky(x=x, y=y + 10)
    right = patch.projection.pixel_to_sky(x=x + 10, y=y)
    assert up.dec > here.dec
    assert right.ra < here.ra
    assert here.separation(up).arcsec == pytest.approx(1.68, rel=1e-6)
    assert patch.pixel_scale == pytest.approx(0.168, rel=1e-6)


def test_region_holds_the_box() -> None:
    # The registry joins visits to patches through this polygon.
    patch = make_patch_geometry().patch(3, 0)
    region = box_region(patch.projection, patch.bbox)
    sky = patch.projection.pixel_to_sky(
        x=np.array([patch.bbox.x.min, patch.bbox.x.max + 2.0]),
        y=np.full(2, patch.bbox.y.max),
    )
    inside = np.asarray(region.contains(sky.ra.rad, sky.dec.rad))
    assert inside.tolist() == [True, False]


def test_tract_refuses_senseless_sizes() -> None:
    with pytest.raises(ValueError, match="pixel_scale_arcsec"):
        TractGeometry(
            tract=0,
            ra_deg=0.0,
            dec_deg=0.0,
            pixel_scale_arcsec=-0.2,
            cell_shape=(10, 10),
            patch_cells=(1, 1),
            num_patches=(1, 1),
        )


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        # Patches of hsc_rings_v1, inside a tract and at its edge.
        ((4200, 4200), 100, (100, 100)),
        ((4100, 4200), 100, (100, 100)),
        ((4150, 4300), 100, (83, 100)),
        ((230, 1000), 50, (46, 50)),
    ],
)
def test_cells_of_a_patch_without_cells(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    """If it fails, patches of most sky maps cannot be restored."""
    box = Box.factory[-30 : shape[0] - 30, 12 : shape[1] + 12]
    assert tuple(choose_cell_shape(box, size)) == expected


def test_cells_that_fit_nowhere() -> None:
    """If it fails, a patch has one cell, or one for each pixel."""
    with pytest.raises(ValueError, match="4157x4200 pixels cannot be divided into cells of 100"):
        choose_cell_shape(Box.from_shape((4157, 4200)), 100)
