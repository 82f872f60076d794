# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Estimates of a band, one of which the other bands guide."""

from __future__ import annotations

__all__ = ("GuidedBank", "make_guide")

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Self

import torch

from ..estimate import BandImage, FilterBank
from ..exposures import fwhm_to_sigma, largest_around, smooth
from ..forward import WEIGHT_FLOOR

_WINDOW_FWHM = 4.0
"""FWHM in pixels of the window in which the brightness of structure of the
guide is measured: about a star.  In wider ones, of 8 and 16 pixels, the colour
of neighbours was given to a source that the band does not have: 0.2 and 2 of
the noise of a star."""

_LEVEL_FWHM = 16.0
"""FWHM in pixels over which the level beneath structure is averaged, as the
smoothest of the bank."""

_QUIET = 0.3
"""Structure of the guide, in units of a star of signal-to-noise ratio 1, from
which on a pixel counts little for the level beneath it."""

_PRIOR_RATIO = 10.0
"""Standard deviation of the prior of the brightness of a structure, in units
of that in the guide: so broad that it matters only where nothing is known."""

_LEAST_INFORMATION = 0.3
"""Least information on the brightness of a structure, over that of stars with
the same sum of squares.  It binds where windows cut a structure, and light
and what the exposures tell of it have opposite signs."""

_TINY = 1e-20

_BRIGHT = 8.0
"""Signal-to-noise ratio of a star with the brightness of a pixel, around which
a band needs no help: the light of brighter sources is that of its own
exposures, at a ratio of 20 to 97 %.  There the image of the network was
measured to be 4 to 6 % too faint, and the debiased one 2 %.  With 12, for
which the network of the package was trained, stars of a ratio of 30 lost
0.9 %."""

_SOURCE_REACH = 1.0
"""Reach of the wings of sources, in units of the FWHM of the target PSF: 6 %
of the light of a star is beyond."""

_FAINT = 4.0
"""Factor by which the guide is multiplied before it is compressed: structure
of a quarter of a star of signal-to-noise ratio 1 is that of faint sources."""


def make_guide(band: BandImage, others: Sequence[BandImage]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of other bands in units of their noise.

    Parameters
    ----------
    band
        The band that it is for.
    others
        The other bands, in any order.

    Returns
    -------
    guide, presence : `torch.Tensor`
        Shape latent_shape of the band, the sum of significances over the root
        of their number, and the number of bands with data.
    """
    grid = band.estimator.model.grid
    total, presence = torch.zeros_like(band.restored), torch.zeros_like(band.restored)
    for other in others:
        own = other.estimator.model.grid
        has_data = (own.move(other.coverage, grid) > WEIGHT_FLOOR).to(total)
        total += has_data * own.move(other.significance, grid)
        presence += has_data
    return total * presence.clamp(min=1.0).rsqrt(), presence


@dataclasses.dataclass(frozen=True)
class GuidedBank:
    """Estimates of a band, of its own and guided by others.

    The guided one and those of the bank are linear in the exposures of the
    band, given the guide: where the band has no light around a pixel their
    expectation is zero, by whatever guide.

    Attributes
    ----------
    estimates
        Shape ``(s, *latent_shape)``, first the restored image, then the image
        of the network, the guided estimate, and the linear ones of the bank.
    features
        Shape ``(f, *latent_shape)``, what the joint network sees, without
        unit.
    log_ratios
        Shape (r,), logarithms of noise ratios, which tell how sharp the
        exposures are.
    shared
        Shape latent_shape, largest weight of all estimates but the first: 0
        where no other band has data, and falling where light is bright.
    star_noise
        Shape latent_shape, peak of a star of signal-to-noise ratio 1.
    """

    estimates: torch.Tensor
    features: torch.Tensor
    log_ratios: torch.Tensor
    shared: torch.Tensor
    star_noise: torch.Tensor

    @classmethod
    def build(cls, band: BandImage, guide: torch.Tensor, presence: torch.Tensor) -> Self:
        """Build the bank of a band.

        Parameters
        ----------
        band
            The band.
        guide, presence
            What `make_guide` returned for the other bands, on its grid.
        """
        estimator = band.estimator
        bank = estimator.bank(band.estimates)
        guided = _Guided.measure(band, guide * estimator.debiaser.star_noise, bank)
        images = torch.stack([band.restored, band.mixed, guided.image])
        return cls(
            estimates=torch.cat([images, bank.estimates]),
            features=_features(guide, presence, guided, bank),
            log_ratios=bank.log_ratios,
            shared=_shared(band) * (presence > 0.0),
            star_noise=estimator.debiaser.star_noise,
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
            shared=function(self.shared),
            star_noise=function(self.star_noise),
        )


@dataclasses.dataclass(frozen=True)
class _Guided:
    """Structure of a guide as bright as the exposures say.

    Attributes
    ----------
    image
        Shape latent_shape, in the unit of the band.
    structure
        Shape latent_shape, the structure of the guide.
    significance
        Shape latent_shape, its brightness in units of its noise.
    """

    image: torch.Tensor
    structure: torch.Tensor
    significance: torch.Tensor

    @classmethod
    def measure(cls, band: BandImage, guide: torch.Tensor, bank: FilterBank) -> Self:
        """Measure the brightness of the structure of a guide.

        Parameters
        ----------
        band
            The band.
        guide
            Shape latent_shape, in the unit of the band.
        bank
            Its estimates.
        """
        linear, star = band.estimator.linear, band.estimator.debiaser.star_noise
        quiet = torch.ones_like(guide)
        for _ in range(2):
            light = torch.stack([quiet * guide, quiet * bank.estimates[bank.num_solved // 2], quiet])
            guide_level, level, share = smooth(light, _LEVEL_FWHM)
            guide_level, level = guide_level / share, level / share
            structure = guide - guide_level
            quiet = 1.0 / (1.0 + (structure / (_QUIET * star)).square())
        normal = linear.normal(torch.stack([level, structure]))
        products = torch.stack([structure * (band.right - normal[0]), structure * normal[1]])
        squares = _LEAST_INFORMATION * (structure / star).square()[None] / _star_area(band)
        product, information = smooth(products, _WINDOW_FWHM)
        information = torch.maximum(information, smooth(squares, _WINDOW_FWHM)[0]).clamp_(min=_TINY)
        # The square of a Gaussian is one of half the area.
        half = _WINDOW_FWHM / math.sqrt(2.0)
        variance = torch.maximum(smooth(products[1:], half)[0], smooth(squares, half)[0]).clamp_(min=_TINY)
        variance /= 4.0 * math.pi * fwhm_to_sigma(_WINDOW_FWHM) ** 2
        prior = variance / (_PRIOR_RATIO**2 * information)
        image = level + structure * product / (information + prior)
        return cls(image, structure / star, product * variance.rsqrt())


def _shared(band: BandImage) -> torch.Tensor:
    """Return what bright light of the band leaves to other estimates."""
    estimator = band.estimator
    brightness = estimator.debiaser.brightness(band.restored)
    # The wings of a source belong to it.
    reach = round(_SOURCE_REACH * estimator.model.target_fwhm)
    brightest = largest_around(brightness, 2 * reach + 1)
    return 1.0 / (1.0 + (brightest / _BRIGHT) ** 4)


def _star_area(band: BandImage) -> float:
    """Return the sum of squares of a star with a peak of 1."""
    model = band.estimator.model
    profile = model.target_transform / model.fold_transform(model.target_transform)
    return float(model.fold_transform(profile.square()))


def _features(guide: torch.Tensor, presence: torch.Tensor, guided: _Guided, bank: FilterBank) -> torch.Tensor:
    """Return what the network sees, ``(f, *latent_shape)``.

    Of the band itself it sees absolute values only: noise of either sign gets
    the same weights, and its mean stays zero.
    """
    light = torch.stack([guide, guided.structure]) * _FAINT
    seen = torch.cat([light, guided.significance[None]]).asinh()
    seen[len(light) :].abs_()
    return torch.cat([seen, presence.sqrt()[None], bank.features.abs()])
