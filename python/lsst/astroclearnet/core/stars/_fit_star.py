# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of a point source to exposures."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from ..exposures import ExposureStack, StackSource, largest_around
from ..forward import ForwardModel
from ._least_squares import solve_star
from ._matched_filter import MatchedFilter
from ._star_light import psfs_at, star_templates

_MAX_STEPS, _SMALLEST_STEP = 10, 3e-3
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


@dataclasses.dataclass(frozen=True)
class FittedStar:
    """A point source that was fitted.

    Attributes
    ----------
    position
        Row and column on the patch.
    flux
        Its flux.
    covariance
        Shape (3, 3), double, of flux, row and column.
    chi_square
        Reduced chi-square.
    misfit
        What is left of the light near the star, relative, root mean square.
    kept
        Share of the squared significance of the star near it that neighbours
        leave.
    light
        Shape (m, h, w), its light in boxes of exposures.
    exposures
        Shape (m,), int64, which they are.
    corners
        First row and column of each box.
    """

    position: tuple[float, float]
    flux: float
    covariance: torch.Tensor
    chi_square: float
    light: torch.Tensor
    exposures: torch.Tensor
    corners: tuple[tuple[int, int], ...]
    misfit: float = math.inf
    kept: float = 0.0

    def change(self, images: torch.Tensor, sign: float) -> None:
        """Add its light to exposures, or take it out.

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

    @property
    def flux_sigma(self) -> float:
        """Standard deviation of the flux (`float`)."""
        return float(self.covariance[0, 0]) ** 0.5


def fit_star(
    stack: ExposureStack,
    origin: tuple[int, int],
    fwhm: float,
    position: tuple[float, float],
    flux: float,
    max_misfit: float,
) -> FittedStar | None:
    """Fit a point source by least squares to all exposures.

    Flux and position, and a plane for the light around, are the same for all
    exposures.  Weights include an error of the PSF in proportion to the light,
    so that the innermost pixels do not decide where the PSF is not exact.
    Pixels of neighbours, which stand out from what a fit leaves, are left out
    of the next.

    The covariance is `solve_star`'s, with errors of the PSFs of single
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
    position, flux
        Where to start.
    max_misfit
        Largest misfit of a star.

    Returns
    -------
    star : `FittedStar` or `None`
        The star; `None` if the fit does not converge near the start.
    """
    box = _Box.cut(stack, origin, fwhm, position)
    if box is None:
        return None
    neighbours = torch.zeros(box.model.shape, dtype=torch.bool)
    before: FittedStar | None = None
    for _ in range(_MAX_ROUNDS):
        found = box.fit(position, flux, ~box.model.sampling.look_up(neighbours))
        if found is None:
            return None
        compared = box.compare(found, neighbours)
        star = dataclasses.replace(found.star, misfit=compared.misfit, kept=compared.kept)
        if before is not None and before.misfit < max_misfit and star.kept < ENOUGH_KEPT:
            # A flux that is too low leaves more and more to neighbours.
            return before
        before = star
        if bool((compared.neighbours == neighbours).all()):
            break
        position, flux, neighbours = star.position, star.flux, compared.neighbours
    return star


@dataclasses.dataclass(frozen=True)
class _Fit:
    """A star, and what it leaves of the exposures."""

    star: FittedStar
    residual: torch.Tensor


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """What a fit leaves relative to the star, (); the share of the star that
    is compared; and the pixels of neighbours, (H, W), bool.
    """

    misfit: float
    kept: float
    neighbours: torch.Tensor


@dataclasses.dataclass(frozen=True)
class _Box:
    """Exposures around a star: their stack, with variances of the noise,
    forward model, first row and column on the patch, and what they are cut
    from.
    """

    stack: ExposureStack
    model: ForwardModel
    origin: tuple[int, int]
    exposures: torch.Tensor
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def cut(
        cls,
        stack: ExposureStack,
        origin: tuple[int, int],
        fwhm: float,
        position: tuple[float, float],
    ) -> _Box | None:
        """Cut the box out of a tile; `None` if there is no data."""
        half = stack.psfs.shape[-1] // 2 + _BORDER
        sides = []
        for where, first, length in zip(position, origin, stack.shape, strict=True):
            start, stop = max(round(where) - half, first), min(round(where) + half + 1, first + length)
            if stop - start < 2:
                return None
            sides.append(slice(start, stop))
        rows, columns = (slice(s.start - o, s.stop - o) for s, o in zip(sides, origin, strict=True))
        found = StackSource(stack).read(rows, columns)
        if found is None:
            return None
        place = position[0] - origin[0], position[1] - origin[1]
        # Those of the tile, lest a change with the box count as that of light.
        cut = found.stack.replace(psfs=psfs_at(stack, place)[found.exposures][:, None, None])
        model = ForwardModel.from_stack(cut, fwhm)
        return cls(cut, model, (sides[0].start, sides[1].start), found.exposures, found.origins)

    def fit(self, position: tuple[float, float], flux: float, use: torch.Tensor) -> _Fit | None:
        """Fit the star to the good pixels that may be used."""
        place = position[0] - self.origin[0], position[1] - self.origin[1]
        limit = self.stack.psfs.shape[-1] / 4.0
        good = self.stack.good & use
        start = place
        for _ in range(_MAX_STEPS):
            templates = star_templates(self.stack, self.model, place)
            # Errors of PSFs go with the light.
            weights = good / (self.stack.variances + (_PSF_ERROR * flux * templates[0]).square())
            if int((weights > 0).sum()) < _LEAST_PIXELS:
                return None
            columns = torch.cat([templates[:1], flux * templates[1:], self._plane_templates])
            solved = solve_star(columns, self.stack.images, weights, self._sectors(place))
            flux = float(solved.values[0])
            if not flux > 0.0:
                return None
            step = [min(max(float(s), -_LARGEST_STEP), _LARGEST_STEP) for s in solved.values[1:3]]
            place = place[0] + step[0], place[1] + step[1]
            if math.hypot(place[0] - start[0], place[1] - start[1]) > limit:
                return None
            if math.hypot(*step) < _SMALLEST_STEP:
                break
        else:
            return None
        # The last step hardly moves it.
        light = flux * (templates[0] + step[0] * templates[1] + step[1] * templates[2])
        plane = torch.tensordot(solved.values[3:].to(light), self._plane_templates, dims=1)
        on_patch = place[0] + self.origin[0], place[1] + self.origin[1]
        light = torch.where(self.stack.good, light, 0.0)
        covariance = solved.covariance[:3, :3]
        star = FittedStar(on_patch, flux, covariance, solved.chi_square, light, self.exposures, self.corners)
        return _Fit(star, torch.where(self.stack.good, self.stack.images - light - plane, 0.0))

    def _sectors(self, place: tuple[float, float]) -> torch.Tensor:
        """Return the octant around the star of each pixel, (n, h, w)."""
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
        """Compare what a fit leaves, without some pixels, with the star."""
        light, residual = (self._filter.score(images) for images in (fit.star.light, fit.residual))
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
