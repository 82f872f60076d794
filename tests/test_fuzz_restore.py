# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The array facade with arrays that nobody should give it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import (
    MaskBit,
    NoiseOptions,
    PixelPositions,
    RejectionOptions,
    RestorationError,
    StackResult,
    gaussian_kernel,
)
from lsst.astroclearnet.tests import QUICK, TARGET, ExposureArrays, gaussian_stars, restore_on_cpu

# Nothing needs to converge.
OPTIONS = dataclasses.replace(
    QUICK,
    fit=dataclasses.replace(QUICK.fit, max_epochs=1),
    rejection=RejectionOptions(max_rounds=3),
    noise=NoiseOptions(num_draws=1, num_realizations=1),
)

FUZZ: dict[str, Any] = {
    "derandomize": True,  # the same examples in every run
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Work in one thread: more take longer where images are so small."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


DTYPES = ("<f8", "<f4", ">f4", ">f8", "<f2", "<i4", ">i2", "u1", "?", "<c8", "O", "U3", "g")
LAYOUTS = ("plain", "negative strides", "transposed", "read-only", "masked", "list", "shorter")
GARBAGE = (
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-30, 1e-40, 1e-300, 1e30, -1e30, 1e38, 1e300),
    *(1e5, -1e5, 1e7, 1e9, 1e12, 1e18, 1e-5, 1e-7, 1e-12),
)


@dataclasses.dataclass(frozen=True)
class Spoil:
    """What becomes of a good array.

    Attributes
    ----------
    value
        Garbage in place of good values.
    where
        Which values.
    unit
        Factor of all values.
    dtype
        Type of the values.
    layout
        How they lie in memory, or what else is wrong.
    """

    value: float | None = None
    where: str = "pixel"
    unit: float = 1.0
    dtype: str | None = None
    layout: str = "plain"

    def __call__(self, array: np.ndarray, rng: np.random.Generator) -> Any:
        """Return the spoilt array, which may be none."""
        array = np.array(array)
        with np.errstate(all="ignore"):
            if array.dtype != bool:
                if self.value is not None and array.size:
                    array[self._chosen(array.shape, rng)] = self.value
                array *= self.unit
            if self.dtype is not None:
                array = array.astype(self.dtype)
        if self.layout == "negative strides":
            return np.ascontiguousarray(array[..., ::-1, ::-1])[..., ::-1, ::-1]
        if self.layout == "transposed":
            return np.ascontiguousarray(array.T).T
        if self.layout == "read-only":
            array.setflags(write=False)
        if self.layout == "masked":
            return np.ma.masked_array(array)
        if self.layout == "list":
            return array.tolist()
        return array[..., :-1] if self.layout == "shorter" else array

    def _chosen(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if self.where == "pixel":
            return np.arange(math.prod(shape)).reshape(shape) == rng.integers(math.prod(shape))
        if self.where == "exposure":
            return np.broadcast_to((np.arange(shape[0]) == 0)[:, None, None], shape)
        return rng.random(shape) < {"some": 0.05, "most": 0.9, "all": 1.1}[self.where]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the pixels of exposures are on a patch."""

    patch: tuple[int, int] = (21, 24)
    scale: float = 1.0
    y: Spoil = Spoil()
    x: Spoil = Spoil()
    area: Spoil = Spoil()

    def make(self, shape: tuple[int, ...], rng: np.random.Generator) -> PixelPositions:
        """Return the positions of pixels of arrays of a shape."""
        rows, columns = np.meshgrid(*(np.arange(side, dtype=float) for side in shape[1:]), indexing="ij")
        corner = rng.uniform(-5.0, 5.0, (2, shape[0], 1, 1))
        return PixelPositions.from_arrays(
            self.patch,
            self.y(rows * self.scale + corner[0], rng),
            self.x(columns * self.scale + corner[1], rng),
            self.area(np.full(shape, self.scale**2), rng),
        )


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of a restoration."""

    seed: int
    number: int = 3
    shape: tuple[int, int] = (16, 19)
    psf_size: int = 9
    density: float = 1.0
    images: Spoil = Spoil()
    variances: Spoil = Spoil()
    good: Spoil = Spoil()
    psfs: Spoil = Spoil()
    places: Places | None = None
    target_fwhm: float = TARGET

    def restore(self) -> StackResult:
        """Restore what may be impossible to restore."""
        rng = np.random.default_rng(self.seed)
        images = rng.normal(size=(self.number, *self.shape))
        images += gaussian_stars(self.shape, [(6.2, 8.1, 300.0)], 3.5)
        size = self.psf_size
        psf = gaussian_kernel(3.5, size + 1 - size % 2)[:size, :size]
        return restore_on_cpu(
            ExposureArrays(
                images=self.images(images, rng),
                variances=self.variances(np.ones_like(images), rng),
                good=self.good(rng.random(images.shape) < self.density, rng),
                psfs=self.psfs(np.tile(psf, (self.number, 1, 1)), rng),
            ),
            OPTIONS,
            positions=None if self.places is None else self.places.make(images.shape, rng),
            target_fwhm=self.target_fwhm,
            seed=self.seed,
        )


SPOILT = st.builds(
    Spoil,
    value=st.none() | st.sampled_from(GARBAGE),
    where=st.sampled_from(["pixel", "some", "most", "exposure", "all"]),
    unit=st.sampled_from([1.0] * 6 + [1e-30, 1e-18, 1e-9, 1e9, 1e18, 1e30]),
    dtype=st.sampled_from([None] * len(DTYPES) + list(DTYPES)),
    layout=st.sampled_from(["plain"] * len(LAYOUTS) + list(LAYOUTS)),
)

FAULTS: dict[str, st.SearchStrategy[Any]] = {
    "number": st.sampled_from([0, 1, 2]),
    "shape": st.sampled_from([(0, 9), (1, 9), (2, 2), (2, 11), (7, 5)]),
    "psf_size": st.sampled_from([1, 3, 8, 31]),
    "density": st.sampled_from([0.9, 0.1, 0.01, 0.0]),
    "images": SPOILT,
    "variances": SPOILT,
    "good": SPOILT,
    "psfs": SPOILT,
    "patch": st.sampled_from([(9, 13), (2, 2), (30, 5)]),
    "scale": st.sampled_from([0.3, 1.7, 1e-6, 1e6]),
    "y": SPOILT,
    "x": SPOILT,
    "area": SPOILT,
    "target_fwhm": st.sampled_from([2.5, 9.0, 0.0, -3.0, 1e9, np.nan, np.inf]),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case with a few faults: more would hide each other."""
    placed: bool = draw(st.sampled_from([False, True]))
    names = draw(st.lists(st.sampled_from(sorted(FAULTS)), max_size=3, unique=True))
    faults = {name: draw(FAULTS[name]) for name in names}
    places = {name: faults.pop(name) for name in names if name in ("patch", "scale", "y", "x", "area")}
    if places or placed:
        faults["places"] = Places(**places)
    return Case(seed=draw(st.integers(0, 100_000)), **faults)


CASES = cases()


def assert_sound(result: StackResult) -> None:
    """Check that pixels have a value and an error wherever they claim so."""
    known = (result.mask & MaskBit.NO_DATA) == 0
    for image, variance in (
        (result.image, result.variance),
        (result.linear_image, result.linear_variance),
    ):
        assert np.isfinite(image[known]).all()
        assert np.isfinite(variance[known]).all()
        assert (variance[known] > 0).all()
        assert np.isnan(image[~known]).all()
    assert np.isfinite(result.weights).all()
    assert (result.weights >= 0).all()


def restore_or_refuse(case: Case) -> None:
    """Check that a case is refused, or gives a sound result."""
    try:
        result = case.restore()
    except RestorationError:
        return
    assert_sound(result)


@settings(max_examples=25, **FUZZ)
@given(CASES)
def test_some_garbage(case: Case) -> None:
    """If it fails, arrays exist that give an obscure error or, worse, pixels
    that claim to be known and are not.
    """
    restore_or_refuse(case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=150, **FUZZ)
@given(CASES)
def test_much_garbage(case: Case) -> None:
    """If it fails, a rarer case does so."""
    restore_or_refuse(case)
