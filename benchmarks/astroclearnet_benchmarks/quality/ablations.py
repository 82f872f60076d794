# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The method without one of its parts, to see what that part is good for."""

from __future__ import annotations

__all__ = ("ABLATIONS", "PublishedAtTarget")

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lsst.astroclearnet.core import ExposureStack, FitOptions, RejectionOptions, RestoreOptions, restore
from lsst.astroclearnet.core.estimate import (
    Estimator,
    FilterBank,
    LinearEstimator,
    MixingNetwork,
    TrainingSample,
    fit_network,
    make_samples,
    sample_boxes,
)
from lsst.astroclearnet.core.forward import ForwardModel
from lsst.astroclearnet.core.outliers import likelihood_variances, reject_outliers
from lsst.astroclearnet.core.tiles import make_generator

from ..baselines import PublishedAstroClearNet, Restoration, Restorer
from ..scenes import Scene
from .product import Product

_POINT_FWHM = 1e-6
"""Target that leaves an image as it is."""

_SQUARE_LOSS = 1e9
"""Deviation at which the Huber loss turns linear: that of no pixel."""


@dataclasses.dataclass(frozen=True)
class PublishedAtTarget(Restorer):
    """The published network on a latent image at the target PSF.

    The difference kernels of `ForwardModel` take the place of the PSFs; all
    else is `PublishedAstroClearNet`.

    It gives the latent image at each stop, without a variance.

    Attributes
    ----------
    name
        Words that name the method in a table.
    """

    name: str = "published, at the target PSF"

    def _restore(
        self,
        images: npt.NDArray[Any],
        variances: npt.NDArray[Any],
        good: npt.NDArray[np.bool_],
        psfs: npt.NDArray[Any],
        target_fwhm: float,
        seed: int,
    ) -> Iterator[Restoration]:
        kernels = _difference_kernels(psfs, target_fwhm)
        stops = PublishedAstroClearNet().restore(
            images, variances, good, kernels, target_fwhm=_POINT_FWHM, seed=seed
        )
        for stop in stops:
            yield dataclasses.replace(stop, fwhm=target_fwhm)


def _difference_kernels(psfs: npt.NDArray[np.float32], target_fwhm: float) -> npt.NDArray[np.float32]:
    """Return the difference kernels on the stamps of the PSFs."""
    size = psfs.shape[-1]
    model = ForwardModel(
        torch.from_numpy(np.asarray(psfs, dtype=float))[:, None, None], (size, size), target_fwhm
    )
    kernels = torch.roll(model.inverse_transform(model.mean_otfs), (size // 2, size // 2), dims=(-2, -1))
    return np.asarray(kernels[:, :size, :size].numpy())


def _with_options(name: str, options: RestoreOptions) -> Callable[[Scene, float, int], Product]:
    """Return a function that restores with options."""

    def run(scene: Scene, target_fwhm: float, seed: int) -> Product:
        result = restore(
            scene.images,
            scene.variances,
            scene.good,
            scene.psfs,
            target_fwhm=target_fwhm,
            options=options,
            seed=seed,
        )
        return Product(name, result.image, target_fwhm, result.variance)

    return run


@dataclasses.dataclass(frozen=True)
class _Patch:
    """The exposures as `restore` has them before it fits.

    Attributes
    ----------
    stack
        The exposures, without rejected pixels.
    model
        Their forward model.
    weights
        Shape (n, H, W), inverse variances, 0 where a pixel is not used.
    generator
        Source of random numbers.
    """

    stack: ExposureStack
    model: ForwardModel
    weights: torch.Tensor
    generator: torch.Generator

    @classmethod
    @torch.no_grad()
    def prepare(cls, scene: Scene, target_fwhm: float, seed: int, options: RestoreOptions) -> _Patch:
        """Prepare the exposures of a scene."""
        stack = ExposureStack.from_arrays(scene.images, scene.variances, scene.good, scene.psfs)
        model = ForwardModel.from_stack(stack, target_fwhm)
        rejected = reject_outliers(stack, model, options.rejection).rejected
        stack = stack.replace(good=stack.good & ~rejected)
        weights = stack.good / likelihood_variances(stack, model)
        return cls(stack, model, weights, make_generator(seed))

    def fit(self, options: RestoreOptions, *, hold_out: bool) -> MixingNetwork:
        """Fit a network."""
        network = MixingNetwork(options.network)
        network.initialize(self.generator)
        penalty_weights = options.network.penalty_weights
        boxes = sample_boxes(self.stack.shape, options.fit.sample_size, self.generator)
        samples: list[TrainingSample] = []
        with torch.no_grad():
            for box in boxes[: options.fit.num_samples]:
                found = self._make_samples(box, penalty_weights, options.fit)
                samples += found if hold_out else [_show_all(found, penalty_weights)]
        fit_network(network, samples, options.fit, generator=self.generator)
        return network

    def _make_samples(
        self, box: tuple[slice, slice], penalty_weights: tuple[float, ...], options: FitOptions
    ) -> list[TrainingSample]:
        """Return the samples of a box of the patch."""
        every = (slice(None), *box)
        stack = self.stack
        arrays = (stack.images[every], stack.variances[every], stack.good[every], stack.psfs)
        cut_out = ExposureStack.from_arrays(*arrays)
        model = ForwardModel.from_stack(cut_out, self.model.target_fwhm)
        return make_samples(cut_out, self.weights[every], model, penalty_weights, options, self.generator)

    def product(self, name: str, latent: torch.Tensor) -> Product:
        """Return a latent image as a product."""
        image = self.model.crop(latent).numpy()
        return Product(name, image, self.model.target_fwhm, flagged=~self.stack.good.any(dim=0).numpy())


def _show_all(folds: Sequence[TrainingSample], penalty_weights: tuple[float, ...]) -> TrainingSample:
    """Return a sample that sees what it has to predict."""
    model = folds[0].model
    images, inverse_sigma = torch.zeros((2, model.num_exposures, *model.shape))
    for fold in folds:
        images[fold.held_out], inverse_sigma[fold.held_out] = fold.images, fold.inverse_sigma
    bank = _make_bank(model, images, inverse_sigma**2, penalty_weights)
    every = torch.arange(model.num_exposures)
    return TrainingSample(bank, model, every, images, inverse_sigma, folds[0].validation, len(every))


def _make_bank(
    model: ForwardModel, images: torch.Tensor, weights: torch.Tensor, penalty_weights: tuple[float, ...]
) -> FilterBank:
    """Return the linear estimates from all exposures."""
    estimator = LinearEstimator(model, weights)
    estimates = estimator.solve(estimator.right_side(images), penalty_weights)
    return FilterBank.build(estimator, estimates, penalty_weights)


def _without_hold_out(scene: Scene, target_fwhm: float, seed: int) -> Product:
    """Fit to the exposures that the network sees."""
    options = RestoreOptions()
    patch = _Patch.prepare(scene, target_fwhm, seed, options)
    network = patch.fit(options, hold_out=False)
    with torch.no_grad():
        estimator = Estimator(network, patch.model, patch.weights, options)
        return patch.product("no held-out exposures", estimator.estimate(patch.stack.images).restored)


def _without_debiasing(scene: Scene, target_fwhm: float, seed: int) -> Product:
    """Return the image of the network alone."""
    options = RestoreOptions()
    patch = _Patch.prepare(scene, target_fwhm, seed, options)
    network = patch.fit(options, hold_out=True)
    with torch.no_grad():
        bank = _make_bank(patch.model, patch.stack.images, patch.weights, options.network.penalty_weights)
        return patch.product("no debiasing", network(bank))


_NO_REJECTION = RejectionOptions(enabled=False)

ABLATIONS: dict[str, Callable[[Scene, float, int], Product]] = {
    "no_hold_out": _without_hold_out,
    "no_robust_loss": _with_options(
        "no robust loss, no rejection",
        RestoreOptions(fit=FitOptions(huber_delta=_SQUARE_LOSS), rejection=_NO_REJECTION),
    ),
    "no_rejection": _with_options("no rejection", RestoreOptions(rejection=_NO_REJECTION)),
    "no_debiasing": _without_debiasing,
}
"""Functions of the scene, the target FWHM in pixels and the seed, by name."""
