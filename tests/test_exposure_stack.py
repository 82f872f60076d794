# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Checks that exposures pass before anything is computed from them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    ExposureStack,
    InputError,
    NoUsableDataError,
    PixelPositions,
    gaussian_kernel,
)
from lsst.astroclearnet.core.exposures._stack import _sample_median
from lsst.astroclearnet.tests import ExposureArrays, make_exposure_arrays, make_exposure_stack

SHAPE = (20, 28)
FWHMS = (3.0, 4.0)


@pytest.fixture
def arrays() -> ExposureArrays:
    """Return two exposures that pass."""
    return make_exposure_arrays(SHAPE, FWHMS, stars=[(8.0, 15.0, 50.0)], psf_size=9)


def test_accepted_arrays(arrays: ExposureArrays) -> None:
    """If it fails, valid data are changed on the way in."""
    stack = ExposureStack.from_arrays(*arrays)
    assert stack.num_exposures == 2
    assert stack.shape == SHAPE
    assert stack.device == torch.device("cpu")
    assert (stack.images.dtype, stack.good.dtype, stack.psfs.dtype) == (
        torch.float32,
        torch.bool,
        torch.float64,
    )
    np.testing.assert_array_equal(stack.images.numpy(), arrays.images.astype(np.float32))
    assert stack.psfs.shape == (2, 1, 1, 9, 9)
    np.testing.assert_allclose(stack.psfs[:, 0, 0].numpy(), arrays.psfs)


def test_inputs_are_left_alone(arrays: ExposureArrays) -> None:
    """If it fails, restoring changes the caller's arrays."""
    given = [torch.from_numpy(array) for array in arrays]
    given[0] = given[0].float()
    given[0][0, 3, 5] = torch.nan
    given[3][0] *= 7.0
    before = [tensor.clone() for tensor in given]
    ExposureStack.from_arrays(*given)
    for tensor, copy in zip(given, before, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0.0, atol=0.0, equal_nan=True)


def test_blocks_and_memory_do_not_matter() -> None:
    """If it fails, large images are checked otherwise than small ones, or
    arrays that may be overwritten become another stack.
    """
    rng, shape = np.random.default_rng(11), (2, 520, 410)
    images = rng.normal(size=shape).astype(np.float32)
    variances = rng.uniform(1.0, 2.0, size=shape).astype(np.float32)
    good = rng.random(shape) > 0.02
    y, x = (values + rng.uniform(-0.4, 0.4, size=shape) for values in np.indices(shape)[1:])
    area = rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
    images[0, 300, 7], variances[1, 400, 9], y[0, 410, 5], x[1, 0, 0] = np.nan, -1.0, 600.0, np.nan
    images[1, 519, 409] = 1e9
    psfs = np.stack([gaussian_kernel(fwhm, 9) for fwhm in FWHMS])

    def make(overwrite: bool) -> ExposureStack:
        data = [array.copy() for array in (images, variances, good)]
        places = [array.copy() for array in (y, x, area)]
        positions = PixelPositions.from_arrays(shape[1:], *places, overwrite=overwrite)
        image, variance, use = data
        stack = ExposureStack.from_arrays(
            image, variance, use, psfs, positions=positions, overwrite=overwrite
        )
        assert np.shares_memory(stack.images.numpy(), image) == overwrite
        assert np.shares_memory(positions.y.numpy(), places[0]) == overwrite
        if not overwrite:
            for array, original in zip([*data, *places], (images, variances, good, y, x, area), strict=True):
                np.testing.assert_array_equal(array, original)
        return stack

    kept = good.copy()
    for place in ((0, 300, 7), (1, 400, 9), (0, 410, 5), (1, 0, 0), (1, 519, 409)):
        kept[place] = False
    for stack in (make(False), make(True)):
        assert stack.positions is not None
        np.testing.assert_array_equal(stack.good.numpy(), kept)
        np.testing.assert_array_equal(stack.images.numpy(), np.where(kept, images, 0))
        np.testing.assert_array_equal(stack.variances.numpy(), np.where(kept, variances, 1))
        on_patch = stack.positions.inside.numpy()
        assert (~on_patch).sum() == 2
        np.testing.assert_array_equal(stack.positions.y.numpy()[on_patch], y[on_patch])
        np.testing.assert_array_equal(stack.positions.area.numpy(), np.where(on_patch, area, 0))


def test_median_is_that_of_a_regular_sample() -> None:
    """If it fails, the unit of noise depends on how pixels are read."""
    rng = np.random.default_rng(12)
    values, use = (
        torch.from_numpy(rng.normal(size=(700, 510))),
        torch.from_numpy(rng.random((700, 510)) > 0.1),
    )
    assert _sample_median(values, use) == values[use][::3].median()
    assert torch.isnan(_sample_median(values, torch.zeros_like(use)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_used(arrays: ExposureArrays, value: float) -> None:
    """If it fails, one NaN pixel makes the whole patch NaN."""
    arrays.images[0, 3, 17] = value
    arrays.variances[1, 11, 4] = value
    stack = ExposureStack.from_arrays(*arrays)
    assert not stack.good[0, 3, 17]
    assert not stack.good[1, 11, 4]
    assert int((~stack.good).sum()) == 2
    assert (float(stack.images[0, 3, 17]), float(stack.variances[0, 3, 17])) == (0.0, 1.0)
    assert (float(stack.images[1, 11, 4]), float(stack.variances[1, 11, 4])) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_variance_must_be_positive(arrays: ExposureArrays, value: float) -> None:
    """If it fails, a pixel gets an infinite or a negative weight."""
    arrays.variances[1, 2, 21] = value
    stack = ExposureStack.from_arrays(*arrays)
    assert not stack.good[1, 2, 21]
    assert int((~stack.good).sum()) == 1


def test_masked_values_are_dropped(arrays: ExposureArrays) -> None:
    """If it fails, what lies under the mask reaches the result."""
    arrays.good[0, 4:6, 9] = False
    arrays.images[0, 4:6, 9] = 1e30
    stack = ExposureStack.from_arrays(*arrays)
    assert not stack.images[0, 4:6, 9].any()
    assert int((~stack.good).sum()) == 2


def test_foreign_memory_layouts(arrays: ExposureArrays) -> None:
    """If it fails, arrays straight from FITS files are refused."""
    expected = ExposureStack.from_arrays(*arrays)
    swapped = arrays.images.astype(">f4")
    flipped = np.ascontiguousarray(arrays.variances[:, ::-1])[:, ::-1]
    assert not swapped.dtype.isnative
    assert flipped.strides[1] < 0
    stack = ExposureStack.from_arrays(swapped, flipped, torch.from_numpy(arrays.good), arrays.psfs)
    assert torch.equal(stack.images, expected.images)
    assert torch.equal(stack.variances, expected.variances)


def test_integers_and_big_endian_psfs(arrays: ExposureArrays) -> None:
    """If it fails, raw counts are refused."""
    counts = np.round(arrays.images).astype(">i4")
    stack = ExposureStack.from_arrays(counts, *arrays[1:3], arrays.psfs.astype(">f8"))
    np.testing.assert_array_equal(stack.images.numpy(), counts.astype(np.float32))


NUMBER_KINDS = ("i1", "u1", ">i2", "u2", "i4", ">u4", "i8", "u8", "f2", ">f4")


@pytest.mark.parametrize("in_noise_units", [False, True])
@pytest.mark.parametrize("kind", NUMBER_KINDS)
def test_type_of_numbers_is_none_of_their_meaning(
    arrays: ExposureArrays, kind: str, in_noise_units: bool
) -> None:
    """If it fails, the same numbers of another type are refused with an
    obscure error, or are other numbers; so are exposures off the patch.
    """
    images = np.clip(np.round(arrays.images), 0.0, 100.0)
    variances = np.round(arrays.variances * 4.0) + np.arange(2.0)[:, None, None]
    variances[1, 3, 5] = 0.0
    for good in (arrays.good, arrays.good & np.array([True, False])[:, None, None]):
        expected, stack = (
            ExposureStack.from_arrays(
                images.astype(dtype),
                variances.astype(dtype),
                good,
                arrays.psfs,
                in_noise_units=in_noise_units,
            )
            for dtype in ("f8", kind)
        )
        assert stack.unit == expected.unit
        for name in ("images", "variances", "good"):
            assert torch.equal(getattr(stack, name), getattr(expected, name))


@pytest.mark.parametrize("kind", ["i4", "u2", "f2", "f4", "f8"])
def test_variances_of_zero_of_any_type(arrays: ExposureArrays, kind: str) -> None:
    """If it fails, zero passes for a variance in coarse types, in which the
    least one allowed is zero too.
    """
    zeros = np.zeros(arrays.images.shape, kind)
    with pytest.raises(NoUsableDataError, match="None of the pixels"):
        ExposureStack.from_arrays(zeros, zeros, arrays.good, arrays.psfs, in_noise_units=True)


def test_read_only_arrays(arrays: ExposureArrays) -> None:
    """If it fails, memory-mapped files cause warnings."""
    for array in arrays:
        array.setflags(write=False)
    torch.set_warn_always(True)  # by default torch warns once a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ExposureStack.from_arrays(*arrays)
    finally:
        torch.set_warn_always(False)


def test_psfs_are_normalised_cell_by_cell(arrays: ExposureArrays) -> None:
    """If it fails, the flux scale follows the norm of the PSF images."""
    kernels = np.stack([gaussian_kernel(f, 15) for f in (3.0, 3.5, 4.0, 4.5, 5.0, 5.5)])
    psfs = np.stack([kernels.reshape(2, 3, 15, 15) * scale for scale in (1.0, 40.0)])
    psfs[0, 1, 2] *= 5.0
    stack = ExposureStack.from_arrays(*arrays[:3], psfs)
    np.testing.assert_allclose(stack.psfs.sum(dim=(-1, -2)).numpy(), 1.0)
    np.testing.assert_allclose(stack.psfs[0].numpy(), kernels.reshape(2, 3, 15, 15))


def test_cell_without_psf_takes_the_mean(arrays: ExposureArrays) -> None:
    """If it fails, one missing cell loses the exposure."""
    kernels = np.stack([gaussian_kernel(f, 15) for f in (3.0, 4.0, 5.0)])
    psfs = np.stack([kernels[:, None], kernels[:, None]])
    psfs[1, 2] = np.nan
    stack = ExposureStack.from_arrays(*arrays[:3], psfs)
    np.testing.assert_allclose(stack.psfs[1, 2, 0].numpy(), 0.5 * (kernels[0] + kernels[1]))


def test_replace_leaves_the_original(arrays: ExposureArrays) -> None:
    """If it fails, a change of the mask reaches other users of the stack."""
    stack = ExposureStack.from_arrays(*arrays)
    changed = stack.replace(good=torch.zeros_like(stack.good))
    assert not changed.good.any()
    assert stack.good.all()
    assert changed.images is stack.images


def _bad_psf(value: float) -> np.ndarray:
    psfs = np.stack([gaussian_kernel(f, 9) for f in FWHMS])
    psfs[1] *= value
    return psfs


PLANES = np.ones((2, *SHAPE))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": PLANES[0]}, InputError, r"images must have shape \(n, h, w\), not \(20, 28\)"),
        (
            {"images": np.ones((2, 0, 28))},
            InputError,
            r"images must have shape \(n, h, w\), not \(2, 0, 28\)",
        ),
        ({"images": np.ma.masked_array(PLANES)}, InputError, "images is a masked array.*through 'good'"),
        ({"variances": np.ma.masked_array(PLANES)}, InputError, "variances is a masked array"),
        ({"images": PLANES + 1j}, InputError, "images is complex"),
        ({"variances": PLANES > 0}, InputError, "variances is boolean; give real numbers"),
        ({"psfs": torch.ones(2, 9, 9).to_sparse()}, InputError, "psfs is a sparse tensor"),
        ({"images": PLANES.astype(object)}, InputError, "images of type ndarray cannot be read as numbers"),
        ({"images": np.full((2, *SHAPE), "a")}, InputError, "images of type ndarray cannot be read"),
        ({"good": PLANES.astype(int)}, InputError, "good must be boolean .*not int64"),
        ({"good": torch.ones(2, *SHAPE)}, InputError, "good must be boolean .*not torch.float32"),
        (
            {"variances": PLANES[:, :, 1:]},
            InputError,
            r"variances has shape \(2, 20, 27\), which is not that",
        ),
        ({"good": np.ones((1, *SHAPE), bool)}, InputError, r"good has shape \(1, 20, 28\), which is not"),
        (
            {"psfs": np.ones((3, 9, 9))},
            InputError,
            r"psfs must have shape .* with n=2, not \(3, 1, 1, 9, 9\)",
        ),
        ({"psfs": np.ones((9, 9))}, InputError, r"psfs must have shape .* with n=2, not \(9, 9\)"),
        ({"psfs": np.ones((2, 9, 7))}, InputError, r"psfs must have shape .*not \(2, 1, 1, 9, 7\)"),
        ({"psfs": np.ones((2, 8, 8))}, InputError, "odd number of pixels on a side, not 8"),
        ({"psfs": np.ones((2, 0, 1, 9, 9))}, InputError, "psfs must have"),
        ({"psfs": _bad_psf(np.nan)}, InputError, "PSF of exposure 1 is not finite"),
        ({"psfs": _bad_psf(0.0)}, InputError, "PSF of exposure 1 does not have a positive sum"),
        ({"psfs": _bad_psf(-1.0)}, InputError, "PSF of exposure 1 does not have a positive sum"),
        ({"images": np.ones((0, *SHAPE))}, NoUsableDataError, "There is no exposure"),
        ({"good": np.zeros((2, *SHAPE), bool)}, NoUsableDataError, "None of the pixels of 2 exposures"),
        ({"images": PLANES * np.nan}, NoUsableDataError, "None of the pixels of 2 exposures"),
        ({"variances": -PLANES}, NoUsableDataError, "None of the pixels of 2 exposures"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    """If it fails, arrays that do not fit fail later, in obscure words."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, psf_size=9)._replace(**changes)
    with pytest.raises(error, match=message):
        ExposureStack.from_arrays(*arrays)


def test_error_names_the_exposure() -> None:
    """If it fails, a task cannot say which visit has no PSF."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, psf_size=9)._replace(psfs=_bad_psf(np.nan))
    with pytest.raises(InputError, match="exposure 1") as caught:
        ExposureStack.from_arrays(*arrays)
    assert caught.value.diagnostics == {"exposure": 1}


@pytest.mark.gpu
def test_device_is_used() -> None:
    """If it fails, computations mix devices."""
    arrays = make_exposure_arrays(SHAPE, FWHMS, psf_size=9)
    stack = ExposureStack.from_arrays(*arrays).to(torch.device("cuda"))
    assert stack.device.type == "cuda"
    assert stack.psfs.device.type == "cuda"
    assert make_exposure_stack(SHAPE, FWHMS, psf_size=9).device.type == "cpu"
