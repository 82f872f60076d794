# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sources that are drawn fast against those of Fourier transforms."""

from __future__ import annotations

import dataclasses

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.table import Table

from lsst.astroclearnet.simulation import (
    ArtefactOptions,
    PsfShapes,
    SurveyOptions,
    add_stars,
    count_photons,
    focal_plane,
    make_catalogue,
    observe,
    plan_visits,
)

OPTIONS = SurveyOptions(
    seed=7,
    bands=("i",),
    visits_per_band=1,
    num_patches=(1, 1),
    detector_grid=(1, 1),
    detector_shape=(100, 120),
    num_psf_stars=4,
)
QUIET = dataclasses.replace(OPTIONS, artefacts=ArtefactOptions.none())


def psf(number: int) -> PsfShapes:
    """Return a round PSF of 0.7 arcsec on square pixels of 0.2 arcsec."""
    zero = np.zeros(number)
    return PsfShapes(zero + 0.7, zero, zero, np.broadcast_to(0.2 * np.eye(2), (number, 2, 2)))


def test_stars_are_those_of_fourier_transforms() -> None:
    """If it fails, the large survey has other PSFs than its models say."""
    jacobian = np.array([[0.16, 0.02], [-0.03, 0.18]])
    psfs = PsfShapes(np.array([0.6]), np.array([0.1]), np.array([-0.05]), jacobian[None])
    drawn = np.zeros((41, 51))
    add_stars(
        drawn,
        x=np.array([24.8]),
        y=np.array([20.4]),
        flux=np.array([3.0]),
        radius=np.array([60.0]),
        psfs=psfs,
    )
    star = galsim.Moffat(beta=3.5, fwhm=0.6, flux=3.0, gsparams=galsim.GSParams(folding_threshold=1e-4))
    expected = star.shear(g1=0.1, g2=-0.05).drawImage(
        galsim.ImageD(galsim.BoundsI(0, 50, 0, 40)),
        center=galsim.PositionD(24.8, 20.4),
        wcs=galsim.JacobianWCS(*jacobian.ravel()),
    )
    # Fourier transforms err by 3e-4 of the peak with these parameters.
    np.testing.assert_allclose(drawn, expected.array, rtol=0.0, atol=5e-4 * drawn.max())


def test_mean_of_images() -> None:
    """If it fails, sources are lost, drawn twice or misplaced."""
    (visit,) = plan_visits(OPTIONS)
    (layout,) = focal_plane(OPTIONS.detector_grid, OPTIONS.detector_shape, OPTIONS.detector_gap)
    catalogue = make_catalogue(OPTIONS, (visit,))
    expected = observe(visit, layout, catalogue, QUIET).image.array
    noise = dataclasses.replace(ArtefactOptions.none(), noise=True)
    images = [
        observe(
            visit,
            layout,
            catalogue,
            dataclasses.replace(OPTIONS, is_drawn_fast=True, artefacts=noise, seed=seed),
        )
        for seed in (1, 2, 3, 4)
    ]
    sigma = np.sqrt(np.mean([image.variance.array for image in images], axis=0) / len(images))
    pull = (np.mean([image.image.array for image in images], axis=0) - expected) / sigma
    assert (expected > 5.0 * sigma).sum() > 20
    assert abs(pull.mean()) < 5.0 / np.sqrt(pull.size)
    assert np.mean(pull**2) == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / pull.size))


def test_flux_of_a_star() -> None:
    """If it fails, bright stars lose light at the pixels of their peaks."""
    image = np.zeros((201, 201))
    add_stars(
        image,
        x=np.array([100.3]),
        y=np.array([99.8]),
        flux=np.array([5.0]),
        radius=np.array([95.0]),
        psfs=psf(1),
    )
    # Of a Moffat profile (1 + (r / a)^2)^(1 - beta) is outside r.
    assert image.sum() == pytest.approx(5.0, rel=1e-4)
    y, x = np.indices(image.shape)
    assert (x * image).sum() / image.sum() == pytest.approx(100.3, abs=1e-3)
    assert (y * image).sum() / image.sum() == pytest.approx(99.8, abs=1e-3)


def test_a_star_beside_the_image_is_cut_off() -> None:
    """If it fails, it appears at the opposite edge."""
    whole, part = np.zeros((80, 80)), np.zeros((60, 80))
    where = {"flux": np.array([1.0]), "radius": np.array([30.0]), "psfs": psf(1)}
    add_stars(whole, x=np.array([40.0]), y=np.array([15.0]), **where)  # type: ignore[arg-type]
    add_stars(part, x=np.array([40.0]), y=np.array([-5.0]), **where)  # type: ignore[arg-type]
    np.testing.assert_allclose(part, whole[20:], atol=1e-15)
    add_stars(part, x=np.array([40.0]), y=np.array([-500.0]), **where)  # type: ignore[arg-type]
    np.testing.assert_allclose(part, whole[20:], atol=1e-15)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_photons_of_a_galaxy(fraction: float) -> None:
    """If it fails, faint galaxies have other sizes, shapes or fluxes."""
    galaxy = Table(
        {
            "kind": ["galaxy"],
            "x": [60.2],
            "y": [50.7],
            "bulge_fraction": [fraction],
            "bulge_radius": [0.5] * u.arcsec,
            "disc_radius": [0.6] * u.arcsec,
            "bulge_g": [0.3],
            "disc_g": [0.4],
            "position_angle": [20.0] * u.deg,
        }
    )
    beta = 110.0 * galsim.degrees
    profile = (
        galsim.DeVaucouleurs(half_light_radius=0.5, trunc=3.0, flux_untruncated=False).shear(g=0.3, beta=beta)
        if fraction
        else galsim.Exponential(half_light_radius=0.6).shear(g=0.4, beta=beta)
    )
    number = 400_000
    blurred = galsim.Convolve(profile, galsim.Moffat(beta=3.5, fwhm=0.7)) * number
    expected = blurred.drawImage(
        galsim.ImageD(galsim.BoundsI(0, 120, 0, 100)), center=galsim.PositionD(60.2, 50.7), scale=0.2
    ).array
    photons = count_photons(
        (101, 121), galaxy, flux=np.array([float(number)]), psfs=psf(1), rng=np.random.default_rng(3)
    )
    bright = expected > 20.0
    pull = (photons - expected)[bright] / np.sqrt(expected[bright])
    assert bright.sum() > 500
    assert np.mean(pull**2) == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / bright.sum()))
    assert photons.sum() == pytest.approx(number, rel=0.01)


def test_photons_need_noise() -> None:
    """If it fails, an image without noise has that of faint galaxies."""
    with pytest.raises(ValueError, match="needs noise"):
        dataclasses.replace(QUIET, is_drawn_fast=True)
