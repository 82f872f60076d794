# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Undersampled PSFs on finer grids, against profiles in closed form."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import galsim
import numpy as np
import piff
import pytest

from lsst.astroclearnet.adapters import refine_sky_map
from lsst.astroclearnet.adapters.place import psf_stamps
from lsst.astroclearnet.adapters.place._psf_samples import _is_known_between_pixels
from lsst.astroclearnet.core import InputError, fwhm_to_sigma
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, Image
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction, PSFExWrapper

BOUNDS = Box.from_shape((200, 300))
MOFFAT = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=1.2), galsim.Pixel(1.0))


def jacobian(factor: float, rotation: float) -> np.ndarray:
    """Return derivatives by the pixels of a finer, turned grid."""
    c, s = np.cos(rotation), np.sin(rotation)
    return np.array([[[c, -s], [s, c]]]) / factor


def stamp_of(psf: PointSpreadFunction, factor: float, rotation: float = 0.0) -> np.ndarray:
    """Return the stamp of a PSF on a finer, turned grid."""
    y, x = np.array([81.3]), np.array([140.8])
    return np.asarray(psf_stamps(psf, y=y, x=x, jacobians=jacobian(factor, rotation))[0])


def gaussian_psf(fwhm: float) -> GaussianPointSpreadFunction:
    """Return a Gaussian PSF."""
    return GaussianPointSpreadFunction(fwhm_to_sigma(fwhm), bounds=BOUNDS, stamp_size=21)


def grid_psf(scale: float) -> PiffWrapper:
    """Return a Piff PSF that is a grid of points of a scale in pixels."""
    size = 2 * round(8 / scale) + 1
    model = piff.PixelGrid(scale=scale, size=size)
    psf = piff.SimplePSF(model, piff.Mean())
    image = MOFFAT.drawImage(nx=size, ny=size, scale=scale, method="no_pixel").array
    psf.interp.mean = image.ravel() / image.sum()
    psf.wcs, psf.pointing = {0: galsim.PixelScale(1.0)}, None
    return PiffWrapper(psf, bounds=BOUNDS, stamp_size=17)


def moffat_psf() -> PiffWrapper:
    """Return a Piff PSF that is a Moffat profile in pixels."""
    psf = piff.SimplePSF(piff.Moffat(beta=3.5, fastfit=True), piff.Mean())
    psf.interp.mean = np.array([float(galsim.Moffat(beta=3.5, fwhm=1.2).half_light_radius), 0.0, 0.0])
    psf.wcs, psf.pointing = {0: galsim.PixelScale(1.0)}, None
    return PiffWrapper(psf, bounds=BOUNDS, stamp_size=31)


@pytest.mark.parametrize("rotation", [0.0, 0.4])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("fwhm", [1.6, 2.4])
def test_gaussian_is_drawn_between_pixels(fwhm: float, factor: int, rotation: float) -> None:
    """If it fails, stars that are smaller than two pixels alias."""
    stamp = stamp_of(gaussian_psf(fwhm), factor, rotation)
    r = (np.arange(len(stamp)) - len(stamp) // 2) / factor
    truth = np.exp(-0.5 * (r**2 + r[:, None] ** 2) / fwhm_to_sigma(fwhm) ** 2)
    truth /= truth.sum()
    assert np.abs(stamp - truth).max() < 2e-3 * truth.max()


@pytest.mark.parametrize("make", [moffat_psf, lambda: grid_psf(0.5)], ids=["profile", "fine grid"])
def test_piff_is_drawn_between_pixels(make: Callable[[], PiffWrapper]) -> None:
    """If it fails, models that know more than pixels are refused or not
    asked.
    """
    stamp = stamp_of(make(), 2.0, 0.4)
    drawn = MOFFAT.rotate(0.4 * galsim.radians).drawImage(
        nx=len(stamp), ny=len(stamp), scale=0.5, method="no_pixel"
    )
    truth = drawn.array / drawn.array.sum()
    assert np.abs(stamp - truth).max() < 3e-3 * truth.max()


def test_psf_of_pixels_is_refused_on_a_finer_grid() -> None:
    """If it fails, what aliasing makes of a PSF is taken for it."""
    psf = grid_psf(1.0)
    with pytest.raises(InputError, match=r"FWHM of 1\.\d\d of them at \(x=140.8, y=81.3\).*own pixel scale"):
        stamp_of(psf, 2.0)
    # On the grid of the exposures it is what their pixels show.
    assert np.isfinite(stamp_of(psf, 1.0)).all()


class PixelsOnly(GaussianPointSpreadFunction):
    """One that draws no stars."""

    def compute_stellar_image(self, *, x: float, y: float) -> Image:
        raise ArithmeticError("no star")


def test_psf_that_draws_no_stars() -> None:
    """If it fails, exposures are dropped whose PSF is known at pixels."""
    failing = PixelsOnly(fwhm_to_sigma(1.6), bounds=BOUNDS, stamp_size=21)
    truth = failing.compute_kernel_image(x=140.8, y=81.3).array
    np.testing.assert_allclose(stamp_of(failing, 1.0), truth, atol=1e-6)
    with pytest.raises(InputError, match=r"FWHM of 1\.\d\d of them"):
        stamp_of(failing, 2.0)
    assert np.isfinite(stamp_of(PixelsOnly(fwhm_to_sigma(2.4), bounds=BOUNDS, stamp_size=21), 2.0)).all()


def test_piff_without_a_model_is_known_at_pixels_only() -> None:
    """If it fails, an unknown Piff PSF is believed between pixels."""
    psf = moffat_psf()
    del psf.piff_psf.model
    assert not _is_known_between_pixels(psf)


class PsfexStandIn(PSFExWrapper):
    """A Gaussian of a FWHM of 1.6 pixels that says it is of PSFEx."""

    def __init__(self, step: float) -> None:
        self._gaussian = gaussian_psf(1.6)
        self._impl = SimpleNamespace(getSerializationData=lambda: SimpleNamespace(pixel_step=step))

    @property
    def bounds(self) -> Box:
        return BOUNDS

    @property
    def kernel_bbox(self) -> Box:
        return self._gaussian.kernel_bbox

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        return self._gaussian.compute_kernel_image(x=x, y=y)

    def compute_stellar_image(self, *, x: float, y: float) -> Image:
        return self._gaussian.compute_stellar_image(x=x, y=y)


def test_psfex_is_drawn_between_pixels_where_its_step_is_small() -> None:
    """If it fails, PSFEx at the scale of pixels is believed between them, or
    one that is finer is refused.
    """
    np.testing.assert_array_equal(stamp_of(PsfexStandIn(0.5), 2.0), stamp_of(gaussian_psf(1.6), 2.0))
    with pytest.raises(InputError, match="known only at pixels"):
        stamp_of(PsfexStandIn(1.0), 2.0)


def test_its_exposure_is_dropped_with_the_reason() -> None:
    """If it fails, nobody is told which exposure is missing, and why."""
    shape = (200, 300)
    sky_map = refine_sky_map(make_patch_geometry(), 2, "finer")
    changes: tuple[dict[str, Any], ...] = ({}, {"psf": grid_psf(1.0)})
    visits = [
        make_visit_image(np.zeros(shape), make_projection(shape, visit=visit), fwhm=1.8, **some)
        for visit, some in enumerate(changes, 1)
    ]
    result = PrepareExposuresTask().run(visit_images=visits, geometry=sky_map.patch(3, 0))
    assert len(result.source.cutouts) == 1
    ((name, reason),) = result.dropped.items()
    assert name == "TestCam visit 2, detector 0"
    assert reason.startswith("bad_psf: The PSF is known only at pixels and has a FWHM of 1.")


def test_well_sampled_psf_is_drawn_once() -> None:
    """If it fails, PSF models take nine times as long for nothing."""

    class Counting(GaussianPointSpreadFunction):
        drawn = 0

        def compute_stellar_image(self, *, x: float, y: float) -> Image:
            Counting.drawn += 1
            return super().compute_stellar_image(x=x, y=y)

    for fwhm, number in ((3.2, 0), (2.6, 9)):
        psf = Counting(fwhm_to_sigma(fwhm), bounds=BOUNDS, stamp_size=21)
        stamp_of(psf, 2.0)
        assert Counting.drawn == number
