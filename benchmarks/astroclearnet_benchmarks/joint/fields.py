# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fields in several bands, which no joint network was trained on."""

from __future__ import annotations

__all__ = ("KINDS", "Band", "Field", "make_field")

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
import torch

from lsst.astroclearnet.core import ExposureStack, RestoreOptions, load_packaged_model
from lsst.astroclearnet.core.estimate import BandImage, Estimator
from lsst.astroclearnet.core.exposures import close_holes
from lsst.astroclearnet.core.forward import WEIGHT_FLOOR, ForwardModel, psf_fwhms

from ..training._bands import BandSkies
from ..training._content import fill_sky
from ..training._recipe import SHAPE, ExposureRecipe, TrainingRecipe, draw_band_recipes
from ..training._scene import observe_sky

_FIRST_SEED = 500_000
"""Seed of the first field; those of training begin at 0."""

KINDS = {"g, r, i, z": 4, "i, z, N921": 3}
"""Bands of fields, and their number."""

_EMPTY = (
    "bright_stars",
    "cluster_stars",
    "gradient_sigma",
    "intracluster",
    "large_edge_on",
    "large_spirals",
    "nebula_sigma",
)
"""What fields do not have: they are those of an extragalactic survey."""

_NARROW_DEPTH, _NARROW_EXPOSURES = 0.15, 4
"""Exposure time of the narrow band over that of the others, and its number of
exposures."""

NUM_EXPOSURES = 8
"""Exposures of a band."""


@dataclasses.dataclass(frozen=True)
class Band:
    """Exposures of a band, and the truth.

    Attributes
    ----------
    stack
        The exposures.
    estimator
        Their estimator, with the packaged network.
    truth
        Shape (H, W), the sky at the target PSF.
    """

    stack: ExposureStack
    estimator: Estimator
    truth: torch.Tensor

    @property
    def star_noise(self) -> torch.Tensor:
        """Peak of a star of signal-to-noise ratio 1 (`torch.Tensor`)."""
        return self.estimator.model.crop(self.estimator.debiaser.star_noise)

    @property
    def has_data(self) -> torch.Tensor:
        """Pixels with data, and the holes that are inpainted
        (`torch.Tensor`).
        """
        seen = self.estimator.linear.coverage > WEIGHT_FLOOR
        return close_holes(seen, round(float(psf_fwhms(self.stack).max())))

    @property
    def right_side(self) -> torch.Tensor:
        """Right-hand side of the normal equations (`torch.Tensor`)."""
        return self.estimator.linear.right_side(self.stack.images)

    @functools.cached_property
    def image(self) -> BandImage:
        """The band restored on its own (`BandImage`)."""
        with torch.no_grad():
            return self.estimator.restore(self.stack.images)

    def restore_with(self, light: torch.Tensor) -> BandImage:
        """Restore the band on its own with more light.

        Parameters
        ----------
        light
            Shape (n, h, w), what is added to the exposures.
        """
        with torch.no_grad():
            return self.estimator.restore(self.stack.images + light)

    def observe(self, light: torch.Tensor) -> torch.Tensor:
        """Return exposures, (n, h, w), of light at the target PSF, (H, W)."""
        model = self.estimator.model
        return model.predict(model.embed(light))


@dataclasses.dataclass(frozen=True)
class Field:
    """A field in several bands.

    Attributes
    ----------
    bands
        The bands, bluest first.
    target_fwhm
        FWHM of the target PSF in pixels.
    sources
        Row and column, and flux in each band, of stars, galaxies
        and their parts, shape (k, 2 + bands).
    """

    bands: list[Band]
    target_fwhm: float
    sources: npt.NDArray[np.float64]


@functools.cache
def make_field(number: int, kind: str = "g, r, i, z") -> Field:
    """Simulate a field.

    Galaxies and stars reach a magnitude at which they are not detected.  Each
    band has 8 exposures with a seeing and depth of its own; PSFs are exact and
    artefacts flagged.

    Parameters
    ----------
    number
        Number of the field.
    kind
        One of `KINDS`; the last band of ``"i, z, N921"`` has 4 exposures of
        15 % of the time.
    """
    seed = _FIRST_SEED + number
    recipes = [_plain(recipe) for recipe in draw_band_recipes(seed, KINDS[kind])]
    if "N921" in kind:
        recipes[-1] = _narrow(recipes[-1])
    skies = _RecordedSkies(SHAPE, len(recipes), np.random.default_rng([seed, 5]))
    stars = fill_sky(skies, recipes[0], np.random.default_rng([seed, 1]))
    network = load_packaged_model().network
    scenes = [
        observe_sky(sky, stars, recipe, np.random.default_rng([seed, 6, band]))
        for band, (sky, recipe) in enumerate(zip(skies.bands, recipes, strict=True))
    ]
    # One unit for all, near the noise of an exposure.
    unit = float(np.median(np.sqrt(scenes[0].variances)))
    bands = []
    for scene in scenes:
        stack = ExposureStack.from_arrays(
            scene.images / unit, scene.variances / unit**2, scene.good, scene.psfs
        )
        model = ForwardModel.from_stack(stack, scene.target_fwhm)
        estimator = Estimator(network, model, stack.good / stack.variances, RestoreOptions())
        bands.append(Band(stack, estimator, torch.from_numpy(scene.truth / unit).float()))
    sources = np.concatenate(skies.sources)
    sources[:, 2:] /= unit
    return Field(bands, recipes[0].target_fwhm, sources)


class _RecordedSkies(BandSkies):
    """Skies that know the sources in them."""

    def __init__(self, shape: tuple[int, int], number: int, rng: np.random.Generator) -> None:
        super().__init__(shape, number, rng)
        self.sources: list[npt.NDArray[np.float64]] = [np.zeros((0, 2 + number))]

    def record(
        self,
        y: npt.NDArray[np.float64],
        x: npt.NDArray[np.float64],
        fluxes: npt.NDArray[np.float64],
    ) -> None:
        self.sources.append(np.column_stack([y, x, fluxes]))


def _plain(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return a recipe of an extragalactic field with exact PSFs."""
    sky = recipe.sky | dict.fromkeys(_EMPTY, 0.0) | {"galaxies": 35.0, "stars": 4.0, "knotted_share": 0.3}
    exposures = [_plain_exposure(e) for e in recipe.exposures]
    # As many in each band, and as deep as they were.
    exposures = [exposures[k % len(exposures)] for k in range(NUM_EXPOSURES)]
    return dataclasses.replace(
        recipe,
        is_dithered=False,
        cells=1,
        has_long_wings=False,
        cosmic_rays=1.0,
        flagged_fraction=1.0,
        bad_columns=1,
        holes=(),
        masked_cores=0.0,
        exposures=tuple(exposures),
        sky=sky,
    )


def _plain_exposure(exposure: ExposureRecipe) -> ExposureRecipe:
    return dataclasses.replace(
        exposure,
        gradient=(0.0, 0.0, 0.0),
        width_error=0.0,
        ellipticity_error=(0.0, 0.0),
        angle=0.0,
        scale=1.0,
        shift=(0.0, 0.0),
        has_trail=False,
        edges=(),
        noisy_part=(0.0, 0.0, 0.0),
    )


def _narrow(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return the recipe of a shallow narrow band."""
    exposures = tuple(
        dataclasses.replace(e, per_njy=e.per_njy * _NARROW_DEPTH, sky=e.sky * _NARROW_DEPTH)
        for e in recipe.exposures[:_NARROW_EXPOSURES]
    )
    return dataclasses.replace(recipe, exposures=exposures)
