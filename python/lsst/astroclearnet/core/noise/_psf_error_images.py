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
from collections.abc import Sequence

import torch

from ..exposures import ExposureStack, fwhm_to_sigma
from ..forward import ForwardModel, WeightMaps
from ..outliers import PsfErrors, find_structure, psf_moments
from ._white_noise import white_noise

_LEAST_SHARE = 0.01
"""Variance of such errors, over that of the noise, above which they count."""

_NODES = 64
"""Distance in pixels of the nodes between which coefficients vary smoothly, so
that the stars of a tile do not all have the same errors."""

_NO_PIXELS = 1 << 24
"""Added to the number of an exposure: coefficients are not the noise of its
pixels."""

_PIXELS = 1 << 16
"""Number of pixels at once, whose coefficients take as much memory as their
templates."""

_STRIDE = 8
"""Numbers that are drawn for a node, at least that of coefficients."""


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
        derivatives = _differentiate(model, image)
        # What exposures of equal PSFs would do tells where to look.
        squares = model.crop(model.inverse_transform(derivatives)).flatten(1).square_()
        total = torch.zeros_like(shares[0])
        for size, share in zip(sizes, shares, strict=True):
            total.addcmul_(size.square() @ squares, share.square())
        pixels = (total > _LEAST_SHARE * variance.flatten()).nonzero()[:, 0]
        del squares, total
        templates = torch.empty(*sizes.shape, len(pixels), device=shares.device)
        weights = maps.typical / maps.typical.sum().clamp(min=1e-30)
        power = model.total_power(weights) + penalty_weight * model.inverse_target_power
        for t, (size, share) in enumerate(zip(sizes, shares, strict=True)):
            gain = (1.0 + penalty_weight) * model.power(t) / power
            found = model.crop(model.inverse_transform(gain * derivatives)).flatten(1)
            torch.mul(found[:, pixels], size[:, None] * share[pixels], out=templates[t])
        return cls(pixels, templates, model.shape)

    def variance(self) -> torch.Tensor:
        """Return the variance of the errors, (H, W)."""
        # Without squares of all of them in memory.
        return self._on_patch(torch.linalg.vector_norm(self.templates, dim=(0, 1)).square())

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
        first = origin[0] // _NODES, origin[1] // _NODES
        rows, columns = self.pixels // self.shape[1] + origin[0], self.pixels % self.shape[1] + origin[1]
        shape = tuple(
            (o + n - 1) // _NODES + 2 - f for o, n, f in zip(origin, self.shape, first, strict=True)
        )
        nodes = _draw_nodes(seed, draw, exposures, first, shape, self.pixels.device)
        errors = torch.empty_like(self.templates[0, 0])
        for start in range(0, len(self.pixels), _PIXELS):
            some = slice(start, start + _PIXELS)
            total = torch.zeros_like(self.templates[:, :, some])
            for y, y_weight in _neighbours(rows[some], first[0]):
                for x, x_weight in _neighbours(columns[some], first[1]):
                    total.addcmul_(nodes[:, :, y, x], y_weight * x_weight)
            errors[some] = total.mul_(self.templates[:, :, some]).sum(dim=(0, 1))
        return self._on_patch(errors)

    def _on_patch(self, values: torch.Tensor) -> torch.Tensor:
        image = torch.zeros(self.shape[0] * self.shape[1], device=values.device)
        image[self.pixels] = values
        return image.reshape(self.shape)


def _differentiate(model: ForwardModel, image: torch.Tensor) -> torch.Tensor:
    """Return the transforms, (6, Hl, Wl // 2 + 1), of light above its
    surroundings, of its slopes, and of second derivatives.
    """
    sigma = fwhm_to_sigma(model.target_fwhm)
    structure = find_structure(image[None], None, sigma, image.new_zeros(()))[0]
    light = model.transform(image)
    ky = 2.0 * math.pi * torch.fft.fftfreq(image.shape[0], device=image.device)[:, None]
    kx = 2.0 * math.pi * torch.fft.rfftfreq(image.shape[1], device=image.device)
    ways = (1j * ky, 1j * kx, -(ky**2 + kx**2), kx**2 - ky**2, -2.0 * ky * kx)
    return torch.stack([model.transform(structure), *(way * light for way in ways)])


def _draw_nodes(
    seed: int,
    draw: int,
    exposures: Sequence[int],
    first: tuple[int, int],
    shape: tuple[int, ...],
    device: torch.device,
) -> torch.Tensor:
    """Draw coefficients at nodes, (n, 6, *shape)."""
    # Those of a node are neighbours in a row of noise that no pixels have.
    origin, box = (first[0], _STRIDE * first[1]), (shape[0], _STRIDE * shape[1])
    noise = [white_noise(seed, draw, t + _NO_PIXELS, origin, box, device) for t in exposures]
    return torch.stack(noise).reshape(len(noise), *shape, _STRIDE)[..., :6].permute(0, 3, 1, 2)


def _neighbours(places: torch.Tensor, first: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the nodes before and after places, and weights whose squares sum
    up to one.
    """
    before, fraction = places // _NODES - first, (places % _NODES) / _NODES
    return [(before, (1.0 - fraction).sqrt()), (before + 1, fraction.sqrt())]
