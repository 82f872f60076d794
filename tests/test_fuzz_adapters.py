# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images that nobody should write, on their way to a patch."""

from __future__ import annotations

import dataclasses
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.adapters import UnusableExposureError, VisitCutout, stack_exposures
from lsst.astroclearnet.core import gaussian_kernel
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, Image, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.images.serialization import ArchiveReadError

GEOMETRY = make_patch_geometry(cells=(1, 1), cell_shape=(24, 20)).patch(3, 0)

FUZZ: dict[str, Any] = {
    "derandomize": True,  # the same examples in every run
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}

GARBAGE = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-30, 1e-40, 1e30, -1e30, 3e38, 1e9)
PLANES = ("BAD", "SATURATED", "COSMIC_RAY", "INTERPOLATED", "DETECTED", "NO_DATA")


class OddPsf(GaussianPointSpreadFunction):
    """A PSF of any pixels, in any box.

    Parameters
    ----------
    kernel
        Its pixels.
    declared, actual
        The box that it declares, and the one that its images have.
    """

    def __init__(self, kernel: np.ndarray, declared: Box, actual: Box) -> None:
        super().__init__(1.5, bounds=declared, stamp_size=3)
        self._kernel, self._declared, self._actual = kernel, declared, actual

    @property
    def kernel_bbox(self) -> Box:  # type: ignore[override]
        return self._declared

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        return Image(self._kernel, bbox=self._actual)


def box_around(center: int, shape: tuple[int, int]) -> Box:
    """Return a box whose middle is at the same row and column."""
    return Box.factory[
        center - shape[0] // 2 : center - shape[0] // 2 + shape[0],
        center - shape[1] // 2 : center - shape[1] // 2 + shape[1],
    ]


@dataclasses.dataclass(frozen=True)
class Psf:
    """What is wrong with a PSF."""

    shape: tuple[int, int] = (15, 15)
    center: int = 0
    factor: float = 1.0
    pixel: float | None = None
    level: float = 0.0

    def make(self) -> OddPsf:
        """Return the PSF."""
        size = max(self.shape) | 1
        kernel = gaussian_kernel(3.5, size)[: self.shape[0], : self.shape[1]] * self.factor + self.level
        if self.pixel is not None:
            kernel[0, 0] = self.pixel
        box = box_around(self.center, self.shape)
        return OddPsf(kernel, box, box)


@dataclasses.dataclass(frozen=True)
class Case:
    """A visit image.

    Attributes
    ----------
    seed
        Of everything random.
    shape
        Height and width in pixels.
    view
        Arguments of `make_projection`.
    unit
        Unit of the pixels.
    image, variance
        Garbage in place of some values.
    share
        Of the pixels that are garbage or flagged.
    plane
        Mask plane of these.
    cut
        Rows and columns that are left of it, of its bounds or of the box.
    kind
        What is cut.
    psf
        What is wrong with the PSF; `None` if it cannot be read.
    """

    seed: int
    shape: tuple[int, int] = (90, 110)
    view: tuple[tuple[str, Any], ...] = ()
    unit: u.UnitBase = u.nJy
    image: float | None = None
    variance: float | None = None
    share: float = 0.1
    plane: str | None = None
    cut: tuple[int, int] | None = None
    kind: str = "bounds"
    psf: Psf | None = Psf()

    def make(self) -> VisitImage:
        """Return the visit image."""
        rng = np.random.default_rng(self.seed)
        projection = make_projection(self.shape, **dict(self.view))
        image, variance = rng.normal(size=self.shape), rng.uniform(1.0, 2.0, self.shape)
        for array, value in ((image, self.image), (variance, self.variance)):
            if value is not None:
                array[rng.random(self.shape) < self.share] = value
        changes: dict[str, Any] = {}
        if self.plane is not None:
            changes["planes"] = {self.plane: rng.random(self.shape) < self.share}
        # The patch is left of the middle.
        box = Box.factory[: self.shape[0], : self.shape[1]]
        if self.cut is not None:
            rows, columns = (min(c, s) for c, s in zip(self.cut, self.shape, strict=True))
            start = (self.shape[0] - rows) // 2, (self.shape[1] - columns) // 2
            box = Box.factory[start[0] : start[0] + rows, start[1] : start[1] + columns]
            if self.kind == "bounds":
                changes["bounds"] = box
        psf = ArchiveReadError("no model") if self.psf is None else self.psf.make()
        with np.errstate(all="ignore"):
            made = make_visit_image(image, projection, variance=variance, unit=self.unit, psf=psf, **changes)
        return made[box]


FAULTS: dict[str, st.SearchStrategy[Any]] = {
    "shape": st.sampled_from([(1, 1), (1, 40), (2, 2), (12, 12), (300, 20)]),
    # There is no projection with any scale and any distortion.
    "view": st.fixed_dictionaries(
        {},
        optional={
            "rotation": st.floats(-180.0, 180.0),
            "offset": st.tuples(st.floats(-150.0, 150.0), st.floats(-150.0, 150.0)),
            "scale": st.sampled_from([0.01, 0.05, 0.3, 1.5, 30.0, 1e4]),
            "center": st.sampled_from(
                [(150.1, 2.2), (150.102, 2.2), (330.1, -2.2), (240.1, 2.2), (0.0, 90.0)]
            ),
        },
    ).map(lambda view: tuple(sorted(view.items())))
    | st.sampled_from([(("distortion", 0.1),), (("distortion", -0.5),)]),
    "unit": st.sampled_from([u.uJy, u.Jy, u.adu, u.electron, u.dimensionless_unscaled, u.m]),
    "image": st.sampled_from(GARBAGE),
    "variance": st.sampled_from(GARBAGE),
    "share": st.sampled_from([0.001, 0.5, 0.999, 1.0]),
    "plane": st.sampled_from(PLANES),
    "cut": st.tuples(st.integers(1, 60), st.integers(1, 60)),
    "kind": st.sampled_from(["bounds", "box"]),
    "psf": st.none()
    | st.builds(
        Psf,
        shape=st.sampled_from([(15, 15), (1, 1), (14, 14), (15, 13), (301, 301), (3, 3)]),
        center=st.sampled_from([0, 0, 7, 100]),
        factor=st.sampled_from([1.0, 7.0, 0.0, -1.0, 1e30, 1e-30, 1e-320]),
        pixel=st.none() | st.sampled_from([np.nan, np.inf, -0.5, 3.0, 1e30, -1e30]),
        level=st.sampled_from([0.0, 0.0, -0.01, 0.01, -1.0 / 225.0]),
    ),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a visit image with a few faults: more would hide each other."""
    names = draw(st.lists(st.sampled_from(sorted(FAULTS)), max_size=4, unique=True))
    return Case(seed=draw(st.integers(0, 100_000)), **{name: draw(FAULTS[name]) for name in names})


CASES = cases()


def restore_or_refuse(case: Case) -> None:
    """Check that a visit image is refused, or gives usable arrays."""
    visit_image = case.make()
    bbox = GEOMETRY.bbox.padded(5)
    try:
        cutout = VisitCutout.take(visit_image, GEOMETRY, bbox=bbox)
    except UnusableExposureError:
        return
    exposure = cutout.within(bbox)
    assert exposure is not None
    good = exposure.good
    assert good.any()
    assert np.isfinite(exposure.image).all()
    assert np.isfinite(exposure.variance).all()
    assert (exposure.variance > 0).all()
    for place, side in ((exposure.y, bbox.shape[0]), (exposure.x, bbox.shape[1])):
        assert ((place[good] >= -0.5) & (place[good] < side - 0.5)).all()
    assert (exposure.area[good] > 0).all()
    known = np.isfinite(exposure.psfs).all(axis=(-1, -2))
    assert known.any()
    np.testing.assert_allclose(exposure.psfs[known].sum(axis=(-1, -2)), 1.0)
    planes = cutout.planes_within(bbox)
    assert not (planes["usable"] & ~planes["covered"]).any()
    assert stack_exposures([exposure])["good"].sum() == good.sum()


@settings(max_examples=150, **FUZZ)
@given(CASES)
def test_some_visit_images(case: Case) -> None:
    """If it fails, a broken visit image stops a patch, or gets into it."""
    restore_or_refuse(case)


# Of the conversion of units.
@pytest.mark.filterwarnings("ignore:overflow encountered in multiply:RuntimeWarning")
@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=1500, **FUZZ)
@given(CASES)
def test_many_visit_images(case: Case) -> None:
    """If it fails, a rarer one does so."""
    restore_or_refuse(case)


@settings(max_examples=30, **FUZZ)
@given(st.lists(CASES, max_size=5))
def test_none_is_lost(some: list[Case]) -> None:
    """If it fails, an exposure is left out of a patch in silence."""
    images = [dataclasses.replace(c, view=(*c.view, ("visit", n + 1))).make() for n, c in enumerate(some)]
    result = PrepareExposuresTask().run(visit_images=images, geometry=GEOMETRY)
    kept = {exposure.identity.visit for exposure in result.source.cutouts}
    dropped = {int(name.split(",")[0].removeprefix("TestCam visit ")) for name in result.dropped}
    assert not kept & dropped
    assert kept | dropped == set(range(1, len(some) + 1))
