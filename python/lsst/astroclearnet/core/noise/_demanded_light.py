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
from ..exposures import largest_around, smooth
from ..forward import WEIGHT_FLOOR, ForwardModel, WeightMaps

_SCALES = (1.0, 2.0, 4.0)
"""FWHM of the blobs that are looked for, in that of the target PSF.  Light
that is smoother depends on the backgrounds of the exposures."""

_SURROUNDINGS = 2.0
"""FWHM over which surroundings are averaged, in that of the blob: a star then
loses a fifth of its peak, and a sixth of its signal-to-noise ratio."""

_OPENING = 1.5
"""Half the side of the squares of the opening, in FWHM of the target PSF, at
which a star has a five-hundredth of its peak."""

_STANDS_OUT = 3.0
"""Signal-to-noise ratio from which on light stands out: its demanded share has
a standard deviation of a third at most."""

_DEMANDED = 5.0
"""Significance with which exposures must demand withheld light: larger,
because it is looked for in each pixel of blank sky."""

_DIFFERS = 3.0
"""Significance of the difference between light that stands out and light that
is demanded."""

_LEAST_SHARE = 0.5
"""Share below which light is supplied, or withheld, and of light that stands
out that exposures must see."""

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
    stars: torch.Tensor | None = None,
) -> DemandedLight:
    """Compare restored light with what the exposures say of it.

    A matched filter measures the flux of a blob, a Gaussian as wide as the
    target PSF, above its surroundings: in the restored image, f, and, by the
    normal equations and without any prior, in what it leaves of the exposures,
    d.  The exposures demand f + d, with the error of the filter, and the share
    (f + d) / f of what is there.  Where no such blob stands out blobs twice
    and four times as wide are looked for.  Bright stars that were fitted to
    the exposures, and are put back, are demanded by them, in masked cores too.

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
    stars
        Shape ``(2, *latent_shape)``, bright stars at the target PSF, which the
        estimate lacks, and their standard deviation by that of their fluxes.

    Returns
    -------
    demanded : `DemandedLight`
        Shares of the light that stands out by three sigma.
    """
    model = estimator.model
    left = estimate.debiased.right - estimator.linear.normal(estimate.restored[None])[0]
    # Photon noise must not decide on what exposures see.
    typical = maps.typical[:, None, None] / model.sampling.area
    usable = torch.where(estimator.weights > 0.0, typical, 0.0)
    has_data = maps.used.any(dim=0)
    nothing = torch.zeros(has_data.shape, device=has_data.device)
    share, sigma = (torch.full_like(nothing, torch.nan) for _ in range(2))
    supplied, withheld = torch.zeros_like(has_data), torch.zeros_like(has_data)
    for number, blob in enumerate(_find_blobs(model, maps)):
        found, put_back, fit_error = blob.flux(estimate.restored), nothing, nothing
        observed = blob.observed(model.normal(blob.contrast(estimate.restored)[None], usable)[0])
        unseen = found - observed
        if number == 0:
            found = torch.maximum(found, _find_knots(model, estimate.restored))
            if stars is not None:
                # Wider blobs are not stars.
                put_back, fit_error = (_find_knots(model, image) for image in stars)
        missing, level = blob.missing(left)
        # Correlated noise scatters more than the Cramer-Rao bound.
        seen = blob.is_constrained & has_data
        ratios = [(blob.missing(draw)[0].square() / blob.variance)[seen].mean() for draw in noise]
        variance = blob.variance * torch.stack(ratios).mean().nan_to_num(nan=1.0).clamp(min=1.0)
        error = (variance + blob.coherent(psf_variance.sqrt()).square()).sqrt()
        # Around light that is wrong surroundings are so with the other sign.
        differs = (missing.abs() >= _DIFFERS * error) & (missing * level > 0.0)
        demanded = found.clamp(min=0.0) + missing
        all_found, all_demanded = found + put_back, demanded + put_back
        is_withheld = (all_demanded >= _DEMANDED * error) & (all_found < _LEAST_SHARE * all_demanded)
        withheld |= blob.is_constrained & differs & is_withheld
        # Of what lies in a hole exposures say nothing; beside it they say
        # nothing of blobs that are mostly within.
        known = blob.is_constrained & (unseen < _LEAST_SHARE * found)
        of_star = put_back > found.abs()
        all_demanded = torch.where(known, all_demanded, put_back)
        # What a fit missed is left wherever there are data.
        error = torch.where(of_star & ~known & ~has_data, fit_error, error)
        here = share.isnan() & (all_found >= _STANDS_OUT * error) & (known | ~has_data | of_star)
        share = torch.where(here, all_demanded / all_found, share)
        sigma = torch.where(here & (known | of_star), error / all_found, sigma)
        supplied |= here & (differs | ~known) & (all_demanded < _LEAST_SHARE * all_found)
    return DemandedLight(share, sigma, supplied, withheld)


@dataclasses.dataclass(frozen=True)
class _Blob:
    """Matched filter for a blob above its surroundings.

    Attributes
    ----------
    model
        Forward model of the exposures.
    profile, above, surroundings
        Transforms of the blob, of the blob less its surroundings, and of what
        the surroundings are averaged with.
    power
        Mean power of the exposures.
    is_constrained
        Shape (H, W), bool, whether pixels of exposures see the blob.
    response, coverage
        Shape (H, W), what the filter makes of the right-hand side of a blob
        of unit flux, with the weights of pixels and with typical ones; those
        of pixels around where it is not constrained.
    variance
        Shape (H, W), variance of fluxes for white noise.
    """

    model: ForwardModel
    profile: torch.Tensor
    above: torch.Tensor
    surroundings: torch.Tensor
    power: torch.Tensor
    is_constrained: torch.Tensor
    response: torch.Tensor
    coverage: torch.Tensor
    variance: torch.Tensor

    def missing(self, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return fluxes from a right-hand side of residuals, latent_shape,
        above the surroundings and, but for a factor, without them, (H, W).
        """
        gains = torch.stack([self.above, self.profile])
        above, level = self.model.crop(self.model.filter_images(right.expand(2, -1, -1), gains))
        return above / self.response, level

    def observed(self, right: torch.Tensor) -> torch.Tensor:
        """Return fluxes from a right-hand side, latent_shape, with typical
        weights, of light without its surroundings, (H, W).
        """
        return self.model.crop(self.model.filter_images(right[None], self.profile)[0]) / self.coverage

    def contrast(self, image: torch.Tensor) -> torch.Tensor:
        """Subtract the surroundings, latent_shape."""
        return image - self.model.filter_images(image[None], self.surroundings)[0]

    def flux(self, image: torch.Tensor) -> torch.Tensor:
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


def _find_knots(model: ForwardModel, image: torch.Tensor) -> torch.Tensor:
    """Return fluxes of stars with the peaks that stand out of a morphological
    opening, which bright light beside them does not change, (H, W).
    """
    pixels = model.crop(image)
    size = 2 * round(_OPENING * model.target_fwhm) + 1
    opened = largest_around(-largest_around(-pixels, size), size)
    return (pixels - opened) / model.fold_transform(model.target_transform)


def _find_blobs(model: ForwardModel, maps: WeightMaps) -> Iterator[_Blob]:
    """Yield the filters, from the narrowest."""
    power = model.total_power(maps.typical / maps.typical.sum())
    norms = torch.empty(len(_SCALES), 2, model.num_exposures, device=power.device)
    filters = []
    for scale in _SCALES:
        profile, around = (
            model.gaussian_transform(factor * scale * model.target_fwhm, power)
            for factor in (1.0, _SURROUNDINGS)
        )
        filters.append((profile, profile * (1.0 - around), around))
    for t in range(model.num_exposures):
        one = model.power(t)
        for k, (profile, above, _) in enumerate(filters):
            norms[k, 0, t] = model.fold_transform(one * profile * above)
            norms[k, 1, t] = model.fold_transform(one * above**2)
    present = maps.typical[:, None, None] * maps.presence
    seen = smooth(maps.used.any(dim=0).to(power.dtype)[None], _AROUND_FWHM).clamp(min=1e-6)
    for (profile, above, surroundings), norm in zip(filters, norms, strict=True):
        # Products of the profiles in the exposures say what a pixel tells of
        # the blob, and of its variance.
        profiles = model.inverse_transform(torch.stack([profile, above]) * power.sqrt() + 0j)
        kernels = profiles * profiles[1]
        maps_of_weights = torch.stack(
            [*torch.tensordot(norm, maps.weights, dims=1), torch.tensordot(norm[0], present, dims=1)]
        )
        local = _spread(model, maps_of_weights, kernels[[0, 1, 0]])
        typical = smooth(maps_of_weights, _AROUND_FWHM) / seen
        known = (local[:2] > 0.0).all(dim=0) & (local[2] > WEIGHT_FLOOR * typical[2])
        response, variance, coverage = torch.where(known, local, typical)
        yield _Blob(
            model=model,
            profile=profile,
            above=above,
            surroundings=surroundings,
            power=power,
            is_constrained=known,
            response=response,
            coverage=coverage,
            variance=variance / response**2,
        )


def _spread(model: ForwardModel, images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Convolve maps of the patch with normalised kernels, (b, H, W)."""
    kernels = kernels / kernels.sum(dim=(1, 2), keepdim=True)
    transforms = model.transform(model.embed(images)) * model.transform(kernels)
    return model.crop(model.inverse_transform(transforms))
