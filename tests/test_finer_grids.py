# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Undersampled exposures on grids that are finer than their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from lsst.astroclearnet.core import (
    NoiseOptions,
    PixelPositions,
    RestoreOptions,
    fwhm_to_sigma,
    gaussian_kernel,
    restore,
)
from lsst.astroclearnet.core.forward import ForwardModel, weight_maps

SIZE = 40
NUMBER = 6
OPTICAL_FWHM = 1.2
TARGET_FWHM = 1.5
FLUX = 200.0
STARS = np.array([(10.13, 9.4), (9.62, 28.5), (29.0, 10.81), (28.34, 29.77)])
DITHERS = np.random.default_rng(4).uniform(-0.5, 0.5, (NUMBER, 2))


def pixel_profile(offsets: np.ndarray) -> np.ndarray:
    """Return the light that a Gaussian puts into unit pixels along an axis."""
    sigma = fwhm_to_sigma(OPTICAL_FWHM)
    return np.asarray(ndtr((offsets + 0.5) / sigma) - ndtr((offsets - 0.5) / sigma))


def exposures(factor: int) -> dict[str, object]:
    """Return exposures of stars in the phases of a few pixels, on a grid."""
    index = np.arange(SIZE)
    rng = np.random.default_rng(5)
    images = 0.1 * rng.standard_normal((NUMBER, SIZE, SIZE))
    for image, (dy, dx) in zip(images, DITHERS, strict=True):
        for y, x in STARS:
            image += FLUX * np.outer(pixel_profile(index + dy - y), pixel_profile(index + dx - x))
    y, x = ((index + dither[:, None] + 0.5) * factor - 0.5 for dither in DITHERS.T)
    half = 8 * factor
    profile = pixel_profile(np.arange(-half, half + 1) / factor)
    psf = np.outer(profile, profile) / profile.sum() ** 2
    positions = PixelPositions.from_arrays(
        (SIZE * factor, SIZE * factor),
        y=np.broadcast_to(y[:, :, None], images.shape),
        x=np.broadcast_to(x[:, None, :], images.shape),
        area=np.full(images.shape, float(factor) ** 2),
    )
    return {
        "images": images,
        "variances": np.full(images.shape, 0.01),
        "good": np.ones(images.shape, dtype=bool),
        "psfs": np.broadcast_to(psf, (NUMBER, *psf.shape)),
        "positions": positions,
    }


def fluxes(image: np.ndarray, factor: int) -> np.ndarray:
    """Return fluxes of the stars by fits of the target PSF, over the truth."""
    found = []
    for star in STARS:
        axes = [
            np.exp(
                -4.0
                * np.log(2.0)
                * ((np.arange(SIZE * factor) + 0.5) / factor - 0.5 - c) ** 2
                / TARGET_FWHM**2
            )
            for c in star
        ]
        psf = np.outer(*axes)
        psf *= 4.0 * np.log(2.0) / np.pi / (TARGET_FWHM * factor) ** 2
        near = psf > 1e-4 * psf.max()
        found.append((psf * image)[near].sum() / (psf[near] ** 2).sum() / FLUX)
    return np.array(found)


def restore_on(factor: int) -> np.ndarray:
    """Return the linear image on a grid."""
    options = RestoreOptions(noise=NoiseOptions(num_draws=1, num_realizations=1))
    result = restore(**exposures(factor), target_fwhm=TARGET_FWHM * factor, options=options)  # type: ignore[arg-type]
    return result.linear_image


@pytest.mark.slow
def test_stars_keep_their_light_where_pixels_alias() -> None:
    """If it fails, a finer grid does not show what dithers have recorded."""
    native, finer = (fluxes(restore_on(factor), factor) for factor in (1, 2))
    # By the phases of their pixels, on the grid of the exposures.
    assert np.abs(native - 1.0).max() > 0.03
    np.testing.assert_allclose(finer, 1.0, atol=0.004)


@pytest.mark.parametrize("factor", [2, 3])
def test_coadd_of_a_flat_sky_is_flat(factor: int) -> None:
    """If it fails, the coadd shows the pattern of the pixels of exposures."""
    given = exposures(factor)
    good = np.ones((NUMBER, SIZE, SIZE), dtype=bool)
    good[:, 15:17, 20] = good[:3, 25:30, 8:14] = False
    given |= {"images": np.full(good.shape, 5.0), "good": good}
    options = RestoreOptions(noise=NoiseOptions(num_draws=1, num_realizations=1))
    coadd = restore(**given, target_fwhm=TARGET_FWHM * factor, options=options).coadd  # type: ignore[arg-type]
    seen = np.isfinite(coadd)
    assert seen.mean() > 0.99
    np.testing.assert_allclose(coadd[seen], 5.0 / factor**2, rtol=1e-3)


def sparse_model(factor: int) -> tuple[ForwardModel, torch.Tensor]:
    """Return the model of one rotated exposure with large pixels, and which
    of them are on the patch.
    """
    size, side = 96, 96 // factor
    rows, columns = factor * (np.mgrid[:side, :side] - 0.5 * side)
    y, x = (0.5 * size + a * rows + b * columns for a, b in ((0.8, -0.6), (0.6, 0.8)))
    area = np.full((1, side, side), float(factor) ** 2)
    positions = PixelPositions.from_arrays((size, size), y[None], x[None], area)
    psfs = torch.from_numpy(gaussian_kernel(3.0 * factor, 8 * factor + 1))[None, None, None]
    return ForwardModel(psfs, (size, size), 3.0, positions), positions.inside


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_every_pixel_below_a_large_one_has_its_weight(factor: int) -> None:
    """If it fails, pixels of the grid without the centre of a pixel of an
    exposure count as missing, and depth has the pattern of its pixels.
    """
    model, inside = sparse_model(factor)
    maps = weight_maps(model, 2.0 * inside)
    middle = slice(36, 60)
    assert bool(maps.used[0, middle, middle].all())
    weights = maps.weights[0, middle, middle] / (2.0 * factor**2)
    assert float((weights - 1.0).abs().max()) < 0.1
    # And one that is rejected marks all that it covers.
    marked = torch.zeros_like(inside)
    marked[0, inside.shape[1] // 2, inside.shape[2] // 2] = True
    assert factor**2 <= int(model.sampling.largest(marked).sum()) <= (factor + 2) ** 2
