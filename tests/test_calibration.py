# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of what becomes of exposures that contradict the others."""

from __future__ import annotations

import re
import weakref

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import CalibrationOptions, ExposureStack, InputError, RestoreOptions, StarOptions
from lsst.astroclearnet.core.calibration import ExposureCalibration, calibrate_exposures
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import CleanTile, TileReader
from lsst.astroclearnet.tests import ExposureArrays, gaussian_stars, make_exposure_arrays

SHAPE = (120, 140)
FWHMS = (3.2, 3.6, 4.0, 4.4, 3.8, 4.6)
TARGET = 3.4
PLACES = [(y + 0.3, x - 0.2, 600.0 + 40.0 * x) for y in (20, 50, 95) for x in (25, 60, 115)]


def make_exposures(shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0) -> ExposureArrays:
    """Return six exposures of nine stars, of which the third is off."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=PLACES, seed=3)
    right = gaussian_stars(SHAPE, PLACES, FWHMS[2])
    moved = [(y + shift[0], x + shift[1], scale * flux) for y, x, flux in PLACES]
    arrays.images[2] += gaussian_stars(SHAPE, moved, FWHMS[2]) - right
    return arrays


def calibrate_stack(
    stack: ExposureStack, side: int = 1024, **options: object
) -> tuple[ExposureCalibration, list[CleanTile]]:
    """Calibrate a stack; return also its tiles."""
    # Bright stars are not what these tests are about.
    settings = RestoreOptions(
        calibration=CalibrationOptions(**options),  # type: ignore[arg-type]
        stars=StarOptions(enabled=False),
    )
    grid = TileGrid.cover(stack.shape, side)
    reader = TileReader(StackSource(stack), grid.tiles, TARGET, torch.device("cpu"))
    with torch.no_grad():
        calibration = calibrate_exposures(reader, settings)
        return calibration, [calibration.clean(part) for part in reader]


def calibrate(arrays: ExposureArrays, **options: object) -> tuple[ExposureCalibration, CleanTile]:
    """Calibrate exposures, as one tile."""
    stack = ExposureStack.from_arrays(arrays.images, arrays.variances, arrays.good, arrays.psfs)
    calibration, (clean,) = calibrate_stack(stack, **options)  # type: ignore[arg-type]
    return calibration, clean


def test_exposures_that_agree_stay() -> None:
    """If it fails, good exposures are thrown away."""
    calibration, clean = calibrate(make_exposures())
    assert calibration.dropped == {}
    assert bool(clean.tile_data.stack.good.any(dim=(1, 2)).all())
    known = torch.isfinite(calibration.offsets.sigmas)
    assert bool(known.all())
    assert float(calibration.offsets.values.abs().max()) < 0.1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"scale": 1.3}, r"flux_scale: .* by \+[23]\d"), ({"shift": (0.9, -1.2)}, r"astrometry: .* 1\.\d")],
)
def test_exposure_that_is_off_is_dropped(wrong: dict[str, object], reason: str) -> None:
    """If it fails, an exposure with a wrong calibration stays in the coadd."""
    calibration, clean = calibrate(make_exposures(**wrong))  # type: ignore[arg-type]
    assert list(calibration.dropped) == [2]
    assert re.match(reason, calibration.dropped[2])
    assert not bool(clean.tile_data.stack.good[2].any())
    assert bool(clean.tile_data.stack.good[[0, 1, 3, 4, 5]].any(dim=(1, 2)).all())


def test_small_offsets_stay_as_they_are() -> None:
    """If it fails, exposures are changed that should not be."""
    arrays = make_exposures(shift=(0.1, -0.06), scale=1.04)
    calibration, clean = calibrate(arrays, background="none", psf_refinement="off")
    assert calibration.dropped == {}
    psfs = torch.from_numpy(arrays.psfs)
    torch.testing.assert_close(clean.tile_data.stack.psfs[:, 0, 0], psfs / psfs.sum(dim=(1, 2), keepdim=True))
    torch.testing.assert_close(clean.tile_data.stack.images, torch.from_numpy(arrays.images).float())


def test_offsets_are_measured() -> None:
    """If it fails, metrics give wrong flux scales and positions."""
    calibration, _ = calibrate(make_exposures(shift=(0.25, -0.15), scale=1.05))
    assert calibration.offsets.values[:3, 2].tolist() == pytest.approx([0.05, 0.25, -0.15], abs=0.02)


def test_variable_star_is_no_wrong_exposure() -> None:
    """If it fails, a supernova throws away the exposures that show it."""
    few = make_exposure_arrays(SHAPE, FWHMS, stars=PLACES[:1], seed=5)
    many = make_exposures()
    for arrays in (few, many):
        arrays.images[1] += gaussian_stars(SHAPE, [(80.4, 90.2, 8000.0)], FWHMS[1])
        assert calibrate(arrays)[0].dropped == {}


def test_trail_is_no_wrong_exposure() -> None:
    """If it fails, a satellite throws away its exposure."""
    arrays = make_exposures()
    trail = [(1.0 * k, 14.0 + 0.5 * k, 150.0) for k in range(SHAPE[0])]
    arrays.images[4] += gaussian_stars(SHAPE, trail, FWHMS[4])
    calibration, clean = calibrate(arrays)
    assert calibration.dropped == {}
    assert int(clean.rejected[4].sum()) > 200


def test_background_is_removed() -> None:
    """If it fails, steps of the sky stay at the edges of exposures."""
    arrays = make_exposures()
    rows = np.arange(SHAPE[0])[:, None] / SHAPE[0] - 0.5
    offsets = np.array([0.3, -0.2, 0.1, -0.3, 0.0, 0.1])
    slopes = np.array([0.2, 0.0, -0.2, 0.0, 0.1, -0.1])
    arrays.images[...] += offsets[:, None, None] + slopes[:, None, None] * rows
    background = calibrate(arrays)[0].background.coefficients.numpy()
    np.testing.assert_allclose(background[:, 0], offsets, atol=0.05)
    np.testing.assert_allclose(background[:, 1] * SHAPE[0], slopes, atol=0.1)
    none, clean = calibrate(arrays, background="none")
    assert not none.background.coefficients.any()
    assert bool(torch.isinf(none.background.sigma).all())
    torch.testing.assert_close(clean.tile_data.stack.images, torch.from_numpy(arrays.images).float())


def test_clean_tile_is_kept_with_its_tile() -> None:
    """If it fails, outliers and variances are found three times, or memory
    that a tile took is not given back.
    """
    arrays = make_exposures()
    stack = ExposureStack.from_arrays(arrays.images, arrays.variances, arrays.good, arrays.psfs)
    reader = TileReader(StackSource(stack), TileGrid.cover(SHAPE, 1024).tiles, TARGET, torch.device("cpu"))
    with torch.no_grad():
        calibration = calibrate_exposures(reader, RestoreOptions())
        tile_data = next(iter(reader))
        clean = calibration.clean(tile_data)
        assert calibration.clean(tile_data) is clean
    kept = weakref.ref(clean)
    del tile_data, clean
    assert kept() is not None
    reader.release()
    assert kept() is None


def test_refusals() -> None:
    """If it fails, a misspelt setting is ignored."""
    with pytest.raises(InputError, match=r"background='spline'"):
        CalibrationOptions(background="spline")
    with pytest.raises(InputError, match=r"max_shift=0"):
        CalibrationOptions(max_shift=0.0)


@pytest.mark.slow
def test_tiles_agree_as_the_patch_does() -> None:
    """If it fails, backgrounds step from tile to tile, or an exposure is
    left out of some tiles alone.
    """
    shape = (200, 210)
    places = [(y + 0.3, x - 0.2, 9000.0) for y in range(20, 190, 24) for x in range(22, 200, 30)]
    arrays = make_exposure_arrays(shape, FWHMS, stars=places, seed=3)
    rows = np.arange(shape[0])[:, None] / shape[0] - 0.5
    arrays.images[1] += 0.4 * rows
    arrays.images[3] += 0.3
    # Half of the patch sees one exposure less.
    arrays.good[4, :, 105:] = False
    arrays.images[2] *= 1.4
    stack = ExposureStack.from_arrays(arrays.images, arrays.variances, arrays.good, arrays.psfs)
    whole, _ = calibrate_stack(stack)
    tiled, parts = calibrate_stack(stack, side=170)
    assert len(parts) == 9
    assert list(tiled.dropped) == list(whole.dropped) == [2]
    np.testing.assert_allclose(tiled.background.coefficients, whole.background.coefficients, atol=0.01)
    np.testing.assert_allclose(tiled.offsets.values, whole.offsets.values, atol=0.02)
    for clean in parts:
        seen = clean.tile_data.exposures.tolist()
        assert not bool(clean.tile_data.stack.good[seen.index(2)].any())
        assert (4 in seen) == (clean.tile_data.tile.columns.start < 105)
