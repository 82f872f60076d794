# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The whole restoration of simulated exposures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import (
    InputError,
    ModelOptions,
    NoiseOptions,
    NoUsableDataError,
    RestoreOptions,
    StackResult,
    fwhm_to_sigma,
    load_packaged_model,
)
from lsst.astroclearnet.tests import (
    FWHMS,
    QUICK,
    SHAPE,
    SIGMAS,
    STARS,
    TARGET,
    ExposureArrays,
    gaussian_stars,
    make_exposure_arrays,
    make_scene,
    psf_flux,
    restore_on_cpu,
)

# Sky noise of the inverse-variance coadd.
COADD_SIGMA = 1.0 / math.sqrt(sum(s**-2 for s in SIGMAS))


@pytest.fixture(scope="module")
def result() -> StackResult:
    """Return a restoration with the default settings."""
    return restore_on_cpu(make_scene())


@pytest.fixture(scope="module")
def quick() -> StackResult:
    """Return a restoration with the settings of the quick tests."""
    return restore_on_cpu(make_scene(), QUICK)


def test_shapes_and_types(result: StackResult) -> None:
    """If it fails, the coadd cannot be written."""
    for plane in (
        result.image,
        result.variance,
        result.linear_image,
        result.linear_variance,
        result.residual,
    ):
        assert plane.shape == SHAPE
        assert plane.dtype == np.float32
        assert np.isfinite(plane).all()
    assert result.mask.shape == SHAPE
    assert result.mask.dtype == np.uint8
    assert result.rejected.shape == (4, *SHAPE)
    assert result.rejected.dtype == np.bool_
    assert result.weights.shape == (4, *SHAPE)
    assert result.weights.dtype == np.float32
    for errors in (result.noise_realizations, result.linear_noise_realizations):
        assert errors.shape == (NoiseOptions().num_realizations, *SHAPE)
        assert errors.dtype == np.float32
    for figures in (result.chi_square, result.psf_width_error, result.psf_width_sigma):
        assert figures.shape == (4,)
        # An error is infinite where nothing was bright enough to measure.
        assert not np.isnan(figures).any()
    assert result.flux_error.shape == result.flux_sigma.shape == (4,)
    assert result.shift.shape == result.shift_sigma.shape == (4, 2)
    assert result.background.shape == result.background_sigma.shape == (4, 3)
    assert result.dropped == {}
    assert result.target_fwhm == TARGET
    assert result.device == "cpu"
    assert result.network == load_packaged_model().identity
    assert (result.variance > 0).all()
    assert (result.linear_variance > 0).all()
    assert not result.mask.any()


def test_fit_converges() -> None:
    """If it fails, the defaults of a fit do not suit simple exposures."""
    result = restore_on_cpu(make_scene(), RestoreOptions(model=ModelOptions(source="fit")))
    assert result.network == "fit"
    assert result.history.converged
    assert 0 < result.num_parameters < 10_000
    y, x, flux = STARS[0]
    assert psf_flux(result.image, y, x) == pytest.approx(flux, rel=0.03)


def test_fluxes(result: StackResult) -> None:
    """If it fails, photometry on the coadd is biased."""
    # PSF photometry on all exposures together reaches
    # sigma_F^-2 = sum of 1 / (4 pi s^2 sigma^2).
    information = sum(
        1.0 / (4.0 * math.pi * (fwhm_to_sigma(f) * s) ** 2) for f, s in zip(FWHMS, SIGMAS, strict=True)
    )
    for y, x, flux in STARS:
        error = math.hypot(1.0 / math.sqrt(information), 0.002 * flux)
        assert abs(psf_flux(result.image, y, x) - flux) < 3.0 * error


def test_width_of_stars_is_the_target() -> None:
    """If it fails, the PSF written with the coadd is wrong."""
    result = restore_on_cpu(make_scene(stars=[(31.3, 38.7, 30000.0)]), QUICK)
    # Compare with templates around the target: the best must be at it.
    widths = np.arange(0.9, 1.1001, 0.01) * TARGET
    stamp = (slice(25, 38), slice(32, 46))
    image = result.image.astype(float)
    misfits = []
    for fwhm in widths:
        template = gaussian_stars(SHAPE, [(31.3, 38.7, 1.0)], float(fwhm))[stamp]
        scale = (image[stamp] * template).sum() / (template**2).sum()
        misfits.append(float(((image[stamp] - scale * template) ** 2).sum()))
    assert widths[int(np.argmin(misfits))] == pytest.approx(TARGET, rel=0.0101)


def test_noise_is_below_that_of_the_coadd(result: StackResult) -> None:
    """If it fails, one could as well have coadded."""
    sky = gaussian_stars(SHAPE, STARS, 6.0) < 1e-4
    assert 0.0 < result.image[sky].std() < 0.5 * COADD_SIGMA
    assert abs(result.image[sky].mean()) < 0.15 * COADD_SIGMA


def test_variance_is_the_squared_error() -> None:
    """If it fails, catalogues from the coadd have wrong errors."""
    truth = gaussian_stars(SHAPE, STARS, TARGET)
    sky = gaussian_stars(SHAPE, STARS, 6.0) < 1e-4
    ratios = []
    for seed in range(2):
        result = restore_on_cpu(make_scene(seed=seed), QUICK)
        error = (result.image - truth)[sky]
        ratios.append((error**2).mean() / result.variance[sky].mean())
    # Few independent pixels: the blank sky is smooth over many.
    assert 0.4 < np.mean(ratios) < 2.0


def test_chi_square_is_one(result: StackResult) -> None:
    """If it fails, the quality figure raises false alarms."""
    # 5280 pixels an exposure: a scatter of sqrt(2 / 5280) = 0.02.
    np.testing.assert_allclose(result.chi_square, 1.0, atol=0.1)


def test_residual_is_unit_noise(result: StackResult) -> None:
    """If it fails, structure is left in the exposures."""
    assert result.residual.std() == pytest.approx(1.0, abs=0.1)
    assert abs(result.residual.mean()) < 0.15
    assert np.abs(result.residual).max() < 6.0


def test_weights_are_inverse_variances(result: StackResult) -> None:
    """If it fails, the provenance of the coadd is wrong."""
    for weight, sigma in zip(result.weights, SIGMAS, strict=True):
        np.testing.assert_allclose(weight, sigma**-2, rtol=0.05)


def test_noise_realizations(result: StackResult) -> None:
    """If it fails, correlated noise cannot be assessed on the coadd."""
    for errors, variance in (
        (result.noise_realizations, result.variance),
        (result.linear_noise_realizations, result.linear_variance),
    ):
        pulls = errors / np.sqrt(variance)
        assert 0.8 < pulls.std() < 1.2
        assert np.abs(pulls.mean()) < 0.3


def test_given_noise_is_used() -> None:
    """If it fails, correlations by resampling are ignored."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 4, *SHAPE)) * np.array(SIGMAS)[:, None, None]
    louder = restore_on_cpu(make_scene(), QUICK, noise=3.0 * noise)
    normal = restore_on_cpu(make_scene(), QUICK, noise=torch.from_numpy(noise))
    assert normal.noise_realizations.shape == (1, *SHAPE)
    np.testing.assert_array_equal(louder.image, normal.image)
    np.testing.assert_array_equal(louder.linear_image, normal.linear_image)
    # Within its residual the linear image keeps what the network makes of
    # noise that it was not fitted to.
    assert np.median(louder.linear_variance / normal.linear_variance) == pytest.approx(9.0, rel=0.06)
    assert (louder.variance > normal.variance).mean() > 0.95
    with pytest.raises(InputError, match=r"noise must have shape .*\(4, 66, 80\).* not \(2, 4, 66, 79\)"):
        restore_on_cpu(make_scene(), QUICK, noise=noise[..., 1:])
    with pytest.raises(InputError, match=r"with k at least 1, not \(0, 4, 66, 80\)"):
        restore_on_cpu(make_scene(), QUICK, noise=noise[:0])


def test_given_noise_follows_its_exposure() -> None:
    """If it fails, the noise of one exposure is taken for that of another."""
    noise = np.random.default_rng(2).normal(size=(1, 4, *SHAPE)) * np.array(SIGMAS)[:, None, None]
    order = [2, 0, 3, 1]
    arrays = make_scene()
    first = restore_on_cpu(arrays, QUICK, noise=noise)
    second = restore_on_cpu(ExposureArrays(*(array[order] for array in arrays)), QUICK, noise=noise[:, order])
    np.testing.assert_array_equal(second.linear_noise_realizations, first.linear_noise_realizations)


def test_without_noise_realizations() -> None:
    """If it fails, the quickest settings do not run."""
    options = dataclasses.replace(QUICK, noise=NoiseOptions(num_draws=1, num_realizations=0))
    result = restore_on_cpu(make_scene(), options)
    assert result.noise_realizations.shape == (0, *SHAPE)
    assert result.linear_noise_realizations.shape == (0, *SHAPE)
    np.testing.assert_allclose(result.chi_square, 1.0, atol=0.15)


def test_same_seed_same_image(quick: StackResult) -> None:
    """If it fails, a coadd cannot be reproduced."""
    again = restore_on_cpu(make_scene(), QUICK)
    for field in dataclasses.fields(again):
        first, second = (getattr(one, field.name) for one in (quick, again))
        if isinstance(first, np.ndarray):
            np.testing.assert_array_equal(second, first, err_msg=field.name)
    assert again.history == quick.history
    region = (slice(10, 40), slice(20, 60))
    np.testing.assert_array_equal(
        again.linear_noise.correlation(*region), quick.linear_noise.correlation(*region)
    )


def test_other_seed_same_image(result: StackResult) -> None:
    """If it fails, the result is a matter of luck."""
    other = restore_on_cpu(make_scene(), seed=11)
    assert np.array_equal(other.image, result.image)
    # The noise that variances are drawn from is another.
    assert not np.array_equal(other.variance, result.variance)


def test_order_of_exposures_does_not_matter() -> None:
    """If it fails, the coadd depends on the order of the Butler."""
    arrays = make_scene()
    # Something to reject, and equal PSFs.
    arrays.images[2, 30:34, 60:63] += 80.0
    arrays.psfs[3] = arrays.psfs[0]
    order = [2, 0, 3, 1]
    straight = restore_on_cpu(arrays, QUICK)
    permuted = restore_on_cpu(ExposureArrays(*(array[order] for array in arrays)), QUICK)
    assert straight.rejected.any()
    for name in ("image", "variance", "linear_image", "linear_variance", "mask", "residual"):
        np.testing.assert_array_equal(getattr(permuted, name), getattr(straight, name), err_msg=name)
    for name in ("weights", "rejected", "chi_square", "background", "flux_error", "shift", "psf_width_error"):
        np.testing.assert_array_equal(getattr(permuted, name), getattr(straight, name)[order], err_msg=name)


def test_rounding_does_not_matter(result: StackResult) -> None:
    """If it fails, rounding decides what is seen."""
    arrays = make_scene()
    scaled = restore_on_cpu(arrays._replace(images=arrays.images * 1e3, variances=arrays.variances * 1e6))
    # The steps of the fit amplify rounding.
    difference = scaled.image / 1e3 - result.image
    assert np.abs(difference).max() < 1e-3 * result.image.max()
    assert difference.std() < 0.05 * COADD_SIGMA
    linear = scaled.linear_image / 1e3 - result.linear_image
    assert np.abs(linear).max() < 1e-3 * result.linear_image.max()
    np.testing.assert_allclose(scaled.chi_square, result.chi_square, atol=0.02)


def test_bright_extended_source() -> None:
    """If it fails, galaxies are smoothed or sharpened away."""
    stars = [(33.0, 40.0, 20000.0)]
    # Seen with a PSF of 4.0 a Gaussian of 8.0 stays a Gaussian.
    arrays = make_exposure_arrays(SHAPE, [math.hypot(8.0, f) for f in FWHMS], stars=stars, sigmas=SIGMAS)
    result = restore_on_cpu(arrays._replace(psfs=make_scene().psfs), QUICK)
    truth = gaussian_stars(SHAPE, stars, math.hypot(8.0, TARGET))
    assert result.image.sum() == pytest.approx(20000.0, rel=0.02)
    assert np.abs(result.image - truth).max() < 0.03 * truth.max() + 3.0 * COADD_SIGMA


def test_tensors_and_big_endian_arrays(quick: StackResult) -> None:
    """If it fails, the type of the container changes the result."""
    arrays = make_scene()
    tensors = restore_on_cpu(ExposureArrays(*(torch.from_numpy(a) for a in arrays)), QUICK)  # type: ignore[arg-type]
    fits = restore_on_cpu(
        ExposureArrays(
            arrays.images.astype(">f8"),
            arrays.variances.astype(">f4"),
            arrays.good,
            arrays.psfs.astype(">f8"),
        ),
        QUICK,
    )
    np.testing.assert_array_equal(tensors.image, quick.image)
    np.testing.assert_allclose(fits.image, quick.image, atol=1e-3)


def test_inputs_are_left_alone() -> None:
    """If it fails, restoring changes the caller's arrays."""
    arrays = make_scene()
    arrays.images[2, 30:34, 60:63] += 80.0
    copies = [array.copy() for array in arrays]
    restore_on_cpu(arrays, QUICK)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_varying_psf_constant_over_the_patch(quick: StackResult) -> None:
    """If it fails, cells of equal PSFs differ from one PSF."""
    arrays = make_scene()
    cells = np.broadcast_to(arrays.psfs[:, None, None], (4, 3, 2, 25, 25))
    result = restore_on_cpu(arrays._replace(psfs=cells), QUICK)
    np.testing.assert_allclose(result.image, quick.image, atol=1e-3)


def test_varying_psf_is_followed() -> None:
    """If it fails, stars far from the centre of a patch have wrong PSFs."""
    stars = [(33.0, 19.5, 3000.0), (33.0, 59.5, 3000.0)]
    left, right = (
        make_exposure_arrays(SHAPE, fwhms, stars=[star], seed=None)
        for fwhms, star in zip((FWHMS, [f + 1.0 for f in FWHMS]), stars, strict=True)
    )
    noise = make_scene(stars=[], sigmas=1.0)
    # Two cells of 40 columns, with their centres at the stars.
    exposures = ExposureArrays(
        left.images + right.images + noise.images,
        noise.variances,
        noise.good,
        np.stack([left.psfs, right.psfs], axis=1)[:, None],
    )
    result = restore_on_cpu(exposures, QUICK)
    truth = gaussian_stars(SHAPE, stars, TARGET)
    # The seeing of the right half hardly resolves the target.
    np.testing.assert_allclose(result.image, truth, atol=0.05 * truth.max())
    for y, x, flux in stars:
        assert psf_flux(result.image, y, x) == pytest.approx(flux, rel=0.02)
    # With one mean PSF, the sharper star would come out brighter.
    mean = restore_on_cpu(exposures._replace(psfs=exposures.psfs.mean(axis=(1, 2))), QUICK)
    assert np.abs(mean.image - truth).max() > 0.1 * truth.max()


def test_callback() -> None:
    """If it fails, progress of a patch cannot be watched."""
    calls: list[tuple[int, float, float]] = []
    options = dataclasses.replace(QUICK, model=ModelOptions(source="fit"))
    result = restore_on_cpu(make_scene(), options, callback=lambda *args: calls.append(args))
    assert [epoch for epoch, _, _ in calls] == list(range(1, len(result.history.loss)))
    assert calls[-1][1:] == (result.history.loss[-1], result.history.validation_loss[-1])


def test_global_random_state_is_left_alone() -> None:
    """If it fails, restoring disturbs other computations."""
    before = torch.random.get_rng_state()
    restore_on_cpu(make_scene(), QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, wrong input ends in a wrong image."""
    arrays = make_scene()
    with pytest.raises(InputError, match=r"target_fwhm=1\.0 pixels cannot be sampled"):
        restore_on_cpu(arrays, QUICK, target_fwhm=1.0)
    with pytest.raises(InputError, match="Unknown device 'abacus'"):
        restore_on_cpu(arrays, QUICK, device="abacus")
    with pytest.raises(NoUsableDataError, match="None of the pixels of 4 exposures is usable"):
        restore_on_cpu(arrays._replace(good=np.zeros_like(arrays.good)), QUICK)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there are 0 CUDA devices"):
        restore_on_cpu(arrays, QUICK, device="cuda")


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(result: StackResult) -> None:
    """If it fails, results depend on the machine."""
    # Without the fit: steps of an optimiser amplify rounding.
    arrays = make_scene()
    alone = ExposureArrays(*(array[:1] for array in arrays))
    for device in ("cuda", "auto"):
        assert restore_on_cpu(alone, device=device).device.startswith("cuda")
    difference = (restore_on_cpu(alone, device="cuda").image - restore_on_cpu(alone).image) / SIGMAS[0]
    assert np.abs(difference).max() < 1e-3
    fitted = (restore_on_cpu(arrays, device="cuda").image - result.image) / COADD_SIGMA
    assert fitted.std() < 0.1
