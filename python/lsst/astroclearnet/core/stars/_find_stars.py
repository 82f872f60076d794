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
from collections.abc import Sequence

import torch

from .._options import StarOptions
from ..exposures import ExposureStack, largest_around
from ..forward import CleanTile
from ._fit_stars import ENOUGH_KEPT, FittedStars, Start, add_start, fit_stars
from ._matched_filter import MatchedFilter
from ._star_list import MOST_TOGETHER, SAME, StarList

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

_RESOLVED = 5.0
"""Significance of each star of a core, from which on it is one."""

_SEVERAL_MISFIT = 0.25
"""Misfit of several stars of a core over that of one, up to which they are
stars: of an elongated galaxy 2 to 5 pixels long whose core is masked two leave
.9 to 2.8 %, of pairs with PSFs whose widths are wrong by 1 % up to .3 %."""

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
        self._stars: list[FittedStars] = []
        # Stars that are to be fitted again.
        self._stale: list[FittedStars] = []
        self._tried: list[tuple[float, float]] = []

    def add_stars(self) -> bool:
        """Search once; return whether there may be more."""
        new: list[FittedStars] = []
        for start, is_masked in self._candidates():
            place = start[0]
            if any(self._is_near(place, stars) for stars in new):
                # It is tried in the next round, without their light.
                continue
            self._tried.append(place)
            found = self._fit_core(start) if is_masked else self._fit([start], _LEAST_KEPT)
            if found is not None:
                new.append(found)
        self._tried = [
            place
            for place in self._tried
            if all(_distance(place, one) < _TRIED or not self._is_near(place, one) for one in new)
        ]
        for stars in new:
            stars.change(self._stack.images, -1.0)
            self._wake_neighbours(stars)
        self._stars += new
        self._stale += [stars for stars in new if stars.kept <= ENOUGH_KEPT]
        return bool(new)

    def refit(self) -> bool:
        """Fit stars again of which neighbours have changed, without their
        light, and drop those of which neighbours hide the better part; return
        whether there are more.
        """
        stale, self._stale = self._stale, []
        for stars in stale:
            stars.change(self._stack.images, 1.0)
            again = self._fit(stars.starts, ENOUGH_KEPT)
            self._stars = [one for one in self._stars if one is not stars]
            self._stale = [one for one in self._stale if one is not stars]
            if again is not None:
                again.change(self._stack.images, -1.0)
            if again is None or _has_changed(stars, again):
                self._wake_neighbours(stars)
            if again is not None:
                self._stars.append(again)
        return bool(self._stale)

    def _wake_neighbours(self, stars: FittedStars) -> None:
        """Note that stars near those that changed are to be fitted again."""
        stale = {id(one) for one in self._stale}
        places = stars.positions.tolist()
        self._stale += [
            one
            for one in self._stars
            if id(one) not in stale and any(self._is_near(place, one) for place in places)
        ]

    def _is_near(self, place: Sequence[float], stars: FittedStars) -> bool:
        """Return whether a star at a place shares pixels with others."""
        return _distance(place, stars) < 2 * self._radius

    def owned(self) -> StarList:
        """Return the stars that the tile owns, or nearly."""
        tile = self._tile_data.tile
        stars = StarList.merge([one.listed() for one in self._stars])
        owned = torch.ones(len(stars), dtype=torch.bool)
        sides = zip((tile.inner_rows, tile.inner_columns), self._patch_shape, strict=True)
        for (own, size), place in zip(sides, stars.positions.unbind(1), strict=True):
            low = -math.inf if own.start == 0 else own.start - 1.0
            high = math.inf if own.stop == size else own.stop + 1.0
            owned &= (place >= low) & (place < high)
        return stars.select(owned)

    def _candidates(self) -> list[tuple[Start, bool]]:
        """Return where a star may be, and whether its core is masked, the most
        significant first.
        """
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
            if self._is_within(place) and all(math.dist(place, one) > _TRIED for one in self._tried):
                flux = float(left[row, column] / self._filter.information[row, column])
                result.append(((place, flux), bool(masked[row, column])))
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

    def _fit_core(self, start: Start) -> FittedStars | None:
        """Fit the stars of a masked core, as few as explain its light."""
        starts: list[Start] | None = [start]
        while starts is not None and len(starts) <= MOST_TOGETHER:
            stars = self._fit(starts, ENOUGH_KEPT)
            if stars is not None:
                return stars
            starts = add_start(*self._fitted, starts)
        # Neighbours may be fitted later.
        return self._fit([start], _LEAST_KEPT)

    def _fit(self, starts: list[Start], least_kept: float) -> FittedStars | None:
        """Fit stars; return `None` if they are none, or hidden."""
        most = self._options.max_misfit * (1.0 if len(starts) == 1 else _SEVERAL_MISFIT)
        stars = fit_stars(*self._fitted, starts, most)
        if stars is None or stars.misfit > most or stars.kept < least_kept or not _is_resolved(stars):
            return None
        return stars

    @property
    def _fitted(self) -> tuple[ExposureStack, tuple[int, int], float]:
        """What is fitted: exposures, their first row and column, and the
        target PSF.
        """
        tile = self._tile_data.tile
        return self._stack, (tile.rows.start, tile.columns.start), self._tile_data.model.target_fwhm


def _is_resolved(stars: FittedStars) -> bool:
    """Return whether stars that were fitted together are more than one."""
    apart = torch.pdist(stars.positions) > SAME
    return bool(apart.all() and (stars.fluxes > _RESOLVED * stars.flux_sigmas).all())


def _has_changed(before: FittedStars, after: FittedStars) -> bool:
    """Return whether fluxes have changed by more than little."""
    return bool(((after.fluxes - before.fluxes).abs() > _SMALL_CHANGE * after.flux_sigmas).any())


def _distance(place: Sequence[float], stars: FittedStars) -> float:
    """Return the distance of a place from the nearest of some stars."""
    return min(math.dist(place, one) for one in stars.positions.tolist())
