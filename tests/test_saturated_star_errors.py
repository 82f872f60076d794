# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Declared errors around a saturated star."""

from __future__ import annotations

import dataclasses

import galsim
import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt

from lsst.astroclearnet.core import RestorationResult, restore
from lsst.astroclearnet.tests import gaussian_stars

type Array = npt.NDArray[np.float64]

SIDE, PLACE, FLUX = 110, (53.3, 56.7), 1e6
FWHMS = (3.5, 4.4, 3.8, 4.1, 3.6, 4.7)
TARGET = 3.6
ANNULI = ((0.0, 4.0), (4.0, 8.0), (8.0, 14.0), (14.0, 30.0))


def moffat(fwhm: float, size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Draw a Moffat profile with wide wings."""
    profile = galsim.Moffat(beta=3.5, fwhm=fwhm)
    image = profile.drawImage(
        nx=size, ny=size, scale=1.0, method="no_pixel", offset=(offset[1], offset[0])
    ).array
    return np.asarray(image, dtype=float)


@dataclasses.dataclass(frozen=True)
class Star:
    """Exposures of a star that is saturated in all of them."""

    light: Array
    good: npt.NDArray[np.bool_]
    psfs: Array

    @classmethod
    def of(cls, fwhms: tuple[float, ...]) -> Star:
        """Draw it in exposures of some seeings."""
        middle = SIDE / 2 - 0.5
        offset = PLACE[0] - middle, PLACE[1] - middle
        light = FLUX * np.stack([moffat(fwhm, SIDE, offset) for fwhm in fwhms])
        saturated = light > 0.15 * FLUX * moffat(5.0, 31).max()
        good = ~binary_dilation(saturated, np.ones((1, 3, 3)), iterations=2)
        return cls(light, good, np.stack([moffat(fwhm, 61) for fwhm in fwhms]))

    def restore(self, seed: int) -> RestorationResult:
        """Restore it with noise of sky and photons."""
        variances = 1.0 + self.light / 50.0
        noise = np.random.default_rng(seed).normal(size=self.light.shape)
        # The sky of an exposure does not depend on how many there are.
        return restore(
            self.light + noise * np.sqrt(variances), variances, self.good, self.psfs, target_fwhm=TARGET
        )

    def distance(self) -> Array:
        """Return the distance of pixels from those that no exposure shows."""
        return np.asarray(distance_transform_edt(self.good.any(axis=0)))


@pytest.fixture(scope="module")
def star() -> Star:
    """Return a star in exposures of usual seeing."""
    return Star.of(FWHMS)


@pytest.fixture(scope="module")
def results(star: Star) -> list[RestorationResult]:
    """Return it with two draws of the noise."""
    return [star.restore(seed) for seed in (1, 2)]


def annulus(distance: Array, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Return the pixels between two distances from the core."""
    return np.asarray((distance > low) & (distance <= high))


def test_errors_around_a_saturated_star(star: Star, results: list[RestorationResult]) -> None:
    """If it fails, a moat surrounds the star, or its errors are declared far
    too large or too small.
    """
    truth = gaussian_stars((SIDE, SIDE), [(*PLACE, FLUX)], TARGET)
    for low, high in ANNULI:
        use = annulus(star.distance(), low, high)
        for name in ("image", "linear_image"):
            pulls = [
                (getattr(r, name) - truth)[use] / np.sqrt(getattr(r, name.replace("image", "variance"))[use])
                for r in results
            ]
            # The restored image has less noise on sky than it declares.
            least = 0.75 if name == "linear_image" else 0.2
            assert least < np.sqrt(np.mean(np.square(pulls))) < 1.35, (name, low, high)
            assert abs(np.mean(pulls)) < 0.6, (name, low, high)


def test_exposure_of_bad_seeing_raises_no_error(star: Star, results: list[RestorationResult]) -> None:
    """If it fails, one bad exposure costs depth around bright stars."""
    # Its image is the same draw of noise but for the exposure that is added.
    more = Star.of((*FWHMS, 9.0)).restore(1)
    for low, high in ANNULI[1:]:
        use = annulus(star.distance(), low, high)
        ratio = np.sqrt(more.linear_variance[use] / results[0].linear_variance[use])
        # With 12 draws of the noise 1.023 in the innermost, with 1.006 for the
        # errors themselves.
        assert np.median(ratio) < 1.05, (low, high)
