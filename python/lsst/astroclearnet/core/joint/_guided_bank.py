# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Estimates of a band, and those of the other bands in its colour."""

from __future__ import annotations

__all__ = ("Guide", "GuidedBank", "make_guide")

import dataclasses
from collections.abc import Callable, Sequence
from typing import Self

import torch

from ..estimate import BandImage
from ..exposures import largest_around
from ..forward import WEIGHT_FLOOR

_BRIGHT = 10.0
"""Signal-to-noise ratio of a star with the brightness of a pixel, around which
a band needs no help: the light of brighter sources is that of its own
exposures."""

_STEEPNESS = 6
"""Power of that brightness with which help falls: at a ratio of 30 it is 0.1 %
of what it is in the sky."""

_SOURCE_REACH = 1.25
"""Reach of the wings of sources, in units of the FWHM of the target PSF: 1 %
of the light of a star is beyond."""

_COLOUR_RANGE = 5.0, 50.0
"""Significance in another band of the pixels that tell the colour of the tile.
In the band they must be as faint, and above 1: a saturated star or a trail
would decide alone."""

_COLOUR_PRIOR = 50.0
"""Sum of significances with which sources are assumed to be as significant in
one band as in the other."""

_COLOUR_LIMIT = 5.0
"""Largest ratio of significances of two bands, and inverse of the smallest."""

_COLOUR_ERROR = 0.5
"""Standard deviation, in units of the noise of the band, that is added to the
noise of another band: colours of sources differ."""

_DISSENT = 4.0
"""Significance of light that one band alone has, or alone has not, with which
it counts half: it is an artefact, a transient, or a source of an odd colour.
Without a limit for the band itself its own sources of a ratio of 10 lost a
third of their light, and those of all other bands were seen in it."""

_FALL = 4
"""Power of dissent with which the weight of a band, or help, falls."""

_TOLERANCE = 0.3
"""By how much bands may differ in the brightness of a source before they
dissent, over the brightness in another band."""

_ENOUGH = 0.5
"""Share of the weight of other bands that must agree for full help."""

_SHARED = 0.3, 0.6
"""Slope of the light of the band over that of the guide below which they share
no structure, and above which they do: it is near 1, or 0."""

_STRUCTURE = 2.0
"""Brightness of structure of the guide, in units of a star of signal-to-noise
ratio 1: that of noise is fainter."""

_SHARED_PRIOR = 100.0
"""Sum of squares in the same unit, of four pixels of 5, with which the slope
is assumed to be 1: blank bands are alike."""

_FAINT = 2.0
"""Factor by which light of other bands is multiplied before it is compressed:
that of faint sources is half a star of signal-to-noise ratio 1."""


@dataclasses.dataclass(frozen=True)
class Guide:
    """What other bands say of a band, on its grid and in its colour.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``, weighted mean of the linear estimates of
        their banks.
    restored
        Shape latent_shape, that of their restored images.
    noise
        Shape latent_shape, peak of a star of signal-to-noise ratio 1 in it.
    agreement
        Shape latent_shape, share of the weight that is left of bands that do
        not dissent; 0 where no other band has data.
    shared
        Shape (), whether the band has the structure of the guide, from 0 to 1.
    """

    estimates: torch.Tensor
    restored: torch.Tensor
    noise: torch.Tensor
    agreement: torch.Tensor
    shared: torch.Tensor


def make_guide(band: BandImage, others: Sequence[BandImage]) -> Guide:
    """Return the mean of other bands as an image of a band.

    Fluxes are multiplied with the ratio that the two bands have in the tile.
    Where one of them is much brighter than all others and the band it counts
    little.

    Parameters
    ----------
    band
        The band that it is for.
    others
        The other bands, at least one, in any order.
    """
    unit = band.estimator.debiaser.star_noise
    seen = [_Other.see(band, other) for other in others]
    lights = torch.stack([band.restored, *(each.restored for each in seen)])
    weights, full = [], []
    for k, each in enumerate(seen, 1):
        rest = torch.cat([lights[:k], lights[k + 1 :]]).amax(dim=0)
        dissent = _excess(each.restored, rest, each.noise)
        weight = each.has_data / (each.noise.square() + (_COLOUR_ERROR * unit).square())
        full.append(weight)
        weights.append(weight * _fall(dissent, _FALL, band))
    weight, most = torch.stack(weights), torch.stack(full).sum(dim=0)
    total = weight.sum(dim=0)
    shares = weight / total.clamp(min=1e-30)
    estimates, restored = torch.zeros_like(seen[0].estimates), torch.zeros_like(unit)
    variance = torch.zeros_like(unit)
    for share, each in zip(shares, seen, strict=True):
        estimates.addcmul_(share, each.estimates)
        restored.addcmul_(share, each.restored)
        variance.addcmul_(share.square(), each.noise.square())
    return Guide(
        estimates=estimates,
        restored=restored,
        noise=variance.sqrt(),
        agreement=total / most.clamp(min=1e-30),
        shared=_shared_structure(band, restored / unit, total > 0.0),
    )


@dataclasses.dataclass(frozen=True)
class _Other:
    """Another band, on the grid of the band and in its colour."""

    estimates: torch.Tensor
    restored: torch.Tensor
    noise: torch.Tensor
    has_data: torch.Tensor

    @classmethod
    def see(cls, band: BandImage, other: BandImage) -> _Other:
        grid, own = band.estimator.model.grid, other.estimator.model.grid
        unit = band.estimator.debiaser.star_noise
        bank = other.estimator.bank(other.estimates)
        stacked = torch.stack([other.restored, other.estimator.debiaser.star_noise, other.coverage])
        restored, noise, coverage = own.move(stacked, grid)
        has_data = (coverage > WEIGHT_FLOOR).to(restored)
        significance = restored / noise
        low, high = _COLOUR_RANGE
        covered = (has_data > 0.0) & (band.coverage > WEIGHT_FLOOR)
        own_significance = band.restored / unit
        use = covered & (significance > low) & (significance < high)
        use &= (own_significance > 1.0) & (own_significance < high)
        # Bright ones must not decide alone.
        weight = use / (1.0 + significance.abs() / low)
        own_light = (weight * own_significance).sum() + _COLOUR_PRIOR
        light = (weight * significance).sum() + _COLOUR_PRIOR
        ratio = (own_light / light).clamp(1.0 / _COLOUR_LIMIT, _COLOUR_LIMIT)
        # Of fluxes: noise may vary over the patch.
        ratio = ratio * torch.where(covered, unit / noise, torch.nan).nanmedian().nan_to_num(1.0)
        return cls(
            ratio * own.move(bank.estimates, grid), ratio * restored * has_data, ratio * noise, has_data
        )


def _shared_structure(band: BandImage, guide: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return whether a band has the structure of a guide, from 0 to 1."""
    own = (band.restored / band.estimator.debiaser.star_noise).clamp(-_BRIGHT, _BRIGHT)
    use = known & (band.coverage > WEIGHT_FLOOR) & (guide > _STRUCTURE)
    guide = use * guide.clamp(max=_BRIGHT)
    slope = ((guide * own).sum() + _SHARED_PRIOR) / (guide.square().sum() + _SHARED_PRIOR)
    low, high = _SHARED
    return ((slope - low) / (high - low)).clamp(0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class GuidedBank:
    """Estimates of a band, of its own and of other bands.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``, first the restored image, then the image
        of the network, the linear ones of the bank, and those of the guide.
    features
        Shape ``(f, *latent_shape)``, what the joint network sees, without
        unit.
    log_ratios
        Shape (r,), logarithms of noise ratios, which tell how sharp the
        exposures are.
    largest_weight
        Shape latent_shape, largest weight of all estimates but the first: 0
        where no other band has data, and falling where light is bright.
    """

    estimates: torch.Tensor
    features: torch.Tensor
    log_ratios: torch.Tensor
    largest_weight: torch.Tensor

    @classmethod
    def build(cls, band: BandImage, guide: Guide) -> Self:
        """Build the bank of a band.

        Parameters
        ----------
        band
            The band.
        guide
            What `make_guide` returned for the other bands.
        """
        bank = band.estimator.bank(band.estimates)
        unit = band.estimator.debiaser.star_noise
        own, others = bank.estimates, guide.estimates
        difference = (own - others) / unit
        light = torch.cat([guide.restored[None], others]) / unit
        state = torch.stack([(guide.noise / unit).clamp(min=1e-3).log(), guide.agreement])
        seen = torch.cat([band.restored[None] / unit, light * _FAINT, difference]).asinh()
        return cls(
            estimates=torch.cat([band.restored[None], band.mixed[None], own, others]),
            features=torch.cat([seen, state, bank.features]),
            log_ratios=bank.log_ratios,
            largest_weight=_trust_in(band, guide) * guide.shared,
        )

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Apply a function to everything that has the shape of an image.

        Parameters
        ----------
        function
            Acts on the last two axes: cuts, flips or rotates.
        """
        return dataclasses.replace(
            self,
            estimates=function(self.estimates),
            features=function(self.features),
            largest_weight=function(self.largest_weight),
        )


def _trust_in(band: BandImage, guide: Guide) -> torch.Tensor:
    """Return what bright light, and dissent, leave to other estimates."""
    debiaser = band.estimator.debiaser
    brightness = torch.maximum(debiaser.brightness(band.restored), debiaser.brightness(guide.restored))
    noise = (debiaser.star_noise.square() + guide.noise.square()).sqrt()
    lacking = _excess(guide.restored, band.restored, noise)
    dissent = _excess(band.restored, guide.restored, noise).maximum(lacking)
    agreement = (guide.agreement / _ENOUGH).clamp(max=1.0)
    return agreement * _fall(brightness / _BRIGHT, _STEEPNESS, band) * _fall(dissent, _FALL, band)


def _fall(ratio: torch.Tensor, power: int, band: BandImage) -> torch.Tensor:
    """Return what falls with the power of the largest ratio around."""
    # The wings of a source belong to it.
    reach = 2 * round(_SOURCE_REACH * band.estimator.model.target_fwhm) + 1
    return 1.0 / (1.0 + largest_around(ratio, reach) ** power)


def _excess(light: torch.Tensor, other: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return by how much light dissents from other light."""
    other = other / noise
    return ((light / noise - other) / (_DISSENT + _TOLERANCE * other.clamp(min=0.0))).clamp_(min=0.0)
