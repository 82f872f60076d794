# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Widths of stars in the image of all exposures."""

from __future__ import annotations

import dataclasses
import math

import torch

from ..exposures import largest_around
from ..forward import TileData
from ..outliers import LeaveOneOut

_SIGNIFICANCE = 20.0
"""Least height of a peak in sigma of its pixel: others are faint, or noise."""

_MOST_WIDE = 0.1
"""Excess of a width above which a source is no star."""

_MOST_SCATTER = 4.0
"""Reduced chi-square above which sources of about one width are no stars."""

_LACK_OF_FIT, _CLIP = 0.05, 4.0
"""Largest residual of a fit over the peak, and beside it in sigma: others are
blends."""

_INTRINSIC = 0.003
"""Scatter of the widths of stars beside the noise."""

_LEAST_STARS = 5
"""Number of stars below which they say nothing."""

_ROUNDS = 3
"""Rounds in which positions are refined."""


@dataclasses.dataclass(frozen=True)
class StarWidth:
    """Excess of the width of stars over the target PSF.

    Attributes
    ----------
    value, sigma
        Relative excess, and its standard deviation from the scatter; 0 and
        infinite without enough stars.
    number
        Number of stars.
    """

    value: float
    sigma: float
    number: int

    @classmethod
    def of_sources(cls, sources: torch.Tensor) -> StarWidth:
        """Find the locus of stars among sources: the narrowest interval with
        half of them, since galaxies are wider by any amount.

        Parameters
        ----------
        sources
            Shape (2, k), as `measure_star_widths` returns them.
        """
        widths, order = sources[0].sort()
        use = widths.abs() < _MOST_WIDE
        widths, noise = widths[use], sources[1, order][use]
        number = len(widths)
        if number < _LEAST_STARS:
            return cls(0.0, math.inf, number)
        half = (number + 1) // 2
        start = int((widths[half - 1 :] - widths[: number - half + 1]).argmin())
        center = widths[start : start + half].median()
        scatter = 1.4826 * ((widths - center).abs() / (noise + _INTRINSIC)).median()
        use = (widths - center).abs() < 3.0 * scatter.clamp(min=1.0) * (noise + _INTRINSIC)
        number = int(use.sum())
        if number < _LEAST_STARS:
            return cls(0.0, math.inf, number)
        weights = use / (noise**2 + _INTRINSIC**2)
        value = (weights * widths).sum() / weights.sum()
        chi_square = (weights * (widths - value) ** 2).sum() / (number - 1)
        if chi_square > _MOST_SCATTER:
            return cls(0.0, math.inf, 0)
        sigma = (chi_square.clamp(min=1.0) / weights.sum()).sqrt()
        return cls(float(value), float(sigma), number)


def measure_star_widths(tile_data: TileData, predictor: LeaveOneOut, star: torch.Tensor) -> torch.Tensor:
    """Measure the widths of isolated sources that a tile owns.

    Parameters
    ----------
    tile_data
        The tile.
    predictor
        Its predictor, with the image of all exposures.
    star
        Shape (2, S, S), a star and its derivative by width, as of
        `PsfResponse`.

    Returns
    -------
    widths : `torch.Tensor`
        Shape (2, k), double, relative excess over that of a star, and its
        standard deviation from the noise.
    """
    model, radius = tile_data.model, star.shape[-1] // 2
    image = model.crop(predictor.latent)
    covered = model.sampling.mean(predictor.stack.good.float()).clamp(0, 1)
    weights = (predictor.weights / predictor.weights.sum())[:, None, None]
    whole = (weights * covered).sum(dim=0)
    # All exposures have all pixels there.
    whole = -largest_around(-whole[None], 2 * radius + 1)[0] > 0.9 * whole.max()
    inside = torch.zeros(tile_data.tile.shape, dtype=torch.bool, device=image.device)
    rows, columns = tile_data.tile.within
    inside[rows, columns] = True
    inside[: radius + 1], inside[-radius - 1 :] = False, False
    inside[:, : radius + 1], inside[:, -radius - 1 :] = False, False
    # Far from all data the image is 0.
    seen = torch.where(whole, image, torch.nan)
    noise = 1.4826 * (seen - seen.nanmedian()).abs().nanmedian()
    highest = largest_around(image[None], 2 * radius + 1)[0]
    peaks = (image == highest) & whole & inside & (image > _SIGNIFICANCE * noise)
    places = peaks.nonzero()
    if not len(places):
        return torch.zeros(2, 0, dtype=torch.float64)
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    stamps = image[places[:, 0, None, None] + offsets[:, None], places[:, 1, None, None] + offsets[None, :]]
    sources, lack = _fit_stamps(stamps.double().cpu(), star, float(noise))
    return sources[:, lack < 0.0]


def _fit_stamps(stamps: torch.Tensor, star: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit stars to stamps, (k, S, S); return widths with errors, (2, k), and
    the excess of residuals over what is allowed, (k,).
    """
    size = stamps.shape[-1]
    ky = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(size, dtype=torch.float64)[None, :]
    slopes = 2j * math.pi * torch.stack([ky.expand(-1, kx.shape[1]), kx.expand(size, -1)])
    spectrum = torch.fft.rfft2(star)
    spectra = torch.stack([spectrum[0], *(slope * spectrum[0] for slope in slopes), spectrum[1]])
    shift = torch.zeros(len(stamps), 2, dtype=torch.float64)
    for _ in range(_ROUNDS):
        phase = torch.exp(-(shift[:, 0, None, None] * slopes[0] + shift[:, 1, None, None] * slopes[1]))
        shapes = torch.fft.irfft2(spectra * phase[:, None], s=(size, size)).flatten(2)
        design = torch.cat([shapes, torch.ones_like(shapes[:, :1])], dim=1)
        inverse = torch.linalg.inv(design @ design.mT)
        found = (inverse @ (design @ stamps.flatten(1)[..., None]))[..., 0]
        flux = found[:, :1].clamp(min=1e-30)
        shift = (shift - found[:, 1:3] / flux).clamp(-1.0, 1.0)
    fitted = (design.mT @ found[..., None])[..., 0]
    residual = (stamps.flatten(1) - fitted).abs().amax(dim=1)
    lack = residual - _LACK_OF_FIT * stamps.flatten(1).amax(dim=1) - _CLIP * noise
    sigma = noise * inverse[:, 3, 3].sqrt() / flux[:, 0]
    return torch.stack([found[:, 3] / flux[:, 0], sigma]), lack
