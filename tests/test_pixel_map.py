# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Maps between pixel grids, against the projections they stand in for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import PixelMap, SkyMapGeometry, TractGeometry
from lsst.astroclearnet.adapters.place import _pixel_map
from lsst.astroclearnet.tests import make_patch_geometry, make_projection
from lsst.images import YX, Box, SkyProjection
from lsst.images.serialization import read_archive

SHAPE = (300, 420)
BOX = Box.factory[40:290, -35:370]

PROJECTIONS: dict[str, dict[str, Any]] = {
    "dithered": {"offset": (3.3, -6.8)},
    "rotated and coarser": {"rotation": 37.0, "scale": 1.01, "offset": (-2.4, 1.7)},
    "distorted": {"distortion": 0.05, "rotation": 64.0, "offset": (5.1, 2.2)},
}


def map_directly(source: SkyProjection[Any], box: Box, target: SkyProjection[Any]) -> YX[np.ndarray]:
    """Return what a map must give, pixel by pixel."""
    grid = box.meshgrid()
    position = target.sky_to_pixel(source.pixel_to_sky(x=grid.x, y=grid.y))
    return YX(y=position.y, x=position.x)


def check_map(source: SkyProjection[Any], box: Box, target: SkyProjection[Any]) -> None:
    """Assert the accuracy that positions need, and the order of axes."""
    pixel_map = PixelMap.from_projections(source, box, target)
    assert pixel_map._splines is not None
    positions, expected = pixel_map.positions(), map_directly(source, box, target)
    assert positions.y.shape == tuple(box.shape)
    assert np.hypot(positions.y - expected.y, positions.x - expected.x).max() < 1e-3
    assert np.hypot(positions.y - expected.x, positions.x - expected.y).max() > 1.0
    # Central differences of the true positions, whose own error is the third
    # derivative: nothing for what is smooth enough to be interpolated.
    columns = [np.gradient(np.stack(expected), axis=axis) for axis in (1, 2)]
    jacobian = np.stack(columns, axis=-1).transpose(1, 2, 0, 3)[1:-1, 1:-1]
    grid = box.meshgrid()
    inner = pixel_map.jacobian(y=grid.y[1:-1, 1:-1], x=grid.x[1:-1, 1:-1])
    np.testing.assert_allclose(inner, jacobian, atol=1e-5)
    area = np.abs(np.linalg.det(jacobian))
    np.testing.assert_allclose(pixel_map.area()[1:-1, 1:-1], area, rtol=1e-5)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_simulated_projections(name: str) -> None:
    """If it fails, stars are restored where they are not."""
    patch = make_patch_geometry().patch(3, 1)
    visit = make_projection(SHAPE, **PROJECTIONS[name])
    check_map(patch.projection, patch.bbox, visit)
    check_map(visit, BOX, patch.projection)


@pytest.mark.parametrize("name", ["visit_image-dp1.json", "visit_image-dp2.json"])
def test_projections_of_rubin(shared_data: Path, name: str) -> None:
    """If it fails, the distortion of a Rubin detector is not followed."""
    visit = read_archive(shared_data / "rubin" / name).sky_projection
    check_against_patch(visit, Box.factory[100:600, 3500:4000], pixel_scale=0.2)


def test_projections_of_decam(shared_data: Path) -> None:
    """If it fails, the TPV distortion of DECam is not followed."""
    files = sorted((shared_data / "decam").glob("*.fits"))
    assert files
    for path in files:
        visit_image = read_archive(path)
        check_against_patch(visit_image.sky_projection, visit_image.bbox, pixel_scale=0.263)


def check_against_patch(visit: SkyProjection[Any], box: Box, pixel_scale: float) -> None:
    """Check both directions between a box and a patch that is off centre."""
    sky = visit.pixel_to_sky(x=float(box.x.center), y=float(box.y.center))
    tract = TractGeometry(
        tract=1,
        ra_deg=float(sky.ra.deg) + 0.3,
        dec_deg=float(sky.dec.deg) - 0.2,
        pixel_scale_arcsec=pixel_scale,
        cell_shape=(50, 60),
        patch_cells=(6, 6),
        num_patches=(1, 1),
    )
    patch = SkyMapGeometry(skymap="s", tracts=(tract,)).patch(1, 0)
    center = patch.projection.sky_to_pixel(sky)
    near = Box.from_shape((250, 170), start=(int(center.y) - 100, int(center.x) - 80))
    check_map(patch.projection, near, visit)
    check_map(visit, box, patch.projection)


def ripple(x: np.ndarray) -> np.ndarray:
    """Return displacements that are too fast for the widest grid."""
    return np.asarray(0.7 * np.sin(2.0 * np.pi * x / 150.0))


def step(x: np.ndarray) -> np.ndarray:
    """Return displacements that no grid follows."""
    return np.where(x > 100.3, 0.1, 0.0)


@pytest.mark.parametrize(("displace", "smooth"), [(ripple, True), (step, False)])
def test_grid_is_refined_until_it_is_good_enough(
    displace: Callable[[np.ndarray], np.ndarray], smooth: bool
) -> None:
    """If it fails, a rough map is interpolated with errors nobody knows."""

    def shake(y: np.ndarray, x: np.ndarray) -> YX[np.ndarray]:
        y, x = np.broadcast_arrays(y, x)
        return YX(y=y + displace(x), x=1.1 * x)

    splines = _pixel_map._fit_splines(shake, BOX)
    assert (splines is not None) == smooth
    if splines is not None:
        rows, columns = BOX.y.arange.astype(float), BOX.x.arange.astype(float)
        error = splines.y(rows, columns) - shake(rows[:, None], columns).y
        assert np.abs(error).max() < 1e-3
        # The widest grid would not do.
        nodes = _pixel_map._place_nodes(BOX.x.start, BOX.x.stop, _pixel_map._SPACING)
        assert len(splines.y.get_knots()[1]) - 4 > len(nodes)


def test_rotation_has_the_jacobian_of_a_rotation() -> None:
    """If it fails, PSFs are sheared or turned the wrong way."""
    patch = make_patch_geometry().patch(3, 1)
    projection = make_projection(SHAPE, rotation=30.0, scale=0.98)
    pixel_map = PixelMap.from_projections(patch.projection, patch.bbox, projection)
    y, x = (np.array([float(side.center)]) for side in (patch.bbox.y, patch.bbox.x))
    (jacobian,) = pixel_map.jacobian(y=y, x=x)
    cosine, sine = np.cos(np.radians(30.0)) / 0.98, np.sin(np.radians(30.0)) / 0.98
    # Right ascension runs against the columns of both.
    np.testing.assert_allclose(jacobian, [[cosine, -sine], [sine, cosine]], atol=1e-4)
    step = np.subtract(pixel_map.apply(y=y, x=x + 1.0), pixel_map.apply(y=y, x=x)).ravel()
    np.testing.assert_allclose(jacobian[:, 1], step, atol=1e-5)
    assert pixel_map.area().mean() == pytest.approx(0.98**-2, rel=1e-4)


def test_points_and_boxes_agree() -> None:
    """If it fails, cut-outs are placed with an offset."""
    patch = make_patch_geometry().patch(3, 1)
    pixel_map = PixelMap.from_projections(make_projection(SHAPE, rotation=12.0), BOX, patch.projection)
    part = Box.factory[70:75, 11:20]
    grid = part.meshgrid()
    cut, points = pixel_map.part(part).positions(), pixel_map.apply(y=grid.y, x=grid.x)
    rows, columns = part.slice_within(BOX)
    for axis in (0, 1):
        np.testing.assert_allclose(cut[axis], points[axis], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(cut[axis], pixel_map.positions()[axis][rows, columns])
    np.testing.assert_array_equal(pixel_map.part(part).area(), pixel_map.area()[rows, columns])
    with pytest.raises(ValueError, match=r"knows nothing of .*y=280:300"):
        pixel_map.part(Box.factory[280:300, 0:5])


def test_footprint_holds_all_pixels_and_no_more() -> None:
    """If it fails, too little of a visit image is read, or too much."""
    patch = make_patch_geometry().patch(3, 1)
    visit = make_projection(SHAPE, distortion=0.05, rotation=25.0)
    pixel_map = PixelMap.from_projections(patch.projection, patch.bbox, visit)
    expected = map_directly(patch.projection, patch.bbox, visit)
    low = [int(np.floor(axis.min())) for axis in expected]
    high = [int(np.ceil(axis.max())) + 1 for axis in expected]
    sky = Box.factory[low[0] - 900 : high[0] + 900, low[1] - 900 : high[1] + 900]
    assert pixel_map.overlap(sky) == Box.factory[low[0] : high[0], low[1] : high[1]]
    assert pixel_map.overlap(sky, 3) == Box.factory[low[0] - 3 : high[0] + 3, low[1] - 3 : high[1] + 3]
    image = Box.factory[low[0] + 5 : low[0] + 9, low[1] - 50 : low[1] + 2]
    assert pixel_map.overlap(image) == Box.factory[low[0] + 5 : low[0] + 9, low[1] : low[1] + 2]
    beside = Box.factory[low[0] : high[0], low[1] - 50 : low[1]]
    assert pixel_map.overlap(beside) is None
    assert pixel_map.overlap(beside, padding=1) == Box.factory[low[0] : high[0], low[1] - 1 : low[1]]


def test_beyond_the_horizon_there_is_nothing() -> None:
    """If it fails, a pixel without a position gets one somewhere."""
    box = Box.from_shape((80, 90))
    # Pixels of 1.4 degrees: a part of them is more than 90 degrees from where
    # the other projection looks.
    source = make_projection((80, 90), scale=3e4)
    target = make_projection((80, 90), scale=3e4, center=(195.0, 10.0))
    pixel_map = PixelMap.from_projections(source, box, target)
    assert pixel_map._splines is None
    grid = box.meshgrid()
    angle = source.pixel_to_sky(x=grid.x, y=grid.y).separation(target.pixel_to_sky(x=44.5, y=39.5)).deg
    positions = pixel_map.positions()
    np.testing.assert_array_equal(np.isfinite(positions.y), angle < 90.0)
    np.testing.assert_array_equal(np.isfinite(positions.x), angle < 90.0)
    assert 0.1 < (angle < 90.0).mean() < 0.99
    seen = np.isfinite(pixel_map.area())
    assert seen.any()
    assert (angle[seen] < 90.0).all()
    seen_box = pixel_map.overlap(Box.factory[-(10**6) : 10**6, -(10**6) : 10**6])
    assert seen_box is not None
    assert seen_box.y.start == np.floor(np.nanmin(positions.y))
    # The other half of the sky: nothing at all.
    away = make_projection((80, 90), center=(330.0, -2.0))
    nothing = PixelMap.from_projections(make_projection((80, 90)), box, away)
    assert nothing.overlap(box) is None
    assert np.isnan(nothing.positions().y).all()
