# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes and methods of the benchmark of finer grids."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from astroclearnet_benchmarks.finer_grids.measure import measure_stars
from astroclearnet_benchmarks.finer_grids.methods import FinerImage, combine, drizzle, restored
from astroclearnet_benchmarks.finer_grids.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A small scene of bright stars."""
    return Scene(1.6, num_exposures=6, size=40, signal_to_noise=280.0)


def check(scene: Scene, found: FinerImage, flux: float, position: float) -> None:
    """Assert that stars have their flux, and are where they are."""
    stars = measure_stars(scene, found)
    assert len(stars.flux) >= 1
    np.testing.assert_allclose(stars.flux, 1.0, atol=flux)
    np.testing.assert_allclose(stars.position, 0.0, atol=position)
    assert np.abs(stars.residual).max() < 0.06


def test_exposures_are_normalised(scene: Scene) -> None:
    """If it fails, signal-to-noise ratios are others than stated."""
    psfs = scene.psfs(2)
    np.testing.assert_allclose(psfs.sum(axis=(1, 2)), 1.0)
    # All stars are on every exposure.
    totals = scene.images.sum(axis=(1, 2)) / (len(scene.stars) * scene.flux)
    np.testing.assert_allclose(totals, 1.0, atol=0.2)


def test_grids_show_the_same_stars(scene: Scene) -> None:
    """If it fails, axes are flipped, or positions are of another grid."""
    for found in restored(scene, 2):
        check(scene, found, flux=0.02, position=0.03)


@pytest.mark.skipif(
    importlib.util.find_spec("drizzle") is None, reason="the package drizzle is not installed"
)
def test_drizzle(scene: Scene) -> None:
    """If it fails, the package is given wrong positions or units."""
    check(scene, drizzle(scene, 2, 0.8), flux=0.05, position=0.06)


@pytest.mark.skipif(
    importlib.util.find_spec("pyimcom") is None, reason="the package pyimcom is not installed"
)
def test_imcom(scene: Scene) -> None:
    """If it fails, the package is given pixels of other places."""
    check(scene, combine(scene, 2, 1e-3), flux=0.02, position=0.03)
