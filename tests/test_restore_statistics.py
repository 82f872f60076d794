# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Statistics of restorations over many draws of the noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.signal import fftconvolve

from lsst.astroclearnet.core import NoiseOptions, RestoreOptions, StackResult, gaussian_kernel, restore
from lsst.astroclearnet.metrics import correlated_weights, correlation_matrix
from lsst.astroclearnet.tests import QUICK, ExposureArrays, gaussian_stars, make_exposure_arrays

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TARGET = 3.6
FWHMS = (3.2, 4.0, 4.8, 3.6, 4.4, 3.4)
STARS = ((22.3, 27.6, 1500.0), (47.8, 58.1, 400.0), (50.2, 20.4, 150.0), (15.7, 60.9, 60.0))
SHAPE = (66, 80)
CLIP = 5.0


def restore_arrays(arrays: ExposureArrays, options: RestoreOptions | None = None) -> StackResult:
    """Restore on the CPU."""
    return restore(*arrays, target_fwhm=TARGET, options=options, device="cpu")


def select(arrays: ExposureArrays, exposures: list[int]) -> ExposureArrays:
    """Return some of the exposures."""
    return ExposureArrays(*(values[exposures] for values in arrays))


def blur(image: np.ndarray, fwhm: float) -> np.ndarray:
    """Bring an image at the target PSF to a wider Gaussian one."""
    kernel = gaussian_kernel(math.sqrt(fwhm**2 - TARGET**2), 17)
    return np.asarray(fftconvolve(image, kernel, mode="same"))


def test_exposures_left_out_are_predicted_as_stated() -> None:
    """If it fails, the fit has copied the noise of the exposures it saw."""
    left_out, inner = 4, np.s_[12:-12, 12:-12]
    measured, predicted = [], []
    for seed in range(12):
        arrays = make_exposure_arrays(SHAPE, FWHMS, stars=STARS, seed=seed)
        result = restore_arrays(select(arrays, [k for k in range(len(FWHMS)) if k != left_out]))
        deviation = (arrays.images[left_out] - blur(result.image, FWHMS[left_out]))[inner]
        measured.append(np.mean(np.clip(deviation, -CLIP, CLIP) ** 2))
        errors = [blur(error, FWHMS[left_out])[inner] for error in result.noise_realizations]
        predicted.append(1.0 + np.mean(np.square(errors)))
    # The chi-square of a field scatters by sqrt(2 / number of pixels).
    number = (SHAPE[0] - 24) * (SHAPE[1] - 24) * len(measured)
    assert np.mean(measured) == pytest.approx(np.mean(predicted), abs=3.0 * math.sqrt(2.0 / number))


def test_an_exposure_of_bad_seeing_does_no_harm() -> None:
    """If it fails, bad seeing had better be left out by hand."""
    truth = gaussian_stars(SHAPE, STARS, TARGET)
    errors = []
    for seed in range(20):
        more = make_exposure_arrays(SHAPE, (*FWHMS[:4], 6.5), stars=STARS, seed=seed)
        errors.append(
            [
                np.mean((restore_arrays(arrays).image - truth) ** 2)
                for arrays in (select(more, [0, 1, 2, 3]), more)
            ]
        )
    without, with_it = np.sqrt(np.mean(errors, axis=0))
    assert with_it < 1.01 * without


def test_false_detections_are_those_of_gaussian_noise() -> None:
    """If it fails, thresholds on the linear image are not what they say."""
    radius, counts, number = 9, np.zeros(2), 0
    thresholds = (3.5, 4.0)
    for seed in range(24):
        arrays = make_exposure_arrays((130, 150), FWHMS[:4], stars=(), seed=seed)
        result = restore_arrays(arrays, QUICK)
        stamp = result.linear_noise.correlation(slice(0, 130), slice(0, 150))
        size = 2 * radius + 1
        profile = gaussian_kernel(TARGET, size).ravel()
        correlation = correlation_matrix(stamp, (size, size))
        weights = correlated_weights(profile, correlation)
        scatter = math.sqrt(weights @ correlation @ weights)
        filtered = fftconvolve(
            result.linear_image / np.sqrt(result.linear_variance),
            weights.reshape(size, size)[::-1, ::-1] / scatter,
            mode="valid",
        )
        counts += [np.count_nonzero(filtered > threshold) for threshold in thresholds]
        number += filtered.size
    expected = [number * math.erfc(t / math.sqrt(2.0)) / 2.0 for t in thresholds]
    # Pixels above a threshold come in clumps of some five.
    for count, mean in zip(counts, expected, strict=True):
        assert abs(count - mean) < 3.0 * math.sqrt(5.0 * mean)


def test_a_hundred_exposures() -> None:
    """If it fails, deep patches cannot be restored."""
    fwhms = np.random.default_rng(3).uniform(3.2, 6.0, 100).tolist()
    arrays = make_exposure_arrays(SHAPE, fwhms, stars=STARS, seed=1)
    # In two draws pixels of blank sky may be the same.
    options = dataclasses.replace(QUICK, noise=NoiseOptions(num_draws=6, num_realizations=1))
    result = restore_arrays(arrays, options)
    truth = gaussian_stars(SHAPE, STARS, TARGET)
    for image, variance in (
        (result.image, result.variance),
        (result.linear_image, result.linear_variance),
    ):
        pull = (image - truth) / np.sqrt(variance)
        assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=0.35)
