# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The fitted estimator: from exposures to the restored image."""

from __future__ import annotations

__all__ = ("BandImage", "Estimate", "Estimator", "Network")

import dataclasses

import torch

from .._options import RestoreOptions
from ..forward import ForwardModel
from ._bank import FilterBank
from ._debias import Debiased, Debiaser
from ._network import MixingNetwork
from ._restoration_network import RestorationNetwork

type Network = MixingNetwork | RestorationNetwork


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Restored and linear image of some exposures.

    Attributes
    ----------
    debiased
        The restored image, with what it was made from.
    linear
        Shape latent_shape, the linear image.
    estimates
        Shape ``(s, *latent_shape)``, the linear estimates that were mixed.
    """

    debiased: Debiased
    linear: torch.Tensor
    estimates: torch.Tensor

    @property
    def restored(self) -> torch.Tensor:
        """The restored image, shape latent_shape (`torch.Tensor`)."""
        return self.debiased.image

    def with_image(self, image: torch.Tensor) -> Estimate:
        """Return the estimate with another restored image.

        Parameters
        ----------
        image
            Shape latent_shape, the image that takes its place.
        """
        return dataclasses.replace(self, debiased=dataclasses.replace(self.debiased, image=image))


@dataclasses.dataclass(frozen=True)
class BandImage:
    """A band restored on its own, as other bands see it.

    Attributes
    ----------
    estimator
        Its estimator.
    estimates
        Shape ``(s, *latent_shape)``, the linear estimates that were mixed.
    mixed
        Shape latent_shape, the image of the network.
    restored
        Shape latent_shape, the restored image.
    """

    estimator: Estimator
    estimates: torch.Tensor
    mixed: torch.Tensor
    restored: torch.Tensor

    @property
    def coverage(self) -> torch.Tensor:
        """Share of the full weight that is present, latent_shape
        (`torch.Tensor`).
        """
        return self.estimator.model.embed(self.estimator.linear.coverage)


class Estimator:
    """Linear estimates, the network that mixes them, and the debiaser.

    Parameters
    ----------
    network
        The network, trained or fitted.
    model
        Forward model of the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    options
        Settings.
    origin
        Row and column on the patch of the first pixel of the exposures.
    bright_stars
        As for `Debiaser`.
    """

    def __init__(
        self,
        network: Network,
        model: ForwardModel,
        weights: torch.Tensor,
        options: RestoreOptions,
        origin: tuple[int, int] = (0, 0),
        bright_stars: torch.Tensor | None = None,
    ) -> None:
        self.network = network
        margin = model.grid.margin
        self._origin = origin[0] - margin, origin[1] - margin
        self.debiaser = Debiaser(model, weights, options.debiasing, bright_stars)
        self.linear = self.debiaser.linear
        self.model = model
        self.weights = weights
        self.options = options

    @property
    def linear_penalty_weight(self) -> float:
        """Penalty weight of the linear image (`float`)."""
        return self.debiaser.linear_penalty_weight

    @property
    def linear_psf_residual(self) -> float:
        """Residual of a star in the linear image from the target PSF, over
        the peak (`float`).
        """
        return self.linear.psf_residual(self.linear_penalty_weight)

    def linear_residual(self, light: torch.Tensor) -> torch.Tensor:
        """Return the light that is missing in its linear image, latent_shape.

        Parameters
        ----------
        light
            Shape latent_shape, light at the target PSF.
        """
        return self.linear.light_residual(self.linear_penalty_weight, light)

    def estimate(self, images: torch.Tensor) -> Estimate:
        """Restore exposures.

        Parameters
        ----------
        images
            Shape (n, h, w), of the pixels, PSFs and variances of the model.
        """
        right = self.linear.right_side(images)
        estimates = self.linear_estimates(right)
        debiased = self.debiaser.debias(right, self.mix(self.bank(estimates)))
        linear = self.debiaser.linear_image(right, estimates[0])
        return Estimate(debiased=debiased, linear=linear, estimates=estimates)

    def restore(self, images: torch.Tensor) -> BandImage:
        """Restore exposures, without a linear image.

        Parameters
        ----------
        images
            As for `estimate`.
        """
        right = self.linear.right_side(images)
        estimates = self.linear_estimates(right)
        mixed = self.mix(self.bank(estimates))
        return BandImage(self, estimates, mixed, self.debiaser.debias(right, mixed).image)

    def restore_again(
        self, noise: torch.Tensor, light: torch.Tensor, first: Debiased, expected: torch.Tensor
    ) -> BandImage:
        """Restore the same light with other noise.

        Parameters
        ----------
        noise
            Shape latent_shape, right-hand side of the noise.
        light
            Shape ``(s, *latent_shape)``, `linear_estimates` of the light.
        first
            The first restoration, with the light for its image.
        expected
            Shape latent_shape, right-hand side of the light.
        """
        estimates = light + self.linear.solve_noise(noise[None], self.network.penalty_weights)
        mixed = self.mix(self.bank(estimates))
        restored = self.debiaser.debias_again(noise, mixed, first, expected)
        return BandImage(self, estimates, mixed, restored)

    def band_image(self, estimate: Estimate) -> BandImage:
        """Return what other bands see of an estimate.

        Parameters
        ----------
        estimate
            What `estimate` returned.
        """
        debiased = estimate.debiased
        return BandImage(self, estimate.estimates, debiased.mixed, debiased.image)

    def linear_estimates(self, right: torch.Tensor) -> torch.Tensor:
        """Return the estimates that are mixed, ``(s, *latent_shape)``.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        """
        return self.linear.solve(right, self.network.penalty_weights)

    def bank(self, estimates: torch.Tensor) -> FilterBank:
        """Return the bank of linear estimates.

        Parameters
        ----------
        estimates
            What `linear_estimates` returned.
        """
        return FilterBank.build(self.linear, estimates, self.network.penalty_weights)

    def mix(self, bank: FilterBank) -> torch.Tensor:
        """Return the image of the network, latent_shape.

        Parameters
        ----------
        bank
            A bank on the latent grid of the model.
        """
        mixed: torch.Tensor = self.network(bank, self._origin)
        return mixed
