# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The faintest believable flux: that of a star of signal-to-noise ratio 8."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lsst.astroclearnet.core import RestorationError, RestoreOptions, TilingOptions, fwhm_to_sigma
from lsst.astroclearnet.core.forward import TileData
from lsst.astroclearnet.core.tiles._tile_restorer import TileRestorer
from lsst.astroclearnet.core.tiles._tile_result import TileResult
from lsst.astroclearnet.tests import QUICK, ExposureArrays, make_exposure_arrays, restore_on_cpu

FWHM = 3.8
TILES = dataclasses.replace(QUICK, tiling=TilingOptions(max_tile_size=196))


def flux_noise(number: int, sigma: float = 1.0) -> float:
    """Return the noise of the PSF flux of a star in equal exposures."""
    return math.sqrt(4.0 * math.pi / number) * fwhm_to_sigma(FWHM) * sigma


def uneven_exposures() -> ExposureArrays:
    """Return blank exposures with a shallow part, a hole, and a deep part."""
    arrays = make_exposure_arrays((200, 60), (FWHM,) * 3, stars=())
    arrays.images[:, :60] *= 2.0
    arrays.variances[:, :60] *= 4.0
    arrays.good[:, 60:110] = False
    return arrays


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("target", [3.6, 4.6])
def test_that_of_equal_exposures(number: int, target: float) -> None:
    """If it fails, it depends on the target PSF, or not on the depth."""
    arrays = make_exposure_arrays(fwhms=(FWHM,) * number, sigmas=1.7)
    result = restore_on_cpu(arrays, QUICK, target_fwhm=target)
    assert isinstance(result.faintest_flux, float)
    assert result.faintest_flux == pytest.approx(8.0 * flux_noise(number, 1.7), rel=0.01)


@pytest.mark.parametrize(("options", "num_tiles"), [(QUICK, 1), (TILES, 2)])
def test_that_of_the_median_pixel_with_data(options: RestoreOptions, num_tiles: int) -> None:
    """If it fails, it depends on the tiles, or on pixels without data."""
    # Of 150 rows with data 90 are deep; in the median of two tiles, and with
    # the hole, they are not.
    result = restore_on_cpu(uneven_exposures(), options)
    assert result.num_tiles == num_tiles
    assert result.faintest_flux == pytest.approx(8.0 * flux_noise(3), rel=0.01)


def test_that_of_tiles_that_were_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, one bad tile leaves the patch without a number."""
    original = TileRestorer.restore

    def fail(self: TileRestorer, tile_data: TileData) -> TileResult:
        if tile_data.tile.inner_rows.start > 0:
            raise RestorationError("the sky fell down")
        return original(self, tile_data)

    monkeypatch.setattr(TileRestorer, "restore", fail)
    result = restore_on_cpu(uneven_exposures(), TILES)
    assert len(result.failed_tiles) == 1
    assert result.faintest_flux == pytest.approx(8.0 * flux_noise(3, 2.0), rel=0.01)
