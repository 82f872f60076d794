# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of blank sky, its level, and its borders."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lsst.astroclearnet.core import RestorationResult
from lsst.astroclearnet.tests import (
    QUICK,
    SHAPE,
    SIGMAS,
    STARS,
    ExposureArrays,
    gaussian_stars,
    make_scene,
    restore_on_cpu,
)

# Sky noise of the inverse-variance coadd.
COADD_SIGMA = 1.0 / math.sqrt(sum(s**-2 for s in SIGMAS))
NUM_FIELDS = 3
BORDER = 5


def coadd(arrays: ExposureArrays) -> np.ndarray:
    """Return the inverse-variance coadd."""
    weights = arrays.good / arrays.variances
    return (weights * arrays.images).sum(axis=0) / weights.sum(axis=0)


def restore_blank(edge: int | None = None) -> tuple[list[ExposureArrays], list[RestorationResult]]:
    """Restore blank fields, in half of the exposures up to an edge."""
    fields = [make_scene(stars=[], seed=seed + 50) for seed in range(NUM_FIELDS)]
    for field in fields:
        if edge is not None:
            field.good[[0, 2], :, edge:] = False
    return fields, [restore_on_cpu(field, QUICK) for field in fields]


@pytest.fixture(scope="module")
def blank() -> tuple[list[ExposureArrays], list[RestorationResult]]:
    """Return blank fields and their restorations."""
    return restore_blank()


def test_mean_of_blank_fields(blank: tuple[list[ExposureArrays], list[RestorationResult]]) -> None:
    """If it fails, faint fluxes are biased by a pedestal."""
    fields, results = blank
    # The mean of a field scatters by 0.014 sigma: compare with its coadd.
    expected = np.mean([coadd(field).mean() for field in fields])
    for name in ("image", "linear_image"):
        mean = np.mean([getattr(result, name).mean() for result in results])
        assert abs(mean - expected) < 0.01 * COADD_SIGMA
        assert abs(mean) < 3.0 * COADD_SIGMA / math.sqrt(NUM_FIELDS * SHAPE[0] * SHAPE[1])


def test_noise_of_blank_fields(blank: tuple[list[ExposureArrays], list[RestorationResult]]) -> None:
    """If it fails, errors of faint sources are wrong."""
    _, results = blank
    linear = np.mean([r.linear_image**2 for r in results]) / np.mean([r.linear_variance for r in results])
    # Three fields of some 300 independent pixels: a scatter of 0.04.
    assert linear == pytest.approx(1.0, abs=0.1)
    restored = np.mean([r.image**2 for r in results]) / np.mean([r.variance for r in results])
    # Repeated observations take bumps of noise for light.
    assert restored == pytest.approx(0.85, abs=0.35)
    assert np.mean([r.image**2 for r in results]) < 0.3**2 * COADD_SIGMA**2


@pytest.fixture(scope="module")
def before() -> RestorationResult:
    """Return a restoration of stars on a sky of zero."""
    return restore_on_cpu(make_scene(), QUICK)


@pytest.mark.parametrize("offset", [-0.5, 0.5])
def test_sky_offset_is_represented(before: RestorationResult, offset: float) -> None:
    """If it fails, an over-subtracted sky is clipped at zero."""
    arrays = make_scene()
    after = restore_on_cpu(arrays._replace(images=arrays.images + offset), QUICK)
    sky = gaussian_stars(SHAPE, STARS, 6.0) < 1e-4
    for name in ("image", "linear_image"):
        change = (getattr(after, name) - getattr(before, name))[sky].mean()
        assert change == pytest.approx(offset, abs=0.02 * COADD_SIGMA)
    # Stars stand on the sky that there is.
    peak = float(before.image.max())
    assert float(after.image.max()) - peak == pytest.approx(offset, abs=0.02 * peak)


def check_edge(results: list[RestorationResult], region: np.ndarray) -> None:
    """Require an unbiased sky with the stated noise."""
    # Errors of some ten neighbours are one, in the smoother image of thirty,
    # where the ratio of single fields is between 0.1 and 3.8.
    for name, error_name, number, low, high in (
        ("image", "variance", 30, 0.4, 2.0),
        ("linear_image", "linear_variance", 10, 0.6, 1.5),
    ):
        errors = np.array([getattr(result, name)[region] for result in results])
        variance = np.array([getattr(result, error_name)[region] for result in results])
        ratio = float((errors**2).mean() / variance.mean())
        assert low < ratio < high
        scatter = math.sqrt(variance.mean() / (errors.size / number))
        assert abs(errors.mean()) < 4.0 * scatter


def test_border_of_the_patch(blank: tuple[list[ExposureArrays], list[RestorationResult]]) -> None:
    """If it fails, there are dark or bright bands at the borders."""
    border = np.ones(SHAPE, dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    check_edge(blank[1], border)


def test_chip_edge() -> None:
    """If it fails, edges of chips show as bands or steps."""
    _, results = restore_blank(edge=40)
    for columns in (slice(40 - BORDER, 40), slice(40, 40 + BORDER)):
        band = np.zeros(SHAPE, dtype=bool)
        band[10:-10, columns] = True
        check_edge(results, band)


def test_sky_under_a_chip_edge_is_even() -> None:
    """If it fails, a step of depth makes a step of brightness."""
    arrays = make_scene(stars=[], seed=None)
    offset = arrays._replace(images=arrays.images + 3.0)
    offset.good[[0, 2], :, 40:] = False
    result = restore_on_cpu(offset, QUICK)
    for image in (result.image, result.linear_image):
        # Away from the border, where half of the information is missing.
        assert np.abs(image[8:-8, 8:-8] - 3.0).max() < 0.02 * 3.0
