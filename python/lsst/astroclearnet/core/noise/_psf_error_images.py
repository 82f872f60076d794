# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What errors of the exposures' PSFs do to images at the target PSF."""

from __future__ import annotations

__all__ = ("PsfErrorImages",)

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch

from ..exposures import ExposureStack, fwhm_to_sigma
from ..forward import ForwardModel, WeightMaps
from ..outliers import PsfErrors, find_structure, psf_moments
from ._white_noise import white_noise

_LEAST_SHARE = 0.01
"""Variance of such errors, over that of the noise, from which on they
count."""

_NODES = 64
"""Distance in pixels of the nodes between which coefficients vary smoothly, so
that the stars of a tile do not all have the same errors."""

_KEY_BITS = 24
"""Bits of the number of an exposure: the next tell coefficients apart."""


@dataclasses.dataclass(frozen=True)
class PsfErrorImages:
    """Errors of images at the target PSF from errors of the exposures' PSFs.

    The PSF of exposure t has a wrong position, width or ellipticity, or its
    light is scaled wrongly, by small independent coefficients c(t, k) that
    vary slowly over the patch.  Linear estimates then err by the sum over
    exposures and k of c(t, k) S(t) * T(t, k): T are the derivatives of the
    light at the target PSF, S(t) = w(t) P(t) / (sum of w P + s W) is the share
    of exposure t in the estimate, of power P(t) (`LinearEstimator`).  The
    restored image follows the exposures where light is bright, and errs as
    much.

    Attributes
    ----------
    pixels
        Shape (p,), int64, numbers of the pixels, (H, W), where errors matter.
    templates
        Shape (n, 6, p), the terms of the sum for coefficients of one standard
        deviation.
    shape
        Height and width of the images.
    """

    pixels: torch.Tensor
    templates: torch.Tensor
    shape: tuple[int, int]

    @classmethod
    def build(
        cls,
        errors: PsfErrors,
        stack: ExposureStack,
        model: ForwardModel,
        maps: WeightMaps,
        *,
        image: torch.Tensor,
        variance: torch.Tensor,
        penalty_weight: float,
    ) -> PsfErrorImages:
        """Build them for an image.

        Parameters
        ----------
        errors
            Errors of the PSFs of these exposures.
        stack
            The exposures.
        model
            Their forward model.
        maps
            Their weights on the patch.
        image
            Shape latent_shape, the light at the target PSF.
        variance
            Shape (H, W), variance of its noise.
        penalty_weight
            That of the linear estimate, s.
        """
        used = maps.weights * maps.used
        shares = (used / used.sum(dim=0).clamp(min=1e-30)).flatten(1)
        sizes = errors.of_templates(psf_moments(stack.psfs).to(shares))
        total = torch.zeros_like(shares[0])
        responses = list(_respond(model, maps.typical, image, penalty_weight))
        for exposures, response in responses:
            squares = response.square()
            for t in exposures:
                total.addcmul_(shares[t].square(), sizes[t].square() @ squares)
        pixels = (total > _LEAST_SHARE * variance.flatten()).nonzero()[:, 0]
        templates = torch.empty(*sizes.shape, len(pixels), device=shares.device)
        for exposures, response in responses:
            some = response[:, pixels]
            for t in exposures:
                torch.mul(some, sizes[t][:, None] * shares[t, pixels], out=templates[t])
        return cls(pixels, templates, model.shape)

    def variance(self) -> torch.Tensor:
        """Return the variance of the errors, (H, W)."""
        return self._on_patch(self.templates.square().sum(dim=(0, 1)))

    def draw(self, seed: int, draw: int, exposures: Sequence[int], origin: tuple[int, int]) -> torch.Tensor:
        """Draw errors, (H, W), the same for any tiles.

        Parameters
        ----------
        seed, draw
            As for `white_noise`.
        exposures
            Numbers of the exposures.
        origin
            Row and column on the patch of the first pixel.
        """
        nodes = _Nodes.between(self.pixels, origin, self.shape)
        total = torch.zeros_like(self.templates[0, 0])
        for exposure, templates in zip(exposures, self.templates, strict=True):
            for k, template in enumerate(templates, 1):
                total.addcmul_(template, nodes.interpolate(seed, draw, exposure + (k << _KEY_BITS)))
        return self._on_patch(total)

    def _on_patch(self, values: torch.Tensor) -> torch.Tensor:
        image = torch.zeros(self.shape[0] * self.shape[1], device=values.device)
        image[self.pixels] = values
        return image.reshape(self.shape)


def _respond(
    model: ForwardModel, typical: torch.Tensor, image: torch.Tensor, penalty_weight: float
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield exposures with kernels that are alike, and what derivatives of the
    light do to an estimate from them alone, (6, H * W).
    """
    weights = typical / typical.sum().clamp(min=1e-30)
    total = model.total_power(weights) + penalty_weight * model.inverse_target_power
    sigma = fwhm_to_sigma(model.target_fwhm)
    brightness = model.transform(find_structure(image[None], None, sigma, image.new_zeros(()))[0])
    light = model.transform(image)
    ky = 2.0 * math.pi * torch.fft.fftfreq(image.shape[0], device=image.device)[:, None]
    kx = 2.0 * math.pi * torch.fft.rfftfreq(image.shape[1], device=image.device)
    ways = (1j * ky, 1j * kx, -(ky**2 + kx**2), kx**2 - ky**2, -2.0 * ky * kx)
    for number in sorted(set(model.kernel_numbers)):
        exposures = [t for t, other in enumerate(model.kernel_numbers) if other == number]
        equal = torch.full((len(exposures),), 1.0 / len(exposures), device=image.device)
        gain = (1.0 + penalty_weight) * model.total_power(equal, exposures) / total
        found = [brightness * gain, *(way * gain * light for way in ways)]
        yield exposures, torch.stack([model.crop(model.inverse_transform(one)) for one in found]).flatten(1)


@dataclasses.dataclass(frozen=True)
class _Nodes:
    """Nodes of a regular grid around pixels of a patch: the first of all, how
    many, and of each pixel the corners and their weights.
    """

    first: tuple[int, int]
    shape: tuple[int, int]
    corners: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

    @classmethod
    def between(cls, pixels: torch.Tensor, origin: tuple[int, int], shape: tuple[int, int]) -> _Nodes:
        """Find the nodes around some pixels of a tile."""
        first = origin[0] // _NODES, origin[1] // _NODES
        rows, columns = pixels // shape[1] + origin[0], pixels % shape[1] + origin[1]
        sides: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        for place, node in zip((rows, columns), first, strict=True):
            fraction, before = (place % _NODES) / _NODES, place // _NODES - node
            # Squares of the weights sum up to one.
            sides.append([(before, (1.0 - fraction).sqrt()), (before + 1, fraction.sqrt())])
        corners = [(y, x, wy * wx) for y, wy in sides[0] for x, wx in sides[1]]
        height, width = ((o + n - 1) // _NODES + 2 - f for o, n, f in zip(origin, shape, first, strict=True))
        return cls(first, (height, width), corners)

    def interpolate(self, seed: int, draw: int, key: int) -> torch.Tensor:
        """Return a smooth field of unit variance at the pixels."""
        values = white_noise(seed, draw, key, self.first, self.shape, self.corners[0][0].device)
        total = torch.zeros_like(self.corners[0][2])
        for y, x, weight in self.corners:
            total.addcmul_(weight, values[y, x])
        return total
