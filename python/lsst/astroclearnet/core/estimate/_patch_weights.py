# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Weights of the exposures on the patch, and what follows from them."""

from __future__ import annotations

import torch

from .._errors import NoUsableDataError
from ..exposures import smooth
from ..forward import WEIGHT_FLOOR, ForwardModel, iterate_weight_maps

_STEP_FWHM = 1.5
"""FWHM, in units of that of the target PSF, over which the penalty follows
the noise.  A star of 30 000 sigma on patches of 8 pixels that differ by a
factor of 25 in variance then has an error of 0.4 % of its peak, instead of
17 %."""

_LOCAL_FWHM = 3.0
"""FWHM in pixels over which preconditioner and error measure follow the
weights."""


_BLOCK = 32
"""Side in pixels of blocks, the heaviest of which has full weight."""


class PatchWeights:
    """Weights of exposures, brought onto the patch.

    Parameters
    ----------
    model
        Forward model.
    weights
        Shape (n, h, w), inverse variances of the exposures, 0 where a pixel is
        not used.
    exposures
        Indices of these exposures.

    Attributes
    ----------
    shares
        Shape (n,), typical weights of the exposures, of sum 1.
    full_weight
        Sum of the weights at full weight: in the block where the most of them,
        by typical weight, are present together.
    relative_weight
        Shape (H, W), sum of weights over its value at full weight.
    coverage
        Shape (H, W), share of the full weight that is present.

    Raises
    ------
    NoUsableDataError
        If no pixel of the patch is covered by more than half.
    """

    def __init__(self, model: ForwardModel, weights: torch.Tensor, exposures: list[int]) -> None:
        self._model, self._weights, self._exposures = model, weights, exposures
        total = present = torch.zeros(model.shape, device=weights.device)
        typical = []
        for maps in iterate_weight_maps(model, weights, exposures):
            total = total + maps.weights[0]
            present = present + maps.typical * maps.presence[0]
            typical.append(maps.typical)
        # Detector images of a visit are nowhere present together, and a sliver
        # in which one more is present is not typical.
        sides = [min(_BLOCK, side) for side in present.shape]
        self.full_weight = float(torch.nn.functional.avg_pool2d(present[None], sides, ceil_mode=True).max())
        if not self.full_weight > 0:
            raise NoUsableDataError("No pixel of the patch is covered by usable pixels of an exposure.")
        self.relative_weight = total / self.full_weight
        self.coverage = (present / self.full_weight).clamp_(max=1.0)
        self.shares = torch.cat(typical) / torch.cat(typical).sum()

    def penalty(self) -> torch.Tensor:
        """Return q^2 of the penalty, shape latent_shape.

        It varies more slowly than the target PSF: a step would make q R smooth
        across it, and not R.
        """
        model = self._model
        noise = torch.where(self.coverage > WEIGHT_FLOOR, self.relative_weight / self.coverage, 1.0)
        logs = torch.stack([noise.clamp(min=1e-30).log(), torch.ones_like(noise)])
        logs, share = smooth(logs, _STEP_FWHM * model.target_fwhm)
        noise = (logs / share).exp()
        # The coverage has steps at masks and is smoothed over more pixels.
        coverage = smooth(model.embed(self.coverage)[None], 8.0)[0]
        outside = 1.0 - model.embed(torch.ones_like(noise))
        # Without a floor the equations would be singular far from all data.
        return self.full_weight * coverage.clamp(min=0.02) * (model.embed(noise) + outside)

    def local(self, power: torch.Tensor) -> torch.Tensor:
        """Return the sum of weights around each pixel, shape latent_shape.

        Parameters
        ----------
        power
            Shape (Hl, Wl // 2 + 1), power of the exposures.  Each counts by
            its share of it at a frequency: sharp ones decide about most.
        """
        model = self._model
        # Wide targets leave no power at high frequencies, nor shares of it.
        known = power > torch.finfo(power.dtype).tiny
        inverse = torch.where(known, power, 1.0).reciprocal_() * known / known.sum()
        total = torch.zeros(model.shape, device=power.device)
        maps = iterate_weight_maps(model, self._weights, self._exposures)
        for t, one in zip(self._exposures, maps, strict=True):
            total.addcmul_((model.power(t) * inverse).sum(), one.weights[0])
        return smooth(model.embed(total)[None], _LOCAL_FWHM)[0]

    def covered(self) -> torch.Tensor:
        """Return 1 where there are data, 0 elsewhere, shape latent_shape."""
        return self._model.embed((self.coverage > WEIGHT_FLOOR).to(torch.float32))

    def smooth_weight(self) -> torch.Tensor:
        """Return the relative weight around each pixel, shape latent_shape."""
        return smooth(self._model.embed(self.relative_weight)[None], _LOCAL_FWHM)[0]
