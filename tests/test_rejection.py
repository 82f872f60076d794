# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Rejection of what one exposure alone shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, ForwardModel, RejectionOptions, reject_outliers
from lsst.astroclearnet.tests import ExposureArrays, gaussian_stars, make_exposure_arrays

SHAPE = (84, 100)
FWHMS = (3.2, 4.0, 4.8, 3.6, 4.2)
STARS = [(22.3, 27.6, 4000.0), (57.8, 71.1, 20000.0), (60.4, 18.7, 600.0)]


def make_arrays(number: int = 5, *, gain: float | None = 50.0, seed: int = 3) -> ExposureArrays:
    """Return exposures of stars from faint to very bright."""
    return make_exposure_arrays(SHAPE, FWHMS[:number], stars=STARS, gain=gain, seed=seed)


def find(arrays: ExposureArrays, options: RejectionOptions | None = None) -> np.ndarray:
    """Return the rejected pixels."""
    stack = ExposureStack.from_arrays(*arrays)
    model = ForwardModel.from_stack(stack, 3.6)
    with torch.no_grad():
        return reject_outliers(stack, model, options or RejectionOptions()).numpy()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    """Return what is rejected of exposures without artefacts."""
    return find(make_arrays())


def add_cosmic_ray(arrays: ExposureArrays) -> np.ndarray:
    """Add a cosmic ray to exposure 2; return where it is strong."""
    track = np.zeros(arrays.images.shape, dtype=bool)
    for step in range(9):
        track[2, 38 + step // 2, 40 + step] = True
    arrays.images[track] += 60.0
    return track


def add_trail(arrays: ExposureArrays, peak: float) -> np.ndarray:
    """Add a trail seen with the PSF to exposure 1; return its crest."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = (rows - 10.0 - 0.35 * columns) / np.hypot(1.0, 0.35)
    light = peak * np.exp(-4.0 * np.log(2.0) * (distance / FWHMS[1]) ** 2)
    arrays.images[1] += light
    strong = np.zeros(arrays.images.shape, dtype=bool)
    strong[1] = light > 5.0
    return strong


def test_cosmic_ray_is_found() -> None:
    """If it fails, cosmic rays appear as sources in the coadd."""
    arrays = make_arrays()
    track = add_cosmic_ray(arrays)
    rejected = find(arrays)
    assert rejected[track].mean() > 0.95
    # What is rejected beside it stays within a few pixels of it.
    assert rejected[2].sum() < 6 * track.sum()


def test_trail_is_found() -> None:
    """If it fails, satellites leave lines in the coadd."""
    arrays = make_arrays()
    strong = add_trail(arrays, 25.0)
    assert strong.sum() > 200
    assert find(arrays)[strong].mean() > 0.95


def test_faint_trail_is_found_by_smoothing() -> None:
    """If it fails, trails below the noise of a pixel are missed."""
    arrays = make_arrays()
    add_trail(arrays, 4.0)
    crest = add_trail(make_arrays(), 6.0)
    crest[:, :, 55:85] = False  # a bright star lies there
    # 5 sigma in a pixel would hardly be reached anywhere.
    assert find(arrays)[crest].mean() > 0.6


def test_negative_outlier_is_found() -> None:
    """If it fails, dead columns leave holes in the coadd."""
    arrays = make_arrays()
    arrays.images[3, 40:60, 45] -= 40.0
    assert find(arrays)[3, 40:60, 45].mean() > 0.95


def test_clean_data_are_kept(clean: np.ndarray) -> None:
    """If it fails, depth is thrown away."""
    assert clean.mean() < 0.005


def test_star_cores_are_kept(clean: np.ndarray) -> None:
    """If it fails, cores of bright stars are cut out."""
    for y, x, _ in STARS:
        assert not clean[:, round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].any()


def test_star_wings_are_kept(clean: np.ndarray) -> None:
    """If it fails, the sharpest exposure loses a ring around each star."""
    for y, x, _ in STARS:
        around = clean[:, round(y) - 10 : round(y) + 11, round(x) - 10 : round(x) + 11]
        assert around.mean(axis=(1, 2)).max() < 0.05


def test_stars_beside_an_artefact_are_kept() -> None:
    """If it fails, one bad exposure discredits the good ones."""
    arrays = make_arrays()
    arrays.images[2, 20:25, 25:30] += 300.0
    rejected = find(arrays)
    assert rejected[2, 20:25, 25:30].mean() > 0.95
    assert rejected[[0, 1, 3, 4], 17:28, 22:33].mean() < 0.01


def test_small_psf_errors_are_tolerated() -> None:
    """If it fails, stars are cut wherever the PSF model is imperfect."""
    arrays = make_arrays()
    images = arrays.images + 1.0 * (
        np.stack([gaussian_stars(SHAPE, STARS, 1.01 * f) for f in FWHMS])
        - np.stack([gaussian_stars(SHAPE, STARS, f) for f in FWHMS])
    )
    rejected = find(arrays._replace(images=images))
    for y, x, _ in STARS:
        assert not rejected[:, round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].any()


def test_small_shifts_are_tolerated() -> None:
    """If it fails, stars are cut wherever the astrometry is imperfect."""
    arrays = make_arrays()
    moved = [(y + 0.06, x - 0.05, flux) for y, x, flux in STARS]
    arrays.images[0] += gaussian_stars(SHAPE, moved, FWHMS[0]) - gaussian_stars(SHAPE, STARS, FWHMS[0])
    for y, x, _ in STARS:
        assert not find(arrays)[:, round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].any()


def test_two_exposures_cannot_vote() -> None:
    """If it fails, of two exposures the right one may be rejected."""
    arrays = make_arrays(2)
    arrays.images[1, 30:34, 50] += 500.0
    assert not find(arrays).any()


def test_switched_off() -> None:
    """If it fails, the option does nothing."""
    arrays = make_arrays()
    add_cosmic_ray(arrays)
    assert not find(arrays, RejectionOptions(enabled=False)).any()


def test_higher_threshold_rejects_less() -> None:
    """If it fails, the thresholds do nothing."""
    arrays = make_arrays()
    add_trail(arrays, 9.0)
    default = find(arrays)
    strict = find(arrays, RejectionOptions(high_threshold=1e4, low_threshold=2.5))
    assert default.sum() > 100
    assert not strict.any()


def test_pixels_that_are_not_good_are_not_rejected() -> None:
    """If it fails, masked pixels are counted as clipped."""
    arrays = make_arrays()
    track = add_cosmic_ray(arrays)
    bad = track & (np.arange(SHAPE[1]) < 45)
    arrays.good[bad] = False
    rejected = find(arrays)
    assert not rejected[~arrays.good].any()
    assert rejected[track & arrays.good].mean() > 0.9


def test_depth_of_exposures_is_respected() -> None:
    """If it fails, a shallow exposure is rejected for its noise."""
    arrays = make_exposure_arrays(
        SHAPE, FWHMS, stars=STARS[2:], sigmas=(1.0, 6.0, 1.0, 0.5, 2.0), gain=50.0, seed=8
    )
    assert find(arrays).mean(axis=(1, 2)).max() < 0.005


def test_fully_masked_exposure() -> None:
    """If it fails, an exposure without data spoils the others."""
    arrays = make_arrays()
    track = add_cosmic_ray(arrays)
    arrays.good[4] = False
    rejected = find(arrays)
    assert rejected[track].mean() > 0.95
    assert not rejected[4].any()
    assert rejected[[0, 1, 3]].mean() < 0.005
