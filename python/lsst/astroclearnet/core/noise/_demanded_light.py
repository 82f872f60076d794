# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How much of the restored light the exposures demand."""

from __future__ import annotations

__all__ = ("DemandedLight", "measure_demanded_light")

import dataclasses
from collections.abc import Iterator

import torch

from ..estimate import Estimate, Estimator
from ..exposures import smooth
from ..forward import WEIGHT_FLOOR, ForwardModel, WeightMaps

_SCALES = (1.0, 2.0, 4.0)
"""FWHM of the blobs that are looked for, in that of the target PSF.  The noise
of wider ones is no longer small against errors of backgrounds."""

_SURROUNDINGS = 2.0
"""FWHM over which surroundings are averaged, in that of the blob: a star then
loses a fifth of its peak, and 10 % of its signal-to-noise ratio."""

_STANDS_OUT = 3.0
"""Signal-to-noise ratio from which on light stands out: its demanded share has
a standard deviation of a third at most."""

_REFUTED = 3.0
"""Significance with which exposures must refute light that stands out."""

_DEMANDED = 5.0
"""Significance with which they must demand light that is missing: larger,
because it is looked for in each pixel of blank sky."""

_AROUND_FWHM = 32.0
"""FWHM in pixels over which weights are averaged for pixels in holes."""


@dataclasses.dataclass(frozen=True)
class DemandedLight:
    """Shares of restored light that the exposures demand.

    Attributes
    ----------
    share
        Shape (H, W), share of the light that stands out from its surroundings
        that the exposures demand, NaN where none stands out.
    sigma
        Shape (H, W), standard deviation of ``share``; NaN also where the
        exposures tell nothing, and ``share`` is 0.
    supplied
        Shape (H, W), bool, light that stands out, more than half of which
        they refute or do not constrain.
    withheld
        Shape (H, W), bool, light that they demand in addition, more than
        stands out.
    """

    share: torch.Tensor
    sigma: torch.Tensor
    supplied: torch.Tensor
    withheld: torch.Tensor


@torch.no_grad()
def measure_demanded_light(
    estimator: Estimator,
    estimate: Estimate,
    noise: torch.Tensor,
    maps: WeightMaps,
    psf_variance: torch.Tensor,
) -> DemandedLight:
    """Compare restored light with what the exposures say of it.

    A matched filter measures the flux of a blob, a Gaussian as wide as the
    target PSF, above its surroundings: in the restored image, f, and, by the
    normal equations and without any prior, in what it leaves of the exposures,
    d.  The exposures demand f + d, with the error of the
    filter (a Cramer-Rao bound, `Debiaser.flux_noise`, for one free level of
    the surroundings), and the share (f + d) / f of what is there.  Where no
    such blob stands out blobs twice and four times as wide are looked for.

    Parameters
    ----------
    estimator
        The fitted estimator.
    estimate
        Its estimate from the exposures.
    noise
        Shape ``(k, *latent_shape)``, right-hand sides of drawn noise, which
        tell the error where noise is correlated.
    maps
        Weights of the exposures on the patch.
    psf_variance
        Shape (H, W), variance of the restored image from errors of PSFs.
    """
    model = estimator.model
    left = estimate.debiased.right - estimator.linear.normal(estimate.restored[None])[0]
    seen = maps.used.any(dim=0)
    share = torch.full(seen.shape, torch.nan, device=seen.device)
    sigma = share.clone()
    supplied, withheld = torch.zeros_like(seen), torch.zeros_like(seen)
    for blob in _find_blobs(model, maps):
        known = blob.is_constrained
        found = blob.found(estimate.restored)
        missing = torch.where(known, blob.filter(left) / blob.response, -found)
        # Correlated noise scatters more than the Cramer-Rao bound.
        ratios = [(blob.filter(draw).square() / blob.variance)[known & seen].mean() for draw in noise]
        variance = blob.variance * torch.stack(ratios).mean().nan_to_num(nan=1.0).clamp(min=1.0)
        error = (variance / blob.response**2 + blob.coherent(psf_variance.sqrt()) ** 2).sqrt()
        here = share.isnan() & (found >= _STANDS_OUT * error)
        share = torch.where(here, 1.0 + missing / found, share)
        sigma = torch.where(here & known, error / found, sigma)
        supplied |= here & (missing < -0.5 * found) & ~(known & (missing > -_REFUTED * error))
        withheld |= known & (missing >= _DEMANDED * error) & (missing > found)
    return DemandedLight(share, sigma, supplied, withheld)


@dataclasses.dataclass(frozen=True)
class _Blob:
    """Matched filter for a blob above its surroundings.

    Of a right-hand side of the normal equations it makes ``response`` times
    the flux of the blob, with the variance ``variance``; both have the shape
    (H, W), and are those around where the data do not constrain the blob.
    """

    model: ForwardModel
    profile: torch.Tensor
    above: torch.Tensor
    power: torch.Tensor
    is_constrained: torch.Tensor
    response: torch.Tensor
    variance: torch.Tensor

    def filter(self, right: torch.Tensor) -> torch.Tensor:
        """Apply the filter to a right-hand side, latent_shape, (H, W)."""
        return self.model.crop(self.model.filter_images(right[None], self.above)[0])

    def found(self, image: torch.Tensor) -> torch.Tensor:
        """Return fluxes above the surroundings in an image, (H, W)."""
        return self._flux(image, self.power * self.above)

    def coherent(self, errors: torch.Tensor) -> torch.Tensor:
        """Return errors of fluxes, (H, W), from those of pixels that have the
        same sign, (H, W).
        """
        return self._flux(self.model.embed(errors), self.power * self.profile)

    def _flux(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        gain = gain / self.model.fold_transform(gain * self.profile)
        return self.model.crop(self.model.filter_images(image[None], gain)[0])


def _find_blobs(model: ForwardModel, maps: WeightMaps) -> Iterator[_Blob]:
    """Yield the filters, from the narrowest."""
    power = model.total_power(maps.typical / maps.typical.sum())
    norms = torch.empty(len(_SCALES), 2, model.num_exposures, device=power.device)
    filters = []
    for scale in _SCALES:
        fwhm = scale * model.target_fwhm
        profile = model.gaussian_transform(fwhm, power)
        filters.append((profile, profile * (1.0 - model.gaussian_transform(_SURROUNDINGS * fwhm, power))))
    for t in range(model.num_exposures):
        one = model.power(t)
        for k, (profile, above) in enumerate(filters):
            norms[k, 0, t] = model.fold_transform(one * profile * above)
            norms[k, 1, t] = model.fold_transform(one * above**2)
    present = maps.typical[:, None, None] * maps.presence
    seen = maps.used.any(dim=0).to(power.dtype)
    around = smooth(seen[None], _AROUND_FWHM).clamp(min=1e-6)
    for (profile, above), norm in zip(filters, norms, strict=True):
        # Products of the profiles in the exposures say what a pixel tells of
        # the blob, and of its variance.
        seen_profiles = model.inverse_transform(torch.stack([profile, above]) * power.sqrt() + 0j)
        kernels = seen_profiles * seen_profiles[1]
        weights = torch.tensordot(norm, maps.weights, dims=1)
        response, variance = _spread(model, weights, kernels)
        typical_response, typical_variance = smooth(weights, _AROUND_FWHM) / around
        coverage = torch.tensordot(norm[:1], present, dims=1)
        share = _spread(model, coverage, kernels[:1])[0] / (smooth(coverage, _AROUND_FWHM) / around)[0]
        known = (share > WEIGHT_FLOOR) & (response > 0.0) & (variance > 0.0)
        response = torch.where(known, response, typical_response)
        yield _Blob(
            model, profile, above, power, known, response, torch.where(known, variance, typical_variance)
        )


def _spread(model: ForwardModel, images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Convolve maps of the patch with normalised kernels, (b, H, W)."""
    kernels = kernels / kernels.sum(dim=(1, 2), keepdim=True)
    transforms = model.transform(model.embed(images)) * model.transform(kernels)
    return model.crop(model.inverse_transform(transforms))
