# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Search for bright stars in a tile."""

from __future__ import annotations

__all__ = ("find_stars",)

import functools
import math

import torch

from .._options import StarOptions
from ..exposures import largest_around
from ..forward import CleanTile
from ._fit_star import ENOUGH_KEPT, FittedStar, fit_star
from ._matched_filter import MatchedFilter
from ._star_list import StarList

_MAX_ROUNDS = 8
"""Limit on searches in what is left when the stars of the last are taken
out."""

_MAX_SWEEPS, _SMALL_CHANGE = 5, 0.3
"""Limit on fits of stars that others are near, and the change of flux in sigma
at convergence."""

_MASKED_SHARE = 1.0 / 3.0
"""Significance of a star whose core is masked over that of others, from which
on it is fitted: its wings alone tell about it."""

_LEAST_LEFT = 0.1
"""Light over that of the stars there, below which it is what is left of
them."""

_SEEN = 0.5
"""Share of the information that is present, below which a core is masked."""

_LEAST_KEPT = 0.1
"""Share of the squared significance of a star that its neighbours must leave
as long as these are not fitted."""

_TRIED = 3.0
"""Distance in pixels within which a position is not tried again."""


def find_stars(clean: CleanTile, options: StarOptions, patch_shape: tuple[int, int]) -> StarList:
    """Find the bright stars of a tile, and fit them.

    Where point sources are most significant they are fitted, and kept if
    hardly anything is left; then what is left of the exposures is searched
    again.  Stars of which others are near are fitted once more without these.

    Parameters
    ----------
    clean
        The tile.
    options
        Settings.
    patch_shape
        Height and width of the patch.

    Returns
    -------
    stars : `StarList`
        Stars that the tile owns.
    """
    search = _Search(clean, options, patch_shape)
    for _ in range(_MAX_ROUNDS):
        if not search.add_stars():
            break
    for _ in range(_MAX_SWEEPS):
        if not search.refit():
            break
    return search.owned()


class _Search:
    """Stars of a tile, and exposures without them."""

    def __init__(self, clean: CleanTile, options: StarOptions, patch_shape: tuple[int, int]) -> None:
        tile_data = clean.tile_data
        self._tile_data = tile_data
        self._options = options
        self._patch_shape = patch_shape
        # Boxes around stars are small.
        stack = tile_data.stack.replace(variances=clean.variances)
        self._stack = stack.replace(images=stack.images.clone()).to(torch.device("cpu"))
        self._weights = tile_data.stack.good / clean.variances
        self._radius = stack.psfs.shape[-1] // 2
        self._stars: list[FittedStar] = []
        # Stars that are to be fitted again.
        self._stale: list[FittedStar] = []
        self._tried: list[tuple[float, float]] = []

    def add_stars(self) -> bool:
        """Search once; return whether there may be more."""
        new: list[FittedStar] = []
        for place, flux in self._candidates():
            if any(self._is_near(place, star) for star in new):
                # It is tried in the next round, without their light.
                continue
            self._tried.append(place)
            star = self._fit(place, flux, _LEAST_KEPT)
            if star is not None:
                new.append(star)
        self._tried = [
            place
            for place in self._tried
            if all(_distance(place, star.position) < _TRIED or not self._is_near(place, star) for star in new)
        ]
        for star in new:
            star.change(self._stack.images, -1.0)
            self._wake_neighbours(star)
        self._stars += new
        self._stale += [star for star in new if star.kept <= ENOUGH_KEPT]
        return bool(new)

    def refit(self) -> bool:
        """Fit stars again of which neighbours have changed, without their
        light, and drop those of which neighbours hide the better part; return
        whether there are more.
        """
        stale, self._stale = self._stale, []
        for star in stale:
            star.change(self._stack.images, 1.0)
            again = self._fit(star.position, star.flux, ENOUGH_KEPT)
            self._stars = [one for one in self._stars if one is not star]
            self._stale = [one for one in self._stale if one is not star]
            if again is not None:
                again.change(self._stack.images, -1.0)
            if again is None or abs(again.flux - star.flux) > _SMALL_CHANGE * again.flux_sigma:
                self._wake_neighbours(star)
            if again is not None:
                self._stars.append(again)
        return bool(self._stale)

    def _wake_neighbours(self, star: FittedStar) -> None:
        """Note that stars near one that has changed are to be fitted again."""
        stale = {id(one) for one in self._stale}
        self._stale += [
            one for one in self._stars if id(one) not in stale and self._is_near(star.position, one)
        ]

    def _is_near(self, place: tuple[float, float], star: FittedStar) -> bool:
        """Return whether stars at a place and another share pixels."""
        return _distance(place, star.position) < 2 * self._radius

    def owned(self) -> StarList:
        """Return the stars that the tile owns, or nearly."""
        tile = self._tile_data.tile
        sides = zip((tile.inner_rows, tile.inner_columns), self._patch_shape, strict=True)
        ranges = [
            (
                -math.inf if own.start == 0 else own.start - 1.0,
                math.inf if own.stop == size else own.stop + 1.0,
            )
            for own, size in sides
        ]
        return _listed(
            [
                star
                for star in self._stars
                if all(low <= p < high for p, (low, high) in zip(star.position, ranges, strict=True))
            ]
        )

    def _candidates(self) -> list[tuple[tuple[float, float], float]]:
        """Return positions and fluxes, the most significant first."""
        tile_data, model = self._tile_data, self._tile_data.model
        stack = tile_data.stack
        left = self._filter.score(self._stack.images.to(stack.device))
        significance = self._filter.significance(left)
        # Without data there is no peak either.
        masked = self._filter.information < _SEEN * self._whole_information
        limit = self._options.signal_to_noise * torch.where(masked, _MASKED_SHARE, 1.0)
        size = 2 * round(2.0 * model.target_fwhm) + 1
        peak = (significance == largest_around(significance, size)) & (significance > limit)
        peak &= left > _LEAST_LEFT * (self._filter.score(stack.images) - left)
        places = peak.nonzero()
        order = significance[peak].argsort(descending=True)
        margin, tile = model.grid.margin, tile_data.tile
        result = []
        for row, column in places[order].tolist():
            place = row - margin + tile.rows.start, column - margin + tile.columns.start
            if self._is_within(place) and all(_distance(place, one) > _TRIED for one in self._tried):
                result.append((place, float(left[row, column] / self._filter.information[row, column])))
        return result

    @functools.cached_property
    def _filter(self) -> MatchedFilter:
        return MatchedFilter.build(self._tile_data.model, self._tile_data.stack.psfs, self._weights)

    @functools.cached_property
    def _whole_information(self) -> torch.Tensor:
        """The information as if all pixels were good."""
        variances = self._stack.variances.to(self._weights.device)
        model = self._tile_data.model
        inside = model.sampling.positions()[0].isfinite()
        return MatchedFilter.build(model, self._tile_data.stack.psfs, inside / variances).information

    def _is_within(self, place: tuple[float, float]) -> bool:
        """Return whether a position is in the tile, or off the patch."""
        tile = self._tile_data.tile
        sides = zip(place, (tile.rows, tile.columns), self._patch_shape, strict=True)
        return all(
            (side.start <= p or side.start == 0) and (p < side.stop or side.stop == size)
            for p, side, size in sides
        )

    def _fit(self, place: tuple[float, float], flux: float, least_kept: float) -> FittedStar | None:
        """Fit a star; return `None` if it is none, or hidden."""
        tile = self._tile_data.tile
        origin = tile.rows.start, tile.columns.start
        most = self._options.max_misfit
        star = fit_star(self._stack, origin, self._tile_data.model.target_fwhm, place, flux, most)
        if star is None or star.misfit > most or star.kept < least_kept:
            return None
        return star


def _listed(stars: list[FittedStar]) -> StarList:
    if not stars:
        return StarList.empty()
    return StarList(
        positions=torch.tensor([star.position for star in stars], dtype=torch.float64),
        flux=torch.tensor([star.flux for star in stars], dtype=torch.float64),
        covariance=torch.stack([star.covariance for star in stars]),
        chi_square=torch.tensor([star.chi_square for star in stars], dtype=torch.float64),
        misfit=torch.tensor([star.misfit for star in stars], dtype=torch.float64),
    )


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    return math.hypot(one[0] - other[0], one[1] - other[1])
