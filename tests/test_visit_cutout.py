# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images kept small, and cut to parts of a patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import (
    MaskTable,
    PatchGeometry,
    PatchSource,
    PatchSummary,
    Scratch,
    VisitCutout,
)
from lsst.astroclearnet.core import InputError
from lsst.astroclearnet.core.exposures import TileGrid
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image, place_cutout
from lsst.images import VisitImage

SHAPE = (300, 340)
BORDER = 16


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 4x5 cells."""
    return make_patch_geometry(cell_shape=(40, 35)).patch(3, 1)


def visit(number: int, geometry: PatchGeometry, **options: Any) -> VisitImage:
    """Return a visit image of noise with a column of cosmic rays."""
    rng = np.random.default_rng(number)
    planes = {"COSMIC_RAY": np.zeros(SHAPE, dtype=bool), "BAD": np.zeros(SHAPE, dtype=bool)}
    planes["COSMIC_RAY"][:, 140 + number] = True
    planes["BAD"][150:160] = True
    projection = make_projection(SHAPE, visit=number, **options)
    return make_visit_image(rng.normal(size=SHAPE), projection, planes=planes)


@pytest.fixture(scope="module")
def visits(geometry: PatchGeometry) -> list[VisitImage]:
    """Four visits, of which the last covers a corner."""
    return [
        visit(1, geometry),
        visit(2, geometry, rotation=25.0),
        visit(3, geometry, rotation=-8.0, offset=(12.0, 30.0)),
        visit(4, geometry, rotation=8.0, offset=(-150.0, -200.0)),
    ]


def take(visits: list[VisitImage], geometry: PatchGeometry, scratch: Scratch | None = None) -> PatchSource:
    """Return a source of visits."""
    bbox = geometry.bbox.padded(BORDER)
    cutouts = [VisitCutout.take(v, geometry, bbox=bbox, scratch=scratch) for v in visits]
    return PatchSource(cutouts, geometry, bbox)


def test_part_is_that_of_the_whole(visits: list[VisitImage], geometry: PatchGeometry) -> None:
    """If it fails, tiles see other pixels, or see them elsewhere."""
    bbox = geometry.bbox.padded(BORDER)
    source = take(visits, geometry)
    rows, columns = slice(37, 120), slice(20, 95)
    box = source.box(rows, columns)
    for cutout, image in zip(source.cutouts, visits, strict=True):
        whole = place_cutout(VisitCutout.take(image, geometry, bbox=bbox), bbox)
        if cutout.within(box) is None:
            assert not whole.covered[rows, columns].any()
            continue
        part = place_cutout(cutout, box)
        for plane in ("covered", "usable"):
            np.testing.assert_array_equal(getattr(part, plane), getattr(whole, plane)[rows, columns])
        for name, flags in part.flags.items():
            np.testing.assert_array_equal(flags, whole.flags[name][rows, columns])
        inside = (whole.y >= 36.5) & (whole.y < 119.5) & (whole.x >= 19.5) & (whole.x < 94.5)
        assert part.good.sum() == (whole.good & inside).sum() > 100
        for name in ("image", "variance", "area"):
            np.testing.assert_array_equal(
                getattr(part, name)[part.good], getattr(whole, name)[whole.good & inside]
            )
        np.testing.assert_allclose(part.y[part.good] + 37, whole.y[whole.good & inside], atol=1e-9)
        np.testing.assert_allclose(part.x[part.good] + 20, whole.x[whole.good & inside], atol=1e-9)


def test_cut_has_the_exposures_that_are_there(visits: list[VisitImage], geometry: PatchGeometry) -> None:
    """If it fails, memory grows with exposures that a tile does not have, or
    exposures are mistaken for one another.
    """
    source = take(visits, geometry)
    grid = TileGrid.cover(source.shape, 130)
    seen = set()
    for tile in grid.tiles:
        cut = source.read(tile.rows, tile.columns)
        if cut is None:
            continue
        bounds = source.extent(tile.rows, tile.columns)
        assert all(size <= bound for size, bound in zip(cut.stack.images.shape, bounds, strict=True))
        seen.add(tuple(cut.exposures.tolist()))
        assert cut.stack.shape == tile.shape
        for k, n in enumerate(cut.exposures.tolist()):
            row, column = cut.origins[k]
            good = cut.stack.good[k].numpy()
            height, width = (
                min(a, b)
                for a, b in zip(good.shape, source.cutouts[n].image[row:, column:].shape, strict=True)
            )
            there = source.cutouts[n].image[row : row + height, column : column + width]
            np.testing.assert_array_equal(
                cut.stack.images[k].numpy()[:height, :width][good[:height, :width]],
                there[good[:height, :width]],
            )
    assert len(seen) > 1


def test_exposures_in_files_are_the_same(
    visits: list[VisitImage], geometry: PatchGeometry, tmp_path: Path
) -> None:
    """If it fails, a patch that does not fit into memory comes out wrong, or
    leaves files behind.
    """
    scratch = Scratch(0.0, str(tmp_path))
    in_files, in_memory = take(visits, geometry, scratch), take(visits, geometry)
    assert in_files.resident_bytes == in_memory.file_bytes == 0
    assert in_files.file_bytes == in_memory.resident_bytes == scratch.file_bytes > 0
    region = slice(10, 150), slice(5, 160)
    cuts = [source.read(*region) for source in (in_files, in_memory)]
    assert cuts[0] is not None
    assert cuts[1] is not None
    for name in ("images", "variances", "good", "psfs"):
        np.testing.assert_array_equal(getattr(cuts[0].stack, name), getattr(cuts[1].stack, name))
    # Nothing is left behind, whatever happens to the process.
    assert list(tmp_path.iterdir()) == []


def test_memory_is_used_up_to_its_limit(visits: list[VisitImage], geometry: PatchGeometry) -> None:
    """If it fails, files are written although there is room, or too late."""
    one = take(visits[:1], geometry).resident_bytes
    source = take(visits[:1] * 3, geometry, Scratch(2.1 * one))
    assert [cutout.is_in_memory for cutout in source.cutouts] == [True, True, False]


def test_summary_of_tiles_is_that_of_the_patch(visits: list[VisitImage], geometry: PatchGeometry) -> None:
    """If it fails, planes and provenance of a coadd depend on its tiles."""
    source = take(visits, geometry)
    layout = source.layout
    rng = np.random.default_rng(3)
    weights = np.where(rng.random((4, *source.shape)) < 0.9, 1.0, 0.0).astype(np.float32)
    weights *= np.stack([c.planes_within(source.bbox)["covered"] for c in source.cutouts])
    rejected = (rng.random(weights.shape) < 0.01) & (weights > 0)
    summaries = []
    for side in (1000, 130):
        summary = PatchSummary(source)
        grid = TileGrid.cover(source.shape, side, cell_shape=layout.cell_shape, border=layout.border)
        for tile in grid.tiles:
            own = tile.inner_rows, tile.inner_columns
            used = np.array([0, 1, 3])
            summary.add(tile, used, weights[used][:, *own], rejected[used][:, *own])
        summaries.append(summary)
    one, many = summaries
    for name in ("num_covering", "num_unused", "num_used", "num_rejected"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
    for plane, count in one.counts.items():
        np.testing.assert_array_equal(count, many.counts[plane])
    for name in ("overlap", "unmasked", "center"):
        np.testing.assert_array_equal(getattr(one.contributions, name), getattr(many.contributions, name))
    np.testing.assert_allclose(one.contributions.information, many.contributions.information, rtol=1e-3)
    # The third exposure was not used: wherever it covers, one is missing.
    covered = VisitCutout.take(visits[2], geometry).planes_within(geometry.bbox)["covered"]
    assert (one.num_unused[covered] >= 1).all()
    assert not one.contributions.information[2].any()
    assert one.contributions.overlap[2].any()


def test_psf_that_fails_somewhere_costs_an_exposure_there(
    visits: list[VisitImage], geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a PSF model ends the patch, or its failure is not told."""
    source = take(visits, geometry)
    original = VisitCutout.psfs_within

    def fail(self: VisitCutout, box: object, **options: object) -> np.ndarray:
        if self is source.cutouts[1]:
            raise InputError("The PSF cannot be evaluated.")
        return original(self, box, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(VisitCutout, "psfs_within", fail)
    cut = source.read(slice(30, 120), slice(30, 120))
    assert cut is not None
    assert 1 not in cut.exposures.tolist()
    assert source.problems == {1: "bad_psf: Left out where its PSF fails: The PSF cannot be evaluated."}


def test_planes_have_their_bits(geometry: PatchGeometry) -> None:
    """If it fails, one mask plane is taken for another."""
    names = ("SATURATED", "COSMIC_RAY", "INTERPOLATED", "DETECTION_EDGE")
    table = MaskTable.from_treatments(dict.fromkeys(names, "propagate 0"))
    planes = {name: np.zeros(SHAPE, dtype=bool) for name in names[1:]}
    for k, plane in enumerate(planes.values()):
        plane[120 + 10 * k : 122 + 10 * k, 140 : 150 + 10 * k] = True
    image = make_visit_image(np.ones(SHAPE), make_projection(SHAPE), planes=planes)
    cutout = VisitCutout.take(image, geometry, mask_table=table)
    exposure = place_cutout(cutout, geometry.bbox)
    plain = make_visit_image(np.ones(SHAPE), make_projection(SHAPE))
    assert cutout.good.sum() == VisitCutout.take(plain, geometry, mask_table=table).good.sum()
    found = {name: int(flags.sum()) for name, flags in exposure.flags.items()}
    assert found == {"SATURATED": 0, "COSMIC_RAY": 20, "INTERPOLATED": 40, "DETECTION_EDGE": 60}
