# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs on the grid of a patch, against Gaussians in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lsst.astroclearnet.adapters import PatchGeometry, PixelMap, SkyMapGeometry, TractGeometry
from lsst.astroclearnet.adapters.place import PatchPsf
from lsst.astroclearnet.core import InputError, fwhm_to_sigma
from lsst.astroclearnet.tests import make_projection
from lsst.images import Box, DetectorFrame, Image, SkyProjection
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction

SHAPE = (460, 620)
STAMP = 31


class VaryingPsf(GaussianPointSpreadFunction):
    """An elliptical Gaussian that grows by 30 % across a detector.

    Its covariance at (x, y) is exact: there is no other truth.
    """

    def __init__(self) -> None:
        super().__init__(1.0, bounds=Box.from_shape(SHAPE), stamp_size=STAMP)

    def covariance(self, y: float, x: float) -> np.ndarray:
        """Return the covariance matrix, in the order (y, x), in pixels."""
        sigma = fwhm_to_sigma(3.6 * (1.0 + 0.3 * x / SHAPE[1] + 0.1 * y / SHAPE[0]))
        return sigma**2 * np.array([[1.1, 0.15], [0.15, 0.9]])

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        return Image(gaussian(self.covariance(y, x), STAMP), bbox=self.kernel_bbox)


class BrokenPsf(GaussianPointSpreadFunction):
    """A PSF that cannot be evaluated, or is no PSF."""

    def __init__(self, kernel: np.ndarray | None = None) -> None:
        super().__init__(1.0, bounds=Box.from_shape(SHAPE), stamp_size=STAMP)
        self.kernel = kernel

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        if self.kernel is None:
            raise RuntimeError("no stars")
        return Image(self.kernel, bbox=self.kernel_bbox)


def gaussian(covariance: np.ndarray, size: int) -> np.ndarray:
    """Return a Gaussian with a covariance matrix in the order (y, x)."""
    r = np.arange(size) - size // 2
    offsets = np.stack(np.meshgrid(r, r, indexing="ij"))
    exponent = np.einsum("iyx,ij,jyx->yx", offsets, np.linalg.inv(covariance), offsets)
    kernel = np.exp(-0.5 * exponent)
    return np.asarray(kernel / kernel.sum())


@pytest.fixture(scope="module")
def geometry() -> PatchGeometry:
    """A patch of 240x360 pixels that does not begin at zero."""
    tract = TractGeometry(
        tract=3,
        ra_deg=150.1,
        dec_deg=2.2,
        pixel_scale_arcsec=0.168,
        cell_shape=(40, 60),
        patch_cells=(4, 4),
        num_patches=(1, 2),
    )
    return SkyMapGeometry(skymap="s", tracts=(tract,)).patch(3, 1)


def sheared_projection() -> SkyProjection[DetectorFrame]:
    """Return a projection with a rotation and a shear of 10 %."""
    from astropy.wcs import WCS

    base = make_projection(SHAPE, rotation=25.0)
    wcs = base.as_fits_wcs(base.pixel_frame.bbox)
    assert isinstance(wcs, WCS)
    wcs.wcs.cd = wcs.pixel_scale_matrix @ np.array([[1.05, 0.1], [0.0, 0.97]])
    return SkyProjection.from_fits_wcs(wcs, base.pixel_frame, pixel_bounds=base.pixel_frame.bbox)


class CountingPsf(VaryingPsf):
    """A PSF that knows where it was evaluated, and may be curved or broken.

    Parameters
    ----------
    curvature
        Relative growth from the middle of the detector to the ends of a row.
    step
        Relative growth at a column.
    broken_from
        Column from which on it cannot be evaluated.
    """

    def __init__(self, *, curvature: float = 0.0, step: float = 0.0, broken_from: float = np.inf) -> None:
        super().__init__()
        self.curvature, self.step, self.broken_from = curvature, step, broken_from
        self.asked: list[tuple[float, float]] = []

    def covariance(self, y: float, x: float) -> np.ndarray:
        growth = 1.0 + self.curvature * (2.0 * x / SHAPE[1] - 1.0) ** 2 + self.step * (x >= STEP)
        return fwhm_to_sigma(3.6 * growth) ** 2 * np.eye(2)

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        self.asked.append((y, x))
        if x >= self.broken_from:
            raise RuntimeError("no stars here")
        return super().compute_kernel_image(x=x, y=y)


STEP = 330.0
"""Column of a step, on no node."""


def psf_stamps(
    psf: PointSpreadFunction, geometry: PatchGeometry, projection: SkyProjection[Any], box: Box | None = None
) -> np.ndarray:
    """Return the stamps of a PSF in the cells of the patch."""
    box = projection.pixel_frame.bbox if box is None else box
    to_patch = PixelMap.from_projections(projection, box, geometry.projection)
    from_patch = PixelMap.from_projections(geometry.projection, geometry.bbox, projection)
    return PatchPsf.evaluate(psf, to_patch).stamps(from_patch)


PROJECTIONS: dict[str, dict[str, Any]] = {
    "rotated and coarser": {"rotation": 37.0, "scale": 1.06},
    "upside down, finer": {"rotation": 171.0, "scale": 0.8},
    "distorted": {"rotation": -64.0, "distortion": 0.08},
}


@pytest.mark.parametrize("name", [*PROJECTIONS, "sheared"])
def test_covariance_transforms_with_the_jacobian(geometry: PatchGeometry, name: str) -> None:
    """If it fails, the shape of stars is attributed to the sky: a PSF is
    turned or sheared the wrong way, or taken from elsewhere.
    """
    projection = sheared_projection() if name == "sheared" else make_projection(SHAPE, **PROJECTIONS[name])
    psf = VaryingPsf()
    stamps = psf_stamps(psf, geometry, projection)
    assert stamps.shape[:2] == (5, 7)
    assert stamps.shape[2] == stamps.shape[3]
    assert stamps.shape[2] % 2 == 1
    np.testing.assert_allclose(stamps.sum(axis=(-1, -2)), 1.0)
    steps = geometry.bbox.shape.y / 5, geometry.bbox.shape.x / 7
    for j, i in np.ndindex(5, 7):
        y = geometry.bbox.y.start - 0.5 + (j + 0.5) * steps[0]
        x = geometry.bbox.x.start - 0.5 + (i + 0.5) * steps[1]
        # The position and its derivatives from the projections themselves.
        positions = projection.sky_to_pixel(
            geometry.projection.pixel_to_sky(
                y=y + np.array([0.0, 0.5, -0.5, 0.0, 0.0]), x=x + np.array([0.0, 0.0, 0.0, 0.5, -0.5])
            )
        )
        position = np.stack([positions.y, positions.x])
        jacobian = np.stack([position[:, 1] - position[:, 2], position[:, 3] - position[:, 4]], axis=-1)
        inside = np.clip(position[:, 0], 0.0, np.array(SHAPE) - 1.0)
        inverse = np.linalg.inv(jacobian)
        truth = gaussian(inverse @ psf.covariance(*inside) @ inverse.T, stamps.shape[-1])
        assert np.abs(stamps[j, i] - truth).max() < 1e-3 * truth.max()


def test_corners_of_a_turned_stamp_are_kept(geometry: PatchGeometry) -> None:
    """If it fails, the flux scale of an exposure depends on its rotation."""
    kernel = gaussian(np.eye(2) * 1.5**2, STAMP)
    # Four faint blobs near the corners, which a stamp of the same size would
    # lose.
    for row, column in ((3, 3), (3, -4), (-4, 3), (-4, -4)):
        kernel[row - 1 : row + 2, column - 1 : column + 2] = 5e-4
    totals = []
    for rotation in (0.0, 45.0, 78.0):
        projection = make_projection(SHAPE, rotation=rotation, scale=1.02)
        stamps = psf_stamps(BrokenPsf(kernel), geometry, projection)
        r = np.arange(stamps.shape[-1]) - stamps.shape[-1] // 2
        radius = 1.02**-1 * np.hypot(*np.meshgrid(r, r))
        totals.append(stamps[0, 0][radius > 11.0].sum())
    np.testing.assert_allclose(totals, 0.018 / 1.018, rtol=0.02)


def test_beyond_the_detector_the_psf_is_that_of_its_edge(geometry: PatchGeometry) -> None:
    """If it fails, a polynomial model is evaluated where it explodes."""
    projection = make_projection(SHAPE, offset=(0.0, 300.0))
    box = Box.factory[0:200, 500:620]
    asked: list[tuple[float, float]] = []

    class Recorder(VaryingPsf):
        def compute_kernel_image(self, *, x: float, y: float) -> Image:
            asked.append((y, x))
            return super().compute_kernel_image(x=x, y=y)

    psf_stamps(Recorder(), geometry, projection, box)
    rows, columns = np.transpose(asked)
    assert (rows.min() >= 0, rows.max() <= 199, columns.min() >= 500, columns.max() <= 619) == (True,) * 4
    assert len(set(asked)) > 1


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (BrokenPsf(), r"cannot be evaluated at \(x=.*no stars"),
        (BrokenPsf(np.zeros((STAMP, STAMP))), "sum 0.0 cannot be used"),
        (BrokenPsf(np.full((STAMP, STAMP), np.nan)), "sum nan cannot be used"),
    ],
)
def test_unusable_psf_says_why(geometry: PatchGeometry, psf: BrokenPsf, message: str) -> None:
    """If it fails, an exposure without a PSF ends the whole patch."""
    projection = make_projection(SHAPE)
    with pytest.raises(InputError, match=message):
        psf_stamps(psf, geometry, projection)


def evaluate(psf: PointSpreadFunction, geometry: PatchGeometry) -> tuple[PatchPsf, PixelMap]:
    """Return a PSF on the patch, and the map from there to its detector."""
    projection = make_projection(SHAPE)
    to_patch = PixelMap.from_projections(projection, projection.pixel_frame.bbox, geometry.projection)
    from_patch = PixelMap.from_projections(geometry.projection, geometry.bbox, projection)
    return PatchPsf.evaluate(psf, to_patch), from_patch


def differences(psf: CountingPsf, geometry: PatchGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of stamps relative to their norm, and their columns."""
    patch_psf, from_patch = evaluate(psf, geometry)
    stamps = patch_psf.stamps(from_patch)
    side = geometry.bbox.x
    x = side.start - 0.5 + (np.arange(stamps.shape[1]) + 0.5) * side.size / stamps.shape[1]
    position = from_patch.apply(y=np.full(x.shape, geometry.bbox.y.center), x=x)
    truths = [gaussian(psf.covariance(0.0, column), stamps.shape[-1]) for column in position.x]
    errors = [np.linalg.norm(s - t) / np.linalg.norm(t) for s, t in zip(stamps[2], truths, strict=True)]
    return np.array(errors), position.x


def test_psf_is_evaluated_only_as_densely_as_it_varies(geometry: PatchGeometry) -> None:
    """If it fails, PSF models take most of the time of a patch, or their
    changes over a detector are lost.
    """
    numbers = []
    for curvature in (0.0, 0.02, 0.2):
        psf = CountingPsf(curvature=curvature)
        errors, _ = differences(psf, geometry)
        # Splines through pixels are good for 1e-3 of the peak.
        assert errors.max() < 3e-3
        numbers.append(len(psf.asked))
    assert numbers[0] < 16
    assert numbers == sorted(numbers)
    assert numbers[2] > numbers[0]


def test_psf_is_the_same_in_every_box(geometry: PatchGeometry) -> None:
    """If it fails, stars at the seams of tiles have two PSFs, or a PSF model
    is evaluated again for every tile.
    """
    psf = CountingPsf(curvature=0.2)
    patch_psf, from_patch = evaluate(psf, geometry)
    number = len(psf.asked)
    y, x = geometry.bbox.start

    def stamps(first: int, last: int) -> np.ndarray:
        """Return those of cells of 50 pixels."""
        return patch_psf.stamps(from_patch.part(Box.factory[y : y + 50, x + 50 * first : x + 50 * last]))

    whole = stamps(0, 7)
    for first in (0, 2):
        np.testing.assert_allclose(
            stamps(first, first + 3), whole[:, first : first + 3], rtol=0.0, atol=1e-12
        )
    assert len(psf.asked) == number


def test_step_of_a_psf_is_noticed(geometry: PatchGeometry) -> None:
    """If it fails, a PSF in pieces is smeared over a whole patch."""
    errors, columns = differences(CountingPsf(step=0.3), geometry)
    far = np.abs(columns - STEP) > 50.0
    assert (columns[far] < STEP).any()
    assert (columns[far] > STEP).any()
    assert errors[far].max() < 3e-3


def test_psf_that_fails_somewhere_is_used_elsewhere(geometry: PatchGeometry) -> None:
    """If it fails, a PSF is made up where the model has none, or an exposure
    is lost for a corner.
    """
    psf = CountingPsf(broken_from=400.0)
    patch_psf, from_patch = evaluate(psf, geometry)
    box = geometry.bbox
    columns = from_patch.apply(y=np.full(box.x.size, box.y.center), x=box.x.arange.astype(float)).x
    fine, broken = box.x.arange[columns < 340.0], box.x.arange[columns > 410.0]
    assert len(fine) > 50
    assert len(broken) > 20
    rows = slice(box.y.start, box.y.stop)
    stamps = patch_psf.stamps(from_patch.part(Box.factory[rows, int(fine[0]) : int(fine[-1]) + 1]))
    assert np.isfinite(stamps).all()
    with pytest.raises(InputError, match=r"cannot be evaluated at \(x=.*no stars here"):
        patch_psf.stamps(from_patch.part(Box.factory[rows, int(broken[0]) : int(broken[-1]) + 1]))
