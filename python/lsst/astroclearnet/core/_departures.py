# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""By how much exposures depart from the others in flux scale and position."""

from __future__ import annotations

__all__ = ("find_contradictions", "measure_departures")

from collections.abc import Iterable

import torch

from ._forward_model import ForwardModel
from ._linear import LinearEstimator
from ._options import AgreementOptions
from ._parts import SettledPart
from ._tiling import Tile

_PILOT_STRENGTH = 1e-3
"""Strength of the estimate that exposures are compared with."""

_VARIABILITY = 0.1
"""Share of the light of a source that may differ from exposure to exposure."""

_BLOCK = 32
"""Side in pixels of the blocks of the patch that are compared."""

_LEAST_LIGHT = 10.0
"""Signal-to-noise ratio of the light of a block that counts."""

_LEAST_BLOCKS = 7
"""From fewer one cannot tell an exposure that is off from a source that is."""

_LEAST_EXPOSURES = 3
"""Of two one cannot tell which is wrong."""

_SIGNIFICANCE = 5.0
"""Departure, in its standard deviations, from which one is believed."""


def measure_departures(
    parts: Iterable[SettledPart], shape: tuple[int, int], num_exposures: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare the sources of each exposure with those of the others.

    Parameters
    ----------
    parts
        Tiles that cover the patch.
    shape
        Height and width of the patch in pixels.
    num_exposures
        Number of exposures of the patch.

    Returns
    -------
    departures : `torch.Tensor`
        Shape (3, n), by how much each departs: relative flux scale, and
        shifts along rows and columns in pixels of the patch; 0 where nothing
        is known.
    sigmas : `torch.Tensor`
        Shape (3, n), their standard deviations; infinite where nothing is
        known.
    """
    blocks = [-(-size // _BLOCK) for size in shape]
    departures = torch.full((3, num_exposures, *blocks), torch.nan)
    for settled in parts:
        tile = settled.part.tile
        found = _compare(settled).cpu()
        axes = []
        for size, region, own in zip(
            shape, (tile.rows, tile.columns), (tile.own_rows, tile.own_columns), strict=True
        ):
            centers = ((torch.arange(-(-size // _BLOCK)) + 0.5) * _BLOCK).clamp(max=size - 0.5)
            owned = ((centers >= own.start) & (centers < own.stop)).nonzero()[:, 0]
            axes.append((owned, owned - region.start // _BLOCK))
        (rows, from_rows), (columns, from_columns) = axes
        place = settled.part.exposures[:, None, None], rows[:, None], columns
        departures[:, *place] = found[:, :, from_rows[:, None], from_columns]
    return _medians(departures.flatten(2))


def _compare(settled: SettledPart) -> torch.Tensor:
    """Return departures of exposures, block by block of a tile.

    Flux scale (relative) and shifts along rows and columns (pixels), each
    from the light of a block alone, of shape (3, m, rows, columns); NaN where
    there is too little light.  Pixels count although they were rejected:
    there it may be the exposure that is wrong.  No pixel of a bright source
    counts for more than one of a fainter one, for sources vary.
    """
    stack, model = settled.part.stack, settled.part.model
    estimator = LinearEstimator(model, stack.good / settled.variances)
    latent = estimator.solve(stack.images, _PILOT_STRENGTH)
    # Once more, as the penalty holds back light.
    latent = latent + estimator.solve(stack.images - model.predict(latent), _PILOT_STRENGTH)
    light = model.predict(latent)
    weights = (stack.good | settled.rejected) / (settled.variances + (_VARIABILITY * light) ** 2)
    left = stack.images - light
    gradients = [-model.predict(gradient) for gradient in torch.gradient(latent)]
    tile = settled.part.tile
    enough = _block_sums(weights * light**2, model, tile) > _LEAST_LIGHT**2
    departures = []
    for template in (light, *gradients):
        information = _block_sums(weights * template**2, model, tile)
        projected = _block_sums(weights * template * left, model, tile)
        departures.append(torch.where(enough, projected / information.clamp(min=1e-30), torch.nan))
    return torch.stack(departures)


def _block_sums(data: torch.Tensor, model: ForwardModel, tile: Tile) -> torch.Tensor:
    """Return sums of data over blocks of the patch, (m, rows, columns)."""
    maps = model.sampling.mean(data)
    # Blocks are those of the patch, whatever the tile.
    before = [region.start % _BLOCK for region in (tile.rows, tile.columns)]
    bottom, right = (-(size + skip) % _BLOCK for size, skip in zip(maps.shape[1:], before, strict=True))
    padded = torch.nn.functional.pad(maps, (before[1], right, before[0], bottom))
    return _BLOCK**2 * torch.nn.functional.avg_pool2d(padded, _BLOCK)


def find_contradictions(
    departures: torch.Tensor, sigmas: torch.Tensor, options: AgreementOptions
) -> dict[int, str]:
    """Say which exposures are off by more than is allowed.

    Parameters
    ----------
    departures
        Shape (3, n), relative departure in flux scale and shifts along rows
        and columns, in pixels of the patch.
    sigmas
        Shape (3, n), their standard deviations; infinite where nothing is
        known.
    options
        Limits.  A departure counts only if it is significant, and among three
        exposures or more.

    Returns
    -------
    contradictions : `dict` [`int`, `str`]
        What is wrong, a slug and words with value and limit, by exposure.
    """
    found: dict[int, str] = {}
    known = torch.isfinite(sigmas).all(dim=0)
    if int(known.sum()) < _LEAST_EXPOSURES:
        return found
    for t in known.nonzero()[:, 0].tolist():
        flux, flux_sigma = float(departures[0, t]), float(sigmas[0, t])
        shift, shift_sigma = float(departures[1:, t].norm()), float(sigmas[1:, t].max())
        if abs(flux) > max(options.max_flux_error, _SIGNIFICANCE * flux_sigma):
            found[t] = (
                f"flux_scale: Its sources are brighter by {100.0 * flux:+.1f} +- {100.0 * flux_sigma:.1f} % "
                f"than in the others, more than max_flux_error={100.0 * options.max_flux_error:g} %."
            )
        elif shift > max(options.max_shift, _SIGNIFICANCE * shift_sigma):
            found[t] = (
                f"astrometry: Its sources are {shift:.2f} +- {shift_sigma:.2f} pixels from where the others "
                f"have them, more than max_shift={options.max_shift:g}."
            )
    return found


def _medians(departures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return medians over blocks, relative to the median of all exposures.

    An exposure is off where most of its sources are: the median does not
    follow a transient, a trail or a variable star.  Medians and their
    standard deviations, (3, n); 0 and infinite for fewer than seven blocks.
    """
    medians = departures.nanquantile(0.5, dim=2)
    spread = (departures - medians[:, :, None]).abs().nanquantile(0.5, dim=2)
    number = torch.isfinite(departures).sum(dim=2)
    known = number >= _LEAST_BLOCKS
    # The standard deviation of a median of Gaussian values.
    sigmas = 1.2533 * 1.4826 * spread / number.clamp(min=1).sqrt()
    medians = torch.where(known, medians, torch.nan)
    medians = medians - medians.nanquantile(0.5, dim=1, keepdim=True)
    return torch.nan_to_num(medians), torch.where(known, sigmas, torch.inf)
