# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Significance of residuals beyond what may differ between exposures."""

from __future__ import annotations

import math

import torch

from ..exposures import fwhm_to_sigma, largest_around, smooth
from ._leave_one_out import TRAIL_FWHM, Prediction

_NUM_REWEIGHTS = 4
"""Rounds of reweighting of the local fits: with three, 130 of 143 pixels of
cosmic rays on peaks of stars are found, with four or five 133."""

_LACK_OF_FIT = 0.25
"""Error of local fits, relative to what they remove."""

_LEAST_LACK = 0.003
"""Their least error, relative to structure: the median error of fitted PSFs
over their peak."""

_FLAT_FIELD = 0.02
"""Standard deviation of the relative flux scale of smooth light."""

_FLAT_FIELD_FWHM = 24.0
"""FWHM, in pixels, over which the flux scale of smooth light is fitted."""

_FLAT_FIELD_BLOCK = 4
"""Side in pixels of the blocks in which it is fitted."""

_FLAT_FIELD_ROUNDS = 3
"""Rounds of reweighting of that fit."""

_BLOCK = 8
"""Side in pixels of the blocks in which neighbours are summed up."""

_CHUNK = 1 << 12
"""Number of pixels whose fits the cache of a CPU holds."""


class StructuredResiduals:
    """Residuals of an exposure in units of their error.

    The error holds the noise of exposure and prediction, and what may differ
    in a single exposure.  Around chosen pixels this is fitted instead: the
    templates of the prediction to the neighbours of each pixel, with weights
    that fall with their residuals (Cauchy), so that an artefact does not
    explain itself.  The error of the residual then holds that of the fit, and
    a share of what was fitted, for templates are not exact.

    Parameters
    ----------
    image
        Shape (1, h, w), the exposure.
    variances
        Shape (1, h, w), its variances.
    good
        Shape (1, h, w), bool, pixels to judge and to fit to.
    prediction
        The exposure, predicted from the others.
    scale
        Shape (1, h, w), light of a flux scale that varies slowly; it is
        measured by default.

    Attributes
    ----------
    scale
        Shape (1, h, w), that light.
    plain
        Shape (1, h, w), residuals in units of the noise; 0 where not good.
    may_differ
        Shape (1, h, w), bool, pixels in which more may differ than noise.
    """

    def __init__(
        self,
        image: torch.Tensor,
        variances: torch.Tensor,
        good: torch.Tensor,
        prediction: Prediction,
        scale: torch.Tensor | None = None,
    ) -> None:
        self._prediction, self._good, self._variances = prediction, good, variances
        self._noise = noise = variances + prediction.variance
        # The model has no aliases of the power at the Nyquist frequency.
        aliases = math.exp(-0.5 * (math.pi * fwhm_to_sigma(prediction.fwhm)) ** 2)
        self._least = ((_LEAST_LACK + aliases) * prediction.structure) ** 2 + prediction.border**2
        self._allowed = prediction.templates.square().sum(dim=0, keepdim=True) + self._least
        residual = (image - prediction.light) * good
        if scale is None:
            base = (prediction.light - prediction.structure).clamp(min=0.0)
            scale = _flat_field(residual, base, good / (noise + self._allowed))
        self.scale = scale
        self._residual = (residual - scale) * good
        self.plain = self._residual * noise.rsqrt()
        # Where little may differ it is added to the noise instead of being
        # fitted.
        self.may_differ = (self._allowed > 0.25 * noise) & good

    def bound(self) -> torch.Tensor:
        """Return about the largest `significance`, (1, h, w), of any fit."""
        return self._judge(self._residual, self._least)

    def significance(self) -> torch.Tensor:
        """Return the significance without a fit.

        Returns
        -------
        significance : `torch.Tensor`
            Shape (1, h, w), signed, of the pixel or of its neighbourhood
            (smoothed for faint trails), whichever is larger; 0 where not good.
        """
        return self._judge(self._residual, self._allowed)

    def fit(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the significance with a fit in some pixels, (1, h, w).

        Parameters
        ----------
        pixels
            Shape (k,), numbers of pixels in order.
        """
        residual, noise, good = self._residual, self._noise, self._good
        local = _LocalFit(self._prediction.templates, pixels, self._prediction.fwhm)
        fitted_here = torch.zeros_like(good)
        fitted_here.view(-1)[pixels] = True
        lack, systematic, error, rest = self._least, self._allowed, torch.zeros_like(noise), residual
        for _ in range(_NUM_REWEIGHTS):
            # Half the weight at 3 sigma.
            robust = good / (1.0 + rest.square() / (noise + error + systematic) / 9.0)
            fitted, error = local.solve(residual, robust / (noise + lack))
            lack = self._least + largest_around((_LACK_OF_FIT * fitted) ** 2, 3)
            systematic = torch.where(fitted_here, lack, self._allowed)
            rest = (residual - fitted) * good
        return self._judge(rest, error + systematic)

    def _judge(self, residual: torch.Tensor, systematic: torch.Tensor) -> torch.Tensor:
        """Return the significance of residuals that have systematic errors."""
        single = residual * (self._noise + systematic).rsqrt()
        smoothed = self._smoothed(residual, systematic)
        return torch.where(smoothed.abs() > single.abs(), smoothed, single)

    def _smoothed(self, residual: torch.Tensor, systematic: torch.Tensor) -> torch.Tensor:
        """Return the significance of residuals smoothed for faint trails."""
        prediction, good = self._prediction, self._good
        weights = good / self._noise
        # Clipped at 10 sigma, lest single pixels look like trails.
        limit = 10.0 * (self._noise + systematic).sqrt()
        total, shared, coherent = smooth(
            weights
            * torch.cat(
                [residual.clamp(min=-limit, max=limit), prediction.variance.sqrt(), systematic.sqrt()]
            ),
            TRAIL_FWHM,
        ).split(1)
        # The squared profile is narrower by the root of two.
        white = smooth(weights**2 * self._variances, TRAIL_FWHM / 2.0**0.5)
        white = white / (4.0 * torch.pi * fwhm_to_sigma(TRAIL_FWHM) ** 2)
        # The noise of the prediction is correlated; errors of light add up.
        variance = white + prediction.smooth_share * shared**2 + coherent**2
        return good * total * variance.clamp(min=1e-30).rsqrt()


def _flat_field(residual: torch.Tensor, base: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the residual light of a flux scale that varies slowly."""
    block, shape = _FLAT_FIELD_BLOCK, residual.shape[-2:]
    margins = [-length % block for length in shape]
    number = 4.0 * torch.pi * fwhm_to_sigma(_FLAT_FIELD_FWHM) ** 2
    scale = torch.zeros_like(residual)
    for _ in range(_FLAT_FIELD_ROUNDS):
        robust = weights / (1.0 + (residual - scale).square() * weights / 9.0)
        products = robust * base * torch.cat([base, residual])
        products = torch.nn.functional.pad(products, (0, margins[1], 0, margins[0]))
        means = torch.nn.functional.avg_pool2d(products, block)
        information, right = number * smooth(means, _FLAT_FIELD_FWHM / block)
        ratio = (right / (information + _FLAT_FIELD**-2))[None, None]
        ratio = torch.nn.functional.interpolate(ratio, scale_factor=float(block), mode="bilinear")[0]
        scale = base * ratio[:, : shape[0], : shape[1]]
    return scale


class _LocalFit:
    """Fits templates, (k, h, w), around some pixels, given by their numbers.

    Their coefficients have zero mean and unit variance a priori.
    """

    def __init__(self, templates: torch.Tensor, pixels: torch.Tensor, fwhm: float) -> None:
        height, width = templates.shape[-2:]
        # Gaussian weights, 1.5 times as wide as the PSF.
        sigma = fwhm_to_sigma(max(fwhm, 2.0)) * 1.5
        self._radius = radius = max(2, round(2.0 * sigma))
        r = torch.arange(-radius, radius + 1, dtype=torch.float64, device=templates.device)
        self._sums = _band_matrix(torch.exp(-0.5 * (r / sigma) ** 2), _BLOCK)
        rows, columns = pixels // width, pixels % width
        block = rows // _BLOCK * -(-width // _BLOCK) + columns // _BLOCK
        is_used = torch.zeros(
            -(-height // _BLOCK) * -(-width // _BLOCK), dtype=torch.bool, device=pixels.device
        )
        is_used[block] = True
        self._blocks, index = is_used.nonzero()[:, 0], is_used.cumsum(dim=0)[block] - 1
        place = rows % _BLOCK * _BLOCK + columns % _BLOCK
        self._places, self._pixels = index * _BLOCK**2 + place, pixels
        self._templates = self._cut(templates)
        self._chunk = _CHUNK // _BLOCK**2 if templates.device.type == "cpu" else len(self._blocks)
        self._own = templates.flatten(1)[:, pixels].double()

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        """Return blocks of images with their surroundings, (k, b, S, S)."""
        size, (height, width) = _BLOCK + 2 * self._radius, images.shape[-2:]
        margins = (
            self._radius,
            self._radius + -width % _BLOCK,
            self._radius,
            self._radius + -height % _BLOCK,
        )
        padded = torch.nn.functional.pad(images, margins)
        blocks = padded.unfold(1, size, _BLOCK).unfold(2, size, _BLOCK)
        across = blocks.shape[2]
        return blocks[:, self._blocks // across, self._blocks % across].double()

    def solve(self, residual: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fit the neighbours of each pixel, without itself; return the fit in
        the pixel, 0 where there is none, and its variance, (1, h, w) both.
        """
        # A star of high S/N is known to more digits than single precision has,
        # and its templates resemble each other.
        data, weights = torch.cat([self._templates, self._cut(residual)]), self._cut(weights)
        sums = [
            self._sum_neighbours(some, weight)
            for some, weight in zip(
                data.split(self._chunk, dim=1), weights.split(self._chunk, dim=1), strict=True
            )
        ]
        products = torch.cat(sums, dim=1)
        number, found = len(self._templates), []
        # Products with each other and with the data, in place of a matrix.
        index = products.new_zeros(number, number + 1, dtype=torch.int64)
        rows, columns = torch.triu_indices(number, number + 1)
        index[rows, columns] = torch.arange(len(rows), device=index.device)
        index[columns[columns < number], rows[columns < number]] = index[rows, columns][columns < number]
        for places, own in zip(self._places.split(_CHUNK), self._own.split(_CHUNK, dim=1), strict=True):
            system = own.new_zeros(number + 2, number + 2, len(places))
            system[:number, : number + 1] = products[:, places][index]
            system[number, :number] = system[:number, number]
            system[:number, -1] = system[-1, :number] = own
            diagonal = system.diagonal()[:, :number]
            # With a ridge above the rounding errors of double precision.
            diagonal += 1.0 + 2.0**-46 * diagonal.sum(dim=1, keepdim=True)
            for _ in range(number):
                system = system[1:, 1:] - system[1:, :1] * (system[:1, 1:] / system[0, 0])
            found.append(-system[:, 1])
        values = torch.cat(found, dim=1).to(residual.dtype)
        maps = residual.new_zeros(2, *residual.shape)
        maps.flatten(1)[:, self._pixels] = values
        return maps[0], maps[1]

    def _sum_neighbours(self, data: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return weighted sums over the neighbours of all pixels of blocks, of
        products of templates and data, (k + 1, b, S, S).
        """
        inner = slice(self._radius, self._radius + _BLOCK)
        products = torch.cat([data[k:] * (weights * data[k]) for k in range(len(data) - 1)])
        rows = (products @ self._sums).mT.contiguous()
        return ((rows @ self._sums).mT - products[..., inner, inner]).flatten(1)


def _band_matrix(profile: torch.Tensor, length: int) -> torch.Tensor:
    """Return the matrix, (length + 2 r, length), of weighted sums."""
    offsets = torch.arange(length + len(profile) - 1, device=profile.device)[:, None]
    offsets = offsets - torch.arange(length, device=profile.device)
    known = (offsets >= 0) & (offsets < len(profile))
    return torch.where(known, profile[offsets.clamp(0, len(profile) - 1)], 0.0)
