# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The mean of all bands, restored as one image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lsst.astroclearnet.core import ExposureStack, RestoreOptions, load_packaged_model
from lsst.astroclearnet.core.estimate import BandImage, Estimator
from lsst.astroclearnet.core.exposures import close_holes, fwhm_to_sigma
from lsst.astroclearnet.core.forward import ForwardModel, LatentGrid
from lsst.astroclearnet.core.joint import WhiteEstimator
from lsst.astroclearnet.tests import gaussian_stars, make_exposure_arrays

SHAPE = (72, 84)
TARGET = 3.6
STAR = (30.3, 40.6)
SEEING = ((3.2, 4.0, 4.8, 3.6), (4.4, 5.2, 6.4, 4.8), (3.0, 3.4, 3.2, 3.1))
"""FWHM of the exposures of each band, with margins of their own."""


@functools.cache
@torch.no_grad()
def observe(
    flux: float, fwhms: tuple[float, ...], seed: int | None = None, sigma: float = 1.0, hole: str = ""
) -> BandImage:
    """Return a band of a star, restored on its own."""
    images, variances, good, psfs = make_exposure_arrays(
        SHAPE, fwhms, stars=[(*STAR, flux)], seed=seed, sigmas=sigma, psf_size=41
    )
    if hole == "half":
        good[:, :, 60:] = False
    elif hole == "core":
        good[:, 28:31, 39:42] = False
    stack = ExposureStack.from_arrays(images, variances, good, psfs)
    model = ForwardModel.from_stack(stack, TARGET)
    estimator = Estimator(
        load_packaged_model().network, model, stack.good / stack.variances, RestoreOptions()
    )
    return estimator.restore(stack.images)


def has_data(bands: Sequence[BandImage]) -> list[torch.Tensor]:
    """Return pixels with data, and the holes among them."""
    return [close_holes(band.estimator.linear.coverage > 0.01, 5) for band in bands]


def weigh(bands: Sequence[BandImage]) -> list[float]:
    """Return the inverse variances of PSF fluxes."""
    return [1.0 / band.estimator.linear.flux_variance for band in bands]


@torch.no_grad()
def restore(bands: Sequence[BandImage]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the white image and the mean of the bands, (H, W)."""
    white = WhiteEstimator.build(bands, weigh(bands), has_data(bands))
    crop = white.grids[white.reference].crop
    return crop(white.restore(bands)), crop(white.mean([band.restored for band in bands]))


def test_flux_variance_is_the_cramer_rao_bound() -> None:
    """If it fails, bands have wrong weights."""
    found = observe(0.0, SEEING[0], sigma=2.0).estimator.linear.flux_variance
    # The sum of squares of a Gaussian PSF.
    information = sum(1.0 / (4.0 * math.pi * fwhm_to_sigma(fwhm) ** 2) / 4.0 for fwhm in SEEING[0])
    assert found == pytest.approx(1.0 / information, rel=0.01)


def test_moved_images_are_of_the_same_patch() -> None:
    """If it fails, bands are averaged with a shift between them."""
    grids = LatentGrid(SHAPE, 7), LatentGrid(SHAPE, 12)
    patch = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for own, other in (grids, grids[::-1]):
        moved = own.move(own.embed(patch), other)
        assert moved.shape == (2, *other.latent_shape)
        torch.testing.assert_close(other.crop(moved), patch, rtol=0.0, atol=0.0)


def test_order_of_bands_does_not_matter() -> None:
    """If it fails, the image depends on the names of bands."""
    bands = [observe(20.0, fwhms, seed) for seed, fwhms in enumerate(SEEING)]
    assert len({band.estimator.model.grid.margin for band in bands}) > 1
    torch.testing.assert_close(restore(bands)[0], restore(bands[::-1])[0], rtol=1e-4, atol=1e-4)


def test_bright_light_is_that_of_the_bands() -> None:
    """If it fails, fluxes are those of a network and not of the exposures."""
    fluxes = (3000.0, 1000.0, 2000.0)
    bands = [observe(flux, fwhms) for flux, fwhms in zip(fluxes, SEEING, strict=True)]
    image, mean = restore(bands)
    box = np.s_[26:36, 36:46]
    torch.testing.assert_close(image[box], mean[box], rtol=1e-3, atol=0.05)
    weights = np.array(weigh(bands))
    expected = float((weights * fluxes).sum() / weights.sum())
    profile = torch.from_numpy(gaussian_stars(SHAPE, [(*STAR, 1.0)], TARGET)).float()
    assert float((image * profile).sum() / profile.square().sum()) == pytest.approx(expected, rel=0.02)


def test_light_that_no_band_shows_alone_is_shown() -> None:
    """If it fails, the image is no deeper than the restored bands."""
    # A signal-to-noise ratio of 1.8 in each, and 3.5 in all.
    image, mean = restore([observe(5.0, SEEING[0])] * 4)
    y, x = (round(place) for place in STAR)
    assert image[y, x] > 4.0 * mean[y, x] > 0.0


def test_noise_of_the_bank_is_that_of_independent_bands() -> None:
    """If it fails, the network takes noise for light, or light for noise."""
    found, expected = [], torch.zeros(())
    for seed in range(3):
        bands = [observe(0.0, fwhms, 10 * seed + k, 1.0 + k) for k, fwhms in enumerate(SEEING)]
        white = WhiteEstimator.build(bands, weigh(bands), has_data(bands))
        bank = white._bank(bands)
        grid = white.grids[white.reference]
        found.append(grid.crop(bank.estimates).square().mean(dim=(1, 2)))
        expected = bank.noise
        torch.testing.assert_close(
            grid.crop(bank.relative_weight).median(), torch.tensor(1.0), rtol=0.05, atol=0.0
        )
    # Smoother ones have few independent pixels.
    ratio = torch.stack(found).mean(dim=0).sqrt() / expected
    assert ratio[:5].sub(1.0).abs().max() < 0.1


def test_missing_band_leaves_the_mean_of_the_others() -> None:
    """If it fails, the edge of a band is the edge of the image."""
    bands = [observe(0.0, SEEING[0], 1, hole="half"), observe(0.0, SEEING[1], 2), observe(0.0, SEEING[2], 3)]
    weights = weigh(bands)
    white = WhiteEstimator.build(bands, weights, has_data(bands))
    shares = white.grids[white.reference].crop(white.shares)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(SHAPE))
    assert shares[0, :, 64:].max() < 1e-5
    for k in (1, 2):
        assert float(shares[k, 36, 80]) == pytest.approx(weights[k] / sum(weights[1:]), rel=1e-4)
        assert float(shares[k, 36, 20]) == pytest.approx(weights[k] / sum(weights), rel=1e-4)
    assert torch.isfinite(restore(bands)[0]).all()


def test_hole_of_a_band_makes_no_step() -> None:
    """If it fails, bright sources of any colour have a dark or bright spot."""
    fluxes = (3000.0, 200.0, 600.0)
    bands = [
        observe(flux, fwhms, hole="core" if k == 0 else "")
        for k, (flux, fwhms) in enumerate(zip(fluxes, SEEING, strict=True))
    ]
    weights = np.array(weigh(bands))
    shown = [band.estimator.model.crop(band.restored).numpy() for band in bands]
    expected = np.average(shown, axis=0, weights=weights)
    assert bands[0].estimator.linear.coverage[29, 40] < 0.01
    np.testing.assert_allclose(restore(bands)[0].numpy()[29:32, 40:42], expected[29:32, 40:42], rtol=0.01)
