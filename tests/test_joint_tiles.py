# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bands restored together in tiles, some of which fail or do not fit."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    BandsResult,
    DetectionImage,
    ExposureStack,
    JointModel,
    MaskBit,
    RestorationError,
    RestorationResult,
    TilingOptions,
    restore_bands,
    restore_exposures,
)
from lsst.astroclearnet.core.calibration import calibrate_exposures
from lsst.astroclearnet.core.estimate import BandImage
from lsst.astroclearnet.core.exposures import StackSource, Tile, TileGrid
from lsst.astroclearnet.core.forward import TileReader
from lsst.astroclearnet.core.tiles import _band_restoration
from lsst.astroclearnet.core.tiles._band_restoration import BandRestoration
from lsst.astroclearnet.tests import QUICK, gaussian_stars, make_exposure_arrays

SHAPE = (200, 96)
TARGET = 3.8
STARS = [(y + 0.3, x - 0.4, 100.0 + 8.0 * y) for y in range(13, 190, 29) for x in range(17, 90, 20)]
COLOR = {"g": 0.6, "i": 1.0}
FWHMS = {"g": (4.2, 4.4, 4.0), "i": (3.4, 3.8, 4.0)}
TILES = dataclasses.replace(QUICK, tiling=TilingOptions(max_tile_size=196))
BORDER = 100
"""First row of the second of two tiles."""

PRODUCTS = ("image", "variance", "linear_image", "linear_variance", "noise_realizations", "mask")


@pytest.fixture(scope="module")
def sources() -> dict[str, StackSource]:
    """Two bands of stars."""
    made = {}
    for seed, (band, color) in enumerate(COLOR.items()):
        stars = [(y, x, color * flux) for y, x, flux in STARS]
        arrays = make_exposure_arrays(SHAPE, FWHMS[band], stars=stars, gain=4.0, seed=seed)
        made[band] = StackSource(ExposureStack.from_arrays(*arrays))
    return made


def run(sources: Mapping[str, StackSource], options: Any = TILES, **changes: Any) -> BandsResult:
    """Restore bands on the CPU."""
    seeds = {band: ord(band) for band in sources}
    return restore_bands(sources, target_fwhm=TARGET, options=options, seeds=seeds, device="cpu", **changes)


@pytest.fixture(scope="module")
def whole(sources: dict[str, StackSource]) -> BandsResult:
    """The patch as a single tile."""
    return run(sources, QUICK)


@pytest.fixture(scope="module")
def tiled(sources: dict[str, StackSource]) -> BandsResult:
    """The patch in two tiles."""
    return run(sources)


def near_border(reach: int) -> np.ndarray:
    """Return the pixels close to the border between the tiles."""
    near = np.zeros(SHAPE, dtype=bool)
    near[BORDER - reach : BORDER + reach] = True
    return near


def assert_same(first: RestorationResult, second: RestorationResult, where: np.ndarray | None = None) -> None:
    """Check that pixels are the same to the last bit."""
    for name in PRODUCTS:
        here, there = (getattr(result, name) for result in (first, second))
        if where is not None:
            here, there = here[..., where], there[..., where]
        np.testing.assert_array_equal(here, there, err_msg=name)


@pytest.mark.slow
def test_order_of_bands_does_not_matter_in_tiles(sources: dict[str, StackSource], tiled: BandsResult) -> None:
    """If it fails, two runs of the same patch differ."""
    assert {band: result.num_tiles for band, result in tiled.results.items()} == {"g": 2, "i": 2}
    again = run(dict(reversed(sources.items())))
    for band, result in tiled.results.items():
        assert_same(result, again.results[band])
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(getattr(tiled.detection, name), getattr(again.detection, name))


@pytest.mark.slow
@pytest.mark.parametrize("product", ["g", "i", "detection"])
def test_seams_are_invisible(whole: BandsResult, tiled: BandsResult, product: str) -> None:
    """If it fails, one sees where the tiles meet."""

    def image_of(result: BandsResult) -> RestorationResult | DetectionImage:
        return result.detection if product == "detection" else result.results[product]

    weights = whole.detection.weights if product == "detection" else {product: 1.0}
    truth = sum(w * COLOR[band] for band, w in weights.items()) * gaussian_stars(SHAPE, STARS, TARGET)
    linear = {band: float(np.median(result.linear_variance)) for band, result in whole.results.items()}
    sigma = np.sqrt(sum(w**2 * linear[band] for band, w in weights.items()))
    error, reference = ((image_of(result).image - truth) / sigma for result in (tiled, whole))
    sky = truth < 0.05 * sigma
    seam = near_border(6) & sky
    across, expected = (np.abs(e[BORDER] - e[BORDER - 1])[sky[BORDER]] for e in (error, reference))
    assert np.std(error[seam]) < 1.05 * np.std(reference[seam])
    assert abs(np.mean(error[seam]) - np.mean(reference[seam])) < 0.03
    assert np.sqrt(np.mean((error - reference)[near_border(6)] ** 2)) < 0.15
    assert np.mean(across) < 1.1 * np.mean(expected)


@pytest.mark.slow
def test_tile_that_fails_in_a_band_is_as_if_it_had_no_data(
    sources: dict[str, StackSource],
    tiled: BandsResult,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If it fails, a fault of one band costs the others, or is in them."""
    original = BandRestoration.observe
    bad = TileGrid.cover(SHAPE, 196).tiles[1]

    def fail(self: BandRestoration, tile: Tile) -> Any:
        if self.reader.source is sources["g"] and tile == bad:
            raise RestorationError("no way")
        return original(self, tile)

    monkeypatch.setattr(BandRestoration, "observe", fail)
    with caplog.at_level(logging.ERROR):
        result = run(sources)
    assert "The tile of band g" in caplog.text
    (failed,) = result.results["g"].failed_tiles
    assert "no way" in failed.reason
    assert result.results["i"].failed_tiles == ()
    lost = np.zeros(SHAPE, dtype=bool)
    lost[bad.inner_rows, bad.inner_columns] = True
    np.testing.assert_array_equal((result.results["g"].mask & MaskBit.NO_DATA) > 0, lost)
    far = ~near_border(25)
    alone = restore_exposures(sources["i"], target_fwhm=TARGET, options=TILES, seed=ord("i"), device="cpu")
    assert not np.array_equal(tiled.results["i"].image[lost], alone.image[lost])
    assert_same(result.results["i"], alone, lost & far)
    for band in sources:
        assert_same(result.results[band], tiled.results[band], ~lost & far)
    np.testing.assert_array_equal(result.detection.image[lost & far], alone.image[lost & far])


@pytest.mark.slow
def test_joint_step_that_runs_out_of_memory_gives_smaller_tiles(
    sources: dict[str, StackSource],
    whole: BandsResult,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If it fails, a patch is lost that smaller tiles would have saved."""
    original = JointModel.combine

    def run_out(self: JointModel, bands: Sequence[BandImage]) -> list[torch.Tensor]:
        if max(bands[0].estimator.model.shape) > 180:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, bands)

    monkeypatch.setattr(JointModel, "combine", run_out)
    with caplog.at_level(logging.WARNING):
        result = run(sources, QUICK)
    assert "ran out of memory" in caplog.text
    assert "4 smaller tiles" in caplog.text
    assert result.failed == {}
    for band, restored in result.results.items():
        assert restored.failed_tiles == ()
        assert np.isfinite(restored.image).all()
        expected = whole.results[band]
        sigma = float(np.sqrt(np.median(expected.linear_variance)))
        # Penalty weights of tiles differ by up to a tenth.
        assert np.sqrt(np.mean((restored.image - expected.image) ** 2)) < 0.2 * sigma
        assert np.sqrt(np.mean((restored.linear_image - expected.linear_image) ** 2)) < 0.2 * sigma
    assert np.isfinite(result.detection.image).all()


def test_joint_step_on_a_device_that_vanished_ends(
    sources: dict[str, StackSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a GPU that vanished is retried tile by tile."""

    def vanish(*_: object) -> list[torch.Tensor]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(JointModel, "combine", vanish)
    with pytest.raises(RuntimeError, match="CUDA error"):
        run(sources, QUICK)


def test_memory_of_other_bands_is_released_before_smaller_tiles(
    sources: dict[str, StackSource], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a band runs out of memory that the bands before it keep."""
    numbers: list[int] = []
    kept: list[weakref.ref[object]] = []

    def run_out(reader: TileReader, options: Any) -> Any:
        numbers.append(len(reader.tiles))
        if len(numbers) == 1:
            kept.append(weakref.ref(reader.read(reader.tiles[0]).stack))  # type: ignore[union-attr]
        elif len(numbers) == 2:
            assert kept[0]() is not None
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        else:
            assert kept[0]() is None
        return calibrate_exposures(reader, options)

    def stop(done: int, number: int) -> None:
        raise StopIteration(f"before {done} of {number} tiles")

    monkeypatch.setattr(_band_restoration, "calibrate_exposures", run_out)
    # All bands have the smaller tiles.
    with caplog.at_level(logging.WARNING), pytest.raises(StopIteration, match="before 0 of 4 tiles"):
        run(sources, QUICK, tile_callback=stop)
    assert "trying again with 4 tiles instead of 1" in caplog.text
    assert numbers == [1, 1, 4]
