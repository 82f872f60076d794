# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Scenes for the benchmark of rejection: artefacts over all kinds of light."""

from __future__ import annotations

__all__ = ("CHANGES", "GROUNDS", "RejectionScene", "add_change", "add_cosmic_rays", "add_trail", "make_scene")

import dataclasses
import math

import galsim
import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma

type Array = npt.NDArray[np.float64]
type Place = tuple[float, float]

SHAPE = (112, 120)
"""Height and width of a scene in pixels."""

_GAIN = 100.0
"""Electrons in one standard deviation of the sky: a sky of 10^4 electrons."""

_PSF_SIZE = 33
_MARGIN = 12

GROUNDS = (
    "sky",
    "smooth 30",
    "smooth 300",
    "smooth 1000",
    "star flank",
    "star peak",
    "galaxy",
    "globular core",
)
"""What lies below an artefact; levels of smooth light in sigma of the sky."""

CHANGES = {
    "brighter by 30 %": {"flux": 1.3},
    "fainter by 30 %": {"flux": 0.7},
    "PSF wider by 4 %": {"width": 1.04},
    "PSF narrower by 4 %": {"width": 0.96},
    "PSF elongated by 4 %": {"shear": 0.02},
    "shifted by 0.1 pixels": {"shift": 0.1},
}
"""What is no artefact though it shows in one exposure alone."""


@dataclasses.dataclass(frozen=True)
class RejectionScene:
    """Exposures of known light.

    Attributes
    ----------
    light
        Shape (n, H, W), expected light in sigma of the sky, on the grid of
        the patch.
    psfs
        Shape (n, P, P), sum 1.
    stars
        Row, column and flux of each star.
    places
        Rows and columns where artefacts are put.
    fwhms
        FWHM in pixels of each PSF.
    """

    light: Array
    psfs: Array
    stars: tuple[tuple[float, float, float], ...]
    places: tuple[Place, ...]
    fwhms: tuple[float, ...]

    @property
    def sigma(self) -> Array:
        """Standard deviation of the noise, shape (n, H, W)."""
        return np.sqrt(1.0 + self.light / _GAIN)

    def observe(self, added: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return images with noise, and variances estimated from them."""
        light = self.light + added
        images = light + rng.normal(size=light.shape) * np.sqrt(1.0 + light.clip(min=0.0) / _GAIN)
        return images, np.maximum(1.0 + images / _GAIN, 0.1)


def _psf(fwhm: float, shear: tuple[float, float]) -> galsim.GSObject:
    return galsim.Kolmogorov(fwhm=fwhm).shear(g1=shear[0], g2=shear[1])


def _render(sources: galsim.GSObject | None, psf: galsim.GSObject, y: float, x: float) -> Array:
    """Return a source seen with a PSF, shape (H, W)."""
    image = galsim.ImageD(SHAPE[1], SHAPE[0], scale=1.0, xmin=0, ymin=0)
    profile = psf if sources is None else galsim.Convolve(sources, psf)
    profile.drawImage(image, center=galsim.PositionD(x, y), method="auto")
    return np.asarray(image.array, dtype=float)


def _stamps(stars: list[tuple[float, float, float]], psf: galsim.GSObject) -> Array:
    """Return stars, drawn on stamps."""
    image = galsim.ImageD(SHAPE[1], SHAPE[0], scale=1.0, xmin=0, ymin=0)
    for y, x, flux in stars:
        stamp = (flux * psf).drawImage(nx=65, ny=65, scale=1.0, center=galsim.PositionD(x, y), method="auto")
        bounds = stamp.bounds & image.bounds
        image[bounds] += stamp[bounds]
    return np.asarray(image.array, dtype=float)


def make_scene(
    ground: str, number: int, rng: np.random.Generator, *, fwhms: tuple[float, float] = (3.2, 4.6)
) -> RejectionScene:
    """Return a scene."""
    height, width = SHAPE
    widths = tuple(float(f) for f in rng.permutation(np.linspace(*fwhms, number)))
    psfs = [_psf(f, tuple(rng.normal(scale=0.02, size=2))) for f in widths]
    stamps = np.stack([p.drawImage(nx=_PSF_SIZE, ny=_PSF_SIZE, scale=1.0).array for p in psfs])
    stars: list[tuple[float, float, float]] = []
    light = np.zeros((number, *SHAPE))
    grid = [(y, x) for y in np.arange(20.0, height - 15, 24.0) for x in np.arange(20.0, width - 15, 26.0)]
    places = [(y + rng.uniform(-4, 4), x + rng.uniform(-4, 4)) for y, x in grid]
    if ground.startswith("smooth"):
        # A plane and a wide hill, as nebulae and haloes are.
        rows, columns = np.mgrid[:height, :width]
        hill = np.exp(-((rows - 30.0) ** 2 + (columns - 90.0) ** 2) / (2.0 * 45.0**2))
        light += float(ground.split()[1]) * (0.7 + 0.003 * rows + 0.4 * hill)
    elif ground.startswith("star"):
        # From 10 to 1000 sigma of the sky in the peak.
        area = 1.13 * float(np.mean(widths)) ** 2
        stars = [(y, x, area * 10.0 ** rng.uniform(1.0, 3.0)) for y, x in places]
    elif ground == "galaxy":
        galaxies = [(30.0, 34.0), (30.0, 88.0), (82.0, 34.0), (82.0, 88.0)]
        for y, x in galaxies:
            g = float(rng.uniform(-0.3, 0.3))
            profile = galsim.Sersic(n=1.0, half_light_radius=7.0, flux=40000.0).shear(g1=g, g2=0.2)
            profile += galsim.Sersic(n=3.0, half_light_radius=3.0, flux=15000.0)
            light += np.stack([_render(profile, p, y, x) for p in psfs])
        places = [(y + dy, x + dx) for y, x in galaxies for dy, dx in ((0, 0), (4, 3), (-6, 2), (2, -9))]
    elif ground == "globular core":
        for _ in range(500):
            y, x = rng.normal(scale=16.0, size=2)
            stars.append((height / 2 + y, width / 2 + x, 400.0 * rng.pareto(1.2) + 100.0))
        stars = [(y, x, min(f, 12000.0)) for y, x, f in stars]
        places = [(height / 2 + y, width / 2 + x) for y in (-20, 0, 20) for x in (-24, -8, 8, 24)]
    if stars:
        light += np.stack([_stamps(stars, p) for p in psfs])
    if ground == "star flank":
        angle = rng.uniform(0.0, 2.0 * math.pi, size=len(places))
        places = [
            (y + 2.5 * math.sin(a), x + 2.5 * math.cos(a)) for (y, x), a in zip(places, angle, strict=True)
        ]
    return RejectionScene(
        light, stamps / stamps.sum(axis=(1, 2), keepdims=True), tuple(stars), tuple(places), widths
    )


def add_cosmic_rays(scene: RejectionScene, height: float, rng: np.random.Generator) -> Array:
    """Return cosmic rays, one at each place, in exposures drawn by chance.

    Tracks of two to five pixels.
    """
    added = np.zeros(scene.light.shape)
    for y, x in scene.places:
        exposure, angle = int(rng.integers(len(added))), rng.uniform(0.0, 2.0 * math.pi)
        steps = np.arange(0.0, rng.integers(2, 6), 0.5) - 0.5
        rows = np.round(y + steps * math.sin(angle)).astype(int)
        columns = np.round(x + steps * math.cos(angle)).astype(int)
        added[exposure, rows, columns] = height * scene.sigma[exposure, rows, columns]
    return added


def add_trail(scene: RejectionScene, height: float, rng: np.random.Generator) -> Array:
    """Return a trail in one exposure, through one of the places."""
    added = np.zeros(scene.light.shape)
    exposure, angle = int(rng.integers(len(added))), rng.uniform(0.0, math.pi)
    y, x = scene.places[int(rng.integers(len(scene.places)))]
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = (rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)
    sigma = scene.fwhms[exposure] * gaussian_fwhm_to_sigma
    level = float(np.median(scene.sigma[exposure]))
    added[exposure] = height * level * np.exp(-0.5 * (distance / sigma) ** 2)
    return added


def add_change(scene: RejectionScene, change: dict[str, float], rng: np.random.Generator) -> Array:
    """Return what a change of all stars adds to one exposure."""
    exposure, angle = int(rng.integers(len(scene.light))), rng.uniform(0.0, 2.0 * math.pi)
    given = scene.psfs[exposure]
    psf = galsim.InterpolatedImage(galsim.ImageD(given, scale=1.0), flux=1.0)
    shear = change.get("shear", 0.0)
    changed = psf.dilate(change.get("width", 1.0)).shear(
        g1=shear * math.cos(2.0 * angle), g2=shear * math.sin(2.0 * angle)
    )
    shift, factor = change.get("shift", 0.0), change.get("flux", 1.0)
    moved = [
        (y + shift * math.sin(angle), x + shift * math.cos(angle), factor * f) for y, x, f in scene.stars
    ]
    added = np.zeros(scene.light.shape)
    before, after = (_draw_pixels(list(stars), p) for stars, p in ((scene.stars, psf), (moved, changed)))
    added[exposure] = after - before
    return added


def _draw_pixels(stars: list[tuple[float, float, float]], psf: galsim.GSObject) -> Array:
    """Return stars seen with a PSF that holds the pixel."""
    image = galsim.ImageD(SHAPE[1], SHAPE[0], scale=1.0, xmin=0, ymin=0)
    for y, x, flux in stars:
        stamp = (flux * psf).drawImage(
            nx=65, ny=65, scale=1.0, center=galsim.PositionD(x, y), method="no_pixel"
        )
        bounds = stamp.bounds & image.bounds
        image[bounds] += stamp[bounds]
    return np.asarray(image.array, dtype=float)
