# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Real DECam exposures, through the commands that a user types.

The exposures have fewer pixels than survey images and disagree with each
other: their flux scales by up to 3 % for the galaxy, the wings of the star by
7 % in g and 30 % in r, and their noise is lower than their variance planes
say.  The tests measure these facts on the exposures themselves and ask the
restoration to be as good as they allow.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from astroclearnet_benchmarks.baselines import coadd_psf, inverse_variance_coadd, psf_matched_coadd
from lsst.astroclearnet.adapters import PatchGeometry, SkyMapGeometry, VisitCutout, pad_to_common_size
from lsst.astroclearnet.adapters.read import DEFAULT_EXCLUDED_PLANES, mask_of_planes
from lsst.astroclearnet.core import kernel_fwhm
from lsst.astroclearnet.simulation import DirectWarp, warp_visit_image
from lsst.daf.butler import Butler
from lsst.images import VisitImage
from lsst.images.cells import CellCoadd

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

BANDS = ("g", "r", "z")
# In g and r the exposures of the star differ the least and the most.
STAR_BANDS = ("g", "r")
APERTURE = 17.0
PIPELINE = "resource://lsst.astroclearnet/resources/pipelines/RestoreCoaddWithoutStack.yaml#restore"


def command(name: str, *arguments: str | Path) -> None:
    """Run a command of the environment and fail with what it printed."""
    executable = Path(sys.executable).with_name(name)
    result = subprocess.run(
        [executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1400
    )
    assert result.returncode == 0, result.stdout + result.stderr


class Field:
    """Restored coadds of a field and the exposures they were made from."""

    def __init__(self, repo: Path, skymap: str) -> None:
        self.butler = Butler.from_config(str(repo), collections=["u/test/restored", "DECam/defaults"])
        self.skymap = skymap
        content = self.butler.get("skymap_geometry", skymap=skymap)
        self.geometry: PatchGeometry = SkyMapGeometry.from_dict(content).patch(0, 0)

    def coadd(self, band: str) -> CellCoadd:
        return self.butler.get("restored_coadd", skymap=self.skymap, tract=0, patch=0, band=band)

    def metrics(self, band: str) -> dict[str, dict[str, float]]:
        return self.butler.get("restored_coadd_metrics", skymap=self.skymap, tract=0, patch=0, band=band)

    def visit_images(self, band: str) -> list[VisitImage]:
        where = f"band='{band}' AND skymap='{self.skymap}' AND tract=0 AND patch=0"
        refs = self.butler.query_datasets("visit_image", where=where, instrument="DECam")
        return [self.butler.get(ref) for ref in sorted(refs, key=lambda r: r.dataId["visit"])]

    def planes(self, band: str) -> dict[str, np.ndarray]:
        cutouts = [VisitCutout.take(v, self.geometry) for v in self.visit_images(band)]
        planes = [cutout.planes_within(self.geometry.bbox) for cutout in cutouts]
        return {name: np.stack([each[name] for each in planes]) for name in planes[0]}

    def warps(self, band: str) -> list[DirectWarp]:
        return [warp_visit_image(v, self.geometry) for v in self.visit_images(band)]

    def psfs(self, warps: list[DirectWarp]) -> np.ndarray:
        """Return the mean PSFs of warps on the patch."""
        stamps = pad_to_common_size([warp.cutout.psfs_within(self.geometry.bbox) for warp in warps])
        return np.asarray(np.nanmean(stamps, axis=(1, 2)))


@pytest.fixture(scope="module")
def repo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of both fields, restored in all their bands."""
    root = tmp_path_factory.mktemp("decam") / "repo"
    for name, bands in (("galaxy", BANDS), ("star", STAR_BANDS)):
        files = [f for band in bands for f in sorted((shared_data / "decam").glob(f"{name}_{band}_*.fits"))]
        command("astroclearnet", "ingest", root, *files, "--skymap", f"decam_{name}", "--cell-size", "20")
    command(
        "pipetask",
        *("run", "-b", root, "-p", PIPELINE, "-i", "DECam/defaults", "-o", "u/test/restored"),
        *("-d", "skymap IN ('decam_galaxy', 'decam_star')", "--register-dataset-types"),
        *("-c", "restoreCoadd:restoration.fit.max_epochs=4"),
        *("-c", "restoreCoadd:restoration.noise.num_draws=2"),
    )
    return root


@pytest.fixture(scope="module")
def galaxy(repo: Path) -> Field:
    return Field(repo, "decam_galaxy")


@pytest.fixture(scope="module")
def star(repo: Path) -> Field:
    return Field(repo, "decam_star")


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Return the flux-weighted position of the bright pixels."""
    weight = np.where(image > 0.2 * np.nanmax(image), image, 0.0)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((weight * columns).sum() / weight.sum()), float((weight * rows).sum() / weight.sum())


def flux(image: np.ndarray, x: float, y: float, radius: float) -> float:
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float(image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2].sum())


def noise_over_plane(visit_image: VisitImage) -> float:
    """Return the measured noise variance over the variance plane.

    Second differences along both axes remove anything smooth; for white
    noise they have 36 times the variance of a pixel.
    """
    image = visit_image.image.array.astype(float)
    bad = mask_of_planes(visit_image.mask, DEFAULT_EXCLUDED_PLANES)
    rows = image[2:] - 2.0 * image[1:-1] + image[:-2]
    second = rows[:, 2:] - 2.0 * rows[:, 1:-1] + rows[:, :-2]
    good = ~binary_dilation(bad, np.ones((3, 3), dtype=bool))[1:-1, 1:-1]
    return float(np.mean((second**2 / (36.0 * visit_image.variance.array[1:-1, 1:-1]))[good]))


@pytest.mark.parametrize("band", BANDS)
def test_galaxy_keeps_its_flux(galaxy: Field, band: str) -> None:
    exposures = galaxy.warps(band)
    coadd = inverse_variance_coadd(
        *(np.stack([getattr(e, name) for e in exposures]) for name in ("image", "variance", "good"))
    )
    x, y = centroid(coadd.image)
    direct = flux(coadd.image, x, y, APERTURE)
    # Seeing carries light of the galaxy out of the aperture, so the image is
    # first brought to the PSF of the coadd.
    target = galaxy.metrics(band)["image"]["target_fwhm"] / galaxy.geometry.pixel_scale
    width = kernel_fwhm(coadd_psf(galaxy.psfs(exposures), coadd.weights))
    image = galaxy.coadd(band).image.array
    restored = flux(gaussian_blur(image, np.sqrt(width**2 - target**2)), x, y, APERTURE)
    # The error of the direct flux: its photon noise, and how far the flux
    # scales of the exposures are apart.
    noise = np.sqrt(flux(coadd.variance, x, y, APERTURE)) / direct
    single = [flux(e.image, x, y, APERTURE) / direct for e in exposures]
    scatter = np.std(single, ddof=1) / np.sqrt(len(single))
    assert restored / direct == pytest.approx(1.0, abs=0.01 + np.hypot(noise, scatter))
    assert flux(image, x, y, APERTURE) / direct == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("band", BANDS)
def test_galaxy_is_sharper_than_in_the_best_exposure(galaxy: Field, band: str) -> None:
    exposures = galaxy.warps(band)
    images = [e.image for e in exposures]
    restored = galaxy.coadd(band).image.array
    x, y = centroid(np.mean(images, axis=0))

    def concentration(image: np.ndarray) -> float:
        return flux(image, x, y, 2.0) / flux(image, x, y, APERTURE)

    assert concentration(restored) > 1.1 * max(concentration(image) for image in images)


@pytest.mark.parametrize("band", BANDS)
def test_galaxy_explains_its_exposures(galaxy: Field, band: str) -> None:
    # Reduced chi-square, in units of the noise that the exposures really
    # have: the variance planes overstate it by some 5 % (20 % in the light
    # of the galaxy in one r exposure).
    visit_images = galaxy.visit_images(band)
    measured = float(np.mean([noise_over_plane(v) for v in visit_images]))
    assert 0.8 < measured < 1.1
    chi_square = galaxy.metrics(band)["image"]["chi_square"]
    assert 0.9 <= chi_square / measured <= 1.15


def test_galaxy_has_all_its_exposures(galaxy: Field) -> None:
    for band, number in zip(BANDS, (3, 2, 3), strict=True):
        assert galaxy.metrics(band)["patch"]["num_exposures"] == number
        assert galaxy.metrics(band)["dropped"] == {}


@pytest.mark.parametrize("band", STAR_BANDS)
def test_saturated_star_stays_flagged_and_breaks_nothing(star: Field, band: str) -> None:
    coadd = star.coadd(band)
    no_data = coadd.mask.get("NO_DATA")
    np.testing.assert_array_equal(np.isnan(coadd.image.array), no_data)
    np.testing.assert_array_equal(np.isnan(coadd.variance.array), no_data)
    planes = star.planes(band)
    usable, covered, saturated = (planes[name] for name in ("usable", "covered", "SATURATED"))
    # Nobody has a usable pixel there: the product must say so.
    nothing = covered.any(axis=0) & ~usable.any(axis=0)
    assert nothing.sum() > 500
    assert (no_data | coadd.mask.get("INTERPOLATED"))[nothing].all()
    assert coadd.mask.get("SATURATED")[saturated.any(axis=0)].all()
    assert coadd.mask.get("REJECTED")[(covered & ~usable).any(axis=0)].all()


@pytest.mark.parametrize("band", STAR_BANDS)
def test_saturated_star_does_not_ring(star: Field, band: str) -> None:
    # Convolved to the PSF of the PSF-matched coadd the restored image must
    # equal it away from the flagged core, within the noise and what the
    # exposures themselves disagree by.
    exposures = star.warps(band)
    images, variances, good = (
        np.stack([getattr(e, name) for e in exposures]) for name in ("image", "variance", "good")
    )
    psfs = star.psfs(exposures)
    width = 1.02 * max(kernel_fwhm(psf) for psf in psfs)
    matched = psf_matched_coadd(images, variances, good, psfs, width)
    coadd = star.coadd(band)
    target = star.metrics(band)["image"]["target_fwhm"] / star.geometry.pixel_scale
    blurred = gaussian_blur(coadd.image.array, np.sqrt(width**2 - target**2))
    disagreement = np.where(good.all(axis=0), np.ptp(images, axis=0), np.nan)
    systematic = 0.5 * gaussian_blur(disagreement, 2.0 * width)
    flagged = star.planes(band)["SATURATED"].any(axis=0)
    radius = psfs.shape[-1] // 2
    core = binary_dilation(flagged | ~good.any(axis=0), iterations=radius)
    away = ~core & np.isfinite(blurred) & np.isfinite(matched.image) & np.isfinite(systematic)
    assert away.sum() > 100
    deviation = np.abs(blurred - matched.image) / np.hypot(np.sqrt(matched.variance), systematic)
    assert np.mean(deviation[away] < 3.0) > 0.995
    # A ring would also swing below the sky.
    significance = coadd.image.array / np.sqrt(coadd.variance.array)
    assert significance[away].min() > -3.0


def gaussian_blur(image: np.ndarray, fwhm: float) -> np.ndarray:
    """Convolve with a Gaussian, leaving out pixels without a value."""
    from astropy.convolution import Gaussian2DKernel, convolve

    kernel = Gaussian2DKernel(fwhm / np.sqrt(8.0 * np.log(2.0)))
    return convolve(image, kernel, boundary="fill", fill_value=np.nan, preserve_nan=True)
