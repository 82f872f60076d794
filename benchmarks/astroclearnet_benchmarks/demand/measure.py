# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored images, honest and doctored, and what is flagged in them."""

from __future__ import annotations

__all__ = ("RATIOS", "Field", "Flags", "make_field")

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import ExposureStack, RestoreOptions, fwhm_to_sigma, kernel_fwhm
from lsst.astroclearnet.core.calibration import calibrate_exposures
from lsst.astroclearnet.core.estimate import Estimate, Estimator, load_packaged_model
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import TileReader, WeightMaps, weight_maps
from lsst.astroclearnet.core.noise import (
    DemandedLight,
    LocalNoise,
    PsfErrorImages,
    linear_variance,
    measure_demanded_light,
    repeat_observations,
)
from lsst.astroclearnet.core.tiles import BrightStars
from lsst.astroclearnet.tests import gaussian_stars

from ..scenes import Scene, SceneOptions, simulate_scene

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

RATIOS = (5.0, 8.0, 12.0)
"""Signal-to-noise ratios of the sources."""

_TARGET = 3.0
_SHAPE = (160, 160)
_SPACING = 22
"""Distance in pixels between sources."""

_BORDER = 14
_JITTER = 3.0


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is flagged around places.

    Attributes
    ----------
    found
        Shape (k,), whether the place is flagged.
    blank
        Shape (k,), whether it lies on blank sky.
    """

    found: Mask
    blank: Mask


@dataclasses.dataclass(frozen=True)
class Field:
    """A restored scene.

    Attributes
    ----------
    scene
        The scene.
    estimator, estimate
        The estimator and its estimate.
    noise
        Right-hand sides of drawn noise.
    maps
        Weights on the patch.
    psf_variance
        Variance from errors of PSFs.
    stars
        Bright stars that are put back, if there are any.
    """

    scene: Scene
    estimator: Estimator
    estimate: Estimate
    noise: torch.Tensor
    maps: WeightMaps
    psf_variance: torch.Tensor
    stars: torch.Tensor | None

    def measure(self, invented: Array | None = None, withheld: Array | None = None) -> DemandedLight:
        """Return what the exposures demand, with light that only the image or
        only the exposures have, (H, W) at the target PSF.
        """
        model, debiased = self.estimator.model, self.estimate.debiased
        image, right = debiased.image, debiased.right
        if invented is not None:
            image = image + model.embed(torch.from_numpy(invented).float())
        if withheld is not None:
            light = model.embed(torch.from_numpy(withheld).float())
            right = right + self.estimator.linear.normal(light[None])[0]
        doctored = dataclasses.replace(debiased, image=image, right=right)
        estimate = dataclasses.replace(self.estimate, debiased=doctored)
        return measure_demanded_light(
            self.estimator, estimate, self.noise, self.maps, self.psf_variance, self.stars
        )

    @property
    def seen(self) -> Mask:
        """Pixels that an exposure sees (`numpy.ndarray`)."""
        return np.asarray(self.maps.used.any(dim=0).numpy())

    def find_doctored(self, ratio: float, rng: np.random.Generator) -> tuple[Flags, Flags]:
        """Return what is flagged of sources that are invented, and withheld.

        Parameters
        ----------
        ratio
            Signal-to-noise ratio of the sources.
        rng
            Their places.
        """
        debiaser = self.estimator.debiaser
        noise = self.estimator.model.crop(debiaser.flux_noise).numpy()
        axes = [np.arange(_BORDER, length - _BORDER + 4, _SPACING) for length in _SHAPE]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        places = grid + rng.uniform(-_JITTER, _JITTER, grid.shape)
        pixels = places.round().astype(int)
        places, pixels = (p[self.seen[tuple(pixels.T)]] for p in (places, pixels))
        fluxes = ratio * noise[tuple(pixels.T)]
        stars = [(float(y), float(x), float(flux)) for (y, x), flux in zip(places, fluxes, strict=True)]
        light = gaussian_stars(_SHAPE, stars, _TARGET)
        is_blank = self.scene.blank[tuple(pixels.T)]
        found = (self.measure(invented=light).supplied, self.measure(withheld=light).withheld)
        invented, withheld = (
            Flags(np.array([_near(flags.numpy(), y, x) for y, x in pixels]), is_blank) for flags in found
        )
        return invented, withheld


def _near(flags: Mask, y: int, x: int) -> bool:
    """Return whether a pixel or a neighbour is flagged."""
    return bool(flags[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any())


@torch.no_grad()
def make_field(kind: str, seed: int, num_exposures: int = 8, psf_error: float = 0.0) -> Field:
    """Simulate a scene and restore it.

    Parameters
    ----------
    kind
        Kind of the scene.
    seed
        Its seed.
    num_exposures
        Number of its exposures.
    psf_error
        PSFs are too wide by 0 to twice this share of their FWHM.
    """
    scene = simulate_scene(SceneOptions(seed=seed, kind=kind, shape=_SHAPE, num_exposures=num_exposures))
    rng = np.random.default_rng([seed, 1])
    psfs = [_widen(psf, rng.uniform(0.0, 2.0 * psf_error)) for psf in scene.psfs]
    stack = ExposureStack.from_arrays(scene.images, scene.variances, scene.good, np.stack(psfs))
    options = RestoreOptions()
    (tile,) = TileGrid.cover(_SHAPE, 1024).tiles
    reader = TileReader(StackSource(stack), (tile,), _TARGET, torch.device("cpu"))
    calibration = calibrate_exposures(reader, options)
    tile_data = reader.read(tile)
    assert tile_data is not None
    clean = calibration.clean(tile_data)
    model, weights = clean.tile_data.model, clean.tile_data.stack.good / clean.variances
    stars = BrightStars.draw(calibration, clean.tile_data)
    network = load_packaged_model().network
    estimator = Estimator(network, model, weights, options, bright_stars=stars.image)
    estimate = estimator.estimate(clean.tile_data.stack.images)
    generator = torch.Generator().manual_seed(seed)
    sigma = clean.variances.sqrt()
    draws = [torch.randn(sigma.shape, generator=generator) * sigma for _ in range(options.noise.num_draws)]
    errors = repeat_observations(estimator, estimate, draws)
    maps = weight_maps(model, weights)
    local_noise = LocalNoise(model, weights, estimator.linear_penalty_weight)
    of_psfs = PsfErrorImages.build(
        calibration.psf_errors.select(clean.tile_data.exposures),
        clean.tile_data.stack,
        model,
        maps,
        image=estimate.restored + stars.image,
        variance=linear_variance(errors, local_noise, maps.used.any(dim=0)),
        penalty_weight=estimator.linear_penalty_weight,
    )
    return Field(scene, estimator, estimate, errors.right, maps, of_psfs.variance(), stars.light)


def _widen(psf: npt.NDArray[np.float32], error: float) -> Array:
    """Return a PSF with a larger FWHM."""
    if error == 0.0:
        return psf.astype(float)
    sigma = fwhm_to_sigma(kernel_fwhm(psf)) * math.sqrt((1.0 + error) ** 2 - 1.0)
    wider = gaussian_filter(psf.astype(float), sigma, mode="constant")
    return np.asarray(wider / wider.sum())
