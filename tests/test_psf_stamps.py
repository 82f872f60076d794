# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF stamps whose light is not where it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import galsim
import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import fourier_shift

from lsst.astroclearnet.core import InputError, find_psf_fault, restore
from lsst.astroclearnet.tasks import PrepareExposuresTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.images import Box, Image
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.images.serialization import read_archive
from lsst.resources import ResourcePath

SIZE = 25
SHAPE = (100, 130)


def gaussian(fwhm: float, dy: float = 0.0, dx: float = 0.0, size: int = SIZE) -> np.ndarray:
    """Return a Gaussian that is off by some pixels."""
    r = np.arange(size) - size // 2
    sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
    kernel = np.exp(-0.5 * ((r[:, None] - dy) ** 2 + (r - dx) ** 2) / sigma**2)
    return np.asarray(kernel / kernel.sum())


def shift(stamp: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """Shift an image, exactly as far as its frequencies go."""
    padded = np.pad(stamp, 8)
    moved = np.fft.ifftn(fourier_shift(np.fft.fftn(padded), (dy, dx))).real
    return np.asarray(moved[8:-8, 8:-8])


def first_moments(stamp: np.ndarray) -> np.ndarray:
    """Return the centre of all light, from the middle pixel."""
    r = np.arange(len(stamp)) - len(stamp) // 2
    return np.array([stamp.sum(axis=1) @ r, stamp.sum(axis=0) @ r]) / stamp.sum()


def half_cut(stamp: np.ndarray) -> np.ndarray:
    """Return a stamp of which one side is lost."""
    cut = stamp.copy()
    cut[:, SIZE // 2 + 1 :] = 0.0
    return cut


FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "peak in the corner": (np.fft.ifftshift, "numpy.fft.fftshift"),
    "peak at the edge": (lambda k: np.roll(k, SIZE // 2, axis=0), "edge of its stamp"),
    "peak elsewhere": (lambda k: np.roll(k, (5, -3), axis=(0, 1)), r"y \+5.00, x -3.00"),
    "one pixel off": (lambda k: np.roll(k, 1, axis=1), r"y [+-]0.00, x \+1.00"),
    "half a pixel off": (lambda k: shift(k, 0.5, 0.5), "0.71 pixels off.*even number"),
    "half a pixel off along y": (lambda k: shift(k, -0.5, 0.0), r"0.50 pixels off \(y -0.50"),
    "a third of a pixel off": (lambda k: shift(k, 0.0, 0.33), "0.33 pixels off"),
    "padded stamp of even size": (
        lambda k: np.pad(gaussian(3.6, 0.5, 0.5, 23)[:-1, :-1], ((1, 2), (1, 2))),
        "off",
    ),
    "background": (lambda k: k + 0.2 / k.size, "17% of its light.*background"),
    "cut far inside": (lambda k: np.pad(k[10:15, 10:15], 10), "larger stamp"),
    "one side lost": (half_cut, "not in the middle"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("fwhm", [2.5, 3.6, 5.0])
def test_light_that_is_not_in_the_middle_is_refused(name: str, fwhm: float) -> None:
    """If it fails, all sources of a coadd are moved, or have no flux, in
    silence.
    """
    change, words = FAULTS[name]
    stamp = change(gaussian(fwhm))
    fault = find_psf_fault(stamp)
    assert fault
    if fwhm == 3.6:
        assert re.search(words, fault), fault
    # Whatever its sum, and however many good ones are beside it.
    stamps = np.broadcast_to(gaussian(fwhm), (3, 2, SIZE, SIZE)).copy()
    assert not find_psf_fault(stamps)
    stamps[2, 0] = 1e3 * stamp
    assert find_psf_fault(stamps)


@pytest.mark.parametrize("fwhm", [1.2, 2.0, 3.6, 6.0, 9.0])
def test_centred_stamps_are_taken(fwhm: float) -> None:
    """If it fails, exposures are lost that have nothing wrong."""
    assert not find_psf_fault(gaussian(fwhm))
    # Real models are off by a few hundredths of a pixel.
    for angle in np.linspace(0.0, 2.0 * np.pi, 7):
        assert not find_psf_fault(gaussian(fwhm, 0.05 * np.sin(angle), 0.05 * np.cos(angle)))


def test_pixel_alone_is_a_stamp() -> None:
    """If it fails, arrays whose pixels are the PSF are refused."""
    assert not find_psf_fault(np.ones((1, 1)))
    assert not find_psf_fault(np.pad(np.ones((1, 1)), 1))


@pytest.mark.parametrize("seeing", [0.45, 0.7, 1.1])
@pytest.mark.parametrize(
    "aberrations",
    [{"coma1": 1.0}, {"trefoil1": 1.0}, {"defocus": 3.0}, {"defocus": 1.5, "coma1": 0.5}, {"astig1": 1.0}],
    ids=str,
)
def test_asymmetric_psfs_are_taken(aberrations: dict[str, float], seeing: float) -> None:
    """If it fails, exposures are lost because the telescope has aberrations.

    In waves; one is what no telescope leaves uncorrected.
    """
    optics = galsim.OpticalPSF(lam=750.0, diam=8.4, obscuration=0.61, **aberrations)
    psf = galsim.Convolve(galsim.Kolmogorov(fwhm=seeing), optics)
    wide = psf.drawImage(nx=101, ny=101, scale=0.2).array.astype(float)
    dy, dx = 0.2 * first_moments(wide)
    stamp = psf.shift(-dx, -dy).drawImage(nx=41, ny=41, scale=0.2).array.astype(float)
    assert not find_psf_fault(stamp)
    assert find_psf_fault(shift(stamp, 0.5, 0.5))


@pytest.fixture(scope="module")
def real_psfs(shared_data: Path) -> dict[str, np.ndarray]:
    """Real PSF models, by a name."""
    psfs: dict[str, np.ndarray] = {}
    paths = [*shared_data.glob("decam/*.fits"), *shared_data.glob("rubin/visit_image-*.json")]
    assert paths
    for path in paths:
        content = read_archive(ResourcePath(str(path)))
        image = getattr(content, "deserialized", content)
        box = image.psf.bounds.bbox
        psfs[path.stem] = image.psf.compute_kernel_image(x=box.x.center, y=box.y.center).array
    for name, stamps in (
        ("night", np.load(shared_data / "decam_night" / "night.npz")["psfs"]),
        ("hsc", np.load(shared_data / "hsc" / "hsc_cosmos_35.npz")["psfs"]),
    ):
        psfs.update({f"{name} {n}": np.asarray(stamp, dtype=float) for n, stamp in enumerate(stamps)})
    return psfs


def test_real_psfs_are_taken(real_psfs: dict[str, np.ndarray]) -> None:
    """If it fails, real exposures are lost."""
    assert len(real_psfs) > 20
    assert {name: fault for name, psf in real_psfs.items() if (fault := find_psf_fault(psf))} == {}


def test_real_psfs_off_by_half_a_pixel_are_refused(real_psfs: dict[str, np.ndarray]) -> None:
    """If it fails, the check sees analytic PSFs alone."""
    moved = {name: shift(psf, 0.5, 0.5) for name, psf in real_psfs.items()}
    assert [name for name, psf in moved.items() if not find_psf_fault(psf)] == []


def test_real_stamps_that_are_off_can_be_centred(shared_data: Path) -> None:
    """If it fails, the advice of the message does not help."""
    for stamp in fits.getdata(shared_data / "hsc" / "PSF_HSC.fits").astype(float):
        # Images of a star between pixels, and not of the model around one.
        assert "0.3" in find_psf_fault(stamp)
        assert not find_psf_fault(shift(stamp, 0.31, -0.14))


def restore_noise(psfs: np.ndarray) -> None:
    """Restore noise of three exposures with these PSFs."""
    images = np.random.default_rng(2).normal(size=(3, 32, 32))
    restore(images, np.ones(images.shape), np.ones(images.shape, dtype=bool), psfs, target_fwhm=3.6)


@pytest.mark.parametrize("name", ["peak in the corner", "half a pixel off", "background"])
def test_arrays_with_such_a_psf_are_refused(name: str) -> None:
    """If it fails, the coadd is wrong by what was called a check."""
    good, wrong = gaussian(3.6), FAULTS[name][0](gaussian(3.6))
    with pytest.raises(InputError, match="with n=3"):
        restore_noise(good[None])
    with pytest.raises(InputError, match="The PSF of exposure 0 "):
        restore_noise(np.stack([wrong] * 3))
    with pytest.raises(InputError, match="The PSF of exposure 1 ") as caught:
        restore_noise(np.stack([good, wrong, good]))
    assert caught.value.diagnostics == {"exposure": 1}
    cells = np.broadcast_to(good, (3, 2, 2, SIZE, SIZE)).copy()
    cells[2, 1, 0] = wrong
    with pytest.raises(InputError, match="The PSF of exposure 2 "):
        restore_noise(cells)


class MovedPsf(GaussianPointSpreadFunction):
    """A PSF that goes off the middle of its stamp beyond some column."""

    def __init__(self, beyond: float) -> None:
        super().__init__(1.53, bounds=Box.from_shape(SHAPE), stamp_size=SIZE)
        self._beyond = beyond

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        off = 0.5 if x > self._beyond else 0.0
        return Image(gaussian(3.6, off, 0.0), bbox=self.kernel_bbox)


def test_visit_image_with_such_a_psf_is_dropped() -> None:
    """If it fails, one exposure moves its share of the light."""
    geometry = make_patch_geometry(cells=(1, 1), cell_shape=(24, 24)).patch(3, 0)
    images = [
        make_visit_image(
            np.ones(SHAPE), make_projection(SHAPE, offset=(0.0, 12.0), visit=visit), psf=MovedPsf(beyond)
        )
        for visit, beyond in ((1, np.inf), (2, -np.inf))
    ]
    result = PrepareExposuresTask().run(visit_images=images, geometry=geometry)
    assert [cutout.identity.visit for cutout in result.source.cutouts] == [1]
    ((name, reason),) = result.dropped.items()
    assert name == "TestCam visit 2, detector 0"
    assert reason.startswith("bad_psf: The PSF is not in the middle of its stamp but 0.50 pixels off")
