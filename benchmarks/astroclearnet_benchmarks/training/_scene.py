# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a training scene, and the truth."""

from __future__ import annotations

__all__ = ("TrainingScene", "render_scene", "training_scene")

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import PixelPositions
from lsst.astroclearnet.simulation import ArtefactOptions

from ..scenes._exposures import Conditions
from ..scenes._recording import record
from ._content import fill_sky, sky_sigma
from ._observation import Holes, added_variance, corner_weights, draw_optics, missing_places, pixel_places
from ._recipe import SHAPE, TrainingRecipe, draw_recipe
from ._sky_grid import SkyGrid

type Array = npt.NDArray[np.float64]


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
    good: npt.NDArray[np.bool_]
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
    stars = fill_sky(sky, recipe, rng)
    return observe_sky(sky, stars, recipe, rng)


def observe_sky(
    sky: SkyGrid, stars: Array, recipe: TrainingRecipe, rng: np.random.Generator
) -> TrainingScene:
    """Observe a sky as a recipe says.

    Parameters
    ----------
    sky
        The sky.
    stars
        Column and row of the brightest stars, shape (k, 2).
    recipe
        The recipe.
    rng
        Random numbers.

    Returns
    -------
    scene : `TrainingScene`
        The exposures and the truth.
    """
    light = sky.freeze()
    spectra = [sky.spectrum(light * weight) for weight in corner_weights(sky, recipe)]
    truth = sky.gaussian_image(np.sum(spectra, axis=0), recipe.target_fwhm)
    holes = Holes.draw(recipe, truth / sky_sigma(recipe), stars, rng)
    options = ArtefactOptions(
        cosmic_rays=recipe.cosmic_rays,
        flagged_fraction=recipe.flagged_fraction,
        bad_columns=recipe.bad_columns,
    )
    images, variances, good, psfs, places = [], [], [], [], []
    for exposure in recipe.exposures:
        y, x = pixel_places(exposure, recipe)
        optics = draw_optics(sky, exposure, recipe)
        blurred = np.einsum("cyx,cyx->yx", spectra, optics.transforms)
        recorded = record(
            sky.observe(blurred, *((y, x) if recipe.is_dithered else ())) * exposure.scale**2,
            Conditions(fwhm=exposure.fwhm, per_njy=exposure.per_njy, sky=exposure.sky),
            missing_places(exposure, y, x),
            options,
            rng,
            has_trail=exposure.has_trail,
        )
        added = added_variance(exposure, y, x)
        noise = rng.normal(size=added.shape) * np.sqrt(added) if added.any() else 0.0
        images.append(recorded.image + noise)
        variances.append(recorded.variance + added)
        good.append(recorded.good & ~holes.cover(y, x))
        psfs.append(optics.psfs)
        places.append((y, x))
    return TrainingScene(
        images=np.stack(images).astype(np.float32),
        variances=np.stack(variances).astype(np.float32),
        good=np.stack(good),
        psfs=np.stack(psfs).astype(np.float32),
        positions=_positions(places, recipe) if recipe.is_dithered else None,
        target_fwhm=recipe.target_fwhm,
        truth=truth.astype(np.float32),
        recipe=recipe,
    )


def _positions(places: list[tuple[Array, Array]], recipe: TrainingRecipe) -> PixelPositions:
    """Return the positions of the pixels of all exposures."""
    y, x = (np.stack(c) for c in zip(*places, strict=True))
    area = np.array([e.scale**2 for e in recipe.exposures])[:, np.newaxis, np.newaxis]
    return PixelPositions.from_arrays(SHAPE, y, x, np.broadcast_to(area, y.shape))
