# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a training scene, and the truth."""

from __future__ import annotations

__all__ = ("TrainingScene", "training_scene")

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core.exposures import PixelPositions
from lsst.astroclearnet.simulation import AB_ZERO_POINT_NJY, BANDS, EXPOSURE_TIME, ArtefactOptions

from ..scenes._exposures import PIXEL_FWHM_SQUARED, Conditions, record
from ..scenes._sources import SceneSource, draw_field
from . import _structures as structures
from ._recipe import FRAME_SHAPE, SHAPE, ExposureRecipe, TrainingRecipe, draw_recipe
from ._sky_grid import Kernel, SkyGrid

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]
type Random = np.random.Generator

_SERSIC_SHARES = {0.5: 0.1, 1.0: 0.35, 1.5: 0.2, 2.5: 0.15, 4.0: 0.2}
_CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))
"""Row and column of the corners of the patch, in halves of its sides."""

_LONG_WINGS = 3.0
"""Radius of PSFs with long wings over half the side of their stamps."""


@dataclasses.dataclass(frozen=True)
class TrainingScene:
    """Exposures for the training of a restoration network.

    Attributes
    ----------
    images
        Sky-subtracted exposures in nJy, shape (n, h, w), float32.
    variances
        Variance planes made of the noisy exposures as pipelines do, in
        nJy^2, shape (n, h, w), float32.
    good
        Pixels that are not flagged, shape (n, h, w), bool.
    psfs
        PSFs as they are known, with unit sum, shape (n, P, P) or
        (n, cells, cells, P, P), float32.
    positions
        Positions of the pixels on the patch; `None` for co-registered
        exposures.
    target_fwhm
        FWHM of the target PSF in pixels.
    truth
        The sky at the target PSF in nJy per pixel, shape (H, W), float32.
    recipe
        What was drawn.
    """

    images: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]
    good: Mask
    psfs: npt.NDArray[np.float32]
    positions: PixelPositions | None
    target_fwhm: float
    truth: npt.NDArray[np.float32]
    recipe: TrainingRecipe

    @property
    def conditions(self) -> dict[str, Any]:
        """The recipe in types of JSON (`dict`)."""
        return self.recipe.as_dict()


def training_scene(seed: int) -> TrainingScene:
    """Simulate a training scene.

    Parameters
    ----------
    seed
        Seed; the same one gives the same scene.

    Returns
    -------
    scene : `TrainingScene`
        The exposures and the truth.
    """
    return render_scene(draw_recipe(seed))


def render_scene(recipe: TrainingRecipe) -> TrainingScene:
    """Simulate the scene of a recipe.

    Parameters
    ----------
    recipe
        The recipe.

    Returns
    -------
    scene : `TrainingScene`
        The exposures and the truth.
    """
    rng = np.random.default_rng([recipe.seed, 1])
    sky = SkyGrid(SHAPE)
    bright = _fill(sky, recipe, rng)
    smooth = sky.freeze()
    corners = [(0.0, 0.0)] if recipe.cells == 1 else _CORNERS
    spectra = [sky.spectrum(smooth * _corner_weight(sky, corner)) for corner in corners]
    whole = spectra[0] if recipe.cells == 1 else sum(spectra)
    options = ArtefactOptions(
        cosmic_rays=recipe.cosmic_rays,
        flagged_fraction=recipe.flagged_fraction,
        bad_columns=recipe.bad_columns,
    )
    images, variances, good, psfs, frames = [], [], [], [], []
    for exposure in recipe.exposures:
        y, x = _frame(exposure, recipe)
        kernels = [_kernel(exposure, corner, recipe) for corner in corners]
        geometry = exposure.angle, exposure.scale
        transform = sum(s * sky.kernel_transform(k, *geometry) for s, k in zip(spectra, kernels, strict=True))
        light = sky.observe(transform, y, x) if recipe.is_dithered else sky.observe(transform)
        conditions = Conditions(
            psf=kernels[0].profile, fwhm=exposure.fwhm, per_njy=exposure.per_njy, sky=exposure.sky
        )
        missing = _missing(exposure, y, x)
        recorded = record(
            light * exposure.scale**2, conditions, missing, options, rng, has_trail=exposure.has_trail
        )
        images.append(recorded.image)
        variances.append(recorded.variance)
        good.append(recorded.good & ~_masked(recipe, bright, y, x))
        psfs.append(_known_psfs(sky, exposure, corners, recipe))
        frames.append((y, x))
    positions = None
    if recipe.is_dithered:
        rows, columns = (np.stack(c) for c in zip(*frames, strict=True))
        area = np.array([e.scale**2 for e in recipe.exposures])[:, np.newaxis, np.newaxis]
        positions = PixelPositions.from_arrays(SHAPE, rows, columns, np.broadcast_to(area, rows.shape))
    return TrainingScene(
        images=np.stack(images).astype(np.float32),
        variances=np.stack(variances).astype(np.float32),
        good=np.stack(good),
        psfs=np.stack(psfs).astype(np.float32),
        positions=positions,
        target_fwhm=recipe.target_fwhm,
        truth=sky.gaussian_image(whole, recipe.target_fwhm).astype(np.float32),
        recipe=recipe,
    )


def _fill(sky: SkyGrid, recipe: TrainingRecipe, rng: Random) -> Array:
    """Put light into the sky; return x and y of bright stars, shape (k, 2)."""
    content = recipe.sky
    information = sum(e.per_njy**2 / e.sky for e in recipe.exposures)
    sigma = information**-0.5
    time = sum(e.per_njy for e in recipe.exposures) / _reference_per_njy()
    # Twelve exposures reach 27.2; half a magnitude deeper with each doubling
    # of the depth in flux.
    faintest = float(np.clip(27.2 + 1.25 * math.log10(time / 12.0), 25.5, 28.0))
    if content["galaxies"]:
        field = draw_field(
            SHAPE,
            rng,
            galaxies=content["galaxies"],
            stars=content["stars"],
            faintest=faintest,
            indices=_SERSIC_SHARES,
        )
        for source in field:
            sky.add_source(source)
            if source.profile is not None and rng.random() < content["knotted_share"]:
                _add_knots(sky, source, rng)
    number = int(content["bright_stars"])
    bright = rng.uniform(-8.0, np.array(SHAPE[::-1]) + 8.0, size=(number, 2))
    magnitudes = rng.uniform(14.0, 18.5, number)
    sky.add_points(bright[:, 0], bright[:, 1], 10.0 ** (-0.4 * (magnitudes - AB_ZERO_POINT_NJY)))
    makers = {
        "spirals": (structures.add_spiral, 2.5, 14.0),
        "large_spirals": (structures.add_spiral, 15.0, 45.0),
        "edge_on": (structures.add_edge_on, 4.0, 18.0),
        "large_edge_on": (structures.add_edge_on, 20.0, 45.0),
        "clumpy": (structures.add_clumpy, 1.5, 10.0),
        "mergers": (structures.add_merger, 2.5, 14.0),
        "arcs": (structures.add_arcs, 5.0, 22.0),
    }
    for name, (add, low, high) in makers.items():
        for _ in range(int(content.get(name, 0))):
            add(sky, rng, sigma, structures.log_uniform(rng, low, high))
    if content.get("pairs"):
        structures.add_pairs(sky, rng, sigma, int(content["pairs"]), recipe.target_fwhm)
    if content.get("cluster_stars"):
        structures.add_cluster(sky, rng, sigma, int(content["cluster_stars"]))
    if content.get("nebula_sigma"):
        structures.add_nebula(sky, rng, sigma, content["nebula_sigma"])
    if content.get("intracluster"):
        structures.add_intracluster_light(sky, rng, sigma)
    if content.get("gradient_sigma"):
        structures.add_gradient(sky, rng, sigma, content["gradient_sigma"])
    return bright


def _reference_per_njy() -> float:
    """Return the electrons per nJy of a usual exposure."""
    return EXPOSURE_TIME * 10.0 ** (0.4 * (BANDS["i"].zero_point - AB_ZERO_POINT_NJY))


def _add_knots(sky: SkyGrid, source: SceneSource, rng: Random) -> None:
    """Add points to a galaxy within about its half-light radius."""
    number = int(rng.integers(1, 7))
    spots = rng.normal(0.0, 0.2 * source.extent, (2, number))
    flux = source.flux * rng.uniform(0.005, 0.1, number)
    sky.add_points(source.x + spots[0], source.y + spots[1], flux)


def _corner_weight(sky: SkyGrid, corner: tuple[float, float]) -> Array:
    """Return the weights of bilinear interpolation from a corner."""
    if corner == (0.0, 0.0):
        return np.ones((1, 1))
    rows, columns = (
        0.5 + 0.5 * side * (2.0 * c / (size - 1) - 1.0)
        for side, c, size in zip(corner, (sky.y, sky.x), sky.shape, strict=True)
    )
    return np.asarray(rows * columns)


def _kernel(
    exposure: ExposureRecipe, place: tuple[float, float], recipe: TrainingRecipe, *, is_known: bool = False
) -> Kernel:
    """Return the profile of a PSF, the true one or the one that is given."""
    v, u = place
    along_x, along_y, shear = exposure.gradient
    fwhm = exposure.fwhm * (1.0 + along_x * u + along_y * v)
    g1, g2 = exposure.ellipticity[0] + shear * u, exposure.ellipticity[1] + shear * v
    # Room for the shear and the pixel.
    radius = recipe.stamp_size // 2 - 1.5
    if is_known:
        fwhm *= 1.0 + exposure.width_error
        g1, g2 = g1 + exposure.ellipticity_error[0], g2 + exposure.ellipticity_error[1]
    if recipe.has_long_wings:
        radius *= _LONG_WINGS
    return Kernel(math.sqrt(fwhm**2 - PIXEL_FWHM_SQUARED), exposure.beta, g1, g2, radius)


def _known_psfs(sky: SkyGrid, exposure: ExposureRecipe, corners: Any, recipe: TrainingRecipe) -> Array:
    """Return the PSFs that are given, at the middles of cells."""
    stamps = [
        sky.stamp(
            sky.kernel_transform(
                _kernel(exposure, corner, recipe, is_known=True), exposure.angle, exposure.scale
            ),
            recipe.stamp_size,
        )
        for corner in corners
    ]
    stamps = [stamp / stamp.sum() for stamp in stamps]
    if recipe.cells == 1:
        return stamps[0]
    middles = (2.0 * np.arange(recipe.cells) + 1.0) / recipe.cells - 1.0
    return np.asarray(
        sum(
            np.multiply.outer(np.outer(0.5 + 0.5 * v * middles, 0.5 + 0.5 * u * middles), stamp)
            for (v, u), stamp in zip(corners, stamps, strict=True)
        )
    )


def _frame(exposure: ExposureRecipe, recipe: TrainingRecipe) -> tuple[Array, Array]:
    """Return rows and columns of the pixels of an exposure on the patch."""
    if not recipe.is_dithered:
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
        return y, x
    rows, columns = np.mgrid[: FRAME_SHAPE[0], : FRAME_SHAPE[1]].astype(float)
    rows -= (FRAME_SHAPE[0] - 1) / 2.0
    columns -= (FRAME_SHAPE[1] - 1) / 2.0
    c, s = exposure.scale * math.cos(exposure.angle), exposure.scale * math.sin(exposure.angle)
    x = (SHAPE[1] - 1) / 2.0 + exposure.shift[0] + c * columns - s * rows
    y = (SHAPE[0] - 1) / 2.0 + exposure.shift[1] + s * columns + c * rows
    return y, x


def _missing(exposure: ExposureRecipe, y: Array, x: Array) -> Mask:
    """Return pixels beyond a chip edge or in a gap between chips."""
    missing = np.zeros(y.shape, dtype=bool)
    for angle, distance, width in exposure.edges:
        across = (x - SHAPE[1] / 2.0) * math.cos(angle) + (y - SHAPE[0] / 2.0) * math.sin(angle) - distance
        missing |= (across > 0.0) & (across < width)
    return missing


def _masked(recipe: TrainingRecipe, bright: Array, y: Array, x: Array) -> Mask:
    """Return pixels that are masked in all exposures."""
    masked = np.zeros(y.shape, dtype=bool)
    for row, column, side in recipe.holes:
        masked |= (np.abs(y - row) < 0.5 * side) & (np.abs(x - column) < 0.5 * side)
    if recipe.masked_cores:
        for column, row in bright:
            masked |= np.hypot(y - row, x - column) < recipe.masked_cores
    return masked
