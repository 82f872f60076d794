# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The task on patches that are restored in tiles, some of which fail."""

from __future__ import annotations

import logging
from logging.handlers import BufferingHandler
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import create_autospec

import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchGeometry
from lsst.astroclearnet.core import RestorationError
from lsst.astroclearnet.core.forward import TileData
from lsst.astroclearnet.core.tiles._tile_restorer import TileRestorer
from lsst.astroclearnet.core.tiles._tile_result import TileResult
from lsst.astroclearnet.tasks import (
    RestorationAlgorithmError,
    RestoreCoaddBandsConfig,
    RestoreCoaddBandsTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
)
from lsst.astroclearnet.tests import StarField, make_patch_geometry, make_projection, make_visit_image
from lsst.daf.butler import DatasetRef
from lsst.images import VisitImage
from lsst.pipe.base import (
    AnnotatedPartialOutputsError,
    InputQuantizedConnection,
    OutputQuantizedConnection,
    Struct,
)

SHAPE = (130, 270)
VIEWS: tuple[dict[str, Any], ...] = (
    {"offset": (3.3, 80.2), "visit": 11},
    {"offset": (-4.1, 84.9), "rotation": 9.0, "visit": 12},
    {"offset": (0.4, 121.6), "rotation": 4.0, "visit": 13},
)


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 3x7 cells."""
    return make_patch_geometry(cells=(1, 5), cell_shape=(24, 32)).patch(3, 0)


@pytest.fixture(scope="module")
def visits(geometry: PatchGeometry) -> list[VisitImage]:
    """Three visit images with rotations and dithers."""
    rng = np.random.default_rng(3)
    columns, rows = np.meshgrid(np.arange(20.0, 210.0, 26.0), np.arange(14.0, 60.0, 22.0))
    field = StarField(
        geometry=geometry, x=columns.ravel(), y=rows.ravel(), flux=rng.uniform(300.0, 6000.0, columns.size)
    )
    images = []
    for view in VIEWS:
        projection = make_projection(SHAPE, **view)
        image = field.render(projection, SHAPE, 3.6) + rng.normal(size=SHAPE)
        planes = {"SATURATED": np.zeros(SHAPE, dtype=bool)}
        planes["SATURATED"][62:66, 60:190] = True
        images.append(make_visit_image(image, projection, fwhm=3.6, planes=planes))
    return images


def make_task(**changes: Any) -> RestoreCoaddTask:
    """Return a task that restores in two tiles, quickly."""
    config = RestoreCoaddConfig()
    config.geometry_source = "dict"
    config.target_fwhm = 0.6
    config.device = "cpu"
    config.do_plot = False
    config.restoration.fit.max_epochs = 2
    config.restoration.noise.num_draws = 2
    config.restoration.network.penalty_weights = [1e-5, 1e-3, 1e-1]
    config.restoration.tiling.max_tile_size = 240
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()
    return RestoreCoaddTask(config=config)


class Tiled(NamedTuple):
    """A run of the task in tiles."""

    outputs: Struct
    metadata: Any
    messages: list[str]


@pytest.fixture(scope="module")
def tiled(geometry: PatchGeometry, visits: list[VisitImage]) -> Tiled:
    """What the task makes in tiles, and what it says."""
    task, handler = make_task(), BufferingHandler(10000)
    logger = logging.getLogger(task.log.name)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        outputs = task.run(visit_images=visits, geometry=geometry, band="i")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    return Tiled(outputs, task.metadata, [record.getMessage() for record in handler.buffer])


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one tile fail."""
    original = TileRestorer.restore

    def fail(self: TileRestorer, part: TileData) -> TileResult:
        if part.tile.inner_columns.start > 0:
            raise RestorationError("the sky fell down")
        return original(self, part)

    monkeypatch.setattr(TileRestorer, "restore", fail)


def test_tiles_make_the_planes_of_the_patch(
    geometry: PatchGeometry, visits: list[VisitImage], tiled: Tiled
) -> None:
    """If it fails, masks or provenance depend on how a patch is divided."""
    task = make_task()
    task.config.restoration.tiling.max_tile_size = 1024
    whole = task.run(visit_images=visits, geometry=geometry, band="i")
    tiles = tiled.outputs
    assert tiles.partial is whole.partial is None
    assert whole.restored_coadd_metrics["patch"]["num_tiles"] == 1
    assert tiles.restored_coadd_metrics["patch"]["num_tiles"] == 2
    for name in ("restored_coadd", "restored_coadd_linear"):
        one, many = getattr(whole, name), getattr(tiles, name)
        for plane in ("NO_DATA", "INTERPOLATED", "SATURATED", "FEW_EXPOSURES"):
            np.testing.assert_array_equal(one.mask.get(plane), many.mask.get(plane), err_msg=plane)
        assert one.mask.get("SATURATED").any()
        tables = one.provenance.contributions, many.provenance.contributions
        assert [list(t["visit"]) for t in tables] == [list(tables[0]["visit"])] * 2
        np.testing.assert_allclose(tables[0]["weight"], tables[1]["weight"], atol=0.01)
        # At bright stars the errors are larger than on the sky.
        assert np.sqrt(np.mean((one.image.array - many.image.array) ** 2 / one.variance.array)) < 0.3
    assert len(tiles.restored_coadd_linear_noise) == len(whole.restored_coadd_linear_noise) == 21


def test_plan_is_logged_and_recorded(tiled: Tiled) -> None:
    """If it fails, nobody knows what a patch will take before it has."""
    (line,) = [message for message in tiled.messages if "Memory plan" in message]
    assert f"Memory plan: {tiled.metadata['plan_num_tiles']} tile(s)" in line
    assert "GiB host" in line
    assert "GiB of coadds on disk" in line
    assert tiled.metadata["plan_host_memory"] > 2**29
    assert tiled.metadata["peak_host_memory"] > 2**28


@pytest.mark.usefixtures("failing")
def test_failed_tile_is_told_everywhere(geometry: PatchGeometry, visits: list[VisitImage]) -> None:
    """If it fails, a hole in a coadd has no reason, or no mask."""
    outputs = make_task().run(visit_images=visits, geometry=geometry, band="i")
    assert isinstance(outputs.partial, RestorationAlgorithmError)
    assert int(outputs.partial.metadata["num_failed_tiles"]) >= 1
    assert 0.0 < float(outputs.partial.metadata["failed_fraction"]) < 0.5
    coadd = outputs.restored_coadd
    lost = np.isnan(coadd.image.array)
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), lost)
    assert 0.1 < lost.mean() < 0.5
    # A cell of which nothing is left is missing in the bounds.
    grid = coadd.patch.cells
    for cell in coadd.psf.bounds.missing:
        assert lost[grid.bbox_of(cell).slice_within(coadd.bbox)].all()
    assert len(coadd.psf.bounds.missing) == lost.sum() // (grid.cell_shape.y * grid.cell_shape.x)
    assert outputs.restored_coadd_metrics["patch"]["num_failed_tiles"] >= 1
    assert "the sky fell down" in outputs.restored_coadd_metrics["failed_tiles"][0]
    assert "the sky fell down" in coadd.metadata["failed_tile_0"]


@pytest.mark.usefixtures("failing")
def test_failed_tile_fails_the_patch_if_configured(geometry: PatchGeometry, visits: list[VisitImage]) -> None:
    """If it fails, coadds with holes are written that nobody wants."""
    task = make_task(max_failed_fraction=0.0)
    with pytest.raises(RestorationAlgorithmError, match="could not be restored: .*the sky fell down"):
        task.run(visit_images=visits, geometry=geometry, band="i")


def test_partial_outputs_are_put_before_the_error(
    tiled: Tiled, geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, what could be restored is lost with what could not."""
    task = make_task()
    error = RestorationAlgorithmError("a tile failed", {"num_failed_tiles": 1})
    outputs = Struct(**{**tiled.outputs.getDict(), "partial": error})
    monkeypatch.setattr(task, "run", lambda **inputs: outputs)
    monkeypatch.setattr(
        "lsst.astroclearnet.tasks._restore_patch.read_geometry", lambda *args, **kwargs: geometry
    )
    put: list[tuple[Struct, object]] = []
    context = SimpleNamespace(
        quantum=SimpleNamespace(dataId=FakeDataId(band="i")),
        resources=SimpleNamespace(num_cores=1),
        get=lambda refs: refs,
        put=lambda values, refs: put.append((values, refs)),
    )
    references: Any = InputQuantizedConnection()
    references.visit_images, references.skymap_geometry = [], None
    with pytest.raises(AnnotatedPartialOutputsError, match="wrote partial outputs") as caught:
        task.runQuantum(context, references, "references")  # type: ignore[arg-type]
    assert caught.value.__cause__ is error
    assert put == [(outputs, "references")]
    assert task.metadata["failure"]["type"].endswith("RestorationAlgorithmError")


def test_error_of_a_band_is_recorded(geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, nobody can tell why a band of a patch is missing, or the
    other bands are missing with it.
    """
    config = RestoreCoaddBandsConfig()
    config.geometry_source = "dict"
    task = RestoreCoaddBandsTask(config=config)
    facts: dict[str, str | int | float | bool] = {"error": "InputError", "height": 0}
    error = RestorationAlgorithmError("g could not be restored", facts)
    outputs = Struct(restored_coadd={"i": "coadd"}, restored_coadd_detection="mean", partial=error)
    monkeypatch.setattr(task, "run", lambda **inputs: outputs)
    monkeypatch.setattr(
        "lsst.astroclearnet.tasks._restore_patch.read_geometry", lambda *args, **kwargs: geometry
    )
    put: list[tuple[str, object]] = []
    context = SimpleNamespace(
        quantum=SimpleNamespace(dataId=FakeDataId()),
        resources=SimpleNamespace(num_cores=1),
        get=lambda refs: refs,
        put=lambda value, ref: put.append((value, ref)),
    )
    references: Any = InputQuantizedConnection()
    references.visit_images, references.skymap_geometry = [], None
    green, red = (SimpleNamespace(dataId={"band": band}) for band in "gi")
    products: Any = OutputQuantizedConnection()
    products.restored_coadd = [green, red]
    products.restored_coadd_detection = detection = create_autospec(DatasetRef, instance=True)
    with pytest.raises(AnnotatedPartialOutputsError, match="wrote partial outputs") as caught:
        task.runQuantum(context, references, products)  # type: ignore[arg-type]
    assert caught.value.__cause__ is error
    assert sorted(put, key=str) == sorted([("coadd", red), ("mean", detection)], key=str)
    assert task.metadata["failure"]["metadata"].to_dict() == facts


class FakeDataId(dict[str, Any]):
    """A data ID without dimensions."""

    required: dict[str, Any] = {}  # noqa: RUF012
