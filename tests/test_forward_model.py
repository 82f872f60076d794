# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""The forward model as a linear operator, and what it does to stars."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import InputError, gaussian_kernel
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.tests import assert_adjoint, gaussian_stars, make_exposure_stack

TARGET = 3.5
SHAPE = (63, 50)
CELLS = (3, 2)


def skewed_psf(fwhm: float, size: int = 25) -> torch.Tensor:
    """Return a PSF without any symmetry: a peak with a faint companion."""
    middle = size // 2
    stars = [(middle, middle, 1.0), (middle + 2.6, middle - 1.3, 0.3), (middle - 0.5, middle + 3.1, 0.15)]
    stamp = gaussian_stars((size, size), stars, fwhm)
    return torch.from_numpy(stamp / stamp.sum())


def constant_model(shape: tuple[int, int] = SHAPE) -> ForwardModel:
    """Return the model of two exposures with one PSF each."""
    psfs = torch.stack([skewed_psf(4.0), skewed_psf(5.0)])
    return ForwardModel(psfs[:, None, None], shape, TARGET)


def varying_psfs() -> torch.Tensor:
    """Return the PSFs of two exposures in cells of 21 rows, 25 columns."""
    fwhms = np.array([[[3.8, 4.4], [4.2, 5.2], [5.0, 4.0]], [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]])
    return torch.stack([skewed_psf(fwhm) for fwhm in fwhms.ravel()]).reshape(2, *CELLS, 25, 25)


def varying_model() -> ForwardModel:
    """Return a model in which the PSF of the first exposure varies."""
    return ForwardModel(varying_psfs(), SHAPE, TARGET)


def star(model: ForwardModel, y: float, x: float) -> torch.Tensor:
    """Return the latent image of a star at a pixel of the data."""
    position = (y + model.sampling.grid.margin, x + model.sampling.grid.margin, 1.0)
    return torch.from_numpy(gaussian_stars(model.latent_shape, [position], TARGET)).float()


@pytest.mark.parametrize("varying", [False, True])
def test_adjoint(varying: bool) -> None:
    """If it fails, the normal equations are not those of the problem."""
    model = varying_model() if varying else constant_model()
    assert_adjoint(model.predict, model.adjoint, model.latent_shape, (2, *SHAPE))


@pytest.mark.parametrize("varying", [False, True])
def test_adjoint_for_some_exposures(varying: bool) -> None:
    """If it fails, held-out exposures leak into the estimate."""
    model = varying_model() if varying else constant_model()
    chosen = torch.tensor([1])
    assert_adjoint(
        lambda x: model.predict(x, chosen),
        lambda y: model.adjoint(y, chosen),
        model.latent_shape,
        (1, *SHAPE),
    )
    both, one = (model.predict(star(model, 30, 20), e) for e in (None, chosen))
    torch.testing.assert_close(one, both[1:])


def test_sampling_and_its_adjoint() -> None:
    """If it fails, data and latent image are shifted to each other."""
    model = constant_model()
    assert_adjoint(model.crop, model.embed, model.latent_shape, SHAPE)
    data = torch.arange(float(SHAPE[0] * SHAPE[1])).reshape(SHAPE)
    assert torch.equal(model.crop(model.embed(data)), data)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), radius=st.integers(0, 9))
def test_latent_shape(height: int, width: int, radius: int) -> None:
    """If it fails, data wrap around, or transforms are slow or mixed up."""
    size = 2 * radius + 1
    model = ForwardModel(torch.full((1, 1, 1, size, size), 1.0 / size**2), (height, width), TARGET)
    assert model.sampling.grid.margin == max(radius, 3)
    for length, data in zip(model.latent_shape, (height, width), strict=True):
        assert length >= data + 2 * radius
        assert length % 2 == 0
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_identity_at_the_target_psf() -> None:
    """If it fails, an exposure at the target PSF is still changed."""
    psf = torch.from_numpy(gaussian_kernel(TARGET, 25))[None, None, None]
    model = ForwardModel(psf, SHAPE, TARGET)
    stars = [(20.3, 40.8, 100.0), (50.0, 30.2, 30.0), (33.9, 27.1, -20.0)]
    latent = torch.from_numpy(gaussian_stars(model.latent_shape, stars, TARGET)).float()
    predicted = model.predict(latent)[0]
    # Of a star, a share 1e-3 lies where the target OTF is below the root of
    # the floor of the deconvolution, 1e-6, and fades out.
    torch.testing.assert_close(predicted, model.crop(latent), rtol=0.0, atol=2e-3 * float(latent.max()))


def test_star_has_the_psf_of_each_exposure() -> None:
    """If it fails, stars are predicted with a wrong or a flipped PSF."""
    model = constant_model()
    predicted = model.predict(star(model, 30, 21)).double()
    for image, fwhm in zip(predicted, (4.0, 5.0), strict=True):
        psf = skewed_psf(fwhm)
        torch.testing.assert_close(
            image[18:43, 9:34], psf, rtol=0.0, atol=2e-3 * float(psf.max()), check_stride=False
        )


def test_sharper_psf_than_the_target() -> None:
    """If it fails, good seeing is blurred to the target in prediction."""
    psf = torch.from_numpy(gaussian_kernel(2.8, 25))
    model = ForwardModel(psf[None, None, None], SHAPE, TARGET)
    predicted = model.predict(star(model, 30, 21))[0].double()
    torch.testing.assert_close(predicted[18:43, 9:34], psf, rtol=0.0, atol=0.02 * float(psf.max()))


@pytest.mark.parametrize("varying", [False, True])
def test_constant_sky_stays(varying: bool) -> None:
    """If it fails, flux is gained or lost between PSFs."""
    model = varying_model() if varying else constant_model()
    predicted = model.predict(torch.full(model.latent_shape, 7.0))
    torch.testing.assert_close(predicted, torch.full((2, *SHAPE), 7.0), rtol=1e-4, atol=0.0)


def test_star_flux_is_conserved() -> None:
    """If it fails, fluxes depend on the seeing."""
    model = constant_model()
    predicted = model.predict(star(model, 30.4, 22.7))
    torch.testing.assert_close(predicted.sum(dim=(1, 2)), torch.ones(2), rtol=2e-3, atol=0.0)


def test_psf_at_cell_centres_is_that_of_the_cell() -> None:
    """If it fails, cells are shifted or transposed."""
    model, psfs = varying_model(), varying_psfs()
    for row in range(CELLS[0]):
        for column in range(CELLS[1]):
            y, x = 21 * row + 10, 25 * column + 12
            peak = model.predict(star(model, y, x))[0, y, x]
            expected = psfs[0, row, column, 12, 12]
            assert float(peak) == pytest.approx(float(expected), rel=5e-3)


def test_psf_changes_without_a_step() -> None:
    """If it fails, the coadd shows the borders of its cells."""
    fwhms = [3.6, 3.6, 5.4, 5.4]
    psfs = torch.stack([torch.from_numpy(gaussian_kernel(f, 25)) for f in fwhms])[None, None]
    shape = (40, 100)
    model = ForwardModel(psfs, shape, TARGET)
    # A horizontal line of light: along it only the PSF changes.
    profile = star(model, 20, 50).sum(dim=1, keepdim=True)
    crest = model.predict(profile.expand(model.latent_shape))[0, 20].double()
    peaks = psfs[0, 0].sum(dim=-1)[:, 12]
    torch.testing.assert_close(crest[:37], peaks[0].expand(37), rtol=3e-3, atol=0.0)
    torch.testing.assert_close(crest[63:], peaks[-1].expand(37), rtol=3e-3, atol=0.0)
    # Linear from the centre at 37 to that at 62, across the border at 50.
    steps = crest[38:62].diff()
    slope = (peaks[-1] - peaks[0]) / 25
    torch.testing.assert_close(steps, slope.expand(23), rtol=0.05, atol=0.0)


def test_local_kernels() -> None:
    """If it fails, the noise is correlated as elsewhere on the patch."""
    model = varying_model()
    for row, column in ((0, 0), (1, 0)):
        # Around the centre of a cell.
        rows, columns = slice(21 * row + 7, 21 * row + 14), slice(25 * column + 9, 25 * column + 16)
        local = model.local(rows, columns)
        assert local.space.shape == (7, 7)
        target = local.inverse_target_power.rsqrt()
        for t in range(2):
            psf = varying_psfs()[t, row, column].float()
            found = local.space.inverse_transform(local.otfs[t] * target)
            middle = tuple(n // 2 for n in found.shape)
            found = torch.roll(found, middle, (0, 1))[tuple(slice(m - 12, m + 13) for m in middle)]
            torch.testing.assert_close(found, psf, rtol=0.0, atol=0.02 * float(psf.max()))


def test_fold_transform_is_the_mean_of_the_plane() -> None:
    """If it fails, all predicted noise is wrong by up to a factor 2."""
    model = constant_model((31, 44))
    white = torch.randn((3, *model.latent_shape), generator=torch.Generator().manual_seed(5))
    power = model.transform(white).abs() ** 2
    expected = (torch.fft.fft2(white).abs() ** 2).mean(dim=(1, 2))
    torch.testing.assert_close(model.fold_transform(power), expected)


def test_transform_and_back() -> None:
    """If it fails, latent images change shape on the way."""
    model = constant_model((31, 44))
    white = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(model.inverse_transform(model.transform(white)), white)


@pytest.mark.parametrize("fwhm", [1.4, 0.0, -3.0, np.nan, np.inf])
def test_target_that_cannot_be_sampled(fwhm: float) -> None:
    """If it fails, an undersampled target gives an aliased image."""
    with pytest.raises(InputError, match=f"target_fwhm={fwhm} pixels cannot be sampled"):
        ForwardModel.from_stack(make_exposure_stack((34, 36), (3.0,)), fwhm)
