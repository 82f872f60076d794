# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Bright stars are fitted to their wings, taken out and put back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from lsst.astroclearnet.core import ExposureStack, MaskBit, RestoreOptions, StackResult, StarOptions, Tile
from lsst.astroclearnet.core.calibration import calibrate_exposures
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.exposures import StackSource
from lsst.astroclearnet.core.forward import ForwardModel, TileReader
from lsst.astroclearnet.core.noise import StarErrors
from lsst.astroclearnet.core.stars import StarList, stars_in_exposures
from lsst.astroclearnet.core.stars._least_squares import solve_stars
from lsst.astroclearnet.tests import QUICK, ExposureArrays, gaussian_stars, restore_on_cpu

SHAPE = (84, 76)
FWHMS = (4.6, 5.4, 4.8, 5.0, 4.5, 5.2)
TARGET = 3.6
FULL = 2500.0
GAIN = 50.0
STAR = (41.3, 36.8, 2.0e6)
ON, OFF = RestoreOptions(), RestoreOptions(stars=StarOptions(enabled=False))


def moffat(y: float, x: float, fwhm: float, shape: tuple[int, int], *, stretch: float = 1.0) -> np.ndarray:
    """Return a Moffat profile that has faded within 20 pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(rows - y, (columns - x) / stretch)
    scale = fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / 3.5) - 1.0))
    profile = 2.5 / (math.pi * scale**2 * stretch) * (1.0 + (radius / scale) ** 2) ** -3.5
    return profile * np.clip(1.0 - (radius / 19.5) ** 8, 0.0, 1.0)


def make_exposures(
    stars: list[tuple[float, float, float]],
    *,
    full: float = FULL,
    seed: int = 1,
    light: np.ndarray | None = None,
    scatter: float = 0.0,
) -> ExposureArrays:
    """Return noisy exposures of stars whose full pixels are masked."""
    rng = np.random.default_rng(seed)
    psfs = np.stack([moffat(20.0, 20.0, fwhm, (41, 41)) for fwhm in FWHMS])
    expected = np.zeros((len(FWHMS), *SHAPE)) + (0.0 if light is None else light)
    for one, psf, fwhm in zip(expected, psfs, FWHMS, strict=True):
        factor = 1.0 + scatter * rng.normal()
        for y, x, flux in stars:
            one += flux * factor / psf.sum() * moffat(y, x, fwhm, SHAPE)
    noise = rng.normal(size=expected.shape) * np.sqrt(1.0 + expected / GAIN)
    # As pipelines estimate them, of the noisy pixels.
    variances = np.maximum(1.0 + (expected + noise) / GAIN, 0.1)
    return ExposureArrays(
        images=expected + noise,
        variances=variances,
        good=expected < full,
        psfs=psfs / psfs.sum(axis=(1, 2), keepdims=True),
    )


def find(
    arrays: ExposureArrays, options: RestoreOptions = ON, tiles: tuple[Tile, ...] | None = None
) -> StarList:
    """Return the stars that are taken out of exposures, in their unit."""
    stack = ExposureStack.from_arrays(*arrays, in_noise_units=True)
    tiles = tiles or (Tile(*(2 * tuple(slice(0, size) for size in SHAPE))),)
    reader = TileReader(StackSource(stack), tiles, TARGET, torch.device("cpu"))
    with torch.no_grad():
        stars = calibrate_exposures(reader, options).stars
    scale = torch.tensor([stack.unit, 1.0, 1.0], dtype=torch.float64)
    return dataclasses.replace(stars, flux=stars.flux * stack.unit, errors=stars.errors * scale[:, None])


def pulls(stars: StarList, truth: list[tuple[float, float, float]]) -> np.ndarray:
    """Return errors of flux, row and column in their standard deviations."""
    assert len(stars) == len(truth)
    expected = np.array(sorted(truth, key=lambda star: -star[2]))
    errors = np.column_stack([stars.flux.numpy() - expected[:, 2], stars.positions.numpy() - expected[:, :2]])
    return np.asarray(errors / stars.covariance.diagonal(dim1=1, dim2=2).sqrt().numpy())


@pytest.mark.parametrize("seed", range(2))
def test_star_is_fitted_to_its_wings(seed: int) -> None:
    """If it fails, the flux of a saturated star is wrong, or its error."""
    arrays = make_exposures([STAR], seed=seed)
    assert not arrays.good[:, 38:45, 34:40].any()
    stars = find(arrays)
    assert np.abs(pulls(stars, [STAR])).max() < 4.0
    assert float(stars.flux_sigma[0]) < 0.005 * STAR[2]
    assert float(stars.chi_square[0]) == pytest.approx(0.95, abs=0.15)


@pytest.mark.parametrize(
    "stars",
    [
        [STAR, (42.0, 54.5, 6.0e5)],
        [(2.4, 40.2, 8.0e5)],
        [(-5.2, 40.2, 8.0e5)],
        [(10.2, 74.9, 8.0e5), (60.0, 20.0, 1.2e5)],
    ],
    ids=["double star", "at the border", "beyond the border", "in a corner, and one that is not saturated"],
)
def test_stars_with_neighbours_and_borders(stars: list[tuple[float, float, float]]) -> None:
    """If it fails, stars are missed or biased there."""
    found = find(make_exposures(stars))
    assert np.abs(pulls(found, stars)).max() < 5.0


def test_star_that_some_exposures_have_saturated() -> None:
    """If it fails, cores that are good in a few exposures mislead the fit."""
    arrays = make_exposures([(41.3, 36.8, 1.0e5)], full=2900.0)
    middle = arrays.good[:, 41, 37]
    assert middle.any()
    assert not middle.all()
    assert np.abs(pulls(find(arrays), [(41.3, 36.8, 1.0e5)])).max() < 4.0


@pytest.mark.parametrize(
    "stars",
    [
        [STAR, (38.6, 38.7, 1.0e6)],
        [(43.8, 41.6, 2.0e6), (40.1, 33.5, 6.0e5)],
        [STAR, (43.0, 44.5, 1.8e6), (36.0, 42.4, 9.0e5)],
    ],
    ids=["3.3 pixels apart", "8.9 pixels apart", "three"],
)
def test_stars_of_one_masked_core(stars: list[tuple[float, float, float]]) -> None:
    """If it fails, a core that holds several stars is left in, and rings
    stand around it.
    """
    arrays = make_exposures(stars, seed=4)
    cores, _ = label(~arrays.good.any(axis=0))
    assert len({cores[round(y), round(x)] for y, x, _ in stars}) == 1
    found = find(arrays)
    assert np.abs(pulls(found, stars)).max() < 4.0
    assert float((found.flux_sigma / found.flux).max()) < 0.02


def test_errors_of_psfs_are_declared() -> None:
    """If it fails, errors that differ between exposures do not count."""
    exact, scattered = (find(make_exposures([STAR], scatter=one, seed=5)) for one in (0.0, 0.02))
    # A scatter of 2 % of six exposures.
    assert float(scattered.flux_sigma[0]) == pytest.approx(0.02 / 6**0.5 * STAR[2], rel=0.6)
    assert float(exact.flux_sigma[0]) < 0.2 * float(scattered.flux_sigma[0])
    assert abs(pulls(scattered, [STAR])[0, 0]) < 3.0


@pytest.mark.slow
def test_galaxy_is_left_alone() -> None:
    """If it fails, nuclei of galaxies are taken for stars."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for size, ratio, full in ((2.5, 1.0, np.inf), (2.5, 1.0, 0.4), (8.0, 1.0, 0.4), (2.5, 0.5, 0.2)):
        radius = np.hypot((rows - 41.0) / ratio, columns - 37.0)
        light = 3.0e5 / size**2 * np.exp(-radius / size)
        assert len(find(make_exposures([], light=light, full=full * light.max()))) == 0


def test_faint_stars_stay() -> None:
    """If it fails, the threshold is not what it says."""
    arrays = make_exposures([(41.3, 36.8, 5.0e3)])
    options = dataclasses.replace(ON, stars=StarOptions(signal_to_noise=1000.0))
    assert len(find(arrays, options)) == 0
    assert np.abs(pulls(find(arrays), [(41.3, 36.8, 5.0e3)])).max() < 4.0
    assert len(find(arrays, OFF)) == 0


def test_tiles_find_the_same_stars() -> None:
    """If it fails, a star between tiles is found twice or not at all."""
    arrays = make_exposures([STAR, (16.0, 60.0, 2.0e5)])
    rows, columns = (slice(0, size) for size in SHAPE)
    halves = tuple(Tile(rows, columns, own, columns) for own in (slice(0, 41), slice(41, SHAPE[0])))
    whole, parts = find(arrays), find(arrays, tiles=halves)
    assert len(parts) == 2
    np.testing.assert_allclose(parts.flux, whole.flux, rtol=1e-4)
    np.testing.assert_allclose(parts.positions, whole.positions, atol=1e-3)


@pytest.fixture(scope="module")
def restored() -> dict[bool, StackResult]:
    """Return a saturated star, taken out and put back, and left in."""
    arrays = make_exposures([STAR])
    return {
        on: restore_on_cpu(arrays, dataclasses.replace(QUICK, stars=options.stars), target_fwhm=TARGET)
        for on, options in ((True, ON), (False, OFF))
    }


def test_no_ring_around_a_saturated_star(restored: dict[bool, StackResult]) -> None:
    """If it fails, rings or moats stand around saturated stars."""
    truth = gaussian_stars(SHAPE, [STAR], TARGET)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(rows - STAR[0], columns - STAR[1])
    core = (restored[True].mask & 2) > 0
    inner = radius[core].max()
    errors = {}
    for on, result in restored.items():
        error = (result.image - truth) / np.sqrt(result.linear_variance)
        errors[on] = [
            error[(radius > inner + r) & (radius <= inner + r + 2) & ~core].mean() for r in range(1, 16, 2)
        ]
    assert np.abs(errors[True]).max() < 0.3
    assert np.abs(errors[True]).max() < 0.3 * np.abs(errors[False]).max()
    # In the core it is the star at the target PSF, which nobody supplied.
    image = restored[True].image
    assert not (restored[True].mask[core] & MaskBit.SUPPLIED).any()
    np.testing.assert_allclose(restored[True].demanded_share[radius < 4.0], 1.0, atol=0.05)
    np.testing.assert_allclose(image[core].sum(), truth[core].sum(), rtol=0.01)
    for name in ("", "linear_"):
        pull = (getattr(restored[True], f"{name}image") - truth) / np.sqrt(
            getattr(restored[True], f"{name}variance")
        )
        assert np.sqrt(np.mean(pull[core] ** 2)) < 2.0


def test_light_is_put_back_everywhere(restored: dict[bool, StackResult]) -> None:
    """If it fails, products do not show the same sky."""
    on, off = restored[True], restored[False]
    np.testing.assert_allclose(on.coadd, off.coadd, rtol=1e-4, atol=1e-3 * np.nanstd(off.coadd[:10]))
    assert len(off.star_flux) == 0
    assert on.star_flux.shape == on.star_flux_sigma.shape == (1,)
    # What the exposures do not show is supplied by the network, or by the fit.
    others = np.uint8(~(MaskBit.SUPPLIED | MaskBit.WITHHELD) & 0xFF)
    assert (on.mask & others == off.mask & others).all()


def test_unit_of_flux_does_not_matter_to_stars() -> None:
    """If it fails, what is taken out depends on the unit."""
    arrays = make_exposures([STAR])
    scaled = arrays._replace(images=arrays.images * 1e-9, variances=arrays.variances * 1e-18)
    first, second = find(arrays), find(scaled)
    for name in ("flux", "flux_sigma"):
        given, changed = (float(getattr(stars, name)[0]) for stars in (first, second))
        assert changed == pytest.approx(1e-9 * given, rel=1e-5)


def _one_star(flux_sigma: float) -> StarList:
    covariance = torch.diag(torch.tensor([flux_sigma**2, 0.0, 0.0], dtype=torch.float64))
    return StarList.fitted_together(
        positions=torch.tensor([STAR[:2]], dtype=torch.float64),
        flux=torch.tensor([STAR[2]], dtype=torch.float64),
        covariance=covariance,
        chi_square=1.0,
        misfit=0.0,
    )


def test_errors_of_stars_are_left_in_masked_cores_alone() -> None:
    """If it fails, errors of stars are declared twice, or not at all."""
    stack = ExposureStack.from_arrays(*make_exposures([STAR]))
    model = ForwardModel.from_stack(stack, TARGET)
    linear = LinearEstimator(model, stack.good / stack.variances)
    tile = Tile(*(2 * tuple(slice(0, size) for size in SHAPE)))
    with torch.no_grad():
        errors = StarErrors.estimate(_one_star(1e3), tile, linear, 1e-3, 0, 3)
    sigma = errors.variance.sqrt().numpy()
    peak = 1e3 * gaussian_stars(SHAPE, [(*STAR[:2], 1.0)], TARGET).max()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(rows - STAR[0], columns - STAR[1])
    assert sigma[41, 37] == pytest.approx(peak, rel=0.2)
    assert sigma[radius > 12.0].max() < 0.01 * peak
    drawn = errors.realizations[:, 41, 37].numpy()
    assert 0.0 < np.abs(drawn).max() < 4.0 * peak


def test_errors_of_stars_that_are_fitted_together_are_common() -> None:
    """If it fails, light that one star may have of another counts twice."""
    stack = ExposureStack.from_arrays(*make_exposures([STAR]))
    model = ForwardModel.from_stack(stack, TARGET)
    linear = LinearEstimator(model, stack.good / stack.variances)
    covariance = torch.zeros(6, 6, dtype=torch.float64)
    covariance[::3, ::3] = 1e6 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    stars = StarList.fitted_together(
        positions=torch.tensor([[41.0, 35.0], [41.0, 39.0]], dtype=torch.float64),
        flux=torch.tensor([2e6, 1e6], dtype=torch.float64),
        covariance=covariance,
        chi_square=1.0,
        misfit=0.0,
    )
    np.testing.assert_allclose(stars.flux_sigma, 1e3)
    tile = Tile(*(2 * tuple(slice(0, size) for size in SHAPE)))
    with torch.no_grad():
        errors = StarErrors.estimate(stars, tile, linear, 1e-3, 0, 2)
    for images in (errors.variance.sqrt(), *errors.realizations.abs()):
        # Between them the errors cancel.
        assert images[41, 37] < 0.05 * images[41, 35]
        assert images[41, 39] == pytest.approx(float(images[41, 35]), rel=0.2)


def test_stars_in_exposures_are_their_psfs() -> None:
    """If it fails, what is taken out is not what was seen."""
    arrays = make_exposures([STAR], seed=0)
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, TARGET)
    with torch.no_grad():
        light = stars_in_exposures(_one_star(1.0), stack, model, (0, 0)).numpy()
    for one, fwhm in zip(light, FWHMS, strict=True):
        norm = moffat(20.0, 20.0, fwhm, (41, 41)).sum()
        expected = STAR[2] / norm * moffat(*STAR[:2], fwhm, SHAPE)
        np.testing.assert_allclose(one, expected, atol=2e-4 * expected.max())


def test_scatter_of_exposures_and_sectors_counts() -> None:
    """If it fails, errors are those of pixels that are independent."""
    rng = np.random.default_rng(3)
    pixels: dict[str, Any] = {"size": (12, 8, 10)}
    columns = torch.ones(1, 12, 8, 10, dtype=torch.float64)
    weights = torch.ones(12, 8, 10, dtype=torch.float64)
    sectors = torch.arange(8)[None, :, None].expand(12, 8, 10)
    for common, shape, number in ((0.0, (12, 1, 1), 12), (1.0, (12, 1, 1), 12), (1.0, (1, 8, 1), 8)):
        errors, declared = [], []
        for _ in range(200):
            data = rng.normal(**pixels) + common * rng.normal(size=shape)
            solved = solve_stars(columns, torch.from_numpy(data), weights)
            errors.append(float(solved.values[0]))
            declared.append(float(solved.covariance(sectors)[0, 0]))
        expected = 1.0 / 960 + common**2 / number
        assert np.var(errors) == pytest.approx(expected, rel=0.4)
        # What clusters have in common by chance is not taken off.
        assert 0.8 * expected < np.mean(declared) < 1.6 * expected
