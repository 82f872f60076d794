# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise of blank sky compared with the given variances."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping

import torch

from ..estimate import LinearEstimator, Precision
from ..exposures import (
    Tile,
    decorrelate_variance,
    is_blank,
    largest_around,
    masked_medians,
    model_variances,
    second_difference,
)
from ..forward import ForwardModel, TileData

_LOG = logging.getLogger(__name__)

_PENALTY_WEIGHT = 1e-3
"""Penalty weight of the linear estimate that exposures are compared with."""

_PRECISION = Precision(light=1e-2, noise=0.05)
"""Its precision."""

_BLOCK = 16
"""Side in pixels of the blocks in which noise is measured."""

_LEAST_PIXELS = 64
"""Number of blank-sky pixels that a block needs."""

_LEAST_BLOCKS = 7
"""Number of blocks that a median needs."""

_CLIP = 2.5
"""Huber threshold in sigma."""

_NUM_STEPS = 6
"""Iterations of the robust variance; each reduces the error tenfold."""

_MEDIAN_SIZE = 5
"""Side in blocks of the median filter of local noise: a trail crosses fewer
than half of them."""

_LARGEST_ERROR = 0.1
"""Relative error of the variance of an exposure that is tolerated."""

_LARGEST_LOCAL_ERROR = 0.3
"""The same for a box of an exposure, with less blank sky."""

_SIGNIFICANCE = 5.0
"""Significance in sigma of an error that is corrected."""

_NUM_MEASURES, _RESIDUALS, _DIFFERENCES = 3, 1, 2
"""Number of noise measures, and the indices of two of them."""

_CORRELATED = 3.0
"""Variance of a robust variance times the number of pixels: 2.4 for white
noise, somewhat more for second differences."""


@dataclasses.dataclass(frozen=True)
class SkyNoise:
    """Variances of exposures measured in blank sky.

    Attributes
    ----------
    ratio
        Shape (n,), measured over given variance; NaN without enough blank
        sky.
    sigma
        Shape (n,), standard deviations of the ratios.
    factor
        Shape (n, rows, columns), corrections of the variances in blocks of 16
        pixels of the patch; 1 where they are trusted.
    bias
        Shape (n,), by how much a mean weighted with the given variances would
        be too low, in sigma of a pixel, because they correlate with the noise
        of their own pixels; this is removed.
    smoothed
        Shape (n,), bool, variances that had to be smoothed for that.
    """

    ratio: torch.Tensor
    sigma: torch.Tensor
    factor: torch.Tensor
    bias: torch.Tensor
    smoothed: torch.Tensor

    @classmethod
    def unknown(cls, num_exposures: int) -> SkyNoise:
        """Return factors of 1, before anything is measured.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.

        Returns
        -------
        noise : `SkyNoise`
            The factors.
        """
        return cls(
            ratio=torch.full((num_exposures,), torch.nan),
            sigma=torch.full((num_exposures,), torch.inf),
            factor=torch.ones(num_exposures, 1, 1),
            bias=torch.zeros(num_exposures),
            smoothed=torch.zeros(num_exposures, dtype=torch.bool),
        )

    def rescale(self, tile_data: TileData) -> TileData:
        """Correct the variances of a tile.

        Parameters
        ----------
        tile_data
            A tile.

        Returns
        -------
        rescaled : `TileData`
            The tile with corrected variances.
        """
        factor = self.factor[tile_data.exposures]
        if bool((factor == 1.0).all()):
            return tile_data
        rows, columns = _blocks(tile_data, self.factor.shape[1:])
        maps = factor[:, rows[:, None], columns].to(tile_data.stack.device)
        factors = tile_data.model.sampling.look_up(maps)
        factors = torch.where(factors > 0, factors, 1.0)
        stack = tile_data.stack
        variances = torch.where(stack.good, stack.variances * factors, stack.variances)
        noise = (
            None if tile_data.noise is None else tile_data.noise * factors.sqrt().to(tile_data.noise.device)
        )
        return dataclasses.replace(tile_data, stack=stack.replace(variances=variances), noise=noise)


def measure_sky_noise(
    tiles: Iterable[TileData],
    shape: tuple[int, int],
    known: SkyNoise,
    latents: Mapping[Tile, torch.Tensor] | None = None,
) -> SkyNoise:
    """Compare the noise of blank sky with the variances.

    Robust variances in blocks are taken of sums of 3x3 pixels, of residuals
    from an estimate from all exposures, and of second differences of these.
    Sources, PSF errors and backgrounds raise the first two; correlated noise,
    as of resampled pixels, lowers the last two.  A variance is corrected only
    as far as all three agree.

    Parameters
    ----------
    tiles
        Tiles covering the patch, rescaled.
    shape
        Height and width of the patch in pixels.
    known
        What they were rescaled with.
    latents
        Estimates of the sky of tiles; those that are missing are made.

    Returns
    -------
    noise : `SkyNoise`
        Measured noise relative to the given variances.
    """
    num_exposures = len(known.ratio)
    blocks = tuple(-(-size // _BLOCK) for size in shape)
    totals = torch.zeros(2, _NUM_MEASURES, num_exposures, math.prod(blocks), dtype=torch.float64)
    found = SkyNoise.unknown(num_exposures)
    for tile_data in tiles:
        latent = None if latents is None else latents.get(tile_data.tile)
        _measure(tile_data, latent, blocks, totals, found)
    numbers = totals[1]
    ratios = torch.where(numbers >= _LEAST_PIXELS, totals[0] / numbers.clamp(min=1.0), torch.nan)
    ratios = ratios * known.factor.expand(-1, *blocks).flatten(1)
    factor = torch.ones(num_exposures, *blocks)
    for t in range(num_exposures):
        pixels = ratios[:, t]
        measured = torch.isfinite(pixels).all(dim=0)
        count = int(measured.sum())
        if count < _LEAST_BLOCKS:
            continue
        medians = pixels[:, measured].quantile(0.5, dim=1)
        ratio = float(_nearest_to_one(medians))
        spread = (pixels[:, measured] - medians[:, None]).abs().quantile(0.5, dim=1) / medians
        sigma = ratio * 1.2533 * 1.4826 * float(spread.max()) / count**0.5
        found.ratio[t], found.sigma[t] = ratio, sigma
        tolerance = max(_LARGEST_ERROR * max(ratio, 1.0), _SIGNIFICANCE * sigma)
        mean = ratio if abs(ratio - 1.0) > tolerance else 1.0
        local = _local_factor((pixels / mean).reshape(-1, *blocks), numbers[:, t].reshape(-1, *blocks))
        factor[t] = (mean * local).float()
    return dataclasses.replace(found, factor=factor)


def log_sky_noise(noise: SkyNoise) -> None:
    """Log which variances are corrected.

    Parameters
    ----------
    noise
        The measured noise.
    """
    for t, factor in enumerate(noise.factor.flatten(1)):
        wrong = factor[factor != 1.0]
        if len(wrong):
            _LOG.warning(
                "The variances of exposure %d do not fit the noise of its blank sky, which is %.2f times "
                "as large: multiplied by %.2f to %.2f in %.0f %% of the patch.",
                t,
                float(noise.ratio[t]),
                float(wrong.min()),
                float(wrong.max()),
                100.0 * len(wrong) / len(factor),
            )
        if bool(noise.smoothed[t]):
            _LOG.warning(
                "The variances of exposure %d follow the noise of its pixels, and not in proportion: "
                "medians of neighbours are taken instead.",
                t,
            )


def _blocks(tile_data: TileData, number: torch.Size | tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return block rows and columns of the pixels of a tile."""
    sides = zip((tile_data.tile.rows, tile_data.tile.columns), number, strict=True)
    rows, columns = ((torch.arange(r.start, r.stop) // _BLOCK).clamp(max=n - 1) for r, n in sides)
    return rows, columns


def _measure(
    tile_data: TileData,
    latent: torch.Tensor | None,
    blocks: tuple[int, ...],
    totals: torch.Tensor,
    found: SkyNoise,
) -> None:
    """Add the variances of a tile's blocks, times pixels, and pixel counts."""
    stack, model = tile_data.stack, tile_data.model
    if latent is None:
        pilot = LinearEstimator(model, stack.good / model_variances(stack))
        latent = pilot.solve(pilot.right_side(stack.images), (_PENALTY_WEIGHT,), precision=_PRECISION)[0]
    rows, columns = _blocks(tile_data, blocks)
    index = torch.zeros(tile_data.tile.shape)
    # Only pixels that the tile owns; 0 elsewhere.
    index[tile_data.tile.within] = (1.0 + rows[:, None] * blocks[1] + columns)[tile_data.tile.within]
    indices = model.sampling.look_up(index.to(stack.device)).long()
    predictions, planes = model.predict(latent), []
    for k, t in enumerate(tile_data.exposures.tolist()):
        plane = decorrelate_variance(stack.variances[k], stack.good[k], stack.images[k], predictions[k])
        found.bias[t] = max(float(found.bias[t]), plane.bias, key=abs)
        found.smoothed[t] |= plane.smoothed
        planes.append(plane.variance)
    shares = _residual_shares(model, masked_medians(torch.stack(planes), stack.good, torch.inf).reciprocal())
    for k, t in enumerate(tile_data.exposures.tolist()):
        good, variance, prediction = stack.good[k], planes[k], predictions[k]
        residual = torch.where(good, stack.images[k] - prediction, 0.0)
        squares = _squares(stack.images[k], residual, variance, good)
        inner = good & (squares[_DIFFERENCES] > 0)
        if not bool(inner.any()):
            continue
        # Blank relative to the measured noise, not the given variances.
        typical = float(masked_medians(squares[_DIFFERENCES][None], inner[None], 0.0)) / 0.4549
        use = inner & is_blank(prediction, variance * typical)
        index = indices[k][use]
        number = torch.bincount(index, minlength=math.prod(blocks) + 1)[1:]
        variances = _robust_variances(squares[:, use], index, math.prod(blocks), typical)
        variances[_RESIDUALS] /= shares[k]
        totals[0, :, t] += (variances * number).cpu()
        totals[1, :, t] += number.cpu()


def _squares(
    image: torch.Tensor, residual: torch.Tensor, plane: torch.Tensor, good: torch.Tensor
) -> torch.Tensor:
    """Return squared normalised sums, residuals and differences, (3, H, W)."""
    if min(image.shape) < 3:
        return torch.zeros(3, *image.shape, device=image.device)
    whole = largest_around((~good).float(), 3)[1:-1, 1:-1] == 0
    expected = plane[:-2] + 4.0 * plane[1:-1] + plane[2:]
    expected = expected[:, :-2] + 4.0 * expected[:, 1:-1] + expected[:, 2:]
    sums, expected_sums = 9.0 * torch.nn.functional.avg_pool2d(torch.stack([image, plane]), 3, stride=1)
    inner = torch.stack([sums**2 / expected_sums, second_difference(residual) ** 2 / expected])
    sums, differences = torch.nn.functional.pad(torch.where(whole, inner, 0.0), (1, 1, 1, 1))
    return torch.stack([sums, residual**2 / plane, differences])


def _residual_shares(model: ForwardModel, weights: torch.Tensor) -> list[float]:
    """Return the share of its noise that residuals of each exposure keep."""
    power = model.total_power(weights)
    gain = 1.0 / (power + _PENALTY_WEIGHT * weights.sum() * model.inverse_target_power)
    kept = (
        1.0 - model.fold_transform(weight * model.power(t) * gain * (2.0 - power * gain))
        for t, weight in enumerate(weights)
    )
    return [float(share.clamp(min=0.1)) for share in kept]


def _robust_variances(squares: torch.Tensor, index: torch.Tensor, number: int, start: float) -> torch.Tensor:
    """Return variances of blocks, (k, number), by Huber's proposal 2."""
    k = _CLIP
    inside = math.erf(k / 2.0**0.5)
    expected = inside - k * (2.0 / math.pi) ** 0.5 * math.exp(-0.5 * k**2) + k**2 * (1.0 - inside)
    variances = squares.new_full((len(squares), number + 1), start, dtype=torch.float64)
    count = torch.bincount(index, minlength=number + 1).clamp(min=1)
    for _ in range(_NUM_STEPS):
        clipped = (squares / variances[:, index].to(squares.dtype)).clamp_(max=k**2)
        means = variances.new_zeros(variances.shape).index_add_(1, index, clipped.double()) / count
        variances *= torch.where(means > 0, means / expected, 1.0)
    return variances[:, 1:]


def _nearest_to_one(ratios: torch.Tensor) -> torch.Tensor:
    """Return the ratio, of (k, ...), nearest to 1; 1 between them."""
    low, high = ratios.amin(dim=0), ratios.amax(dim=0)
    return torch.where(low > 1.0, low, torch.where(high < 1.0, high, 1.0))


def _local_factor(ratios: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return corrections relative to the whole exposure, (rows, columns)."""
    half = _MEDIAN_SIZE // 2
    padded = torch.nn.functional.pad(ratios, 4 * (half,), value=torch.nan)
    around = padded.unfold(1, _MEDIAN_SIZE, 1).unfold(2, _MEDIAN_SIZE, 1).flatten(3)
    medians = around.nanquantile(0.5, dim=3)
    known = torch.isfinite(around).all(dim=0).sum(dim=2)
    pixels = numbers[0][torch.isfinite(ratios[0])].median()
    sigma = 1.2533 * (_CORRELATED / (pixels * known.clamp(min=1))).sqrt()
    found = torch.nan_to_num(_nearest_to_one(medians), nan=1.0)
    size = found.log().abs()
    wrong = (
        (size > math.log(1.0 + _LARGEST_LOCAL_ERROR))
        & (size > _SIGNIFICANCE * sigma)
        & (known >= _LEAST_BLOCKS)
    )
    return torch.where(wrong, found, 1.0)
