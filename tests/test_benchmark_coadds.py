# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Baselines against stars and noise whose coadd is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from astroclearnet_benchmarks.baselines import (
    coadd_psf,
    inverse_variance_coadd,
    matching_kernel,
    psf_matched_coadd,
)

SHAPE = (96, 74)
Array = NDArray[np.float64]


def gaussian(fwhm: float, size: int = 31) -> Array:
    """Return a circular Gaussian of unit sum."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-4.0 * np.log(2.0) * (x**2 + y**2) / fwhm**2)
    return np.asarray(stamp / stamp.sum())


def moffat(fwhm: float, beta: float = 3.0, size: int = 41) -> Array:
    """Return a circular Moffat profile of unit sum."""
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = (1.0 + 4.0 * (2 ** (1 / beta) - 1) * (x**2 + y**2) / fwhm**2) ** -beta
    return np.asarray(stamp / stamp.sum())


def star(fwhm: float, x: float, y: float, flux: float, shape: tuple[int, int] = SHAPE) -> Array:
    """Return a Gaussian star evaluated from the formula."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    profile = np.exp(-4.0 * np.log(2.0) * ((xx - x) ** 2 + (yy - y) ** 2) / fwhm**2)
    return np.asarray(flux * profile * 4.0 * np.log(2.0) / (np.pi * fwhm**2))


def test_weights_are_constant_and_exact() -> None:
    """If it fails, the coadd is not the weighted mean it claims to be."""
    images = np.stack([np.full(SHAPE, 10.0), np.full(SHAPE, 20.0), np.full(SHAPE, 30.0)])
    variances = np.stack([np.full(SHAPE, v) for v in (1.0, 2.0, 4.0)])
    variances[0, 5, 7] = 100.0
    good = np.ones(images.shape, dtype=bool)
    good[2, :10] = False
    good[:, 40, 30] = False
    images[1, 60, 20] = np.nan
    coadd = inverse_variance_coadd(images, variances, good)
    # Weights 4 : 2 : 1, whatever the variance of one pixel is.
    assert coadd.image[50, 50] == pytest.approx((40 + 40 + 30) / 7)
    assert coadd.variance[50, 50] == pytest.approx((16 * 1 + 4 * 2 + 1 * 4) / 49)
    assert coadd.image[5, 7] == pytest.approx((40 + 40) / 6)
    assert coadd.variance[5, 7] == pytest.approx((16 * 100 + 4 * 2) / 36)
    assert coadd.image[60, 20] == pytest.approx((40 + 30) / 5)
    assert np.isnan(coadd.image[40, 30])
    assert np.isnan(coadd.variance[40, 30])
    assert np.count_nonzero(np.isnan(coadd.image)) == 1
    np.testing.assert_allclose(coadd.weights.sum(axis=0), np.where(np.isnan(coadd.image), 0.0, 1.0))
    assert coadd.num_exposures[50, 50] == 3
    assert coadd.num_exposures[5, 7] == 2
    assert coadd.num_exposures[40, 30] == 0
    single = inverse_variance_coadd(images.astype(np.float32), variances.astype(np.float32), good)
    assert single.image.dtype == np.float32


def test_exposure_without_good_pixels() -> None:
    """If it fails, a fully masked exposure spoils the coadd."""
    images, variances = np.ones((2, *SHAPE)), np.ones((2, *SHAPE))
    good = np.ones(images.shape, dtype=bool)
    good[1] = False
    variances[1] = np.nan
    for coadd in (
        inverse_variance_coadd(images, variances, good),
        psf_matched_coadd(images, variances, good, np.stack([gaussian(3.0)] * 2), 4.0),
    ):
        np.testing.assert_allclose(coadd.image, 1.0)
        assert coadd.num_exposures.max() == 1


def test_photon_noise_does_not_bias_stars() -> None:
    """If it fails, the pixels' own variances have crept into the weights."""
    rng = np.random.default_rng(2)
    truth = star(4.0, 31.3, 60.2, 4000.0) + 20.0
    images = rng.poisson(truth, (200, *SHAPE)).astype(float)
    coadd = inverse_variance_coadd(images, np.maximum(images, 1.0), np.ones(images.shape, dtype=bool))
    pull = (coadd.image - truth) / np.sqrt(truth / 200)
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("matched", [False, True])
def test_propagated_variance_is_empirical(matched: bool) -> None:
    """If it fails, the variance plane is not the variance of the noise."""
    rng = np.random.default_rng(4)
    shape = (3, 260, 230)
    sigma = np.array([1.0, 2.0, 0.5])[:, None, None]
    good = rng.uniform(size=shape) > 0.02
    images = rng.normal(size=shape) * sigma
    variances = np.broadcast_to(sigma**2, shape)
    psfs = np.stack([gaussian(f) for f in (3.0, 4.0, 4.5)])
    if matched:
        coadd = psf_matched_coadd(images, variances, np.ones(shape, dtype=bool), psfs, 5.0)
    else:
        coadd = inverse_variance_coadd(images, variances, good)
    inner = np.s_[30:-30, 30:-30]
    pull = coadd.image[inner] / np.sqrt(coadd.variance[inner])
    assert np.nanvar(pull) == pytest.approx(1.0, abs=0.05)


def test_coadd_psf() -> None:
    """If it fails, the PSF of the coadd is not that of its stars."""
    psfs = np.stack([gaussian(3.0), gaussian(5.0)])
    images = np.stack([star(f, 40.0, 50.0, 100.0) for f in (3.0, 5.0)])
    variances = np.stack([np.full(SHAPE, 1.0), np.full(SHAPE, 3.0)])
    coadd = inverse_variance_coadd(images, variances, np.ones(images.shape, dtype=bool))
    psf = coadd_psf(psfs, coadd.weights)
    assert psf.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(coadd.image[35:66, 25:56], 100.0 * psf, atol=1e-3)
    np.testing.assert_allclose(psf, coadd_psf(psfs, np.array([3.0, 1.0])))
    with pytest.raises(ValueError, match=r"weights for n exposures; got \(2, 31, 31\)"):
        coadd_psf(psfs, np.ones(3))
    with pytest.raises(ValueError, match="without any exposure"):
        coadd_psf(psfs, np.zeros(2))


def test_matched_star_has_target_psf() -> None:
    """If it fails, matching changes flux, position or misses the target."""
    seeing = (3.0, 4.2, 5.0)
    images = np.stack([star(f, 33.4, 52.7, 5000.0) for f in seeing])
    good = np.ones(images.shape, dtype=bool)
    good[1, 45:48, 30:34] = False
    good[0, 53, 33] = False
    images[~good] = 1e5
    psfs = np.stack([gaussian(f) for f in seeing])
    coadd = psf_matched_coadd(images, np.ones(images.shape), good, psfs, 5.4)
    target = star(5.4, 33.4, 52.7, 5000.0)
    assert coadd.image.sum() == pytest.approx(5000.0, rel=1e-2)
    clean = psf_matched_coadd(
        np.stack([star(f, 33.4, 52.7, 5000.0) for f in seeing]),
        np.ones(images.shape),
        np.ones(images.shape, dtype=bool),
        psfs,
        5.4,
    )
    np.testing.assert_allclose(clean.image, target, atol=2e-3 * target.max())
    # The filling has the wrong seeing, but little weight.
    np.testing.assert_allclose(coadd.image, target, atol=0.01 * target.max())
    assert coadd.num_exposures[53, 33] == 2


def test_moffat_matched_to_gaussian() -> None:
    """If it fails, real PSF wings ring or leak after matching."""
    psf = moffat(3.5)
    image = np.zeros(SHAPE)
    image[30:71, 18:59] = 1000.0 * psf
    coadd = psf_matched_coadd(
        image[None], np.ones((1, *SHAPE)), np.ones((1, *SHAPE), dtype=bool), psf[None], 5.0
    )
    target = star(5.0, 38.0, 50.0, 1000.0)
    np.testing.assert_allclose(coadd.image, target, atol=3e-3 * target.max())


def test_hole_stays_a_hole() -> None:
    """If it fails, pixels that no exposure saw get invented values."""
    images = np.ones((2, *SHAPE))
    good = np.ones(images.shape, dtype=bool)
    good[:, 40:49, 20:29] = False
    psfs = np.stack([gaussian(3.0), gaussian(4.0)])
    coadd = psf_matched_coadd(images, np.ones(images.shape), good, psfs, 4.5)
    assert np.isnan(coadd.image[40:49, 20:29]).all()
    kept = np.isfinite(coadd.image)
    assert np.isfinite(coadd.image[:30]).all()
    np.testing.assert_allclose(coadd.image[kept], 1.0, atol=0.01)


def test_matching_kernel_conserves_flux() -> None:
    """If it fails, photometry differs between exposures of one scene."""
    transform = matching_kernel(moffat(4.0), 4.5, (64, 50))
    kernel = np.fft.irfft2(transform, s=(64, 50))
    assert kernel.sum() == pytest.approx(1.0)
    assert np.argmax(kernel) == 0


def test_refusals() -> None:
    """If it fails, wrong shapes are silently broadcast."""
    planes = np.ones((2, *SHAPE))
    good = np.ones(planes.shape, dtype=bool)
    with pytest.raises(ValueError, match="must share one shape"):
        inverse_variance_coadd(planes, planes[:1], good)
    with pytest.raises(ValueError, match="Got 1 PSF stamps for 2 exposures"):
        psf_matched_coadd(planes, planes, good, gaussian(3.0)[None], 4.0)
    with pytest.raises(ValueError, match="square with an odd size"):
        psf_matched_coadd(planes, planes, good, np.ones((2, 8, 8)), 4.0)
    with pytest.raises(ValueError, match=r"positive FWHM; got 1\.0\d* and -1\.0"):
        matching_kernel(np.eye(3) / 3.0, -1.0, (9, 9))
