# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A patch restored in tiles is the patch restored as a whole."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    ExposureStack,
    InputError,
    MaskBit,
    PixelPositions,
    RestorationError,
    StackResult,
    TilingOptions,
    gaussian_kernel,
    plan_memory,
    restore,
)
from lsst.astroclearnet.core.estimate import Estimator
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.tiles._tile_restorer import TileRestorer
from lsst.astroclearnet.tests import (
    QUICK,
    ExposureArrays,
    gaussian_stars,
    make_exposure_arrays,
    make_scene,
    psf_flux,
    restore_on_cpu,
)

SHAPE = (200, 96)
FWHMS = (3.4, 4.4, 3.8, 4.0)
TARGET = 3.6
STARS = [(y + 0.3, x - 0.4, 300.0 + 30.0 * y) for y in range(13, 190, 29) for x in range(17, 90, 20)]
TILES = dataclasses.replace(QUICK, tiling=TilingOptions(max_tile_size=196))
BORDER = 100
"""First row of the second of two tiles."""


def scene(**changes: object) -> ExposureArrays:
    """Return exposures with photon noise, one of which sees a part."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=STARS, gain=4.0, seed=8, **changes)  # type: ignore[arg-type]
    arrays.good[1, 130:, :45] = False
    return arrays


def run(arrays: ExposureArrays, options: object = TILES, **changes: object) -> StackResult:
    """Restore exposures on the CPU."""
    return restore(*arrays, target_fwhm=TARGET, device="cpu", seed=4, options=options, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> StackResult:
    """The patch as a single tile."""
    return run(scene(), QUICK)


@pytest.fixture(scope="module")
def tiled() -> StackResult:
    """The patch in tiles."""
    return run(scene())


def near_border(reach: int) -> np.ndarray:
    """Return the pixels close to the border between the tiles."""
    near = np.zeros(SHAPE, dtype=bool)
    near[BORDER - reach : BORDER + reach] = True
    return near


def test_tiles_are_used(whole: StackResult, tiled: StackResult) -> None:
    assert whole.num_tiles == 1
    assert tiled.num_tiles == 2
    assert whole.failed_tiles == tiled.failed_tiles == ()
    assert [t.inner_rows.start for t in TileGrid.cover(SHAPE, 196).tiles] == [0, BORDER]


@pytest.mark.parametrize("product", ["image", "linear_image"])
def test_seams_are_invisible(whole: StackResult, tiled: StackResult, product: str) -> None:
    """If it fails, one sees where the tiles meet."""
    truth = gaussian_stars(SHAPE, STARS, TARGET)
    sigma = float(np.sqrt(np.median(whole.linear_variance)))
    error, reference = ((getattr(result, product) - truth) / sigma for result in (tiled, whole))
    sky = truth < 0.05 * sigma
    seam = near_border(6) & sky
    # The same pixels of the patch as a whole have the same noise.
    assert np.std(error[seam]) < 1.05 * np.std(reference[seam])
    assert abs(np.mean(error[seam]) - np.mean(reference[seam])) < 0.03
    assert np.sqrt(np.mean((error - reference)[near_border(6)] ** 2)) < 0.15
    # No step: neighbours across the border differ as they do there.
    across, expected = (np.abs(e[BORDER] - e[BORDER - 1])[sky[BORDER]] for e in (error, reference))
    assert np.mean(across) < 1.1 * np.mean(expected)


def test_fluxes_across_seams(whole: StackResult, tiled: StackResult) -> None:
    """If it fails, stars on a border lose or gain light."""
    near = near_border(8)
    flux = np.array(
        [
            [psf_flux(result.linear_image, y, x, TARGET) for result in (whole, tiled)]
            for y, x, _ in STARS
            if near[round(y), round(x)] and 15 < x < SHAPE[1] - 15
        ]
    )
    assert len(flux) >= 3
    np.testing.assert_allclose(flux[:, 1], flux[:, 0], rtol=0.005)


def test_noise_does_not_fade_at_seams(tiled: StackResult, whole: StackResult) -> None:
    """If it fails, realisations of neighbouring tiles are independent, and
    their mean has too little noise.
    """
    for name, variance in (
        ("noise_realizations", "variance"),
        ("linear_noise_realizations", "linear_variance"),
    ):
        here, there = getattr(tiled, name)[0], getattr(whole, name)[0]
        near = near_border(6)
        assert np.corrcoef(here[near], there[near])[0, 1] > 0.9
        # The mean of independent ones would have 0.7 of it.
        assert np.std(here[near]) == pytest.approx(np.std(there[near]), rel=0.1)
        assert np.median(getattr(tiled, variance)[near]) == pytest.approx(
            np.median(getattr(whole, variance)[near]), rel=0.1
        )


def test_what_belongs_to_exposures_is_that_of_the_patch(tiled: StackResult, whole: StackResult) -> None:
    """If it fails, tiles disagree on their exposures."""
    np.testing.assert_allclose(tiled.background, whole.background, atol=0.02)
    np.testing.assert_allclose(tiled.chi_square, whole.chi_square, rtol=0.05)
    assert np.abs(tiled.psf_width_error).max() < 0.02
    used = [result.weights > 0 for result in (tiled, whole)]
    # Rejection is a decision: a few pixels on its brink differ.
    assert np.mean(used[0] != used[1]) < 1e-3
    assert not used[0][1, 130:, :45].any()
    np.testing.assert_array_equal(tiled.mask & MaskBit.NO_DATA, whole.mask & MaskBit.NO_DATA)


def test_same_bits_again(tiled: StackResult) -> None:
    """If it fails, a campaign cannot be repeated."""
    again = run(scene())
    for name in ("image", "variance", "linear_image", "linear_variance", "noise_realizations", "mask"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tiled, name))
    np.testing.assert_array_equal(again.linear_noise.stamps, tiled.linear_noise.stamps)


@pytest.mark.slow
def test_exposures_on_their_own_pixels_in_tiles() -> None:
    """If it fails, tiles of turned exposures do not fit together."""
    shape = (170, 190)
    stars = [(y + 0.3, x - 0.4, 4000.0) for y in range(18, 160, 29) for x in range(17, 180, 29)]
    rows, columns = np.mgrid[:260, :260] - 130.0
    images, y, x = [], [], []
    for angle, fwhm in ((0.3, 3.4), (-0.4, 3.8), (0.1, 4.2)):
        y.append(np.cos(angle) * rows - np.sin(angle) * columns + 85.0)
        x.append(np.sin(angle) * rows + np.cos(angle) * columns + 95.0)
        sigma = fwhm / 2.3548
        images.append(
            sum(
                flux
                * np.exp(-0.5 * ((y[-1] - v) ** 2 + (x[-1] - u) ** 2) / sigma**2)
                / (2 * np.pi * sigma**2)
                for v, u, flux in stars
            )
        )
    image = np.stack(images) + np.random.default_rng(1).normal(size=(3, 260, 260))
    psfs = make_exposure_arrays((40, 40), (3.4, 3.8, 4.2)).psfs
    positions = PixelPositions.from_arrays(shape, np.stack(y), np.stack(x), np.ones(image.shape))
    good = np.ones(image.shape, dtype=bool)
    results = [
        restore(
            image,
            np.ones(image.shape),
            good,
            psfs,
            positions=positions,
            target_fwhm=TARGET,
            device="cpu",
            options=options,
        )
        for options in (QUICK, dataclasses.replace(QUICK, tiling=TilingOptions(max_tile_size=150)))
    ]
    assert [r.num_tiles for r in results] == [1, 16]
    for v, u, _ in stars:
        if 20 < v < 150 and 20 < u < 170:
            first, second = (psf_flux(r.linear_image, v, u, TARGET) for r in results)
            assert second == pytest.approx(first, rel=0.005)


def test_failed_tile_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tiled: StackResult, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, one tile costs the patch, or is filled with nonsense."""
    original = TileRestorer.restore
    bad = TileGrid.cover(SHAPE, 196).tiles[1]

    def fail_once(self: TileRestorer, part: object) -> object:
        if part.tile == bad:  # type: ignore[attr-defined]
            raise RestorationError("no way")
        return original(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(TileRestorer, "restore", fail_once)
    with caplog.at_level(logging.ERROR):
        result = run(scene())
    (failed,) = result.failed_tiles
    assert (failed.rows, failed.columns) == (bad.inner_rows, bad.inner_columns)
    assert "no way" in failed.reason
    assert "no way" in caplog.text
    lost = np.zeros(SHAPE, dtype=bool)
    lost[bad.inner_rows, bad.inner_columns] = True
    np.testing.assert_array_equal((result.mask & MaskBit.NO_DATA) > 0, lost)
    for name in ("image", "variance", "linear_image", "linear_variance"):
        np.testing.assert_array_equal(np.isnan(getattr(result, name)), lost)
    far = ~near_border(25) & ~lost
    np.testing.assert_array_equal(result.image[far], tiled.image[far])


def test_values_that_are_not_finite_fail_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, NaN of an overflow is written as an image."""
    original = Estimator.estimate

    def spoil(self: Estimator, images: torch.Tensor) -> object:
        estimate = original(self, images)
        estimate.restored[40, 40] = torch.nan
        return estimate

    monkeypatch.setattr(Estimator, "estimate", spoil)
    with pytest.raises(RestorationError, match="No tile of the patch could be restored: .*not finite"):
        restore_on_cpu(make_scene(), QUICK)


def test_memory_that_runs_out_gives_smaller_tiles(
    monkeypatch: pytest.MonkeyPatch, whole: StackResult, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a patch is lost that smaller tiles would have saved."""
    original = TileRestorer.restore

    def run_out(self: TileRestorer, part: object) -> object:
        if max(part.tile.shape) > 180:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(TileRestorer, "restore", run_out)
    with caplog.at_level(logging.WARNING):
        result = run(scene(), QUICK)
    assert "ran out of memory" in caplog.text
    assert "4 smaller tiles" in caplog.text
    assert np.isfinite(result.image).all()
    sigma = float(np.sqrt(np.median(whole.linear_variance)))
    # Penalty weights of tiles differ by up to a tenth.
    assert np.sqrt(np.mean((result.linear_image - whole.linear_image) ** 2)) < 0.2 * sigma


def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a GPU that vanished is retried tile by tile."""

    def vanish(self: TileRestorer, part: object) -> object:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(TileRestorer, "restore", vanish)
    with pytest.raises(RuntimeError, match="CUDA error"):
        restore_on_cpu(make_scene(), QUICK)


def test_tile_without_data_is_no_failure() -> None:
    """If it fails, the edge of a survey counts as a fault."""
    arrays = scene()
    arrays.good[:, 60:] = False
    result = run(arrays)
    assert result.failed_tiles == ()
    assert ((result.mask[75:] & MaskBit.NO_DATA) > 0).all()
    assert np.isfinite(result.image[:55]).all()


def source(shape: tuple[int, int], number: int) -> StackSource:
    """Return exposures that nobody will look at."""
    arrays = make_exposure_arrays(shape, FWHMS, stars=(), seed=None)
    stack = ExposureStack.from_arrays(*arrays)
    repeated = torch.arange(number) % len(FWHMS)
    return StackSource(stack.select(repeated))


@pytest.mark.parametrize(
    ("rows", "columns"), [((0, 90), (0, 60)), ((70, 110), (20, 140)), ((3, 6), (5, 150))]
)
def test_extent_bounds_what_is_read(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """If it fails, rotated exposures take more memory than planned, or tiles
    are much smaller than need be.
    """
    v, u = np.indices((211, 197)) - 95.3
    angles = np.radians([0.0, 20.0, 45.0, -70.0])[:, None, None]
    y, x = 75.0 + np.cos(angles) * v - np.sin(angles) * u, 75.0 + np.sin(angles) * v + np.cos(angles) * u
    good = np.ones(y.shape, dtype=bool)
    positions = PixelPositions.from_arrays((150, 150), y, x, good.astype(np.float32))
    psfs = np.stack([gaussian_kernel(4.0, 25)] * len(y))
    stack = ExposureStack.from_arrays(0.0 * y, 1.0 + 0.0 * y, good, psfs, positions=positions)
    box = slice(*rows), slice(*columns)
    cut, bounds = StackSource(stack).read(*box), StackSource(stack).extent(*box)
    assert cut is not None
    shape = cut.stack.images.shape
    assert shape[0] == bounds[0]
    assert all(size <= bound <= size + 42 for size, bound in zip(shape[1:], bounds[1:], strict=True))


def test_plan_follows_from_the_limits() -> None:
    """If it fails, memory is not bounded by what was configured."""
    large = source((700, 600), 8)
    plans = [
        plan_memory(
            large, dataclasses.replace(QUICK, tiling=TilingOptions(max_host_memory=limit)), device="cpu"
        )
        for limit in (16.0, 2.0, 1.3)
    ]
    numbers = [len(plan.grid.tiles) for plan in plans]
    assert numbers[0] == 1
    assert numbers == sorted(numbers)
    assert numbers[2] > numbers[1]
    for plan, limit in zip(plans, (16.0, 2.0, 1.3), strict=True):
        assert plan.host_memory <= limit * 2**30
        assert plan.device_memory == 0
        assert f"{len(plan.grid.tiles)} tile(s)" in str(plan)
    on_gpu = plan_memory(large, QUICK, device="cuda")
    assert 0 < on_gpu.device_memory <= TilingOptions.max_device_memory * 2**30
    assert "GiB device" in str(on_gpu)


def test_plan_says_what_is_missing() -> None:
    """If it fails, a limit that cannot be met ends in a killed process."""
    options = dataclasses.replace(QUICK, tiling=TilingOptions(max_host_memory=0.5))
    with pytest.raises(InputError, match=r"needs .* GiB host at least: raise max_host_memory=0\.5"):
        plan_memory(source((400, 400), 8), options, device="cpu")
