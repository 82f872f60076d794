# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Baseline restorers against stars whose restored image is known."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from astroclearnet_benchmarks.baselines import (
    DeepImagePrior,
    ImageMM,
    InverseVarianceCoadd,
    PsfMatchedCoadd,
    PublishedAstroClearNet,
    Restoration,
    Restorer,
    RichardsonLucy,
    WienerFilter,
)
from astroclearnet_benchmarks.baselines._point_model import PointModel
from lsst.astroclearnet.core import InputError, NoUsableDataError
from lsst.astroclearnet.tests import ExposureArrays, gaussian_stars, make_exposure_arrays

TARGET = 3.4
SHAPE = (46, 60)
BRIGHT = (17.0, 36.0, 20000.0)
STARS = (BRIGHT, (33.4, 14.7, 3000.0))
FWHMS = (3.2, 4.2, 3.7)

LINEAR: tuple[Restorer, ...] = (
    InverseVarianceCoadd(),
    PsfMatchedCoadd(),
    WienerFilter(),
    WienerFilter(robust=True),
)
ITERATIVE: tuple[Restorer, ...] = (RichardsonLucy(stops=(20, 100)), ImageMM(stops=(20, 100)))
NETWORKS: tuple[Restorer, ...] = (DeepImagePrior(stops=(3, 6)), PublishedAstroClearNet(stops=(3, 6)))


def name_of(value: object) -> str:
    """Return the part of the name of a test that a parameter gives."""
    return str(value) if isinstance(value, float) else type(value).__name__


every_restorer = pytest.mark.parametrize("restorer", LINEAR + ITERATIVE + NETWORKS, ids=name_of)
every_non_negative = pytest.mark.parametrize("restorer", ITERATIVE + NETWORKS, ids=name_of)


def make_arrays(**options: object) -> ExposureArrays:
    """Return three exposures of two stars."""
    return make_exposure_arrays(SHAPE, FWHMS, stars=STARS, psf_size=21, **options)  # type: ignore[arg-type]


def last(restorer: Restorer, arrays: ExposureArrays, seed: int = 0) -> Restoration:
    """Return the last image of a restorer."""
    return list(restorer.restore(*arrays, target_fwhm=TARGET, seed=seed))[-1]


def flux_near(image: NDArray[np.floating], y: float, x: float, radius: float = 9.0) -> float:
    """Return the sum of an image in an aperture."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float(image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2].sum())


@pytest.mark.parametrize(
    ("restorer", "tolerance"),
    [
        (InverseVarianceCoadd(), 0.01),
        (PsfMatchedCoadd(), 0.01),
        (WienerFilter(), 0.01),
        (WienerFilter(robust=True), 0.01),
        (RichardsonLucy(stops=(100,)), 0.02),
        (ImageMM(stops=(400,)), 0.03),
        pytest.param(DeepImagePrior(stops=(100,)), 0.1, marks=pytest.mark.slow),
        (PublishedAstroClearNet(stops=(100,)), 0.05),
    ],
    ids=name_of,
)
def test_flux_of_a_bright_star(restorer: Restorer, tolerance: float) -> None:
    """If it fails, the method loses or invents light, or puts it elsewhere."""
    image = last(restorer, make_arrays()).image
    assert image.shape == SHAPE
    assert image[17, 36] == image.max()
    assert flux_near(image, *BRIGHT[:2]) == pytest.approx(BRIGHT[2], rel=tolerance)


@pytest.mark.parametrize("restorer", [PsfMatchedCoadd(), WienerFilter(penalty_weight=1e-5)], ids=name_of)
def test_linear_methods_reach_the_target(restorer: Restorer) -> None:
    """If it fails, the image does not have the PSF that it declares."""
    restoration = last(restorer, make_arrays(seed=None))
    expected = gaussian_stars(SHAPE, STARS, TARGET)
    assert restoration.fwhm == TARGET
    np.testing.assert_allclose(restoration.image, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("restorer", [RichardsonLucy(stops=(400,)), ImageMM(stops=(1600,))], ids=name_of)
def test_iteration_converges_for_a_star_on_a_pixel(restorer: Restorer) -> None:
    """If it fails, the operators or weights of an update are wrong: a point
    at a pixel centre without noise is restored exactly in the end.
    """
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=(BRIGHT,), psf_size=21, seed=None)
    expected = gaussian_stars(SHAPE, (BRIGHT,), TARGET)
    np.testing.assert_allclose(last(restorer, arrays).image, expected, atol=0.02 * expected.max())


def test_coadd_declares_its_own_width_and_variance() -> None:
    """If it fails, the coadd is judged at a PSF that it does not have, or by
    noise that is not its own.
    """
    arrays = make_arrays(sigmas=(1.0, 2.0, 3.0))
    restoration = last(InverseVarianceCoadd(), arrays)
    assert restoration.fwhm == pytest.approx(3.45, abs=0.1)
    assert restoration.variance is not None
    np.testing.assert_allclose(restoration.variance, 1.0 / (1.0 + 1.0 / 4.0 + 1.0 / 9.0), rtol=1e-6)


def test_wiener_variance_is_that_of_its_noise() -> None:
    """If it fails, the error bars of the linear filter mean nothing."""
    arrays = make_exposure_arrays((120, 140), FWHMS, stars=(), sigmas=(1.0, 2.0, 1.5), psf_size=21)
    restoration = last(WienerFilter(), arrays)
    assert restoration.variance is not None
    inner = (slice(20, -20), slice(20, -20))
    pull = restoration.image[inner] / np.sqrt(restoration.variance[inner])
    # About 10^4 pixels correlated over 3x3 of them.
    assert pull.std() == pytest.approx(1.0, abs=0.07)


def test_psf_residual_chooses_the_penalty_weight() -> None:
    """If it fails, the linear filter is compared at another resolution than
    the one it was to have.
    """
    arrays = make_arrays(seed=None)
    expected = gaussian_stars(SHAPE, STARS, TARGET)
    for residual in (2e-2, 4e-3):
        image = last(WienerFilter(max_psf_residual=residual), arrays).image
        reached = np.abs(image - expected).max() / expected.max()
        assert 0.7 * residual < reached < 1.1 * residual


def test_robust_filter_resists_a_cosmic_ray() -> None:
    """If it fails, the robust weights do nothing."""
    arrays = make_arrays()
    arrays.images[1, 25, 50] += 300.0
    plain, robust = (last(WienerFilter(robust=value), arrays).image for value in (False, True))
    clean = last(WienerFilter(), make_arrays()).image
    assert abs(robust - clean)[25, 50] < 0.2 * abs(plain - clean)[25, 50]


def test_huber_weights_resist_a_cosmic_ray() -> None:
    """If it fails, ImageMM is not robust."""
    arrays = make_arrays()
    arrays.images[1, 25, 50] += 300.0
    image, threshold_free = (last(ImageMM(stops=(50,), delta=d), arrays).image for d in (2.0, 1e6))
    assert image[25, 50] < 0.2 * threshold_free[25, 50]


@every_non_negative
def test_images_are_not_negative(restorer: Restorer) -> None:
    """If it fails, the method does not hold what it is declared to hold."""
    image = last(restorer, make_arrays()).image
    # Rounding of the last convolution.
    assert image.min() > -1e-5 * image.max()


@every_restorer
def test_masked_pixels_have_no_effect(restorer: Restorer) -> None:
    """If it fails, what is masked leaks into the image."""
    first, second = make_arrays(), make_arrays()
    for arrays in (first, second):
        arrays.good[1, 10:14, 30:37] = False
        arrays.good[:, 30:33, 40:42] = False
    first.images[~first.good] = 1e6
    first.variances[~first.good] = 1e-3
    second.images[~second.good] = np.nan
    second.variances[~second.good] = 0.0
    one, other = last(restorer, first), last(restorer, second)
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.variance, other.variance)  # type: ignore[arg-type]
    seen = first.good.any(axis=0)
    if isinstance(restorer, PsfMatchedCoadd):
        # The masks of all exposures grow by about the kernel.
        seen[20:43, 30:52] = False
    assert np.isfinite(one.image[seen]).all()


@every_restorer
def test_pixels_not_finite_are_masked(restorer: Restorer) -> None:
    """If it fails, one NaN in a plane spoils the patch."""
    arrays = make_arrays()
    arrays.images[0, 12, 40] = np.nan
    arrays.variances[2, 30, 20] = np.inf
    assert np.isfinite(last(restorer, arrays).image).all()


@pytest.mark.parametrize("restorer", ITERATIVE + NETWORKS, ids=name_of)
def test_no_data_is_nan(restorer: Restorer) -> None:
    """If it fails, a region without any data looks like empty sky."""
    arrays = make_arrays()
    arrays.good[:, :, 40:] = False
    image = last(restorer, arrays).image
    assert np.isfinite(image[:, :40]).all()
    assert np.isnan(image[:, 55:]).all()


@pytest.mark.parametrize("restorer", ITERATIVE + NETWORKS, ids=name_of)
def test_stops_come_in_order(restorer: Restorer) -> None:
    """If it fails, a stop is not the iteration that it says it is."""
    restorations = list(restorer.restore(*make_arrays(), target_fwhm=TARGET))
    assert [r.iteration for r in restorations] == list(restorer.stops)  # type: ignore[attr-defined]
    assert all(r.fwhm == TARGET and r.variance is None for r in restorations)
    early = last(type(restorer)(stops=restorer.stops[:1]), make_arrays())  # type: ignore[attr-defined,call-arg]
    np.testing.assert_array_equal(early.image, restorations[0].image)
    assert not np.array_equal(restorations[0].image, restorations[1].image)


@pytest.mark.parametrize("restorer", NETWORKS, ids=name_of)
def test_seed_decides_the_image(restorer: Restorer) -> None:
    """If it fails, a restoration cannot be repeated, or disturbs the random
    numbers of others.
    """
    arrays = make_arrays()
    state = torch.get_rng_state()
    first, again, other = (last(restorer, arrays, seed).image for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@every_restorer
def test_unit_of_the_exposures_carries_over(restorer: Restorer) -> None:
    """If it fails, the result depends on the unit of the exposures."""
    arrays = make_arrays()
    scaled = arrays._replace(images=arrays.images * 64.0, variances=arrays.variances * 64.0**2)
    one, other = last(restorer, arrays).image, last(restorer, scaled).image
    np.testing.assert_allclose(other / 64.0, one, atol=1e-3 * abs(one).max())


def test_light_from_outside_is_allowed() -> None:
    """If it fails, a star beyond the border makes light pile up within."""
    star = (20.0, -2.0, 20000.0)
    arrays = make_exposure_arrays(SHAPE, FWHMS, stars=(star,), psf_size=21, seed=None)
    expected = gaussian_stars(SHAPE, (star,), TARGET)
    image = last(RichardsonLucy(stops=(400,)), arrays).image
    np.testing.assert_allclose(image, expected, atol=0.05 * expected.max())


def test_adjoint_is_the_adjoint() -> None:
    """If it fails, the updates do not follow the gradient."""
    arrays = make_arrays()
    model = PointModel(torch.from_numpy(arrays.psfs)[:, None, None], SHAPE, TARGET)
    rng = np.random.default_rng(1)
    latent = torch.from_numpy(rng.normal(size=model.latent_shape)).float()
    images = torch.from_numpy(rng.normal(size=arrays.images.shape)).float()
    forward = float((model.predict(latent) * images).sum())
    backward = float((latent * model.adjoint(images)).sum())
    assert forward == pytest.approx(backward, rel=1e-4)


def test_prediction_is_the_convolution() -> None:
    """If it fails, the model shifts, flips or wraps the sky."""
    psf = torch.from_numpy(np.random.default_rng(2).random((1, 1, 1, 5, 5)))
    model = PointModel(psf, (13, 18), TARGET)
    latent = torch.zeros(model.latent_shape)
    latent[model.sampling.grid.margin + 4, model.sampling.grid.margin + 16] = 1.0
    expected = np.zeros((13, 18))
    expected[2:7, 14:18] = psf[0, 0, 0, :, :4]
    np.testing.assert_allclose(model.predict(latent)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("method", [RichardsonLucy, ImageMM, DeepImagePrior, PublishedAstroClearNet])
@pytest.mark.parametrize("stops", [(), (0, 3), (5, 5), (8, 4)], ids=str)
def test_wrong_stops_raise(method: type[RichardsonLucy], stops: tuple[int, ...]) -> None:
    """If it fails, a method runs without ever handing over an image."""
    with pytest.raises(InputError, match="rising order"):
        method(stops=stops)


def test_wrong_options_raise() -> None:
    """If it fails, options that cannot be meant give an image all the same."""
    with pytest.raises(InputError, match=r"penalty_weight=0\.0 must be positive"):
        WienerFilter(penalty_weight=0.0)
    with pytest.raises(InputError, match=r"max_psf_residual=0\.0 must be positive"):
        WienerFilter(max_psf_residual=0.0)
    with pytest.raises(InputError, match=r"pedestal=-1\.0 must be positive"):
        RichardsonLucy(pedestal=-1.0)
    with pytest.raises(InputError, match=r"kappa=1\.0 must be above 1"):
        ImageMM(kappa=1.0)
    with pytest.raises(InputError, match="delta=0 must be positive"):
        ImageMM(delta=0)
    with pytest.raises(InputError, match=r"learning_rate=0\.0 must be positive"):
        DeepImagePrior(learning_rate=0.0)
    with pytest.raises(InputError, match="branches=0 must be positive"):
        PublishedAstroClearNet(branches=0)
    with pytest.raises(InputError, match="kernel_size=8 must be odd"):
        PublishedAstroClearNet(kernel_size=8)
    with pytest.raises(FrozenInstanceError, match="penalty_weight"):
        WienerFilter().penalty_weight = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("restorer", [WienerFilter(), *ITERATIVE, *NETWORKS], ids=name_of)
def test_wrong_arrays_raise(restorer: Restorer) -> None:
    """If it fails, arrays that do not fit give an image all the same."""
    arrays = make_arrays()
    with pytest.raises(InputError, match="variances has shape"):
        last(restorer, arrays._replace(variances=arrays.variances[1:]))
    with pytest.raises(NoUsableDataError, match="usable"):
        last(restorer, arrays._replace(good=np.zeros_like(arrays.good)))
    with pytest.raises(InputError, match="target_fwhm=-1"):
        list(restorer.restore(*arrays, target_fwhm=-1.0))


@pytest.mark.parametrize("restorer", ITERATIVE + NETWORKS, ids=name_of)
def test_varying_psfs_raise(restorer: Restorer) -> None:
    """If it fails, all but one cell of a varying PSF are dropped."""
    arrays = make_arrays()
    cells = np.broadcast_to(arrays.psfs[:, None, None], (3, 2, 2, 21, 21)).copy()
    with pytest.raises(InputError, match="one PSF for each exposure"):
        last(restorer, arrays._replace(psfs=cells))
