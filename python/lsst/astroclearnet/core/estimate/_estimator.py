# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The fitted estimator: from exposures to the restored image."""

from __future__ import annotations

__all__ = ("Estimate", "Estimator")

import dataclasses

import torch

from .._options import RestoreOptions
from ..forward import ForwardModel
from ._bank import FilterBank
from ._debias import Correction, Debiaser
from ._network import MixingNetwork


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the estimator makes of some exposures.

    Attributes
    ----------
    restored
        Shape latent_shape, the restored image.
    correction
        Correction of the image of the network in the restored one.
    linear
        Shape latent_shape, the linear image.
    bank
        Shape ``(s, *latent_shape)``, the linear estimates that were mixed.
    """

    restored: torch.Tensor
    correction: Correction
    linear: torch.Tensor
    bank: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Estimator:
    """The bank of filters, the network that mixes them, and the debiaser.

    Attributes
    ----------
    network
        The network, fitted.
    debiaser
        Gives back what the network leaves in the exposures.
    model
        Forward model of the exposures.
    weights
        Shape (n, h, w), inverse variances, 0 where a pixel is not used.
    options
        Settings.
    """

    network: MixingNetwork
    debiaser: Debiaser
    model: ForwardModel
    weights: torch.Tensor
    options: RestoreOptions

    @classmethod
    def build(
        cls, network: MixingNetwork, model: ForwardModel, weights: torch.Tensor, options: RestoreOptions
    ) -> Estimator:
        """Put the estimator of a patch together.

        Parameters
        ----------
        network
            The network, fitted.
        model
            Forward model of the exposures.
        weights
            Shape (n, h, w), inverse variances, 0 where a pixel is not used.
        options
            Settings.

        Returns
        -------
        estimator : `Estimator`
            The estimator.
        """
        debiaser = Debiaser.build(model, weights, options.debiasing)
        return cls(network=network, debiaser=debiaser, model=model, weights=weights, options=options)

    @property
    def linear_penalty_weight(self) -> float:
        """Strength of the penalty of the linear image (`float`)."""
        return self.debiaser.linear_penalty_weight

    @property
    def linear_psf_residual(self) -> float:
        """Residual of the linear image of a star from the target PSF,
        relative to the peak (`float`).
        """
        return self.debiaser.estimator.psf_residual(self.linear_penalty_weight)

    def estimate(self, images: torch.Tensor) -> Estimate:
        """Restore exposures of the same pixels, PSFs and variances.

        Parameters
        ----------
        images
            Shape (n, h, w).

        Returns
        -------
        estimate : `Estimate`
            Restored and linear image.
        """
        return self.estimate_right(self.debiaser.estimator.right_side(images))

    def estimate_right(self, right: torch.Tensor) -> Estimate:
        """Restore exposures given as a right-hand side.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.

        Returns
        -------
        estimate : `Estimate`
            Restored and linear image.
        """
        bank = self._bank(self.linear_estimates(right))
        restored, correction = self.debiaser.debias_right(right, self.network(bank))
        return Estimate(
            restored=restored,
            correction=correction,
            linear=self.debiaser.linear_right(right, bank.estimates[0]),
            bank=bank.estimates,
        )

    def restore_right(self, right: torch.Tensor, estimates: torch.Tensor, near: Correction) -> torch.Tensor:
        """Do so without the linear image, for the same light and other noise.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        estimates
            Shape ``(s, *latent_shape)``, the estimates to be mixed.
        near
            Correction for the first noise.

        Returns
        -------
        restored : `torch.Tensor`
            Shape latent_shape, the restored image.
        """
        return self.debiaser.debias_right(right, self.network(self._bank(estimates)), near)[0]

    def linear_estimates(self, right: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Return the linear estimates that the network mixes.

        Parameters
        ----------
        right
            Shape latent_shape, right-hand side of the normal equations.
        start
            Shape ``(s, *latent_shape)``, estimates that are close.

        Returns
        -------
        estimates : `torch.Tensor`
            Shape ``(s, *latent_shape)``.
        """
        return self.debiaser.estimator.solve_right(right, self.options.network.penalty_weights, start=start)

    def _bank(self, estimates: torch.Tensor) -> FilterBank:
        return FilterBank.from_estimates(
            self.model, self.debiaser.estimator, estimates, self.options.network.penalty_weights
        )
