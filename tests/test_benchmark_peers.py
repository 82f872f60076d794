# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Peers of the benchmark, each against stars whose image is known."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from astroclearnet_benchmarks import peers
from lsst.astroclearnet.core import InputError

SHAPE = (40, 48)
STAR = {"x": 27.3, "y": 17.6}
FLUX = 3000.0
SKY_SIGMA = 0.5
TARGET = 3.0
FAST: dict[str, dict[str, Any]] = {
    "Starred": {"strengths": (0.1,), "steps": 600},
    "Jolideco": {"stops": (300,)},
    "PyImcom": {"kappas": (1e-4,), "padding": 7},
}
"""Options that make a peer fast."""

PACKAGES = {"Starred": "starred", "Jolideco": "jolideco", "PyImcom": "pyimcom"}


@pytest.fixture(params=sorted(PACKAGES))
def peer(request: pytest.FixtureRequest) -> Any:
    """Return each peer whose package is installed."""
    package = PACKAGES[request.param]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    return getattr(peers, request.param)(**FAST[request.param])


def gaussian(fwhm: float, x: float, y: float, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a circular Gaussian of unit flux."""
    yy, xx = np.indices(shape)
    profile = np.exp(-4.0 * np.log(2.0) * ((xx - x) ** 2 + (yy - y) ** 2) / fwhm**2)
    return np.asarray(profile * 4.0 * np.log(2.0) / (np.pi * fwhm**2))


def lopsided(fwhm: float, x: float, y: float, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a PSF with a tail to one side, in y further than in x."""
    core = gaussian(fwhm, x - 0.2, y - 0.4, shape)
    return 0.75 * core + 0.25 * gaussian(1.5 * fwhm, x + 0.6, y + 1.2, shape)


def make_exposures(seed: int = 1) -> dict[str, Any]:
    """Return three exposures of a star, and their PSFs."""
    rng = np.random.default_rng(seed)
    fwhms = (3.2, 3.6, 4.0)
    size = 25
    psfs = np.stack([lopsided(fwhm, size // 2, size // 2, (size, size)) for fwhm in fwhms])
    light = np.stack([FLUX * lopsided(fwhm, STAR["x"], STAR["y"], SHAPE) for fwhm in fwhms])
    # One count for each 0.05 of brightness.
    variances = SKY_SIGMA**2 + 0.05 * light
    images = light + np.sqrt(variances) * rng.standard_normal(light.shape)
    good = np.ones(light.shape, dtype=bool)
    good[1, 15:19, 24:28] = False
    images[1, 15:19, 24:28] = 1e4
    return {"images": images, "variances": variances, "good": good, "psfs": psfs}


def test_star_appears_at_the_target(peer: Any) -> None:
    """If it fails, the package is given flipped axes, wrong units, masks that
    do not mask or a PSF off its centre, or its image is not brought to the
    target.
    """
    (stop,) = peer.restore(**make_exposures(), target_fwhm=TARGET)
    assert stop.fwhm == TARGET
    assert stop.image.shape == SHAPE
    y, x = np.indices(SHAPE)
    near = np.hypot(x - STAR["x"], y - STAR["y"]) < 7.0
    image = stop.image[near]
    total = image.sum()
    assert total == pytest.approx(FLUX, rel=0.03)
    assert (x[near] * image).sum() / total == pytest.approx(STAR["x"], abs=0.1)
    assert (y[near] * image).sum() / total == pytest.approx(STAR["y"], abs=0.1)
    # Points on pixel centres widen a star between them, by 9 % at most here.
    expected = FLUX * gaussian(TARGET, STAR["x"], STAR["y"], SHAPE)
    assert np.abs(image - expected[near]).max() < 0.2 * expected.max()


def test_unit_does_not_matter(peer: Any) -> None:
    """If it fails, a result depends on the unit of the exposures."""
    exposures = make_exposures()
    (first,) = peer.restore(**exposures, target_fwhm=TARGET)
    exposures["images"] = 100.0 * exposures["images"]
    exposures["variances"] = 1e4 * exposures["variances"]
    (second,) = peer.restore(**exposures, target_fwhm=TARGET)
    assert np.abs(second.image / 100.0 - first.image).max() < 0.01 * first.image.max()


def test_imcom_combines_its_block_only() -> None:
    """If it fails, a small block costs as much as the patch, or it is not in
    the middle.
    """
    pytest.importorskip("pyimcom", reason="the package pyimcom is not installed")
    (whole,) = peers.PyImcom(kappas=(1e-3,)).restore(**make_exposures(), target_fwhm=TARGET)
    (stop,) = peers.PyImcom(kappas=(1e-3,), block=12).restore(**make_exposures(), target_fwhm=TARGET)
    block = np.zeros(SHAPE, dtype=bool)
    block[14:26, 18:30] = True
    np.testing.assert_array_equal(np.isfinite(stop.image), block)
    assert np.abs(stop.image - whole.image)[block].max() < 0.01 * whole.image.max()
    assert stop.variance is not None
    # Unbiased sharpening of three exposures of sigma 0.5 costs noise.
    assert 0.1 < np.sqrt(stop.variance[block]).min() < np.sqrt(stop.variance[block]).max() < 10.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Starred", {"strengths": ()}, r"strengths=\(\)"),
        ("Starred", {"strengths": (1.0, -0.3)}, r"strengths=\(1.0, -0.3\)"),
        ("Starred", {"steps": 0}, "steps=0"),
        ("Jolideco", {"stops": (250, 100)}, r"stops=\(250, 100\)"),
        ("Jolideco", {"learning_rate": 0.0}, "learning_rate=0.0"),
        ("PyImcom", {"kappas": (0.0,)}, r"kappas=\(0.0,\)"),
        ("PyImcom", {"padding": -1}, "padding=-1"),
        ("PyImcom", {"block": 0}, "block=0"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    """If it fails, an option that cannot work is found after minutes."""
    with pytest.raises(InputError, match=message):
        getattr(peers, name)(**options)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_wrong_target_is_refused(name: str) -> None:
    """If it fails, an impossible target gives an image that means nothing."""
    with pytest.raises(InputError, match="target_fwhm=-1.0"):
        next(getattr(peers, name)().restore(**make_exposures(), target_fwhm=-1.0))
