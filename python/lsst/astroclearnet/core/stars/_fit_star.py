# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit of a point source to exposures."""

from __future__ import annotations

__all__ = ("FittedStar", "fit_star")

import dataclasses
import math

import torch

from ..exposures import ExposureStack, StackSource, largest_around
from ..forward import ForwardModel
from ..outliers import PsfErrors, psf_moments
from ._matched_filter import matched_filter
from ._star_light import psfs_at, star_templates

_MAX_STEPS, _SMALLEST_STEP = 10, 1e-3
"""Limit on the steps of Gauss and Newton, and the step in pixels at
convergence."""

_LARGEST_STEP = 1.0
"""Largest step in pixels, within which a PSF is about linear in the
position."""

_BORDER = 6
"""Pixels by which the fitted box extends beyond the stamp of the PSF, for the
light around."""

_NEIGHBOUR = 5.0
"""Significance from which on what is left is another source, whose pixels are
not used."""

_LIGHT_ERROR = 0.03
"""Error of the light of a star relative to itself, below which what is left is
none: errors of PSFs beyond those that are known."""

_NEAR = 0.1
"""Significance of the light of a star, over the largest, down to which it is
compared with what is left."""

_LEAST_KEPT = 0.5
"""Share of the squared significance there that neighbours must leave."""


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
    """

    position: tuple[float, float]
    flux: float
    covariance: torch.Tensor
    chi_square: float
    misfit: float


def fit_star(
    stack: ExposureStack,
    origin: tuple[int, int],
    fwhm: float,
    errors: PsfErrors,
    position: tuple[float, float],
    flux: float,
) -> FittedStar | None:
    """Fit a point source by least squares to all exposures.

    Flux and position, and a plane for the light around, are the same for all
    exposures.  In each of them the light may differ as errors of its PSF make
    it: brightness, position, width and ellipticity have normal priors of the
    given amplitudes, and are marginalised, so that the innermost pixels do not
    decide where the PSF is not exact.  Pixels of neighbours, which stand out
    from what is left, are left out of a second fit.

    Parameters
    ----------
    stack
        The exposures of a tile, on the CPU, without the light of other stars;
        the variances are those of the noise.
    origin
        First row and column of the tile on the patch.
    fwhm
        FWHM of the target PSF in pixels.
    errors
        Amplitudes of the errors of the PSFs.
    position, flux
        Where to start.

    Returns
    -------
    star : `FittedStar` or `None`
        The star; `None` if the fit does not converge near the start, or
        neighbours leave too little of the star.
    """
    box = _Box.cut(stack, origin, fwhm, errors, position)
    if box is None:
        return None
    everything = torch.ones_like(box.stack.good)
    found = box.fit(position, flux, everything)
    if found is None:
        return None
    compared = box.compare(found, everything)
    if bool(compared.neighbours.any()):
        use = ~box.model.sampling.look_up(compared.neighbours)
        again = box.fit(found.position, found.flux, use)
        if again is None:
            return None
        found = again
        compared = box.compare(found, use, compared.neighbours)
    if compared.kept < _LEAST_KEPT or not 0.0 < compared.misfit < math.inf:
        return None
    return dataclasses.replace(found.star, misfit=compared.misfit)


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Where a fit ended, in the box, its star, and what it leaves."""

    position: tuple[float, float]
    flux: float
    star: FittedStar
    light: torch.Tensor
    residual: torch.Tensor
    errors: torch.Tensor


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
    """Exposures around a star: their stack, with variances of the noise, and
    forward model, amplitudes of the errors of their PSFs, (n, 6), and the
    first row and column on the patch.
    """

    stack: ExposureStack
    model: ForwardModel
    amplitudes: torch.Tensor
    origin: tuple[int, int]

    @classmethod
    def cut(
        cls,
        stack: ExposureStack,
        origin: tuple[int, int],
        fwhm: float,
        errors: PsfErrors,
        position: tuple[float, float],
    ) -> _Box | None:
        """Cut the box out of a tile; `None` if there is no data."""
        half = stack.psfs.shape[-1] // 2 + _BORDER
        sides = []
        for place, first, length in zip(position, origin, stack.shape, strict=True):
            start, stop = max(round(place) - half, first), min(round(place) + half + 1, first + length)
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
        amplitudes = errors.select(found.exposures).of_templates(psf_moments(cut.psfs))
        return cls(cut, model, amplitudes, (sides[0].start, sides[1].start))

    def fit(self, position: tuple[float, float], flux: float, use: torch.Tensor) -> _Fit | None:
        """Fit the star to the good pixels that may be used."""
        place = position[0] - self.origin[0], position[1] - self.origin[1]
        limit = self.stack.psfs.shape[-1] / 4.0
        weights = (self.stack.good & use) / self.stack.variances
        start = place
        for _ in range(_MAX_STEPS):
            templates = star_templates(self.stack, self.model, place)
            solution, covariance, chi_square, number = self._solve(templates, flux, weights)
            flux = float(solution[0])
            if not flux > 0.0:
                return None
            step = [min(max(float(s), -_LARGEST_STEP), _LARGEST_STEP) for s in solution[1:3]]
            place = place[0] + step[0], place[1] + step[1]
            if math.hypot(place[0] - start[0], place[1] - start[1]) > limit:
                return None
            if math.hypot(*step) < _SMALLEST_STEP:
                break
        else:
            return None
        templates = star_templates(self.stack, self.model, place)
        light = flux * templates[0]
        residual = torch.where(self.stack.good, self.stack.images - light - self._plane(solution[3:]), 0.0)
        errors = self._errors(templates, flux)
        on_patch = place[0] + self.origin[0], place[1] + self.origin[1]
        star = FittedStar(on_patch, flux, covariance[:3, :3], chi_square / max(number - 6.0, 1.0), math.nan)
        return _Fit(on_patch, flux, star, light, residual, errors.square().sum(dim=1))

    def _solve(
        self, templates: torch.Tensor, flux: float, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float, float]:
        """Return changes, their covariance, chi-square and number of pixels."""
        normal = torch.zeros(6, 6, dtype=torch.float64)
        right = torch.zeros(6, dtype=torch.float64)
        total = number = 0.0
        errors = self._errors(templates, flux)
        for t, weight in enumerate(weights):
            used = weight > 0
            if not bool(used.any()):
                continue
            root = weight[used].double().sqrt()
            star = templates[:3, t][:, used].double()
            star[1:] *= flux
            plane = self._plane_templates[:, t][:, used].double()
            columns = torch.cat([star, plane]) * root
            own = errors[t][:, used].double() * root
            data = self.stack.images[t][used].double() * root
            # The errors of the PSF, marginalised (Woodbury's identity).
            inner = own @ own.T + torch.eye(6, dtype=torch.float64)
            factor = torch.linalg.cholesky(inner)
            mixed = torch.linalg.solve_triangular(factor, own @ torch.cat([columns, data[None]]).T, upper=False)
            normal += columns @ columns.T - mixed[:, :6].T @ mixed[:, :6]
            right += columns @ data - mixed[:, :6].T @ mixed[:, 6]
            total += float(data @ data - mixed[:, 6] @ mixed[:, 6])
            number += float(used.sum())
        scale = normal.diagonal().clamp(min=1e-300).rsqrt()
        inverse = torch.linalg.pinv(scale[:, None] * normal * scale, hermitian=True, rtol=1e-10)
        inverse = scale[:, None] * inverse * scale
        solution = inverse @ right
        return solution, inverse, total - float(solution @ right), number

    def _errors(self, templates: torch.Tensor, flux: float) -> torch.Tensor:
        """Return what errors of PSFs do, one standard deviation, (n, 6, h, w)."""
        star, rows, columns, second_rows, second_columns, mixed = templates
        shapes = [star, rows, columns, second_rows + second_columns, second_rows - second_columns, 2.0 * mixed]
        return torch.stack(shapes, dim=1) * (flux * self.amplitudes)[:, :, None, None].to(star)

    @property
    def _plane_templates(self) -> torch.Tensor:
        """Light of 1 and of slopes over the box, (3, n, h, w)."""
        area, size = self.model.sampling.area, max(self.stack.shape)
        y, x = (torch.nan_to_num(c / size - 0.5).to(area) for c in self.model.sampling.positions())
        return torch.stack([area, area * y, area * x])

    def _plane(self, coefficients: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(coefficients.to(torch.float32), self._plane_templates, dims=1)

    def compare(self, fit: _Fit, use: torch.Tensor, neighbours: torch.Tensor | None = None) -> _Comparison:
        """Compare what a fit leaves with the light of the star."""
        good = self.stack.good
        weights = good / self.stack.variances
        star = matched_filter(self.model, self.stack.psfs, weights, fit.light)
        left = matched_filter(self.model, self.stack.psfs, weights, fit.residual)
        near = star.significance > _NEAR * star.significance.max()
        clear = near if neighbours is None else near & ~_embedded(self.model, neighbours)
        squares = star.significance.square()
        kept = float(squares[clear].sum() / squares[near].sum())
        # The noise of what is left has a variance of one.
        excess = float((left.significance[clear].square() - 1.0).sum().clamp(min=0.0))
        misfit = math.sqrt(excess / float(squares[clear].sum()) + 1e-12) if kept > 0.0 else math.inf
        tolerance = (_LIGHT_ERROR * fit.light).square() + fit.errors
        weights = good / (self.stack.variances + tolerance)
        left = matched_filter(self.model, self.stack.psfs, weights, fit.residual)
        size = 2 * round(self.model.target_fwhm) + 1
        others = self.model.crop(left.significance) > _NEIGHBOUR
        return _Comparison(misfit, kept, largest_around(others.float(), size) > 0)


def _embedded(model: ForwardModel, pixels: torch.Tensor) -> torch.Tensor:
    return model.embed(pixels.float()) > 0
