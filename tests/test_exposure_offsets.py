# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How exposures are compared, and which are called wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import CalibrationOptions, ExposureStack, gaussian_kernel
from lsst.astroclearnet.core.calibration._offsets import (
    ExposureOffsets,
    OutlierExposures,
    find_outlier_exposures,
    measure_offsets,
)
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import CleanTile, TileReader
from lsst.astroclearnet.tests import ExposureArrays, gaussian_stars, make_exposure_arrays

SHAPE = (200, 210)
FWHMS = (3.5, 4.5, 5.5)
FOUR = (3.5, 4.5, 5.5, 4.0)

type Stars = list[tuple[float, float, float]]


def draw_stars(seed: int, number: int = 36, shape: tuple[int, int] = SHAPE) -> Stars:
    """Return stars at any place, of 2000 to 40000 counts."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(12, np.array(shape) - 12, (number, 2))
    fluxes = np.exp(rng.uniform(math.log(2e3), math.log(4e4), number))
    return [(float(y), float(x), float(flux)) for (y, x), flux in zip(places, fluxes, strict=True)]


def compare(stack: ExposureStack, target: float = 3.5) -> ExposureOffsets:
    """Compare exposures as they are, with no pixel rejected."""
    tiles = TileGrid.cover(stack.shape, 1024).tiles
    reader = TileReader(StackSource(stack), tiles, target, torch.device("cpu"))
    clean = [CleanTile(part, stack.variances, torch.zeros_like(stack.good)) for part in reader]
    return measure_offsets(clean, stack.num_exposures)


def compare_arrays(arrays: ExposureArrays) -> ExposureOffsets:
    """Compare arrays."""
    return compare(ExposureStack.from_arrays(*arrays))


def judge(offsets: ExposureOffsets) -> OutlierExposures:
    """Return what is called wrong with default limits."""
    return find_outlier_exposures(offsets, CalibrationOptions())


@pytest.mark.parametrize(
    ("fwhms", "noise"), [(FWHMS, 10.0), (FWHMS, 30.0), ((3.5, 3.9, 4.3, 4.7, 5.1, 5.5), 30.0)]
)
def test_sharpness_is_no_brightness(fwhms: Sequence[float], noise: float) -> None:
    """If it fails, the sharpest exposures are dropped as too bright."""
    pulls, errors = [], []
    for seed in range(4):
        found = compare_arrays(
            make_exposure_arrays(SHAPE, fwhms, stars=draw_stars(seed), sigmas=noise, seed=seed)
        )
        errors.append(found.values.numpy())
        pulls.append(found.values.numpy() / found.sigmas.numpy())
    flux = np.array(errors)[:, 0]
    assert np.abs(flux.mean(axis=0)).max() < 0.01
    # 12 or 24 values with one restriction for each scene.
    assert np.sqrt(np.mean(np.square(pulls))) < 1.6


def test_one_of_four_with_half_the_flux_is_named_and_no_other() -> None:
    """If it fails, the wrong exposure stays and good ones are blamed, be it
    the one with the greatest weight.
    """
    for culprit, factor in ((0, 0.5), (2, 2.0)):
        arrays = make_exposure_arrays(SHAPE, FOUR, stars=draw_stars(1), sigmas=30.0, seed=1)
        arrays.images[culprit] *= factor
        arrays.variances[culprit] *= factor**2
        offsets = compare_arrays(arrays)
        assert list(judge(offsets).dropped) == [culprit]
        assert judge(offsets).suspect == {}
        assert float(offsets.values[0, culprit]) == pytest.approx(factor - 1.0, abs=0.05 * factor)


def test_of_three_exposures_none_is_dropped() -> None:
    """If it fails, a good exposure is lost to two that share a fault."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=draw_stars(1), sigmas=30.0, seed=1)
    arrays.images[1] *= 0.5
    found = judge(compare_arrays(arrays))
    assert found.dropped == {}
    assert list(found.suspect) == [1]
    assert "Too few exposures agree" in found.suspect[1]


def test_two_against_two_are_not_dropped() -> None:
    """If it fails, half of the exposures are lost by a throw of the dice."""
    arrays = make_exposure_arrays(SHAPE, FOUR, stars=draw_stars(1), sigmas=30.0, seed=1)
    arrays.images[:2] *= 0.5
    found = judge(compare_arrays(arrays))
    assert found.dropped == {}
    assert set(found.suspect) == {0, 1, 2, 3}


def test_without_stars_nothing_is_dropped() -> None:
    """If it fails, what galaxies alone say costs an exposure."""
    galaxies = draw_stars(1)
    arrays = make_exposure_arrays(SHAPE, FOUR, stars=[], sigmas=10.0, seed=1)
    for image, fwhm in zip(arrays.images, FOUR, strict=True):
        image += gaussian_stars(SHAPE, galaxies, math.hypot(fwhm, 7.0))
    arrays.images[3] *= 0.5
    found = judge(compare_arrays(arrays))
    assert found.dropped == {}
    assert "does not confirm it" in found.suspect[3]


@pytest.mark.parametrize("shift", [(0.3, -0.2), (1.5, 0.8), (-5.0, 6.5)])
def test_shifts_of_any_size(shift: tuple[float, float]) -> None:
    """If it fails, exposures are shifted by too little or too much."""
    stars = draw_stars(2)
    arrays = make_exposure_arrays(SHAPE, FOUR, stars=stars, sigmas=10.0, seed=2)
    moved = [(y + shift[0], x + shift[1], flux) for y, x, flux in stars]
    arrays.images[1] += gaussian_stars(SHAPE, moved, FOUR[1]) - gaussian_stars(SHAPE, stars, FOUR[1])
    offsets = compare_arrays(arrays)
    found, sigmas = offsets.values[:3, 1], offsets.sigmas[:3, 1]
    errors = found - torch.tensor([0.0, *shift])
    assert bool((errors.abs() < 5.0 * sigmas).all())
    assert float(sigmas.max()) < 0.02
    assert list(judge(offsets).dropped) == ([1] if math.hypot(*shift) > 1.0 else [])


def test_wrong_width_is_no_wrong_brightness() -> None:
    """If it fails, a wrong PSF biases fluxes in silence, or is blamed on the
    calibration.
    """
    for wrong, error in ((0, 0.05), (1, -0.05), (2, 0.03)):
        arrays = make_exposure_arrays(SHAPE, FOUR, stars=draw_stars(3), sigmas=3.0, seed=3)
        arrays.psfs[wrong] = gaussian_kernel(FOUR[wrong] / (1.0 + error), 25)
        found = compare_arrays(arrays)
        width, sigma = found.values[3].numpy(), found.sigmas[3].numpy()
        assert width[wrong] == pytest.approx(error, abs=0.01)
        assert abs(width[wrong]) > 5.0 * sigma[wrong]
        assert np.all(np.abs(np.delete(width, wrong)) < np.maximum(0.01, 5.0 * np.delete(sigma, wrong)))
        assert float(found.values[0].abs().max()) < 0.02


def test_a_saturated_star_is_no_wrong_psf() -> None:
    """If it fails, what is left around a masked core accuses exact PSFs."""
    stars = [*draw_stars(4, 20), (100.3, 90.6, 3e6)]
    arrays = make_exposure_arrays(SHAPE, FOUR, stars=stars, sigmas=10.0, gain=1.0, seed=4)
    arrays.good[...] = arrays.images < 2e4
    # Their wings are not what the PSFs say.
    halo = gaussian_stars(SHAPE, stars[-1:], 12.0)
    arrays.images[...] += np.array([0.01, 0.0, 0.02, 0.0])[:, None, None] * halo
    found = compare_arrays(arrays)
    named = found.values.abs() > torch.maximum(
        torch.tensor([0.02, 0.1, 0.1, 0.015])[:, None], 5.0 * found.sigmas
    )
    assert not bool(named.any())
    assert bool(torch.isfinite(found.sigmas[0]).all())


def test_cosmic_rays_and_few_stars() -> None:
    """If it fails, a cosmic ray or a variable star makes an exposure wrong."""
    for seed in range(3):
        arrays = make_exposure_arrays(SHAPE, FOUR, stars=draw_stars(seed, 6), sigmas=10.0, seed=seed)
        rng = np.random.default_rng(seed)
        for image in arrays.images:
            for y, x in rng.integers(5, 190, (15, 2)):
                image[y, x : x + rng.integers(1, 8)] += rng.uniform(300, 5000)
        y, x, flux = draw_stars(seed, 6)[0]
        arrays.images[2] += gaussian_stars(SHAPE, [(y, x, 0.5 * flux)], FOUR[2])
        found = judge(compare_arrays(arrays))
        assert found == OutlierExposures({}, {})


def test_where_an_exposure_is_alone_nothing_is_learnt() -> None:
    """If it fails, the offset of an exposure goes to zero with the share
    of the patch that no other one covers.
    """
    arrays = make_exposure_arrays(SHAPE, FOUR, stars=draw_stars(5), sigmas=10.0, seed=5)
    arrays.images[0] *= 1.3
    arrays.good[1:, :, :110] = False
    offsets = compare_arrays(arrays)
    assert float(offsets.values[0, 0]) == pytest.approx(0.3, abs=5.0 * float(offsets.sigmas[0, 0]))
    assert float(offsets.sigmas[0, 0]) < 0.02
    # Without an overlap nothing is known.
    arrays.good[0, :, 110:] = False
    assert bool(torch.isinf(compare_arrays(arrays).sigmas[:, 0]).all())


def test_nothing_to_compare() -> None:
    """If it fails, noise is measured, or an empty sky stops a patch."""
    dark = compare_arrays(make_exposure_arrays(SHAPE, FOUR, stars=[], seed=1))
    single = compare_arrays(make_exposure_arrays(SHAPE, FOUR[:1], stars=draw_stars(1), seed=1))
    for offsets in (dark, single):
        assert not bool(offsets.values.any())
        assert bool(torch.isinf(offsets.sigmas).all())
        assert judge(offsets) == OutlierExposures({}, {})


def test_sharpest_exposure_of_a_real_night(shared_data: Path) -> None:
    """If it fails, the best exposure of a night is called 12 % too bright."""
    with np.load(shared_data / "decam_night" / "night.npz") as night:
        arrays = {name: night[name] for name in ("images", "variances", "good", "psfs")}
    stack = ExposureStack.from_arrays(arrays["images"], arrays["variances"], arrays["good"], arrays["psfs"])
    offsets = compare(stack, 3.7)
    assert judge(offsets) == OutlierExposures({}, {})
    # Apertures on the pixels of two stars that the PSFs were not made from.
    rows, columns = np.mgrid[:256, :256]
    fluxes = []
    for y, x in ((233, 105), (202, 179)):
        distance = np.hypot(rows - y, columns - x)
        sky = np.median(arrays["images"][:, (distance > 14) & (distance < 20)], axis=1)
        inside = distance < 11
        fluxes.append(arrays["images"][:, inside].sum(axis=1) - sky * inside.sum())
    ratios = np.mean(fluxes / np.median(fluxes, axis=1, keepdims=True), axis=0) - 1.0
    np.testing.assert_allclose(offsets.values[0].numpy(), ratios, atol=0.03)
    assert abs(float(offsets.values[0, 4])) < 0.03
    half = stack.replace(images=stack.images.clone(), variances=stack.variances.clone())
    half.images[4] *= 0.5
    half.variances[4] *= 0.25
    assert list(judge(compare(half, 3.7)).dropped) == [4]
