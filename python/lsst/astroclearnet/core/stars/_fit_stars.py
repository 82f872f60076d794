# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of point sources to exposures."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from ..exposures import ExposureStack, StackSource, largest_around
from ..forward import ForwardModel
from ._least_squares import SolvedStars, solve_stars
from ._matched_filter import MatchedFilter
from ._star_light import psfs_at, star_templates
from ._star_list import StarList

_MAX_STEPS, _SMALLEST_STEP = 20, 3e-3
"""Limit on the steps of Gauss and Newton, and the step in pixels at
convergence."""

ENOUGH_KEPT = 0.5
"""Share of the squared significance of a star near it that neighbours must
leave in the end: beside a nucleus they are the galaxy."""

_MAX_ROUNDS = 4
"""Limit on fits, each without the neighbours that the last one leaves."""

_LARGEST_STEP = 1.0
"""Largest step in pixels, within which a PSF is about linear in the
position."""

_LEAST_CHANGE = 0.3
"""Smallest flux over that before the step: one that is far from its star may
become negative on the way."""

_BORDER = 6
"""Pixels by which the fitted box extends beyond the stamp of the PSF, for the
light around."""

_PSF_ERROR = 0.02
"""Error of a PSF in a pixel, relative to its light there: fits to stars leave
a few per mille of the peak in the core, and a few per cent in wings."""

_LEAST_PIXELS = 50
"""Number of pixels below which nothing is fitted."""

_NEIGHBOUR = 5.0
"""Significance from which on what is left is another source, whose pixels are
not used."""

_LIGHT_ERROR = 0.03
"""Light over that of the star there, below which what is left is no other
source: PSFs are not exact, least of all in their wings."""

_NEAR = 0.1
"""Significance of the light of a star, over the largest, down to which it is
compared with what is left."""


type Start = tuple[tuple[float, float], float]
"""Row and column on the patch, and flux, from which a star is fitted."""


@dataclasses.dataclass(frozen=True)
class FittedStars:
    """A point source that was fitted, or several of one masked core.

    Attributes
    ----------
    positions
        Shape (k, 2), double, rows and columns on the patch.
    fluxes
        Shape (k,), double.
    covariance
        Shape (3 k, 3 k), double, of flux, row and column of each.
    chi_square
        Reduced chi-square.
    misfit
        What is left of their light near them, relative, root mean square.
    kept
        Share of their squared significance near them that neighbours leave.
    light
        Shape (m, h, w), their light in boxes of exposures.
    exposures
        Shape (m,), int64, which they are.
    corners
        First row and column of each box.
    """

    positions: torch.Tensor
    fluxes: torch.Tensor
    covariance: torch.Tensor
    chi_square: float
    light: torch.Tensor
    exposures: torch.Tensor
    corners: tuple[tuple[int, int], ...]
    misfit: float
    kept: float

    def change(self, images: torch.Tensor, sign: float) -> None:
        """Add their light to exposures, or take it out.

        Parameters
        ----------
        images
            Shape (n, h, w), the exposures of the tile, changed.
        sign
            1 or -1.
        """
        height, width = self.light.shape[1:]
        for t, (row, column), light in zip(self.exposures.tolist(), self.corners, self.light, strict=True):
            images[t, row : row + height, column : column + width].add_(light, alpha=sign)

    def listed(self) -> StarList:
        """Return them one by one."""
        return StarList.fitted_together(
            self.positions, self.fluxes, self.covariance, self.chi_square, self.misfit
        )

    @property
    def flux_sigmas(self) -> torch.Tensor:
        """Standard deviations of the fluxes, (k,)."""
        return self.covariance.diagonal()[::3].sqrt()

    @property
    def starts(self) -> list[Start]:
        """From where they are fitted again."""
        return _starts(self.positions, self.fluxes)


def fit_stars(
    stack: ExposureStack, origin: tuple[int, int], fwhm: float, starts: list[Start], max_misfit: float
) -> FittedStars | None:
    """Fit point sources by least squares to all exposures.

    Fluxes and positions, and a plane for the light around, are the same for
    all exposures.  Weights include an error of the PSF in proportion to the
    light, so that the innermost pixels do not decide where the PSF is not
    exact.  Pixels of neighbours, which stand out from what a fit leaves, are
    left out of the next.

    The covariance is that of `SolvedStars`, with errors of the PSFs of single
    exposures and light around; an error of the PSF that all exposures share is
    not part of it.

    Parameters
    ----------
    stack
        The exposures of a tile, on the CPU, without the light of other stars;
        the variances are those of the noise.
    origin
        First row and column of the tile on the patch.
    fwhm
        FWHM of the target PSF in pixels.
    starts
        From where to start, one for each star.
    max_misfit
        Largest misfit of stars.

    Returns
    -------
    stars : `FittedStars` or `None`
        The stars; `None` if the fit does not converge near the start.
    """
    box = _Box.cut(stack, origin, fwhm, starts)
    if box is None:
        return None
    neighbours = torch.zeros(box.model.shape, dtype=torch.bool)
    best: tuple[_Fit, _Comparison] | None = None
    for _ in range(_MAX_ROUNDS):
        found = box.fit(starts, ~box.model.sampling.look_up(neighbours))
        if found is None:
            return None
        compared = box.compare(found, neighbours)
        if best is not None and best[1].misfit < max_misfit and compared.kept < ENOUGH_KEPT:
            # A flux that is too low leaves more and more to neighbours.
            break
        best = found, compared
        if bool((compared.neighbours == neighbours).all()):
            break
        starts, neighbours = found.starts, compared.neighbours
    return None if best is None else box.finish(*best)


def add_start(
    stack: ExposureStack, origin: tuple[int, int], fwhm: float, starts: list[Start]
) -> list[Start] | None:
    """Add a star where those that there are leave most light.

    Around a masked core that holds two, a single one in their middle leaves
    light on either side.

    Parameters
    ----------
    stack, origin, fwhm, starts
        As for `fit_stars`.

    Returns
    -------
    starts : `list` or `None`
        One more than before; `None` if these do not converge.
    """
    box = _Box.cut(stack, origin, fwhm, starts)
    if box is None:
        return None
    found = box.fit(starts, torch.ones_like(box.stack.good))
    if found is None:
        return None
    return [*found.starts, box.brightest(found.residual)]


def _starts(positions: torch.Tensor, fluxes: torch.Tensor) -> list[Start]:
    return [((y, x), flux) for (y, x), flux in zip(positions.tolist(), fluxes.tolist(), strict=True)]


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Positions on the patch and fluxes of stars, their light, what they leave
    of the exposures, and the equations.
    """

    positions: torch.Tensor
    fluxes: torch.Tensor
    light: torch.Tensor
    residual: torch.Tensor
    solved: SolvedStars

    @property
    def starts(self) -> list[Start]:
        """From where they are fitted again."""
        return _starts(self.positions, self.fluxes)


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """What a fit leaves relative to the stars; the share of them that is
    compared; and the pixels of neighbours, (H, W), bool.
    """

    misfit: float
    kept: float
    neighbours: torch.Tensor


@dataclasses.dataclass(frozen=True)
class _Box:
    """Exposures around stars: their stack, with variances of the noise,
    forward model, first row and column on the patch, what they are cut from,
    and the last templates of stars with their places.
    """

    stack: ExposureStack
    model: ForwardModel
    origin: tuple[int, int]
    exposures: torch.Tensor
    corners: tuple[tuple[int, int], ...]
    known: list[tuple[torch.Tensor, torch.Tensor]] = dataclasses.field(default_factory=list)

    @classmethod
    def cut(
        cls,
        stack: ExposureStack,
        origin: tuple[int, int],
        fwhm: float,
        starts: list[Start],
    ) -> _Box | None:
        """Cut the box out of a tile; `None` if there is no data."""
        half = stack.psfs.shape[-1] // 2 + _BORDER
        places = torch.tensor([place for place, _ in starts], dtype=torch.float64)
        sides = []
        for where, first, length in zip(places.unbind(1), origin, stack.shape, strict=True):
            start = max(round(float(where.min())) - half, first)
            stop = min(round(float(where.max())) + half + 1, first + length)
            if stop - start < 2:
                return None
            sides.append(slice(start, stop))
        rows, columns = (slice(s.start - o, s.stop - o) for s, o in zip(sides, origin, strict=True))
        found = StackSource(stack).read(rows, columns)
        if found is None:
            return None
        y, x = (places.mean(dim=0) - torch.tensor(origin)).tolist()
        # Those of the tile, lest a change with the box count as that of light.
        cut = found.stack.replace(psfs=psfs_at(stack, (y, x))[found.exposures][:, None, None])
        model = ForwardModel.from_stack(cut, fwhm)
        return cls(cut, model, (sides[0].start, sides[1].start), found.exposures, found.origins)

    def fit(self, starts: list[Start], use: torch.Tensor) -> _Fit | None:
        """Fit stars to the good pixels that may be used."""
        origin = torch.tensor(self.origin, dtype=torch.float64)
        begin = torch.tensor([place for place, _ in starts], dtype=torch.float64) - origin
        fluxes = torch.tensor([flux for _, flux in starts], dtype=torch.float64)
        good, places, limit = self.stack.good & use, begin, self.stack.psfs.shape[-1] / 4.0
        for _ in range(_MAX_STEPS):
            centres, templates = self._templates(places)
            light = torch.tensordot(fluxes.to(templates), templates[:, 0], dims=1)
            # Errors of PSFs go with the light.
            weights = good / (self.stack.variances + (_PSF_ERROR * light).square())
            if int((weights > 0).sum()) < _LEAST_PIXELS:
                return None
            columns = torch.cat([templates.flatten(0, 1), self._plane_templates])
            solved = solve_stars(columns, self.stack.images, weights)
            values = solved.values[:-3].reshape(-1, 3)
            if not float(values[:, 0].sum()) > 0.0:
                return None
            fluxes = torch.maximum(values[:, 0], _LEAST_CHANGE * fluxes)
            steps = (values[:, 1:] / fluxes[:, None]).clamp(-_LARGEST_STEP, _LARGEST_STEP)
            places = centres + steps
            if float((places - begin).norm(dim=1).max()) > limit:
                return None
            if float(steps.norm(dim=1).max()) < _SMALLEST_STEP:
                break
        else:
            return None
        if bool((values[:, 0] < fluxes).any()):
            return None
        # The last step hardly moves them.
        scene = torch.tensordot(solved.values.to(columns), columns, dims=1)
        plane = torch.tensordot(solved.values[-3:].to(columns), self._plane_templates, dims=1)
        return _Fit(
            positions=places + origin,
            fluxes=fluxes,
            light=torch.where(self.stack.good, scene - plane, 0.0),
            residual=torch.where(self.stack.good, self.stack.images - scene, 0.0),
            solved=solved,
        )

    def _templates(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return templates of stars of unit flux and of their derivatives, (k,
        3, n, h, w), with the places that they are of, if not of these.
        """
        for known in self.known:
            same = len(known[0]) == len(places)
            if same and float((known[0] - places).norm(dim=1).max()) < _SMALLEST_STEP:
                return known
        stars = [star_templates(self.stack, self.model, (y, x)) for y, x in places.tolist()]
        self.known[:] = [(places, torch.stack(stars))]
        return self.known[0]

    def finish(self, fit: _Fit, compared: _Comparison) -> FittedStars:
        """Return stars with their errors."""
        units = torch.ones(len(fit.fluxes), 3, dtype=torch.float64)
        units[:, 1:] /= fit.fluxes[:, None]
        units = units.flatten()
        centre = fit.positions.mean(dim=0) - torch.tensor(self.origin)
        covariance = fit.solved.covariance(self._sectors(centre.tolist()))
        return FittedStars(
            positions=fit.positions,
            fluxes=fit.fluxes,
            covariance=units[:, None] * covariance[:-3, :-3] * units,
            chi_square=fit.solved.chi_square,
            light=fit.light,
            exposures=self.exposures,
            corners=self.corners,
            misfit=compared.misfit,
            kept=compared.kept,
        )

    def _sectors(self, place: list[float]) -> torch.Tensor:
        """Return the octant around the stars of each pixel, (n, h, w)."""
        y, x = self.model.sampling.positions()
        angle = torch.atan2(y - place[0], x - place[1])
        return torch.nan_to_num((angle + math.pi) * 4.0 / math.pi).long().clamp(0, 7)

    @functools.cached_property
    def _filter(self) -> MatchedFilter:
        return MatchedFilter.build(self.model, self.stack.psfs, self.stack.good / self.stack.variances)

    @functools.cached_property
    def _plane_templates(self) -> torch.Tensor:
        """Light of 1 and of slopes over the box, (3, n, h, w)."""
        area, size = self.model.sampling.area, max(self.stack.shape)
        y, x = (torch.nan_to_num(c / size - 0.5).to(area) for c in self.model.sampling.positions())
        return torch.stack([area, area * y, area * x])

    def compare(self, fit: _Fit, neighbours: torch.Tensor) -> _Comparison:
        """Compare what a fit leaves, without some pixels, with the stars."""
        light, residual = (self._filter.score(images) for images in (fit.light, fit.residual))
        star, left = self._filter.significance(light), self._filter.significance(residual)
        near = star > _NEAR * star.max()
        clear = near & ~(self.model.embed(neighbours.float()) > 0)
        squares = star.square()
        kept = float(squares[clear].sum() / squares[near].sum())
        # The noise of what is left has a variance of one.
        excess = float((left[clear].square() - 1.0).sum().clamp(min=0.0))
        misfit = math.sqrt(excess / float(squares[clear].sum()) + 1e-12) if kept > 0.0 else math.inf
        others = (left > _NEIGHBOUR) & (residual > _LIGHT_ERROR * light)
        size = 2 * round(self.model.target_fwhm) + 1
        others = self.model.crop(others)
        return _Comparison(misfit, kept, largest_around(others.float(), size) > 0)

    def brightest(self, residual: torch.Tensor) -> Start:
        """Return the most significant point source of what a fit leaves."""
        score = self.model.crop(self._filter.score(residual))
        information = self.model.crop(self._filter.information)
        row, column = divmod(int((score * information.rsqrt()).argmax()), score.shape[1])
        place = float(row + self.origin[0]), float(column + self.origin[1])
        return place, float(score[row, column] / information[row, column])
