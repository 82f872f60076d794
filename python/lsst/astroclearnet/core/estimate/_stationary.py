# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Normal equations of weights and PSFs that hardly vary, and their inverse."""

from __future__ import annotations

import dataclasses

import torch

from ..forward import ForwardModel


@dataclasses.dataclass(frozen=True)
class StationaryEquations:
    """The normal equations where weights and PSFs hardly vary.

    Over the width of a PSF, A'WA is then a convolution with the power P of
    the exposures, between the roots of the weights, and its inverse with a
    penalty costs three transforms instead of two for each exposure: it
    preconditions the exact equations, and restores drawn noise.

    Attributes
    ----------
    model
        Forward model of the exposures.
    power
        Shape (Hl, Wl // 2 + 1), P for weights of sum 1.
    local_weight
        Shape latent_shape, sum of the weights around a pixel.
    root_penalty
        Shape latent_shape, root q of the weight of the penalty.
    """

    model: ForwardModel
    power: torch.Tensor
    local_weight: torch.Tensor
    root_penalty: torch.Tensor

    def normal(self, images: torch.Tensor) -> torch.Tensor:
        """Multiply images with about A'WA.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``.
        """
        root = self.local_weight.clamp(min=0.0).sqrt()
        return self.model.filter_images(images * root, self.power).mul_(root)

    def factors(self, penalty_weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a gain of frequencies, and a factor of pixels within it.

        Divided by q and multiplied with the gain, on either side, the matrix
        is close to one where the penalty decides, and follows the local
        weights where the exposures do.

        Parameters
        ----------
        penalty_weights
            Shape (s,).
        """
        whitening = penalty_weights[:, None, None] * self.model.inverse_target_power
        gain = 1.0 / (self.power + whitening)
        share = (self.power * gain).mean(dim=(1, 2), keepdim=True)
        local = share * (self.local_weight / self.root_penalty**2) + (1.0 - share)
        # Where there are no data the inverse must not grow without bound.
        return gain.sqrt_(), local.clamp_(min=0.3).reciprocal_()

    def solve(self, right: torch.Tensor, factors: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return about the solutions of some penalty weights.

        Parameters
        ----------
        right
            Shape ``(s, *latent_shape)``, right-hand sides; or
            ``(1, *latent_shape)``, the same for all.
        factors
            The `factors` of the penalty weights.
        """
        gain, local = factors
        scaled = right / self.root_penalty
        if len(right) == 1 < len(gain):
            # One transform does for all.
            inner = self.model.inverse_transform(self.model.transform(scaled) * gain)
        else:
            inner = self.model.filter_images(scaled, gain)
        return self.model.filter_images(inner.mul_(local), gain).div_(self.root_penalty)
